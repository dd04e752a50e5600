"""Read CLIP weights under OpenAI's parameter names, and the architecture that they imply."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from vtg.errors import VtgError
from vtg.weights import WeightsError, WeightsFile, check_finite, open_weights

__all__ = ["build_openai_model", "read_clip_tensors", "read_openai_tensors"]

NEEDED = ("visual.conv1.weight", "visual.positional_embedding", "visual.proj", "text_projection", "ln_final.weight")
ROWS, UNKNOWN, TABLE = "token_embedding.rows", "token_embedding.unknown", "token_embedding.weight"
HEAD_WIDTH = 64  # channels a head, in both towers of every model under these names
CONFIGURATION = ("input_resolution", "context_length", "vocab_size")  # numbers that OpenAI stored among the weights
MASK = "attn_mask"  # follows from the context length; archives of traced models hold it, and it is infinite in part
# The largest of the published models has width 1664, 48 blocks, 1025 positions and 250,000 token rows.
MOST_WIDTH, MOST_BLOCKS, MOST_POSITIONS, MOST_ROWS = 8192, 256, 1 << 14, 1 << 20


def read_openai_tensors(path: Path) -> dict[str, Tensor]:
    """Read a file of CLIP weights: safetensors, a state dict, or OpenAI's own TorchScript archive.

    Nothing in the file is run, and its shapes are checked before its tensors are read. A file may leave out token rows
    that were never trained: then ``token_embedding.rows`` [R] names the rows that ``token_embedding.weight`` [R, C]
    has, and ``token_embedding.unknown`` [C] stands for each of the others.

    Args:
        path: the file.

    Returns:
        Tensors by OpenAI's parameter names, with all token rows.

    Raises:
        VtgError: the file is missing, damaged, holds anything but tensors, or is no CLIP ViT under these names.
    """
    return _with_all_token_rows(read_clip_tensors(path, _check_openai_shapes), path)


def read_clip_tensors(path: Path, check: Callable[[Path, WeightsFile], None] | None = None) -> dict[str, Tensor]:
    """Read the tensors of a CLIP from a file of any kind, running nothing in it.

    Args:
        path: the file.
        check: called with the path and the open `WeightsFile` before the tensors are read.

    Returns:
        Tensors by the names that the file has, without what are no weights.

    Raises:
        VtgError: the file is missing, damaged, holds anything but tensors, or numbers that are not finite.
    """
    if not path.is_file():
        raise VtgError(f"{path}: no such file of CLIP weights; give a file or a tag")
    try:
        with open_weights(path) as file:
            if check is not None:
                check(path, file)
            tensors = {name: tensor for name, tensor in file.read().items() if _is_weight(name)}
        check_finite(tensors)
    except WeightsError as error:
        raise VtgError(f"{path}: {_refusal(path, error)}") from None
    return tensors


def _refusal(path: Path, error: WeightsError) -> str:
    if error.kind == "unsafe":
        return f"not a file of weights: refused, as it could run code ({error}); give a safetensors file"
    if error.kind == "large":
        return f"{error}; give a smaller CLIP"
    if path.suffix == ".safetensors":
        return f"not a whole file of weights ({error}); fetch it again"
    return f"not a file of weights ({error}); give a whole one, a state dict or safetensors"


def _is_weight(name: str) -> bool:
    return name not in CONFIGURATION and name.rpartition(".")[2] != MASK


def _check_openai_shapes(path: Path, file: WeightsFile) -> None:
    """Compare the shapes that a file claims with those of the model that they describe, which is not allocated."""
    shapes = {name: shape for name, shape in file.shapes.items() if _is_weight(name)}
    missing = [name for name in NEEDED if name not in shapes]
    if missing:
        raise VtgError(
            f"{path}: not a CLIP ViT under OpenAI's parameter names (no {missing[0]}); "
            "name its open_clip model too, or give another file"
        )
    compact = (shapes.pop(ROWS, None), shapes.pop(UNKNOWN, None))
    try:
        config = _architecture(shapes)
        with torch.device("meta"):
            expected = {name: tensor.shape for name, tensor in _plain_clip(config, None).state_dict().items()}
    except (RuntimeError, ValueError, KeyError, IndexError, TypeError, ZeroDivisionError, AssertionError) as error:
        raise VtgError(f"{path}: its tensors do not fit together ({_line(error)}); give another file") from None
    for name in sorted({*expected, *shapes}):
        if expected.get(name) != shapes.get(name):
            wrong = f"{name[:60]} is {_shown(shapes.get(name))}, not {_shown(expected.get(name))}"
            raise VtgError(f"{path}: its tensors do not fit together ({wrong}); give another file")
    rows, width = shapes[TABLE]
    if compact != (None, None) and compact != ((rows,), (width,)):
        raise VtgError(f"{path}: its tensors do not fit together ({ROWS} and {UNKNOWN}); give another file")


def _shown(shape: torch.Size | None) -> str:
    return "missing" if shape is None else str(list(shape))


def _architecture(shapes: Mapping[str, torch.Size]) -> dict[str, Any]:
    """The arguments of open_clip's model for tensors of these shapes.

    Raises:
        ValueError: no CLIP is of this size.
        KeyError, TypeError: a tensor is missing, or has another number of dimensions.
    """
    width, _, patch, _ = shapes["visual.conv1.weight"]
    positions, _ = shapes["visual.positional_embedding"]
    context, _ = shapes["positional_embedding"]
    rows, _ = shapes[TABLE]
    _, embedding = shapes["text_projection"]
    (text_width,) = shapes["ln_final.weight"]
    grid = round((positions - 1) ** 0.5)
    sizes = {
        "width": (max(width, text_width, embedding, patch), MOST_WIDTH),
        "blocks": (max(_count_blocks(shapes, "visual.transformer"), _count_blocks(shapes, "transformer")), MOST_BLOCKS),
        "positions": (max(positions, context), MOST_POSITIONS),
        "token rows": (rows, MOST_ROWS),
    }
    for what, (size, most) in sizes.items():
        if size > most:
            raise ValueError(f"{size} {what}, where no CLIP has more than {most}")
    if (
        min(width, text_width, embedding, patch, grid, rows, context) < 1
        or width % HEAD_WIDTH
        or text_width % HEAD_WIDTH
    ):
        raise ValueError(f"widths {width} and {text_width}, where each is a multiple of {HEAD_WIDTH}")
    return {
        "embed_dim": embedding,
        "vision": {
            "layers": _count_blocks(shapes, "visual.transformer"),
            "width": width,
            "head_width": HEAD_WIDTH,
            "patch_size": patch,
            "image_size": patch * grid,
        },
        "text": {
            "context_length": context,
            "vocab_size": rows,
            "width": text_width,
            "heads": text_width // HEAD_WIDTH,
            "layers": _count_blocks(shapes, "transformer"),
        },
    }


def _plain_clip(architecture: Mapping[str, Any], dtype: torch.dtype | None) -> Any:
    from open_clip.model import CLIP, CLIPTextCfg, CLIPVisionCfg

    return CLIP(
        architecture["embed_dim"],
        vision_cfg=CLIPVisionCfg(**architecture["vision"]),
        text_cfg=CLIPTextCfg(**architecture["text"]),
        quick_gelu=True,
        cast_dtype=dtype,
    )


def _with_all_token_rows(tensors: dict[str, Tensor], path: Path) -> dict[str, Tensor]:
    rows = tensors.pop(ROWS, None)
    unknown = tensors.pop(UNKNOWN, None)
    if rows is None or unknown is None:
        return tensors
    from open_clip.tokenizer import SimpleTokenizer

    size = SimpleTokenizer().vocab_size
    rows = rows.long()
    if rows.numel() and not 0 <= int(rows.min()) <= int(rows.max()) < size:
        raise VtgError(f"{path}: its tensors do not fit together ({ROWS} beyond {size}); give another file")
    table = unknown.float().repeat(size, 1)
    table[rows] = tensors[TABLE].float()
    return {**tensors, TABLE: table}


def build_openai_model(tensors: dict[str, Tensor], name: str, device: torch.device, dtype: torch.dtype) -> Any:
    """Build open_clip's model for weights under OpenAI's names.

    Args:
        tensors: from `read_openai_tensors`.
        name: what to call the weights in an error.
        device: where the model goes.
        dtype: what its matrices are kept in.

    Returns:
        An ``open_clip.model.CLIP`` in eval mode, with ``visual.image_mean`` and ``image_std``.

    Raises:
        VtgError: the tensors do not fit together.
    """
    from open_clip.constants import OPENAI_DATASET_MEAN, OPENAI_DATASET_STD
    from open_clip.model import convert_weights_to_lp

    weights = {key: tensor.float() for key, tensor in tensors.items()}
    architecture = _architecture({key: tensor.shape for key, tensor in weights.items()})
    clip = _plain_clip(architecture, dtype if dtype != torch.float32 else None)
    try:
        # In float32: open_clip's own builder for these files rounds to half precision on the way.
        clip.load_state_dict(weights)
    except RuntimeError as error:
        raise VtgError(f"{name}: its tensors do not fit together ({_line(error)}); give another file") from None
    clip.visual.image_mean, clip.visual.image_std = OPENAI_DATASET_MEAN, OPENAI_DATASET_STD
    if dtype != torch.float32:
        convert_weights_to_lp(clip, dtype=dtype)
    return clip.to(device).eval()


def _count_blocks(shapes: Mapping[str, Any], tower: str) -> int:
    prefix = f"{tower}.resblocks."
    return len({key[len(prefix) :].split(".")[0] for key in shapes if key.startswith(prefix)})


def _line(error: Exception) -> str:
    return " ".join(str(error).split())[:160]
