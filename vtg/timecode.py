"""Times as people write them: the only module that knows mm:ss."""

from __future__ import annotations

import re

from vtg.errors import VtgError

__all__ = ["format_time", "parse_time"]

WRITTEN = re.compile(r"(?:(?:(\d+):)?(\d+):)?(\d+(?:\.\d*)?)")


def parse_time(text: str) -> float:
    """Read seconds, mm:ss or hh:mm:ss, with a fraction or without.

    Args:
        text: such as "83.5", "1:23.5" or "0:01:23.5".

    Returns:
        Seconds.

    Raises:
        VtgError: it is none of these.
    """
    match = WRITTEN.fullmatch(text.strip())
    if not match:
        raise VtgError(f"{text}: not a time; write seconds (83.5), mm:ss (1:23.5) or hh:mm:ss")
    hours, minutes, seconds = match.groups()
    return int(hours or 0) * 3600 + int(minutes or 0) * 60 + float(seconds)


def format_time(seconds: float, decimals: int = 0) -> str:
    """Write seconds as mm:ss, or h:mm:ss from an hour on.

    Args:
        seconds: from 0 on.
        decimals: digits after the point.
    """
    units = 10**decimals
    ticks = round(seconds * units)
    whole, fraction = divmod(ticks, units)
    minutes, second = divmod(whole, 60)
    hours, minute = divmod(minutes, 60)
    text = f"{hours}:{minute:02d}:{second:02d}" if hours else f"{minute:02d}:{second:02d}"
    return f"{text}.{fraction:0{decimals}d}" if decimals else text
