"""Read CLIP weights with OpenAI's parameter names, and infer their architecture from the shapes."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from vtg.errors import VtgError
from vtg.files.text import error_line
from vtg.weights import WeightsError, WeightsFile, check_finite, open_weights

__all__ = ["build_openai_model", "read_clip_tensors", "read_openai_tensors"]

REQUIRED_TENSORS = (
    "visual.conv1.weight",
    "visual.positional_embedding",
    "visual.proj",
    "text_projection",
    "ln_final.weight",
)
ROW_INDICES, UNTRAINED_ROW, TOKEN_TABLE = "token_embedding.rows", "token_embedding.unknown", "token_embedding.weight"
HEAD_WIDTH = 64  # channels per attention head, in both towers of all models with these names
CONFIGURATION_NAMES = (
    "input_resolution",
    "context_length",
    "vocab_size",
)  # scalars that OpenAI stored with the weights
ATTENTION_MASK = "attn_mask"  # a constant in traced models, with infinite values
# Upper bounds; the largest published model has width 1664, 48 blocks, 1025 positions and 250,000 token rows.
MAX_WIDTH, MAX_BLOCKS, MAX_POSITIONS, MAX_TOKEN_ROWS = 8192, 256, 1 << 14, 1 << 20


def read_openai_tensors(path: Path) -> dict[str, Tensor]:
    """Read a file of CLIP weights: safetensors, a state dict, or OpenAI's own TorchScript archive.

    No code in the file is run, and shapes are checked before tensors are read. A file may omit untrained token rows:
    then ``token_embedding.rows`` [R] contains the indices of the rows of ``token_embedding.weight`` [R, C], and
    ``token_embedding.unknown`` [C] is the value of all other rows.

    Args:
        path: the file.

    Returns:
        Tensors by OpenAI's parameter names, with all token rows.

    Raises:
        VtgError: the file is missing or damaged, contains anything but tensors, or is not a CLIP ViT with these names.
    """
    return _with_all_token_rows(read_clip_tensors(path, _check_openai_shapes), path)


def read_clip_tensors(path: Path, check: Callable[[Path, WeightsFile], None] | None = None) -> dict[str, Tensor]:
    """Read the tensors of a CLIP from a file of any supported format, without running code.

    Args:
        path: the file.
        check: called with the path and the open `WeightsFile` before the tensors are read.

    Returns:
        Tensors by their names in the file, without configuration values.

    Raises:
        VtgError: the file is missing or damaged, contains anything but tensors, or values that are not finite.
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
        raise VtgError(f"{path}: {_error_message(path, error)}") from None
    return tensors


def _error_message(path: Path, error: WeightsError) -> str:
    if error.kind == "unsafe":
        return f"not a file of weights: refused, as it could run code ({error}); give a safetensors file"
    if error.kind == "large":
        return f"{error}; give a smaller CLIP"
    if path.suffix == ".safetensors":
        return f"not a whole file of weights ({error}); fetch it again"
    return f"not a file of weights ({error}); give a whole one, a state dict or safetensors"


def _is_weight(name: str) -> bool:
    return name not in CONFIGURATION_NAMES and name.rpartition(".")[2] != ATTENTION_MASK


def _check_openai_shapes(path: Path, file: WeightsFile) -> None:
    """Compare the shapes declared by a file with those of the inferred model, without allocating it."""
    shapes = {name: shape for name, shape in file.shapes.items() if _is_weight(name)}
    missing = [name for name in REQUIRED_TENSORS if name not in shapes]
    if missing:
        raise VtgError(
            f"{path}: not a CLIP ViT under OpenAI's parameter names (no {missing[0]}); "
            "name its open_clip model too, or give another file"
        )
    compact = (shapes.pop(ROW_INDICES, None), shapes.pop(UNTRAINED_ROW, None))
    try:
        config = _architecture(shapes)
        with torch.device("meta"):
            expected = {name: tensor.shape for name, tensor in _plain_clip(config, None).state_dict().items()}
    except (RuntimeError, ValueError, KeyError, IndexError, TypeError, ZeroDivisionError, AssertionError) as error:
        raise VtgError(f"{path}: its tensors do not fit together ({error_line(error)}); give another file") from None
    for name in sorted({*expected, *shapes}):
        if expected.get(name) != shapes.get(name):
            wrong = f"{name[:60]} is {_shown(shapes.get(name))}, not {_shown(expected.get(name))}"
            raise VtgError(f"{path}: its tensors do not fit together ({wrong}); give another file")
    rows, width = shapes[TOKEN_TABLE]
    if compact != (None, None) and compact != ((rows,), (width,)):
        raise VtgError(
            f"{path}: its tensors do not fit together ({ROW_INDICES} and {UNTRAINED_ROW}); give another file"
        )


