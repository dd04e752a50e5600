"""Video summaries against users: F1 of the chosen frames, and rank correlation of the scores they were chosen by."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

__all__ = ["RankCorrelation", "SummaryF1", "rank_correlation", "summary_f1"]

Array = NDArray[np.float64]


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


def summary_f1(chosen: NDArray[np.bool_], users: NDArray[np.bool_]) -> SummaryF1:
    """F1 of a summary against each user's summary of the same video.

    Args:
        chosen: [frames] whether the frame (or clip, or second) is in the summary.
        users: [users, frames] the same for each user.

    Returns:
        Mean and maximum over users; a user who shares no frame with the summary counts 0.

    Raises:
        ValueError: shapes that do not fit each other, or no user.
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
        ValueError: shapes that do not fit each other, no user, or scores that are all equal, which have no ranks.
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
