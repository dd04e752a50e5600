"""Moment retrieval metrics of QVHighlights: recall, mean IoU and average precision, also by length of the windows."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from vtg.metrics.overlap import crossed_iou, paired_iou

__all__ = ["LENGTH_RANGES", "PRECISION_THRESHOLDS", "RECALL_THRESHOLDS", "MomentFigures", "moment_retrieval"]

Array = NDArray[np.float64]
Mask = NDArray[np.bool_]

RECALL_THRESHOLDS = tuple(round(0.30 + 0.05 * step, 2) for step in range(14))  # 0.3 … 0.95
PRECISION_THRESHOLDS = tuple(round(0.50 + 0.05 * step, 2) for step in range(10))  # 0.5 … 0.95
LENGTH_RANGES = {"short": (0.0, 10.0), "middle": (10.0, 30.0), "long": (30.0, np.inf)}  # in seconds: longer than, up to

_WINDOWS_FOR_PRECISION = 10
_WINDOWS_FOR_RECALL = 5


@dataclass(frozen=True, eq=False)
class MomentFigures:
    """The figures of moment retrieval, query by query, over the queries of one length range.

    Attributes:
        counted: [Q] whether the query has a true window in the range; only these are averaged.
        top_iou: [Q] IoU of the first predicted window with the true window that matches it best.
        five_iou: [Q] the best IoU among the first five predicted windows.
        precision: [Q, 10] average precision at each of `PRECISION_THRESHOLDS`.
        is_full: whether no query has a window in the range, so that these are the figures over all windows.
    """

    counted: Mask
    top_iou: Array
    five_iou: Array
    precision: Array
    is_full: bool = False

    def recall_at_one(self, threshold: float) -> float:
        """Share of queries, 0…1, whose first window has at least this IoU."""
        return float(np.mean(self.top_iou[self.counted] >= threshold))

    def recall_at_five(self, threshold: float) -> float:
        """Share of queries, 0…1, with a window of at least this IoU among the first five."""
        return float(np.mean(self.five_iou[self.counted] >= threshold))

    def mean_iou(self) -> float:
        """Mean IoU of the first window, 0…1."""
        return float(np.mean(self.top_iou[self.counted]))

    def mean_precision(self) -> Array:
        """Mean average precision, 0…1, at each of `PRECISION_THRESHOLDS`: [10]."""
        return np.asarray(self.precision[self.counted].mean(axis=0))


def moment_retrieval(predicted: Sequence[Array], true: Sequence[Array]) -> dict[str, MomentFigures]:
    """Compare predicted with true windows, for all queries.

    As in the QVHighlights evaluation (Lei et al. 2021; R²-Tuning uses it for all four moment data sets): "first",
    "first five" and the ten windows of average precision go by the order of the predictions; only average precision
    then sorts by score, ties in the given order. Within a length range only the true windows in the range count, and
    only the queries that have one.

    For an empty predicted and an empty true window at the same time, IoU is undefined (0/0): as in the published
    evaluator, they are a miss for recall and a match for average precision.

    Args:
        predicted: for each of Q queries [N, 3]: start and end in seconds, score. At least one window each.
        true: for each query [M, 2]: start and end in seconds. At least one window each.

    Returns:
        "full" and, by `LENGTH_RANGES`, "short", "middle" and "long". A range in which no query has a window holds the
        full figures.

    Raises:
        ValueError: a query without windows, or unequal numbers of queries.
    """
    if len(predicted) != len(true) or not len(true):
        raise ValueError(f"{len(predicted)} predictions for {len(true)} queries")
    if min(map(len, predicted)) == 0 or min(map(len, true)) == 0:
        raise ValueError("every query needs a predicted and a true window")
    windows, is_window = _padded([array[:_WINDOWS_FOR_PRECISION] for array in predicted], columns=3)
    truth, is_truth = _padded(true, columns=2)
    iou = crossed_iou(windows[..., :2], truth)
    lengths = truth[..., 1] - truth[..., 0]
    figures = {"full": _figures(windows, is_window, truth, is_truth, iou)}
    for name, (shorter, longest) in LENGTH_RANGES.items():
        in_range = is_truth & (lengths > shorter) & (lengths <= longest)
        if in_range.any():
            figures[name] = _figures(windows, is_window, truth, in_range, iou)
        else:
            full = figures["full"]
            figures[name] = MomentFigures(full.counted, full.top_iou, full.five_iou, full.precision, is_full=True)
    return figures


def _figures(windows: Array, is_window: Mask, truth: Array, is_truth: Mask, iou: Array) -> MomentFigures:
    valid = is_window[:, :, None] & is_truth[:, None, :]
    known = np.where(valid, np.nan_to_num(iou, nan=0.0), -1.0)
    return MomentFigures(
        counted=np.asarray(is_truth.any(axis=1)),
        top_iou=_best_match(windows[:, :1], truth, known[:, :1]),
        five_iou=_best_match(windows[:, :_WINDOWS_FOR_RECALL], truth, known[:, :_WINDOWS_FOR_RECALL]),
        precision=_average_precision(windows[..., 2], is_window, is_truth, iou),
    )


def _best_match(windows: Array, truth: Array, iou: Array) -> Array:
    """[Q] paired IoU of the two windows whose crossed IoU [Q, N, M] is the highest, the first of equals."""
    queries, _, truths = iou.shape
    best_window, best_truth = np.divmod(iou.reshape(queries, -1).argmax(axis=1), truths)
    rows = np.arange(queries)
    return paired_iou(windows[rows, best_window, :2], truth[rows, best_truth])


def _average_precision(scores: Array, is_window: Mask, is_truth: Mask, iou: Array) -> Array:
    """[Q, 10] interpolated average precision: by score, each window matches the best unmatched true one."""
    order = np.argsort(np.where(is_window, -scores, np.inf), axis=1, kind="stable")
    # 0/0 beats every threshold, as it does in the published evaluator.
    iou = np.take_along_axis(np.where(np.isnan(iou), np.inf, iou), order[:, :, None], axis=1)
    real = np.take_along_axis(is_window, order, axis=1)
    hits = _matches(iou, real, is_truth)
    found = np.cumsum(hits, axis=1)  # [Q, N, thresholds]
    # A query without a window in the range divides by 1 here and is not counted later.
    recall = found / np.maximum(is_truth.sum(axis=1), 1)[:, None, None].astype(float)
    precision = found / np.arange(1, found.shape[1] + 1)[None, :, None]
    envelope = np.maximum.accumulate(precision[:, ::-1], axis=1)[:, ::-1]
    return np.asarray((np.diff(recall, axis=1, prepend=0.0) * envelope).sum(axis=1))


def _matches(iou: Array, is_window: Mask, is_truth: Mask) -> Array:
    """[Q, N, thresholds] 1 where a window, in the order of axis N, finds a true window that no earlier one took."""
    thresholds = np.array(PRECISION_THRESHOLDS)
    queries, count, truths = iou.shape
    free = np.repeat(is_truth[:, None, :], len(thresholds), axis=1)
    hits = np.zeros((queries, count, len(thresholds)))
    rows, columns = np.indices((queries, len(thresholds)))
    for place in range(count):
        candidates = np.where(free, iou[:, place, None, :], -1.0)
        # Of equally good true windows the last one is matched (argmax on the reversed axis), as in the published
        # evaluator with numpy's scalar sort; with vectorised sorts its choice depends on the machine.
        best = truths - 1 - candidates[..., ::-1].argmax(axis=-1)
        hit = (candidates[rows, columns, best] >= thresholds) & is_window[:, place, None]
        hits[:, place] = hit
        free[rows, columns, best] &= ~hit
    return hits


def _padded(arrays: Sequence[Array], columns: int) -> tuple[Array, Mask]:
    """Stacks [n_i, ≥ columns] to [Q, max n, columns] padded with zeros, and a mask of valid rows."""
    lengths = np.array([len(array) for array in arrays])
    is_real = np.arange(lengths.max())[None, :] < lengths[:, None]
    stacked = np.zeros((*is_real.shape, columns))
    stacked[is_real] = np.concatenate([np.asarray(array, dtype=float)[:, :columns] for array in arrays])
    return stacked, is_real
