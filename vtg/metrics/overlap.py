"""Intersection over union of windows, in the two forms of the published evaluators."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

__all__ = ["crossed_iou", "paired_iou"]

Array = NDArray[np.float64]


def paired_iou(first: Array, second: Array) -> Array:
    """IoU of pairs of windows.

    The union is the span from the earlier start to the later end, as in the published evaluators: identical for windows
    that overlap, and irrelevant for others (IoU 0). Recall and mean IoU use this form.

    Args:
        first: [..., 2] start and end, in seconds.
        second: [..., 2], broadcast against `first`.

    Returns:
        [...] in 0…1; 0 for two zero-length windows at the same time.
    """
    intersection = np.maximum(
        0.0, np.minimum(first[..., 1], second[..., 1]) - np.maximum(first[..., 0], second[..., 0])
    )
    span = np.maximum(first[..., 1], second[..., 1]) - np.minimum(first[..., 0], second[..., 0])
    return np.divide(intersection, span, out=np.zeros_like(intersection), where=span != 0)


def crossed_iou(predicted: Array, true: Array) -> Array:
    """IoU of every predicted with every true window of the same query.

    The union is the sum of both lengths less the intersection. Average precision, and the choice of the best-matching
    window, use this form; it may differ from `paired_iou` in the last bit, which matters at thresholds
    that are met exactly.

    Args:
        predicted: [..., N, 2] start and end, in seconds.
        true: [..., M, 2].

    Returns:
        [..., N, M] in 0…1; NaN for two zero-length windows at the same time (0/0).
    """
    predicted_length = predicted[..., 1] - predicted[..., 0]
    true_length = true[..., 1] - true[..., 0]
    left = np.maximum(predicted[..., :, None, 0], true[..., None, :, 0])
    right = np.minimum(predicted[..., :, None, 1], true[..., None, :, 1])
    intersection = np.maximum(right - left, 0.0)
    union = predicted_length[..., :, None] + true_length[..., None, :] - intersection
    with np.errstate(invalid="ignore", divide="ignore"):
        return np.asarray(intersection / union)
