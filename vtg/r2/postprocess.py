"""From a head's raw windows to moments: clipping, rounding to the data set's unit, suppression of repeats."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

__all__ = ["postprocess_windows", "suppress"]

FEW = 100  # windows, up to which the overlaps of all pairs are quicker than one row of them after the other

Windows = npt.NDArray[np.float32]


def suppress(
    windows: Windows, kind: str, threshold: float = 0.7, sigma: float = 0.5, at_most: int | None = None
) -> Windows:
    """Non-maximum suppression: each window, best first, lowers the scores of those after it by their overlap.

    Args:
        windows: [N, 3] start, end, score.
        kind: "normal" sets a score to 0 from an IoU of `threshold` on, "linear" multiplies it by 1 − IoU, "gaussian" by
            exp(−IoU²/`sigma`).
        threshold: for "normal".
        sigma: for "gaussian".
        at_most: how many are wanted; None wants all. Scores only ever fall, so that the best are known after as many
            steps: of the thousands of windows of a long video the rest needs none.

    Returns:
        [N, 3] float32, best first, N at most `at_most`. The order among windows of score 0 means nothing.

    Raises:
        ValueError: another `kind`.
    """
    if kind not in ("normal", "linear", "gaussian"):
        raise ValueError(f"unknown suppression {kind!r}")
    if kind == "normal" and len(windows) <= FEW and (np.diff(windows[:, 2]) <= 0).all():
        return _suppress_repeats(np.array(windows, dtype=np.float32), threshold)[:at_most]
    start, end, score = columns = np.array(windows, dtype=np.float32).reshape(-1, 3).T.copy()
    length = end - start
    for place in range(len(score) if at_most is None else min(at_most, len(score))):
        best = place + int(score[place:].argmax())
        if best != place:
            columns[:, [place, best]] = columns[:, [best, place]]
            length[[place, best]] = length[[best, place]]
        if score[place] <= 0:
            break  # all that are left are repeats, in no order
        rest = slice(place + 1, None)
        shared = np.minimum(end[rest], end[place]) - np.maximum(start[rest], start[place])
        np.maximum(shared, 0, out=shared)
        union = length[rest] + length[place] - shared
        overlap = np.divide(shared, union, out=np.zeros_like(shared), where=union > 0)
        if kind == "normal":
            score[rest] *= overlap < np.float32(threshold)
        elif kind == "linear":
            score[rest] *= 1 - overlap
        else:
            score[rest] *= np.exp(-(overlap**2) / np.float32(sigma))
    return np.ascontiguousarray(columns[:, np.argsort(-score, kind="stable")][:, :at_most].T)


def _suppress_repeats(windows: Windows, threshold: float) -> Windows:
    """`suppress` of the kind "normal" for few windows [N, 3] that come best first: all overlaps at once."""
    start, end = windows[:, 0], windows[:, 1]
    length = end - start
    shared = np.minimum(end[:, None], end) - np.maximum(start[:, None], start)
    np.maximum(shared, 0, out=shared)
    union = length[:, None] + length - shared
    overlap = np.divide(shared, union, out=np.zeros_like(shared), where=union > 0)
    kept, repeats = windows[:, 2] > 0, np.triu(overlap >= np.float32(threshold), 1)
    for place in range(len(windows)):
        if kept[place]:
            kept &= ~repeats[place]
    windows[~kept, 2] = 0
    return np.concatenate((windows[kept], windows[~kept]))


def postprocess_windows(
    windows: Windows,
    duration: float,
    *,
    unit: float | None = None,
    nms: str | None = None,
    threshold: float = 0.7,
    sigma: float = 0.5,
    at_most: int | None = None,
) -> Windows:
    """Clips windows to the video, rounds them to the data set's unit, and suppresses repeats, as published.

    Args:
        windows: [N, 3] start and end in seconds, score; best first.
        duration: of the video, in seconds.
        unit: seconds to round to, half to even; None leaves the times. Windows that ended beyond the video keep its
            end.
        nms: the kind of `suppress`; None leaves scores and order.
        threshold: for "normal".
        sigma: for "gaussian".
        at_most: how many are wanted; None wants all.

    Returns:
        [N, 3] float32, best first; windows that were suppressed entirely have a score of 0.

    Raises:
        ValueError: unknown `nms`.
    """
    windows = np.array(windows, dtype=np.float32).reshape(-1, 3)  # float32 like the published scores: roundings agree
    inside = windows[:, 1] < np.float32(duration)
    windows[:, :2] = windows[:, :2].clip(0, np.float32(duration))
    if unit is not None:
        windows[inside, :2] = np.round(windows[inside, :2] / np.float32(unit)) * np.float32(unit)
    return windows[:at_most] if nms is None else suppress(windows, nms, threshold, sigma, at_most)
