"""Where a CLIP comes from: the only module that knows open_clip's catalogue, its downloads and its tokenizers."""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch

from vtg.clip_files import build_openai_model, read_openai_tensors
from vtg.errors import VtgError
from vtg.specs import DEFAULT_CLIP, is_weights_file

__all__ = ["check_clip_names", "is_downloaded", "load_clip"]

WEIGHTS_BYTES = 1 << 20  # what is smaller in a cache is a configuration without its weights


def load_clip(model: str | None, pretrained: str, device: torch.device, dtype: torch.dtype) -> tuple[Any, Any]:
    """Load a CLIP and its tokenizer.

    Args:
        model: a name of open_clip's catalogue; None for the default one, or for what a file's tensors say.
        pretrained: a tag of the catalogue, downloaded once, or a file.
        device: where it goes.
        dtype: what its matrices are kept in.

    Returns:
        open_clip's model in eval mode, and a tokenizer: texts to int64 [M, context].

    Raises:
        VtgError: unknown names, or weights that cannot be had or do not fit.
    """
    import open_clip

    in_file = is_weights_file(pretrained)
    if model is None and in_file:
        clip = build_openai_model(read_openai_tensors(Path(pretrained).expanduser()), pretrained, device, dtype)
        return clip, open_clip.get_tokenizer(DEFAULT_CLIP, context_length=clip.context_length)
    check_clip_names(model, pretrained)
    model = model or DEFAULT_CLIP
    source = str(Path(pretrained).expanduser()) if in_file else pretrained
    precision = {torch.float16: "fp16", torch.bfloat16: "bf16"}.get(dtype, "fp32")
    # Some tags were trained with QuickGELU and are listed under models without it, where they would come out wrong.
    quick = not in_file and bool((open_clip.get_pretrained_cfg(model, pretrained) or {}).get("quick_gelu"))
    try:
        with _quiet():
            tokenizer = open_clip.get_tokenizer(model)
            clip = open_clip.create_model(
                model, source, precision=precision, device=device, force_quick_gelu=quick, require_pretrained=True
            )
    except ImportError as error:
        needs = "transformers" if "transformers" in str(error) else str(error)
        raise VtgError(f"{model}: its tokenizer needs {needs}; install it with: pip install 'vtg[siglip]'") from None
    except (OSError, RuntimeError, ValueError, KeyError) as error:
        raise VtgError(
            f"{model} ({pretrained}): {_why_not_loaded(error)}; "
            "give a file with --pretrained FILE, or try the bundled one with --model demo"
        ) from None
    return clip.eval(), tokenizer


def is_downloaded(model: str, tag: str) -> bool:
    """Whether the weights that a tag of open_clip's catalogue names are on this disk."""
    from huggingface_hub import scan_cache_dir
    from huggingface_hub.errors import CacheNotFound
    from open_clip import get_pretrained_cfg

    source = get_pretrained_cfg(model, tag) or {}
    if Path("~/.cache/clip", Path(source.get("url", "")).name).expanduser().is_file():
        return True
    try:
        cached = scan_cache_dir().repos
    except CacheNotFound:
        return False
    whole = {repository.repo_id for repository in cached if repository.size_on_disk > WEIGHTS_BYTES}
    return source.get("hf_hub", "").strip("/") in whole


def check_clip_names(model: str | None, pretrained: str) -> None:
    """Look a CLIP up without loading it.

    Args:
        model: a name of open_clip's catalogue; None for the default one, or for what a file's tensors say.
        pretrained: a tag of the catalogue, or a file.

    Raises:
        VtgError: the catalogue has no such model or tag, or the file is not there.
    """
    import open_clip

    model = model or DEFAULT_CLIP
    if model not in open_clip.list_models():
        raise VtgError(f"{model}: not a model of open_clip's catalogue; open_clip.list_models() names them")
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
def _quiet() -> Iterator[None]:
    """Keep open_clip's own log lines out of the user's terminal; what matters is raised."""
    previous = logging.root.manager.disable
    logging.disable(logging.CRITICAL)
    try:
        yield
    finally:
        logging.disable(previous)
