"""Define which frame a sample of a video takes, for all decoders."""

from __future__ import annotations

from dataclasses import dataclass
from fractions import Fraction

from vtg.video.probing import VideoTrack

__all__ = ["DecodingError", "Samples"]


class DecodingError(Exception):
    """A decoder cannot decode a video, or found unexpected frames; the next decoder is tried."""


@dataclass(frozen=True)
class Samples:
    """The samples first…stop-1 of a video at `rate` samples a second."""

    track: VideoTrack
    rate: Fraction
    first: int
    stop: int

    def middle(self, sample: int) -> Fraction:
        """Middle of a sample's interval, ticks: the sample is the last frame shown strictly before it."""
        return self.track.first + (sample + Fraction(1, 2)) / self.rate / self.track.clock
