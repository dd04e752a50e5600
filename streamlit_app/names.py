"""Names of visitors' files: what of them is kept, so that they lead nowhere and every system can write them."""

from __future__ import annotations

import re
from pathlib import Path

from vtg.errors import VtgError
from vtg.files.whole import fitted_name
from vtg.text import one_line
from vtg.video.sources import VIDEO_SUFFIXES

__all__ = ["plain_name", "safe_name"]

LONGEST_NAME = 120  # characters
SHOWN = 80  # characters of a name that is refused
# What separates paths, what Windows does not take, and what changes how a name is read: controls, lone surrogates and
# marks of direction.
_UNSAFE = re.compile('[\x00-\x1f\x7f-\x9f<>:"/\\\\|?*\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069\ud800-\udfff\ufeff]+')
# Names that Windows keeps for devices, whatever follows a dot.
_RESERVED = re.compile(r"(con|prn|aux|nul|conin\$|conout\$|(com|lpt)[\d¹²³])\s*(\.|$)", re.IGNORECASE)


def plain_name(name: str) -> str:
    """The last part of a path of whatever system, without the characters that lead elsewhere or hide something."""
    return _UNSAFE.sub("_", re.split(r"[/\\]", name)[-1]).strip(" .")


def safe_name(name: str) -> str:
    """The name under which an uploaded video is kept.

    Raises:
        VtgError: it is not the name of a video.
    """
    base = plain_name(name)
    stem, suffix = Path(base).stem.strip(" .") or "video", Path(base).suffix.lower()
    if suffix not in VIDEO_SUFFIXES:
        shown = one_line(name[:SHOWN]) or "this file"
        raise VtgError(f"{shown}: is not named like a video (such as .mp4, .mov, .mkv, .webm, .avi)")
    if _RESERVED.match(stem):
        stem = f"_{stem}"
    return fitted_name("", stem[: LONGEST_NAME - len(suffix)], suffix)
