"""What paths lead to, where links lead, and the folder for what can be downloaded again."""

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
    """Whether a path is really below one of some folders, wherever links lead; True where there are no folders.

    Args:
        path: that may have links.
        folders: absolute and without links.

    Raises:
        OSError, RuntimeError: a circle of links.
    """
    if not folders:
        return True
    real = path.resolve()
    return any(real.is_relative_to(folder) for folder in folders)


def is_folder(path: str | os.PathLike[str]) -> bool:
    """Whether a folder is there; False, too, where that cannot be known."""
    try:
        return Path(path).is_dir()
    except OSError:
        return False


def is_there(path: str | os.PathLike[str]) -> bool:
    """Whether a file or folder is there; False, too, where that cannot be known."""
    try:
        return Path(path).exists()
    except OSError:
        return False


def is_gone(path: str | os.PathLike[str]) -> bool:
    """Whether a path leads to nothing; False where that cannot be known: nobody may look, a disk does not answer."""
    try:
        Path(path).stat()
    except (FileNotFoundError, NotADirectoryError):
        return True
    except OSError:
        return False
    return False


def why_no_file(path: Path) -> str:
    """Why a path names no file that can be read from start to end; "" where it does. Nothing is opened.

    Raises:
        OSError: it is there, and may not be looked at.
    """
    try:
        mode = path.stat().st_mode
    except (FileNotFoundError, NotADirectoryError):
        return BROKEN_LINK if path.is_symlink() else "no such file or folder"
    return next((f"{words}, not a file: name a video" for is_kind, words in _KINDS if is_kind(mode)), "")


def check_regular(path: Path) -> None:
    """Make sure that reading a path will end: a pipe would be waited for, a device read for ever.

    Raises:
        VtgError: it is there, and is no file.
    """
    if path.exists() and not path.is_file():
        raise VtgError(f"{path}: is a folder, device or pipe, not a file: give a file")


def cache_folder() -> Path:
    """The folder for what can be downloaded again: `VTG_CACHE`, else the user's cache folder."""
    chosen = os.environ.get("VTG_CACHE")
    if chosen:
        return Path(chosen).expanduser()
    from platformdirs import user_cache_path

    return user_cache_path("vtg", appauthor=False)
