"""Files of CLIP weights under OpenAI's parameter names: the only module that reads an architecture from tensors."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from vtg.errors import VtgError

__all__ = ["build_openai_model", "read_openai_tensors"]

NEEDED = ("visual.conv1.weight", "visual.positional_embedding", "visual.proj", "text_projection", "ln_final.weight")
HEAD_WIDTH = 64  # channels a head, in both towers of every model under these names
CONFIGURATION = ("input_resolution", "context_length", "vocab_size")  # numbers that OpenAI stored among the weights


def read_openai_tensors(path: Path) -> dict[str, Tensor]:
    """Read a file of CLIP weights: safetensors, a state dict, or OpenAI's own TorchScript archive.

    A file may leave out token rows that were never trained: then ``token_embedding.rows`` [R] names the rows that
    ``token_embedding.weight`` [R, C] has, and ``token_embedding.unknown`` [C] stands for each of the others.

    Args:
        path: the file.

    Returns:
        Tensors by OpenAI's parameter names, with all token rows.

    Raises:
        VtgError: the file is missing, damaged, holds anything but tensors, or is no CLIP ViT under these names.
    """
    if not path.is_file():
        raise VtgError(f"{path}: no such file of CLIP weights; give a file or a tag")
    tensors = _read_safetensors(path) if path.suffix == ".safetensors" else _read_torch(path)
    tensors = {name.removeprefix("module."): tensor for name, tensor in tensors.items()}
    missing = [name for name in NEEDED if name not in tensors]
    if missing:
        raise VtgError(
            f"{path}: not a CLIP ViT under OpenAI's parameter names (no {missing[0]}); "
            "name its open_clip model too, or give another file"
        )
    return _with_all_token_rows(tensors)


def _read_safetensors(path: Path) -> dict[str, Tensor]:
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    try:
        return load_file(path)
    except (SafetensorError, OSError) as error:
        raise VtgError(f"{path}: not a whole safetensors file ({_line(error)}); fetch it again") from None


def _read_torch(path: Path) -> dict[str, Tensor]:
    import pickle

    try:
        loaded: Any = torch.load(path, map_location="cpu", weights_only=True)
    except (RuntimeError, pickle.UnpicklingError, EOFError, OSError, ValueError, KeyError) as error:
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", FutureWarning)  # OpenAI's files are what they are
                loaded = torch.jit.load(str(path), map_location="cpu").state_dict()
        except (RuntimeError, OSError, ValueError):
            raise VtgError(f"{path}: not a file of weights ({_line(error)}); give another file") from None
    for wrapper in ("state_dict", "model"):
        if isinstance(loaded, dict) and isinstance(loaded.get(wrapper), dict):
            loaded = loaded[wrapper]
    if not isinstance(loaded, dict) or not all(isinstance(tensor, Tensor) for tensor in loaded.values()):
        raise VtgError(f"{path}: holds something other than tensors; give a state dict or a safetensors file")
    return dict(loaded)


def _with_all_token_rows(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    rows = tensors.pop("token_embedding.rows", None)
    unknown = tensors.pop("token_embedding.unknown", None)
    if rows is None or unknown is None:
        return tensors
    from open_clip.tokenizer import SimpleTokenizer

    table = unknown.float().repeat(SimpleTokenizer().vocab_size, 1)
    table[rows.long()] = tensors["token_embedding.weight"].float()
    return {**tensors, "token_embedding.weight": table}


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
    from open_clip.model import CLIP, CLIPTextCfg, CLIPVisionCfg, convert_weights_to_lp

    weights = {key: tensor.float() for key, tensor in tensors.items() if key not in CONFIGURATION}
    width, _, patch, _ = weights["visual.conv1.weight"].shape
    grid = round((len(weights["visual.positional_embedding"]) - 1) ** 0.5)
    text_width = len(weights["ln_final.weight"])
    clip = CLIP(
        weights["text_projection"].shape[1],
        vision_cfg=CLIPVisionCfg(
            layers=_count_blocks(weights, "visual.transformer.resblocks."),
            width=width,
            head_width=HEAD_WIDTH,
            patch_size=patch,
            image_size=patch * grid,
        ),
        text_cfg=CLIPTextCfg(
            context_length=len(weights["positional_embedding"]),
            vocab_size=len(weights["token_embedding.weight"]),
            width=text_width,
            heads=text_width // HEAD_WIDTH,
            layers=_count_blocks(weights, "transformer.resblocks."),
        ),
        quick_gelu=True,
        cast_dtype=dtype if dtype != torch.float32 else None,
    )
    try:
        # In float32: open_clip's own builder for these files rounds to half precision on the way.
        clip.load_state_dict(weights)
    except RuntimeError as error:
        raise VtgError(f"{name}: its tensors do not fit together ({_line(error)}); give another file") from None
    clip.visual.image_mean, clip.visual.image_std = OPENAI_DATASET_MEAN, OPENAI_DATASET_STD
    if dtype != torch.float32:
        convert_weights_to_lp(clip, dtype=dtype)
    return clip.to(device).eval()


def _count_blocks(weights: dict[str, Tensor], prefix: str) -> int:
    return len({key[len(prefix) :].split(".")[0] for key in weights if key.startswith(prefix)})


def _line(error: Exception) -> str:
    return " ".join(str(error).split())[:160]
