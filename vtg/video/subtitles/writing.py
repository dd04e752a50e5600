"""Write SubRip subtitles."""

from __future__ import annotations

from collections.abc import Iterable

__all__ = ["sequential_captions"]


def sequential_captions(captions: Iterable[tuple[float, str]]) -> str:
    """SubRip text with captions in sequence, starting at time 0.

    Args:
        captions: duration in seconds and text of each.
    """
    text, begin = "", 0.0
    for number, (seconds, words) in enumerate(captions, 1):
        text += f"{number}\n{_srt_time(begin)} --> {_srt_time(begin + seconds)}\n{words}\n\n"
        begin += seconds
    return text


def _srt_time(seconds: float) -> str:
    whole, milliseconds = divmod(round(1000 * seconds), 1000)
    return f"{whole // 3600:02d}:{whole // 60 % 60:02d}:{whole % 60:02d},{milliseconds:03d}"
