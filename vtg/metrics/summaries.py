"""Metrics of video summaries against users: keyshot selection, F1, and rank correlation of scores."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from vtg.summary.knapsack import best_within

__all__ = ["SUMMARY_SHARE", "RankCorrelation", "SummaryF1", "keyshots", "rank_correlation", "summary_f1"]

Array = NDArray[np.float64]

SUMMARY_SHARE = 0.15  # of the video, at most: the budget of TVSum's and SumMe's summaries


@dataclass(frozen=True)
class SummaryF1:
    """F1 of a summary against several users' summaries, 0…1: the mean over users (TVSum) and the best user (SumMe)."""

    mean: float
    maximum: float


@dataclass(frozen=True)
class RankCorrelation:
    """Agreement of predicted with users' scores, -1…1, mean over users: Kendall's τ (b) and Spearman's ρ."""

    kendall: float
    spearman: float


def keyshots(scores: Array, edges: NDArray[np.integer], share: float = SUMMARY_SHARE) -> NDArray[np.bool_]:
    """Select a summary from frame scores by the standard method (Zhang et al., ECCV 2016).

    The value of a shot is the mean of its frames' scores; the shots with the highest total value within the budget are
    selected (exact 0/1 knapsack).

    Args:
        scores: [frames] importance, any scale; shifted so that negative values become 0 or more.
        edges: [S + 1] first frames of the shots, and the number of frames.
        share: the budget as a share of the frames.

    Returns:
        [frames] whether the frame is in the summary.
    """
    scores = np.asarray(scores, dtype=float)
    lifted = scores - min(0.0, float(scores.min()))
    lengths = np.diff(edges)
    shot_scores = np.add.reduceat(lifted, edges[:-1]) / lengths
    chosen = np.zeros(len(lengths), dtype=bool)
    chosen[best_within(shot_scores, lengths, int(share * len(scores)))] = True
    return np.repeat(chosen, lengths)


def summary_f1(chosen: NDArray[np.bool_], users: NDArray[np.bool_]) -> SummaryF1:
    """F1 of a summary against each user's summary of the same video.

    Args:
        chosen: [frames] whether the frame (or clip, or second) is in the summary.
        users: [users, frames] the same for each user.

    Returns:
        Mean and maximum over users; a user who shares no frame with the summary counts 0.

    Raises:
        ValueError: shapes that do not match, or no user.
    """
    chosen, users = np.asarray(chosen, dtype=bool), np.asarray(users, dtype=bool)
    _check_shapes(chosen, users)
    shared = (users & chosen).sum(axis=1)
    sizes = users.sum(axis=1) + chosen.sum()
    scores = 2.0 * shared / np.maximum(sizes, 1)
    return SummaryF1(mean=float(scores.mean()), maximum=float(scores.max()))


def rank_correlation(predicted: Array, users: Array) -> RankCorrelation:
    """Kendall's τ and Spearman's ρ between predicted and each user's scores, mean over users (Otani et al., CVPR 2019).

    Args:
        predicted: [frames] importance, any scale.
        users: [users, frames] each user's importance.

    Raises:
        ValueError: shapes that do not match, no user, or scores that are all equal, which have no ranks.
    """
    from scipy.stats import kendalltau, spearmanr

    predicted, users = np.asarray(predicted, dtype=float), np.asarray(users, dtype=float)
    _check_shapes(predicted, users)
    if np.ptp(predicted) == 0:
        raise ValueError("the predicted scores are all equal: there is nothing to correlate")
    constant = np.flatnonzero(np.ptp(users, axis=1) == 0)
    if constant.size:
        raise ValueError(f"the scores of user {constant[0] + 1} are all equal: there is nothing to correlate")
    return RankCorrelation(
        kendall=float(np.mean([kendalltau(predicted, user).statistic for user in users])),
        spearman=float(np.mean([spearmanr(predicted, user).statistic for user in users])),
    )


def _check_shapes(video: NDArray[np.generic], users: NDArray[np.generic]) -> None:
    if video.ndim != 1 or users.ndim != 2 or users.shape[1] != len(video) or not users.size:
        raise ValueError(f"[frames] and [users, frames] do not fit: {list(video.shape)} and {list(users.shape)}")
