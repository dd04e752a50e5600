"""Make the names of uploaded files safe on every operating system."""

from __future__ import annotations

import re
from pathlib import Path

from vtg.errors import VtgError
from vtg.files.text import one_line
from vtg.files.whole import fitted_name
from vtg.video.sources import VIDEO_SUFFIXES

__all__ = ["plain_name", "safe_name"]

MAX_NAME_CHARACTERS = 120  # characters
MAX_SHOWN_CHARACTERS = 80  # of a name that is refused
# Path separators, characters that Windows does not allow, and characters that hide parts of a name: control characters,
# lone surrogates and direction marks.
_UNSAFE = re.compile('[\x00-\x1f\x7f-\x9f<>:"/\\\\|?*\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069\ud800-\udfff\ufeff]+')
# Names that Windows reserves for devices, with any suffix.
_RESERVED = re.compile(r"(con|prn|aux|nul|conin\$|conout\$|(com|lpt)[\d¹²³])\s*(\.|$)", re.IGNORECASE)


def plain_name(name: str) -> str:
    """The last part of a path of any operating system, without unsafe characters."""
    return _UNSAFE.sub("_", re.split(r"[/\\]", name)[-1]).strip(" .")


def safe_name(name: str) -> str:
    """A safe name for an uploaded video.

    Raises:
        VtgError: it does not have the suffix of a video.
    """
    base = plain_name(name)
    stem, suffix = Path(base).stem.strip(" .") or "video", Path(base).suffix.lower()
    if suffix not in VIDEO_SUFFIXES:
        shown = one_line(name[:MAX_SHOWN_CHARACTERS]) or "this file"
        raise VtgError(f"{shown}: is not named like a video (such as .mp4, .mov, .mkv, .webm, .avi)")
    if _RESERVED.match(stem):
        stem = f"_{stem}"
    return fitted_name("", stem[: MAX_NAME_CHARACTERS - len(suffix)], suffix)
