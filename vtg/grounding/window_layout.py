"""Divide long videos into overlapping windows, and join the curves of these."""

from __future__ import annotations

import numpy as np

__all__ = ["WHOLE_FRAMES", "central_window", "join_curves", "whole_frames", "window_frames", "window_starts"]

WHOLE_FRAMES = 1024  # the longest sequence of the published method, whose heads are trained on whole videos


def window_frames(window_seconds: float, step_seconds: float, fps: float) -> tuple[int, int]:
    """How many frames a window has, and how many it is from one to the next: at least one, at most a window."""
    length, step = (max(1, round(seconds * fps)) for seconds in (window_seconds, step_seconds))
    return length, min(step, length)


def whole_frames(frames: int, window: int, step: int) -> tuple[int, int]:
    """How a video is cut where it is asked as the published evaluation does: not at all up to `WHOLE_FRAMES`.

    Args:
        frames: T, of the video.
        window: frames in a window of a longer video, from `window_frames`; cut to `WHOLE_FRAMES`.
        step: frames from one window to the next; shortened as the window is.

    Returns:
        Frames in a window, and frames from one to the next.
    """
    if frames <= WHOLE_FRAMES:
        return frames, frames
    if window <= WHOLE_FRAMES:
        return window, step
    return WHOLE_FRAMES, max(1, round(step * WHOLE_FRAMES / window))


def window_starts(frames: int, window: int, step: int) -> list[int]:
    """Where each window begins, so that all frames are seen and all windows are equally long.

    Args:
        frames: T, of the video.
        window: frames in a window; a video that is not longer is one window.
        step: frames from one window to the next; the last one lies where it ends with the video.

    Returns:
        First frames, ascending.

    Raises:
        ValueError: a step that is not between 1 and the window.
    """
    if not 1 <= step <= window:
        raise ValueError(f"a step of {step} frames does not fit windows of {window}")
    if frames <= window:
        return [0]
    starts = list(range(0, frames - window, step))
    return [*starts, frames - window]


def join_curves(curves: list[np.ndarray], starts: list[int]) -> np.ndarray:
    """One continuous curve from the curves of overlapping windows.

    Where windows overlap, each counts the more the farther a frame lies from its edge, so that the weight of a window
    fades in and out and no seam is left.

    Args:
        curves: one a window, [W].
        starts: where each begins, from `window_starts`.

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
    """Which window sees a frame nearest to its middle: an index into `starts`."""
    return min(range(len(starts)), key=lambda i: abs(starts[i] + (window - 1) / 2 - frame))
