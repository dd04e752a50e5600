"""Average precision of ranked clips for TVSum and YouTube Highlights."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from vtg.metrics.order import falling_order

__all__ = ["TVSUM_CLIPS", "tvsum_precision", "youtube_precision"]

Array = NDArray[np.float64]

TVSUM_CLIPS = 5  # number of best-scored clips that are evaluated


def tvsum_precision(saliency: Array, ratings: Array) -> Array:
    """Average precision of a TVSum video's five best-scored clips, for each rater.

    A clip is positive for a rater if it is rated above that rater's median (the lower one of an even number of clips)
    over the whole video. Recall counts against the positives within the five, precision is interpolated by trapezoids.

    Args:
        saliency: [n] predicted, any scale, n ≤ clips; clips without a prediction are not ranked.
        ratings: [clips, raters].

    Returns:
        [raters] in 0…1; 0 for a rater without a positive among the five.

    Raises:
        ValueError: no prediction, or more predictions than clips.
    """
    _check_length(saliency, len(ratings))
    median = np.sort(ratings, axis=0)[(len(ratings) - 1) // 2]
    return _trapezoid_precision((ratings > median)[falling_order(saliency)][:TVSUM_CLIPS])


def youtube_precision(saliency: Array, match: Array) -> float:
    """Average precision of a YouTube Highlights video over all of its ranked clips, by trapezoids.

    Args:
        saliency: [n] predicted, any scale, n ≤ clips; clips without a prediction are not ranked.
        match: [clips] annotated match, -1, 0 or 1; above 0 is positive.

    Returns:
        In 0…1; 0 without a positive.

    Raises:
        ValueError: no prediction, or more predictions than clips.
    """
    _check_length(saliency, len(match))
    return float(_trapezoid_precision((match > 0)[falling_order(saliency)][:, None])[0])


def _check_length(saliency: Array, clips: int) -> None:
    if not 0 < len(saliency) <= clips:
        raise ValueError(f"{len(saliency)} scores for {clips} clips")


def _trapezoid_precision(positive: NDArray[np.bool_]) -> Array:
    """[raters] area under precision over recall of [ranked clips, raters], recall against the positives among these."""
    found = np.cumsum(positive, axis=0)
    total = np.maximum(found[-1], 1)
    recall = found / total
    precision = found / np.arange(1, len(found) + 1)[:, None]
    earlier = np.concatenate([np.ones((1, precision.shape[1])), precision[:-1]])
    return np.asarray((np.diff(recall, axis=0, prepend=0.0) * (earlier + precision) / 2).sum(axis=0))
