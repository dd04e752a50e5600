"""Divide long videos into overlapping windows, and join their saliency curves."""

from __future__ import annotations

import numpy as np

__all__ = ["WHOLE_FRAMES", "central_window", "join_curves", "whole_frames", "window_frames", "window_starts"]

WHOLE_FRAMES = 1024  # maximum sequence length of the published heads, which are trained on whole videos


def window_frames(window_seconds: float, step_seconds: float, fps: float) -> tuple[int, int]:
    """Length of a window, and step to the next one (at most the length), in frames; both at least 1."""
    length, step = (max(1, round(seconds * fps)) for seconds in (window_seconds, step_seconds))
    return length, min(step, length)


def whole_frames(frames: int, window: int, step: int) -> tuple[int, int]:
    """Window length and step for the published evaluation, which does not divide videos of up to `WHOLE_FRAMES`.

    Args:
        frames: T, of the video.
        window: length of a window for longer videos, from `window_frames`; limited to `WHOLE_FRAMES`.
        step: frames from one window to the next; shortened in proportion.

    Returns:
        Length of a window, and step to the next one, in frames.
    """
    if frames <= WHOLE_FRAMES:
        return frames, frames
    if window <= WHOLE_FRAMES:
        return window, step
    return WHOLE_FRAMES, max(1, round(step * WHOLE_FRAMES / window))


def window_starts(frames: int, window: int, step: int) -> list[int]:
    """First frame of each window, so that the windows cover all frames and have equal length.

    Args:
        frames: T, of the video.
        window: length of a window in frames; a shorter video is one window.
        step: frames from one window to the next; the last window ends with the video.

    Returns:
        First frames, ascending.

    Raises:
        ValueError: the step is not between 1 and `window`.
    """
    if not 1 <= step <= window:
        raise ValueError(f"a step of {step} frames does not fit windows of {window}")
    if frames <= window:
        return [0]
    starts = list(range(0, frames - window, step))
    return [*starts, frames - window]


def join_curves(curves: list[np.ndarray], starts: list[int]) -> np.ndarray:
    """Join the curves of overlapping windows to one continuous curve.

    Where windows overlap, each is weighted by the distance of the frame from its nearest edge (cross-fade).

    Args:
        curves: one per window, [W].
        starts: first frames, from `window_starts`.

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
