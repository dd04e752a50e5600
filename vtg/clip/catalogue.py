"""Find or download the weights that a tag of open_clip's catalogue names."""

from __future__ import annotations

import re
from pathlib import Path, PurePosixPath
from typing import Any

from vtg.errors import VtgError
from vtg.files.hashing import file_sha256
from vtg.weights.downloads import fetch_from_hub, fetch_whole, one_line

__all__ = ["catalogue_entry", "find_weights", "is_downloaded"]

WEIGHTS_BYTES = 1 << 20  # what is smaller in a cache is a configuration without its weights
PLAIN_CACHE = "~/.cache/clip"  # where open_clip, and OpenAI's own package, keep what comes from a plain URL
HUB_NAMES = ("open_clip_model.safetensors", "open_clip_pytorch_model.bin")  # of weights whose entry names no file
PICKLE_SUFFIXES = (".bin", ".pth", ".pt")


def catalogue_entry(model: str, tag: str) -> dict[str, Any]:
    """What open_clip's catalogue says of a tag: url, hf_hub, mean, std, quick_gelu and more; empty if unknown."""
    from open_clip import get_pretrained_cfg

    return dict(get_pretrained_cfg(model, tag) or {})


def find_weights(model: str, tag: str) -> Path:
    """Find the file of weights that a tag names, and download it where it is not on this disk.

    The hub comes first, with safetensors before pickles, and then the plain URL, whose file is taken only with the hash
    that the URL carries.

    Raises:
        VtgError: it cannot be downloaded, or is another file than was published.
    """
    entry = catalogue_entry(model, tag)
    reasons = []
    if location := entry.get("hf_hub", ""):
        repository, _, name = location.rpartition("/")
        for candidate in _hub_candidates(name):
            try:
                return fetch_from_hub(repository, candidate)
            # The client passes on whatever its HTTP library raises; a name that is not there is one of many kinds.
            except Exception as error:
                reasons.append(one_line(error))
    if url := entry.get("url", ""):
        try:
            return _plain_file(url)
        except (VtgError, OSError) as error:
            reasons.append(one_line(error))
    reason = reasons[-1] if reasons else "the catalogue does not say where they are"
    raise VtgError(f"its weights cannot be downloaded ({reason})")


def _hub_candidates(name: str) -> tuple[str, ...]:
    """The names to try, safetensors first."""
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
    """The digits of the file's SHA-256 that a URL of the catalogue carries; empty if it carries none."""
    whole = re.search(r"/([0-9a-f]{64})/[^/]+$", url)
    start = re.search(r"-([0-9a-f]{8,64})\.\w+$", url)
    found = whole or start
    return found[1] if found else ""


def is_downloaded(model: str, tag: str) -> bool:
    """Whether the weights that a tag of open_clip's catalogue names are on this disk."""
    from huggingface_hub import scan_cache_dir
    from huggingface_hub.errors import CacheNotFound

    entry = catalogue_entry(model, tag)
    if (url := entry.get("url", "")) and _plain_path(url).is_file():
        return True
    try:
        cached = scan_cache_dir().repos
    except CacheNotFound:
        return False
    whole = {repository.repo_id for repository in cached if repository.size_on_disk > WEIGHTS_BYTES}
    return entry.get("hf_hub", "").strip("/") in whole
