"""Which files are videos: knows folders and file names, and opens nothing."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from pathlib import Path

__all__ = ["VIDEO_SUFFIXES", "find_videos"]

VIDEO_SUFFIXES = frozenset(
    {".3gp", ".avi", ".divx", ".flv", ".m2ts", ".m4v", ".mkv", ".mov", ".mp4", ".mpeg", ".mpg", ".mts", ".mxf", ".ogv"}
    | {".ts", ".vob", ".webm", ".wmv"}
)


def find_videos(paths: Iterable[str | os.PathLike[str]]) -> tuple[list[Path], dict[str, str]]:
    """Find the video files that paths name.

    Args:
        paths: files, taken whatever their name ends in, and folders, searched for files with a video's ending.

    Returns:
        The absolute paths, each once, sorted within a folder; and the paths that are not there, with the reason.
    """
    found: dict[Path, None] = {}
    missing: dict[str, str] = {}
    for path in (Path(path).expanduser() for path in paths):
        if path.is_dir():
            found.update(dict.fromkeys(_videos_below(path.resolve())))
        elif path.exists():
            found[path.resolve()] = None
        else:
            missing[str(path)] = "no such file or folder"
    return list(found), missing


def _videos_below(folder: Path) -> Iterator[Path]:
    for place, folders, files in os.walk(folder):
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        for name in sorted(files):
            if Path(name).suffix.lower() in VIDEO_SUFFIXES and not name.startswith("."):
                yield Path(place, name)
