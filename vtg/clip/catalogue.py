"""Find or download the weights that a tag of open_clip's catalogue names."""

from __future__ import annotations

import re
from pathlib import Path, PurePosixPath
from typing import Any

from vtg.errors import VtgError
from vtg.files.hashing import file_sha256
from vtg.files.text import error_line
from vtg.weights.downloads import fetch_from_hub, fetch_whole

__all__ = ["DEFAULT_CLIP", "catalogue_entries", "catalogue_entry", "check_model", "find_weights", "is_downloaded"]

DEFAULT_CLIP = "ViT-B-32-quickgelu"
MIN_WEIGHTS_BYTES = 1 << 20  # a smaller cached repository contains a configuration without weights
PLAIN_CACHE = "~/.cache/clip"  # of open_clip and OpenAI's package, for files from plain URLs
HUB_NAMES = ("open_clip_model.safetensors", "open_clip_pytorch_model.bin")  # for entries that name no file
PICKLE_SUFFIXES = (".bin", ".pth", ".pt")


def catalogue_entry(model: str | None, tag: str) -> dict[str, Any]:
    """The entry of open_clip's catalogue for a tag: url, hf_hub, mean, std, quick_gelu and more; empty if unknown.

    Args:
        model: a name in the catalogue; None for `DEFAULT_CLIP`.
        tag: of its weights.
    """
    from open_clip import get_pretrained_cfg

    return dict(get_pretrained_cfg(model or DEFAULT_CLIP, tag) or {})


def check_model(model: str) -> None:
    """Check that the catalogue has a model.

    Raises:
        VtgError: it has not.
    """
    from open_clip import list_models

    if model not in list_models():
        raise VtgError(f"{model}: not a model of open_clip's catalogue; open_clip.list_models() names them")


def catalogue_entries(model: str) -> dict[str, dict[str, Any]]:
    """The entries of all tags of a model, by tag; empty for a model without published weights."""
    from open_clip import list_pretrained_tags_by_model

    return {tag: catalogue_entry(model, tag) for tag in list_pretrained_tags_by_model(model)}


def find_weights(model: str, tag: str) -> Path:
    """Find the file of weights of a tag; download it if it is not cached.

    The hub is tried first, with safetensors before pickles, then the plain URL, whose file must have the hash that the
    URL contains.

    Raises:
        VtgError: it cannot be downloaded, or is not the published file.
    """
    entry = catalogue_entry(model, tag)
    reasons = []
    if location := entry.get("hf_hub", ""):
        repository, _, name = location.rpartition("/")
        for candidate in _hub_candidates(name):
            try:
                return fetch_from_hub(repository, candidate)
            # The client passes on any exception of its HTTP library, also for a missing name.
            except Exception as error:
                reasons.append(error_line(error))
    if url := entry.get("url", ""):
        try:
            return _plain_file(url)
        except (VtgError, OSError) as error:
            reasons.append(error_line(error))
    reason = reasons[-1] if reasons else "open_clip's catalogue has no address for them"
    raise VtgError(f"its weights cannot be downloaded ({reason})")


def _hub_candidates(name: str) -> tuple[str, ...]:
    """File names to try, safetensors first."""
    if not name:
        return HUB_NAMES
    stem, dot, suffix = name.rpartition(".")
    return (f"{stem}.safetensors", name) if dot + suffix in PICKLE_SUFFIXES else (name,)


def _plain_file(url: str) -> Path:
    path = _plain_path(url)
    sha256 = url_sha256(url)
    if path.is_file() and sha256 and file_sha256(path).startswith(sha256):
        return path
    fetch_whole(url, path, sha256)
    return path


def _plain_path(url: str) -> Path:
    return Path(PLAIN_CACHE).expanduser() / PurePosixPath(url).name


def url_sha256(url: str) -> str:
    """The leading digits of the file's SHA-256 in a URL of the catalogue; empty if it contains none."""
    whole = re.search(r"/([0-9a-f]{64})/[^/]+$", url)
    start = re.search(r"-([0-9a-f]{8,64})\.\w+$", url)
    found = whole or start
    return found[1] if found else ""


def is_downloaded(model: str, tag: str) -> bool:
    """Whether the weights of a catalogue tag are in a local cache."""
    from huggingface_hub import scan_cache_dir
    from huggingface_hub.errors import CacheNotFound

    entry = catalogue_entry(model, tag)
    if (url := entry.get("url", "")) and _plain_path(url).is_file():
        return True
    try:
        cached = scan_cache_dir().repos
    except CacheNotFound:
        return False
    whole = {repository.repo_id for repository in cached if repository.size_on_disk > MIN_WEIGHTS_BYTES}
    return entry.get("hf_hub", "").strip("/") in whole
