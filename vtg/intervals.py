"""Windows on the time line: the only module that knows how much two of them overlap."""

from __future__ import annotations

import numpy as np

__all__ = ["interval_iou", "non_maximum_suppression"]


def interval_iou(windows: np.ndarray, others: np.ndarray) -> np.ndarray:
    """Intersection over union of each window with each other one; 0 where both are empty.

    Args:
        windows: [N, ≥ 2] start, end.
        others: [M, ≥ 2] start, end.

    Returns:
        [N, M], 0…1.
    """
    start = np.maximum(windows[:, None, 0], others[None, :, 0])
    end = np.minimum(windows[:, None, 1], others[None, :, 1])
    intersection = (end - start).clip(min=0)
    length, other_length = windows[:, 1] - windows[:, 0], others[:, 1] - others[:, 0]
    union = length[:, None] + other_length[None, :] - intersection
    return np.divide(intersection, union, out=np.zeros_like(intersection, dtype=float), where=union > 0)


def non_maximum_suppression(windows: np.ndarray, overlap: float) -> np.ndarray:
    """Keep the best of those windows that overlap.

    Args:
        windows: [N, 3] start, end, score.
        overlap: IoU from which the one with the lower score goes.

    Returns:
        [M, 3], best first.
    """
    windows = windows[np.argsort(-windows[:, 2], kind="stable")]
    kept: list[int] = []
    alive = np.ones(len(windows), bool)
    for i in range(len(windows)):
        if alive[i]:
            kept.append(i)
            alive[i + 1 :] &= interval_iou(windows[i : i + 1], windows[i + 1 :])[0] < overlap
    return windows[kept]
