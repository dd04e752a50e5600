"""Scenes of the demo world: things, backdrops, the visible things at given times, and frames."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from vtg.demo.render import draw_frame
from vtg.demo.world import CLIP_SECONDS, Backdrop, States, Thing

__all__ = ["Scene"]


@dataclass(frozen=True)
class Scene:
    """The content of a demo video.

    Attributes:
        seed: the seed from which it was generated.
        duration: seconds, an even number.
        things: in the order in which they are drawn.
        backdrops: one for each shot, in order, with hard cuts between them.
    """

    seed: int
    duration: float
    things: tuple[Thing, ...]
    backdrops: tuple[Backdrop, ...]

    @property
    def cuts(self) -> tuple[float, ...]:
        """Times of the hard cuts, in seconds."""
        return tuple(backdrop.start for backdrop in self.backdrops[1:])

    @property
    def clip_count(self) -> int:
        """Number of 2-second clips in the scene."""
        return round(self.duration / CLIP_SECONDS)

    @property
    def clip_times(self) -> NDArray[np.float64]:
        """The middle of every 2-second clip, in seconds, [clips]."""
        return np.arange(0.5, self.clip_count) * np.float64(CLIP_SECONDS)

    def frame(self, time: float, width: int = 320, height: int = 240) -> NDArray[np.uint8]:
        """Draw the scene at `time` (seconds): uint8 [height, width, 3], RGB."""
        return draw_frame(self.backdrops, self.things, time, width, height)

    def visible(self, time: float) -> list[int]:
        """Indices of the things that are visible at `time` (seconds)."""
        return [index for index, thing in enumerate(self.things) if thing.alive(time)]

    def states(self, times: Sequence[float] | NDArray[np.float64]) -> States:
        """The attributes of the visible things at each of `times` (seconds)."""
        visible = [self.visible(float(time)) for time in times]
        slots = max(1, max((len(indices) for indices in visible), default=1))
        codes = np.full((len(visible), slots, 6), -1, np.int8)
        things = np.full((len(visible), slots), -1, np.int32)
        for row, (time, indices) in enumerate(zip(times, visible, strict=True)):
            for slot, index in enumerate(indices):
                codes[row, slot] = self.things[index].state(float(time))
                things[row, slot] = index
        return States(codes, things)

    @cached_property
    def clip_states(self) -> States:
        """The attributes of the visible things in the middle of each 2-second clip."""
        return self.states(self.clip_times)
