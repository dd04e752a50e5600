"""Spans of time: how much two overlap, and times as people (mm:ss) and editors (SMPTE 12M, hh:mm:ss:ff) write them."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING

from vtg.errors import VtgError

if TYPE_CHECKING:
    import numpy as np

__all__ = ["DROP_RATES", "TimeSpan", "TimecodeCount", "format_time", "interval_iou", "parse_time", "suppress"]

WRITTEN_TIME = re.compile(r"(?:(?:(\d+):)?(\d+):)?(\d+(?:\.\d*)?)")
WRITTEN_TIMECODE = re.compile(r"(\d+):(\d\d):(\d\d)([:;.,])(\d+)")
DROP_RATES = (30, 60, 120)  # nominal; of 29.97, 59.94 and 119.88 frames a second: no other rate drops numbers
MAX_WINDOWS_AT_ONCE = (
    100  # windows, up to which the overlaps of all pairs are quicker than one row of them after the other
)
MINUTES = 60
DAY_HOURS = 24


@dataclass(frozen=True)
class TimeSpan:
    """From when to when, in seconds."""

    start: float
    end: float

    @property
    def seconds(self) -> float:
        """How long it is."""
        return self.end - self.start

    def overlaps(self, other: TimeSpan) -> bool:
        """Whether two spans have more than an end in common."""
        return self.start < other.end and other.start < self.end


def parse_time(text: str) -> float:
    """Read seconds, mm:ss or hh:mm:ss, with a fraction or without.

    Args:
        text: such as "83.5", "1:23.5" or "0:01:23.5".

    Returns:
        Seconds.

    Raises:
        VtgError: it is none of these.
    """
    match = WRITTEN_TIME.fullmatch(text.strip())
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


def interval_iou(windows: np.ndarray, others: np.ndarray) -> np.ndarray:
    """Intersection over union of each window with each other one; 0 where both are empty.

    Args:
        windows: [N, ≥ 2] start, end.
        others: [M, ≥ 2] start, end.

    Returns:
        [N, M], 0…1.
    """
    import numpy as np  # here, for commands that only read and write times start without it

    start = np.maximum(windows[:, None, 0], others[None, :, 0])
    end = np.minimum(windows[:, None, 1], others[None, :, 1])
    intersection = (end - start).clip(min=0)
    length, other_length = windows[:, 1] - windows[:, 0], others[:, 1] - others[:, 0]
    union = length[:, None] + other_length[None, :] - intersection
    return np.divide(intersection, union, out=np.zeros_like(intersection, dtype=float), where=union > 0)


def suppress(
    windows: np.ndarray, kind: str, threshold: float = 0.7, sigma: float = 0.5, at_most: int | None = None
) -> np.ndarray:
    """Non-maximum suppression: each window, best first, lowers the scores of those after it by their overlap.

    Args:
        windows: [N, 3] floating point: start, end, score.
        kind: "normal" sets a score to 0 from an IoU of `threshold` on, "linear" multiplies it by 1 − IoU, "gaussian" by
            exp(−IoU²/`sigma`).
        threshold: for "normal".
        sigma: for "gaussian".
        at_most: how many are wanted; None wants all. Scores only ever fall, so that the best are known after as many
            steps: of the thousands of windows of a long video the rest needs none.

    Returns:
        [N, 3] of the same dtype, best first, N at most `at_most`; duplicates have score 0, in no order.

    Raises:
        ValueError: another `kind`.
    """
    if kind not in ("normal", "linear", "gaussian"):
        raise ValueError(f"unknown suppression {kind!r}")
    import numpy as np

    windows = np.array(windows)
    if kind == "normal" and len(windows) <= MAX_WINDOWS_AT_ONCE and (np.diff(windows[:, 2]) <= 0).all():
        return _suppress_duplicates(windows, threshold)[:at_most]
    start, end, score = columns = windows.reshape(-1, 3).T.copy()
    length = end - start
    for place in range(len(score) if at_most is None else min(at_most, len(score))):
        best = place + int(score[place:].argmax())
        if best != place:
            columns[:, [place, best]] = columns[:, [best, place]]
            length[[place, best]] = length[[best, place]]
        if score[place] <= 0:
            break  # all that are left are duplicates
        rest = slice(place + 1, None)
        shared = np.minimum(end[rest], end[place]) - np.maximum(start[rest], start[place])
        np.maximum(shared, 0, out=shared)
        union = length[rest] + length[place] - shared
        overlap = np.divide(shared, union, out=np.zeros_like(shared), where=union > 0)
        if kind == "normal":
            score[rest] *= overlap < windows.dtype.type(threshold)
        elif kind == "linear":
            score[rest] *= 1 - overlap
        else:
            score[rest] *= np.exp(-(overlap**2) / windows.dtype.type(sigma))
    return np.ascontiguousarray(columns[:, np.argsort(-score, kind="stable")][:, :at_most].T)


def _suppress_duplicates(windows: np.ndarray, threshold: float) -> np.ndarray:
    """`suppress` of the kind "normal" for few windows [N, 3] that come best first: all overlaps at once."""
    import numpy as np

    start, end = windows[:, 0], windows[:, 1]
    length = end - start
    shared = np.minimum(end[:, None], end) - np.maximum(start[:, None], start)
    np.maximum(shared, 0, out=shared)
    union = length[:, None] + length - shared
    overlap = np.divide(shared, union, out=np.zeros_like(shared), where=union > 0)
    kept, repeats = windows[:, 2] > 0, np.triu(overlap >= windows.dtype.type(threshold), 1)
    for place in range(len(windows)):
        if kept[place]:
            kept &= ~repeats[place]
    windows[~kept, 2] = 0
    return np.concatenate((windows[kept], windows[~kept]))


@dataclass(frozen=True)
class TimecodeCount:
    """How a timecode numbers frames.

    At 29.97 frames a second an hour has 107,892 frames, not 108,000. Non-drop-frame timecode numbers them without gaps
    and falls behind the clock; drop-frame timecode keeps up with it by leaving out the first two numbers (four at
    59.94) of every minute but each tenth. No frame is dropped, only numbers.

    Attributes:
        nominal: frames that a second of the timecode has, a whole number: 30 for 29.97 frames a second.
        drop: whether it is drop-frame.
    """

    nominal: int
    drop: bool = False

    def __post_init__(self) -> None:
        """Refuse drop-frame where there is none.

        Raises:
            ValueError: of another rate than 30, 60 or 120.
        """
        if self.drop and self.nominal not in DROP_RATES:
            raise ValueError(f"there is no drop-frame timecode of {self.nominal} frames a second")

    @property
    def day(self) -> int:
        """Frames of 24 hours of timecode, after which it begins anew."""
        return self.frame(DAY_HOURS, 0, 0, 0)

    def frame(self, hours: int, minutes: int, seconds: int, frames: int) -> int:
        """The number of the frame that a timecode names, from 0 at 00:00:00:00.

        A number that drop-frame timecode leaves out stands for the next one that there is.
        """
        minute = hours * MINUTES + minutes
        if not self.drop:
            return (minute * 60 + seconds) * self.nominal + frames
        if seconds == 0 and minute % 10:
            frames = max(frames, self._left_out)
        return (minute * 60 + seconds) * self.nominal + frames - self._left_out * (minute - minute // 10)

    def parse(self, text: str) -> int:
        """The number of the frame that a written timecode names.

        Raises:
            ValueError: it is no timecode.
        """
        found = WRITTEN_TIMECODE.fullmatch(text.strip())
        if not found:
            raise ValueError(f"{text}: is no timecode hh:mm:ss:ff")
        hours, minutes, seconds, _, frames = found.groups()
        return self.frame(int(hours), int(minutes), int(seconds), int(frames))

    def format(self, frame: int) -> str:
        """The timecode of a frame, with a semicolon before the frames where it is drop-frame.

        Args:
            frame: its number, from 0 on; hours go on beyond 24.
        """
        if self.drop:
            frame += self._left_out * self._minutes_with_gaps(frame)
        seconds, frames = divmod(frame, self.nominal)
        separator = ";" if self.drop else ":"
        return f"{seconds // 3600:02d}:{seconds // 60 % 60:02d}:{seconds % 60:02d}{separator}{frames:02d}"

    def seconds(self, frame: int) -> float:
        """What the timecode of a frame says, in its own seconds: hours, minutes, seconds and the share of a second."""
        if self.drop:
            frame += self._left_out * self._minutes_with_gaps(frame)
        return frame / self.nominal

    @property
    def _left_out(self) -> int:
        return self.nominal // 15

    def _minutes_with_gaps(self, frame: int) -> int:
        """Minutes up to a frame of which numbers are left out."""
        of_minute = 60 * self.nominal - self._left_out
        tens, rest = divmod(frame, 10 * of_minute + self._left_out)
        # The first minute of ten has all its numbers.
        return 9 * tens + max(0, (rest - self._left_out) // of_minute)
