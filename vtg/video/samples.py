"""The samples of a video: which picture stands for which of them, the same for every decoder."""

from __future__ import annotations

from dataclasses import dataclass
from fractions import Fraction

from vtg.video.probing import VideoTrack

__all__ = ["DecodingError", "Samples"]


class DecodingError(Exception):
    """A decoder could not decode, or found something else than was expected; another decoder may."""


@dataclass(frozen=True)
class Samples:
    """The samples first…stop-1 of a video, `rate` a second."""

    track: VideoTrack
    rate: Fraction
    first: int
    stop: int

    def middle(self, sample: int) -> Fraction:
        """Middle of a sample's interval, in ticks: its picture is the last one shown strictly before."""
        return self.track.first + (sample + Fraction(1, 2)) / self.rate / self.track.clock
