"""Highlight detection metrics of QVHighlights: average precision and Hit@1 of saliency against three raters."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

__all__ = ["RATING_LEVELS", "HighlightFigures", "highlight_detection"]

Array = NDArray[np.float64]
Mask = NDArray[np.bool_]

RATING_LEVELS = {"Fair": 2, "Good": 3, "VeryGood": 4}  # the least rating of a positive clip

_CELLS_AT_ONCE = 2_000_000  # clips × queries × raters held in memory together; one array of them is 16 MB


@dataclass(frozen=True, eq=False)
class HighlightFigures:
    """The figures of highlight detection at one rating level, query by query.

    Attributes:
        precision: [Q, raters] average precision, 0…1.
        hit: [Q] 1.0 if the best-scored clip is positive for at least one rater, else 0.0.
    """

    precision: Array
    hit: Array

    def mean_precision(self) -> float:
        """Mean over raters and queries, 0…1."""
        return float(np.mean(self.precision))

    def hit_at_one(self) -> float:
        """Share of queries, 0…1, whose best-scored clip is positive."""
        return float(np.mean(self.hit))


def highlight_detection(predicted: Sequence[Array], ratings: Sequence[Array]) -> dict[str, HighlightFigures]:
    """Compare predicted saliency with the raters' marks, for all queries.

    As in the QVHighlights evaluation (Lei et al. 2021). For average precision a prediction longer than the video is
    truncated and a shorter one padded with zeros; for Hit@1 it is used as it is, and a best clip beyond the video is a
    miss. Equal scores are one step of the ranking; the best-scored clip is the first of equals.

    Args:
        predicted: for each of Q queries [n] saliency, any scale, at least one.
        ratings: for each query [clips, raters] marks 0…4, at least one clip, the same number of raters throughout.

    Returns:
        The figures of each of `RATING_LEVELS`.

    Raises:
        ValueError: an empty prediction or video, or unequal numbers of queries.
    """
    if len(predicted) != len(ratings) or not len(ratings):
        raise ValueError(f"{len(predicted)} predictions for {len(ratings)} queries")
    if min(map(len, predicted)) == 0 or min(map(len, ratings)) == 0:
        raise ValueError("every query needs a saliency and a video of at least one clip")
    raters = ratings[0].shape[1]
    precision = {level: np.zeros((len(ratings), raters)) for level in RATING_LEVELS}
    for block in _blocks(ratings):
        ranked, marks, is_clip = _ranked([predicted[row] for row in block], [ratings[row] for row in block])
        for level, least in RATING_LEVELS.items():
            precision[level][block] = _average_precision(ranked, (marks >= least) & is_clip[..., None], is_clip)
    best_marks = np.array([_best_mark(scores, marks) for scores, marks in zip(predicted, ratings, strict=True)])
    return {
        level: HighlightFigures(precision[level], (best_marks >= least).astype(float))
        for level, least in RATING_LEVELS.items()
    }


def _best_mark(scores: Array, marks: Array) -> float:
    """The highest mark of any rater for the best-scored clip; below every level if that clip is beyond the video."""
    best = int(np.argmax(scores))
    return float(marks[best].max()) if best < len(marks) else -1.0


def _average_precision(ranked: Array, positive: Mask, is_clip: Mask) -> Array:
    """[Q, raters] mean, over the distinct recall steps, of the interpolated precision; 0 without a positive.

    Args:
        ranked: [Q, C] scores in descending order, padding last.
        positive: [Q, C, raters] in the same order.
        is_clip: [Q, C] in the same order.
    """
    found = np.cumsum(positive, axis=1)
    places = np.arange(ranked.shape[1])
    # Clips of equal score enter the ranking together: only the last of them is a point of the curve.
    ends = np.ones_like(is_clip)
    ends[:, :-1] = ranked[:, 1:] != ranked[:, :-1]
    ends &= is_clip
    starts = np.ones_like(is_clip)
    starts[:, 1:] = ends[:, :-1]
    first = np.maximum.accumulate(np.where(starts, places, 0), axis=1)[..., None]
    before = np.take_along_axis(found, np.maximum(first - 1, 0), axis=1) * (first > 0)
    is_step = ends[..., None] & (found > before)
    precision = np.where(ends[..., None], found / (places + 1.0)[None, :, None], 0.0)
    envelope = np.maximum.accumulate(precision[:, ::-1], axis=1)[:, ::-1]
    return np.asarray((envelope * is_step).sum(axis=1) / np.maximum(is_step.sum(axis=1), 1))


def _ranked(predicted: Sequence[Array], ratings: Sequence[Array]) -> tuple[Array, Array, Mask]:
    """[Q, C] scores in descending order, padded; [Q, C, raters] their marks; [Q, C] true for valid clips."""
    lengths = np.array([len(marks) for marks in ratings])
    is_clip = np.arange(lengths.max())[None, :] < lengths[:, None]
    scores = np.full(is_clip.shape, -np.inf)
    marks = np.zeros((*is_clip.shape, ratings[0].shape[1]))
    for row, (saliency, rated) in enumerate(zip(predicted, ratings, strict=True)):
        kept = min(len(saliency), len(rated))
        scores[row, : len(rated)] = 0.0
        scores[row, :kept] = saliency[:kept]
        marks[row, : len(rated)] = rated
    # Scores are finite, so that padding stays last, in the order of is_clip.
    order = np.argsort(-scores, axis=1, kind="stable")
    return np.take_along_axis(scores, order, axis=1), np.take_along_axis(marks, order[..., None], axis=1), is_clip


def _blocks(ratings: Sequence[Array]) -> Iterator[list[int]]:
    """Blocks of rows with videos of similar length, limited by the memory of their padded marks."""
    block: list[int] = []
    for row in sorted(range(len(ratings)), key=lambda row: len(ratings[row])):
        if block and (len(block) + 1) * ratings[row].size > _CELLS_AT_ONCE:
            yield block
            block = []
        block.append(row)
    yield block
