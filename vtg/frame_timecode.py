"""Timecodes of frames (SMPTE 12M), hh:mm:ss:ff: from numbers of frames and back, drop-frame included."""

from __future__ import annotations

import re
from dataclasses import dataclass

__all__ = ["TimecodeCount"]

WRITTEN = re.compile(r"(\d+):(\d\d):(\d\d)([:;.,])(\d+)")
DROP_RATES = (30, 60, 120)  # nominal; of 29.97, 59.94 and 119.88 frames a second: no other rate drops numbers
MINUTES = 60
DAY_HOURS = 24


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
        found = WRITTEN.fullmatch(text.strip())
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