def _shown(shape: torch.Size | None) -> str:
    return "missing" if shape is None else str(list(shape))


def _architecture(shapes: Mapping[str, torch.Size]) -> dict[str, Any]:
    """Arguments of open_clip's model, inferred from tensor shapes.

    Raises:
        ValueError: a size is out of bounds.
        KeyError, TypeError: a tensor is missing, or has a wrong number of dimensions.
    """
    width, _, patch, _ = shapes["visual.conv1.weight"]
    positions, _ = shapes["visual.positional_embedding"]
    context, _ = shapes["positional_embedding"]
    rows, _ = shapes[TOKEN_TABLE]
    _, embedding = shapes["text_projection"]
    (text_width,) = shapes["ln_final.weight"]
    grid = round((positions - 1) ** 0.5)
    sizes = {
        "width": (max(width, text_width, embedding, patch), MAX_WIDTH),
        "blocks": (max(_count_blocks(shapes, "visual.transformer"), _count_blocks(shapes, "transformer")), MAX_BLOCKS),
        "positions": (max(positions, context), MAX_POSITIONS),
        "token rows": (rows, MAX_TOKEN_ROWS),
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
    rows = tensors.pop(ROW_INDICES, None)
    unknown = tensors.pop(UNTRAINED_ROW, None)
    if rows is None or unknown is None:
        return tensors
    from open_clip.tokenizer import SimpleTokenizer

    size = SimpleTokenizer().vocab_size
    rows = rows.long()
    if rows.numel() and not 0 <= int(rows.min()) <= int(rows.max()) < size:
        raise VtgError(f"{path}: its tensors do not fit together ({ROW_INDICES} beyond {size}); give another file")
    table = unknown.float().repeat(size, 1)
    table[rows] = tensors[TOKEN_TABLE].float()
    return {**tensors, TOKEN_TABLE: table}


def build_openai_model(tensors: dict[str, Tensor], name: str, device: torch.device, dtype: torch.dtype) -> Any:
    """Build open_clip's model for weights under OpenAI's names.

    Args:
        tensors: from `read_openai_tensors`.
        name: of the weights, for error messages.
        device: of the model.
        dtype: of its weight matrices.

    Returns:
        An ``open_clip.model.CLIP`` in eval mode.

    Raises:
        VtgError: the tensors do not fit together.
    """
    from open_clip.model import convert_weights_to_lp

    weights = {key: tensor.float() for key, tensor in tensors.items()}
    architecture = _architecture({key: tensor.shape for key, tensor in weights.items()})
    clip = _plain_clip(architecture, dtype if dtype != torch.float32 else None)
    try:
        # In float32: open_clip's own builder for these files rounds to float16.
        clip.load_state_dict(weights)
    except RuntimeError as error:
        raise VtgError(f"{name}: its tensors do not fit together ({error_line(error)}); give another file") from None
    if dtype != torch.float32:
        convert_weights_to_lp(clip, dtype=dtype)
    return clip.to(device).eval()


def _count_blocks(shapes: Mapping[str, Any], tower: str) -> int:
    prefix = f"{tower}.resblocks."
    return len({key[len(prefix) :].split(".")[0] for key in shapes if key.startswith(prefix)})
