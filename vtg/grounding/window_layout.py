"""Divide long videos into overlapping windows, and join their saliency curves."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

__all__ = ["WHOLE_FRAMES", "WindowGrid", "central_window", "join_curves"]

WHOLE_FRAMES = 1024  # maximum sequence length of the published heads, which are trained on whole videos


@dataclass(frozen=True)
class WindowGrid:
    """Positions of the windows into which a head divides a video.

    Attributes:
        length: frames in a window; a shorter video is one window.
        step: frames from one window to the next, at least 1 and at most `length`.

    Raises:
        ValueError: the step is not between 1 and `length`.
    """

    length: int
    step: int

    def __post_init__(self) -> None:
        """Check the step."""
        if not 1 <= self.step <= self.length:
            raise ValueError(f"a step of {self.step} frames does not fit windows of {self.length}")

    @classmethod
    def of(cls, window_seconds: float, step_seconds: float, fps: float) -> WindowGrid:
        """The grid for a head's window length and step in seconds, at a frame rate."""
        length, step = (max(1, round(seconds * fps)) for seconds in (window_seconds, step_seconds))
        return cls(length, min(step, length))

    def for_whole(self, frames: int) -> WindowGrid:
        """The grid for the published evaluation, which does not divide videos of up to `WHOLE_FRAMES`.

        In longer videos the windows are limited to `WHOLE_FRAMES`, and the step is shortened in proportion.

        Args:
            frames: T, of the video.
        """
        if frames <= WHOLE_FRAMES:
            return WindowGrid(frames, frames)
        if self.length <= WHOLE_FRAMES:
            return self
        return WindowGrid(WHOLE_FRAMES, max(1, round(self.step * WHOLE_FRAMES / self.length)))

    def starts(self, frames: int) -> list[int]:
        """First frame of each window, ascending: the windows cover all frames and the last one ends with the video.

        Args:
            frames: T, of the video.
        """
        if frames <= self.length:
            return [0]
        return [*range(0, frames - self.length, self.step), frames - self.length]


def join_curves(curves: list[np.ndarray], starts: list[int]) -> np.ndarray:
    """Join the curves of overlapping windows to one continuous curve.

    Where windows overlap, each is weighted by the distance of the frame from its nearest edge (cross-fade).

    Args:
        curves: one per window, [W].
        starts: first frames, from `WindowGrid.starts`.

    Returns:
        [T] float32.
    """
    frames = starts[-1] + len(curves[-1])
    total, weight = np.zeros(frames), np.zeros(frames)
    for curve, start in zip(curves, starts, strict=True):
        inside = np.arange(len(curve))
        closeness = np.minimum(inside + 1, len(curve) - inside).astype(float)
        total[start : start + len(curve)] += closeness * curve
        weight[start : start + len(curve)] += closeness
    return (total / weight).astype(np.float32)


def central_window(frame: int, starts: list[int], window: int) -> int:
    """Index into `starts` of the window whose centre is nearest to a frame."""
    return min(range(len(starts)), key=lambda i: abs(starts[i] + (window - 1) / 2 - frame))
