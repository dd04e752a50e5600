"""Write SubRip text."""

from __future__ import annotations

from collections.abc import Iterable

__all__ = ["sequential_captions"]


def sequential_captions(captions: Iterable[tuple[float, str]]) -> str:
    """Writes captions (SRT) that follow each other from 0 on.

    Args:
        captions: for how many seconds each is shown, and its text.
    """
    text, begin = "", 0.0
    for number, (seconds, words) in enumerate(captions, 1):
        text += f"{number}\n{_srt_time(begin)} --> {_srt_time(begin + seconds)}\n{words}\n\n"
        begin += seconds
    return text


def _srt_time(seconds: float) -> str:
    whole, milliseconds = divmod(round(1000 * seconds), 1000)
    return f"{whole // 3600:02d}:{whole // 60 % 60:02d}:{whole % 60:02d},{milliseconds:03d}"
