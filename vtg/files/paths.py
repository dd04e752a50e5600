"""Check what paths and links lead to; locate the cache folder."""

from __future__ import annotations

import os
import stat
from collections.abc import Sequence
from pathlib import Path

from vtg.errors import VtgError

__all__ = [
    "BROKEN_LINK",
    "cache_folder",
    "check_regular",
    "is_folder",
    "is_gone",
    "is_there",
    "lies_within",
    "why_no_file",
]

BROKEN_LINK = "is a link to what is not there"
_KINDS = (
    (stat.S_ISFIFO, "is a pipe"),
    (stat.S_ISSOCK, "is a socket"),
    (stat.S_ISCHR, "is a device"),
    (stat.S_ISBLK, "is a device"),
)


def lies_within(path: Path, folders: Sequence[Path]) -> bool:
    """Whether a path, with links resolved, is below one of some folders; True if there are no folders.

    Args:
        path: may contain links.
        folders: absolute and resolved.

    Raises:
        OSError, RuntimeError: the links form a loop.
    """
    if not folders:
        return True
    real = path.resolve()
    return any(real.is_relative_to(folder) for folder in folders)


def is_folder(path: str | os.PathLike[str]) -> bool:
    """Whether a path is an existing folder; False on errors."""
    try:
        return Path(path).is_dir()
    except OSError:
        return False


def is_there(path: str | os.PathLike[str]) -> bool:
    """Whether a path exists; False on errors."""
    try:
        return Path(path).exists()
    except OSError:
        return False


def is_gone(path: str | os.PathLike[str]) -> bool:
    """Whether a path does not exist; False on other errors, such as missing rights or a disk that does not respond."""
    try:
        Path(path).stat()
    except (FileNotFoundError, NotADirectoryError):
        return True
    except OSError:
        return False
    return False


def why_no_file(path: Path) -> str:
    """The reason why a path is not a regular file, for a message after "path: "; "" if it is one or a folder.

    The file is not opened.

    Raises:
        OSError: its status cannot be read.
    """
    try:
        mode = path.stat().st_mode
    except (FileNotFoundError, NotADirectoryError):
        return BROKEN_LINK if path.is_symlink() else "no such file or folder"
    return next((f"{words}, not a file: name a video" for is_kind, words in _KINDS if is_kind(mode)), "")


def check_regular(path: Path) -> None:
    """Check that a path is a regular file, as reading a pipe or device might never end.

    Raises:
        VtgError: it exists and is not a regular file.
    """
    if path.exists() and not path.is_file():
        raise VtgError(f"{path}: is a folder, device or pipe, not a file: give a file")


def cache_folder() -> Path:
    """The cache folder for downloads: `VTG_CACHE`, else the user's cache folder."""
    chosen = os.environ.get("VTG_CACHE")
    if chosen:
        return Path(chosen).expanduser()
    from platformdirs import user_cache_path

    return user_cache_path("vtg", appauthor=False)
