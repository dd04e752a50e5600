"""Build CLIP models and their tokenizers, from open_clip's catalogue or from a file of weights.

open_clip's own loaders are not used: they unpickle files, and one of them runs the code of a TorchScript archive.
"""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch

from vtg.clip.catalogue import catalogue_entry, check_model, find_weights
from vtg.clip.checkpoints import build_openai_model, read_clip_tensors, read_openai_tensors
from vtg.clip.specs import DEFAULT_CLIP, is_weights_file
from vtg.errors import VtgError

__all__ = ["RANDOM", "check_clip_names", "load_clip", "quiet"]

RANDOM = "\0random"  # instead of a tag; no command line and no library can name it
TEXT_POSITIONS = "text.transformer.embeddings.position_ids"
OTHER_WAYS = "give a file with --pretrained FILE, or try the bundled one with --model demo"


def load_clip(model: str | None, pretrained: str, device: torch.device, dtype: torch.dtype) -> tuple[Any, Any]:
    """Load a CLIP and its tokenizer.

    Args:
        model: a name in open_clip's catalogue; None for the default, or for the architecture of a file's tensors.
        pretrained: a tag of the catalogue, downloaded once, or a file; `RANDOM` for random weights.
        device: of the model.
        dtype: of its weight matrices.

    Returns:
        open_clip's model in eval mode, and a tokenizer: texts to int64 [M, context]; None with random weights, as it
        may have to be downloaded.

    Raises:
        VtgError: unknown names, or weights that cannot be downloaded, read or loaded into the model.
    """
    import open_clip

    if pretrained == RANDOM:
        with quiet():
            return _catalogue_model(model or DEFAULT_CLIP, {}, device, dtype).eval(), None
    in_file = is_weights_file(pretrained)
    if model is None and in_file:
        clip = build_openai_model(read_openai_tensors(Path(pretrained).expanduser()), pretrained, device, dtype)
        return clip, open_clip.get_tokenizer(DEFAULT_CLIP, context_length=clip.context_length)
    check_clip_names(model, pretrained)
    model = model or DEFAULT_CLIP
    entry = {} if in_file else catalogue_entry(model, pretrained)
    try:
        with quiet():
            tokenizer = open_clip.get_tokenizer(model)
            weights = Path(pretrained).expanduser() if in_file else find_weights(model, pretrained)
            clip = _catalogue_model(model, entry, device, dtype)
            _put_weights(clip, read_clip_tensors(weights))
    except ImportError as error:
        needs = "transformers" if "transformers" in str(error) else str(error)
        raise VtgError(
            f"{model}: its tokenizer needs {needs}; install it with: pip install 'vtground[siglip]'"
        ) from None
    except (OSError, RuntimeError, ValueError, KeyError, IndexError, AttributeError, TypeError) as error:
        raise VtgError(f"{model} ({pretrained}): {_why_not_loaded(error)}; {OTHER_WAYS}") from None
    except VtgError as error:
        raise error if in_file else VtgError(f"{model} ({pretrained}): {error}; {OTHER_WAYS}") from None
    return clip.eval(), tokenizer


def _catalogue_model(model: str, entry: dict[str, Any], device: torch.device, dtype: torch.dtype) -> Any:
    """open_clip's model of a name, with random weights; a catalogue entry tells its activation."""
    import open_clip

    return open_clip.create_model(
        model,
        precision={torch.float16: "fp16", torch.bfloat16: "bf16"}.get(dtype, "fp32"),
        device=device,
        load_weights=False,
        pretrained_text=False,  # otherwise the weights of the text tower would be downloaded
        # Some tags were trained with QuickGELU but are listed under models without it.
        force_quick_gelu=bool(entry.get("quick_gelu")),
    )


def _put_weights(clip: Any, tensors: dict[str, torch.Tensor]) -> None:
    """Load a state dict in any layout that open_clip can convert.

    Raises:
        RuntimeError: names or shapes do not match the model.
    """
    from open_clip.convert import convert_state_dict
    from open_clip.model import convert_to_custom_text_state_dict, resize_pos_embed, resize_text_pos_embed

    tensors = convert_state_dict(clip, tensors)
    if "positional_embedding" in tensors and not hasattr(clip, "positional_embedding"):
        tensors = convert_to_custom_text_state_dict(tensors)
    for name in ("logit_scale", "logit_bias"):  # a scalar, or a tensor of one element
        if name in tensors and tensors[name].numel() == 1:
            tensors[name] = tensors[name].reshape(getattr(clip, name).shape)
    if clip.logit_bias is not None and "logit_bias" not in tensors:
        tensors["logit_bias"] = torch.zeros_like(clip.logit_bias)
    if not hasattr(clip, TEXT_POSITIONS):
        tensors.pop(TEXT_POSITIONS, None)  # a buffer that earlier versions of transformers saved
    resize_pos_embed(tensors, clip)
    resize_text_pos_embed(tensors, clip)
    clip.load_state_dict(tensors)


def check_clip_names(model: str | None, pretrained: str) -> None:
    """Check the names of a CLIP without loading it.

    Args:
        model: a name in open_clip's catalogue; None for the default, or for the architecture of a file's tensors.
        pretrained: a tag of the catalogue, or a file.

    Raises:
        VtgError: the catalogue has no such model or tag, or the file does not exist.
    """
    import open_clip

    model = model or DEFAULT_CLIP
    check_model(model)
    if is_weights_file(pretrained):
        if not Path(pretrained).expanduser().is_file():
            raise VtgError(f"{pretrained}: no such file of CLIP weights; give a file or a tag")
        return
    tags = open_clip.list_pretrained_tags_by_model(model)
    if pretrained not in tags:
        known = ", ".join(tags) or "none"
        raise VtgError(f"{model}: has no weights named {pretrained!r}; known tags: {known}; or give a file")


def _why_not_loaded(error: Exception) -> str:
    reason = " ".join(str(error).split())
    if "download" in reason.lower():
        return "its weights cannot be downloaded (is there a network?)"
    return f"its weights cannot be loaded ({reason[:160]})"


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Suppress open_clip's log messages; errors are raised as exceptions."""
    previous = logging.root.manager.disable
    logging.disable(logging.CRITICAL)
    try:
        yield
    finally:
        logging.disable(previous)
