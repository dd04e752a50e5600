"""F1 and rank correlation of summaries, on cases that can be counted by hand."""

from __future__ import annotations

import numpy as np
import pytest

from vtg.metrics import rank_correlation, summary_f1


def test_f1_is_the_harmonic_mean_of_precision_and_recall() -> None:
    chosen = np.array([1, 1, 1, 0, 0, 0], dtype=bool)
    users = np.array([[1, 1, 0, 0, 0, 0], [0, 0, 0, 1, 1, 1], [1, 1, 1, 0, 0, 0]], dtype=bool)
    # Precision 2/3 and recall 1; nothing shared; the same.
    assert summary_f1(chosen, users).mean == pytest.approx((0.8 + 0.0 + 1.0) / 3)
    assert summary_f1(chosen, users).maximum == 1.0


def test_an_empty_summary_shares_nothing() -> None:
    assert summary_f1(np.zeros(4, dtype=bool), np.zeros((2, 4), dtype=bool)).maximum == 0


def test_the_same_ranking_correlates_fully_and_the_reverse_inversely() -> None:
    scores = np.array([0.1, 0.5, 0.2, 0.9])
    same = rank_correlation(scores, np.stack([scores, 3 * scores]))
    assert (same.kendall, same.spearman) == pytest.approx((1, 1))
    reverse = rank_correlation(scores, -scores[None])
    assert (reverse.kendall, reverse.spearman) == pytest.approx((-1, -1))


def test_correlation_is_the_mean_over_users() -> None:
    scores = np.array([1.0, 2.0, 3.0, 4.0])
    users = np.array([[1.0, 2, 3, 4], [1, 2, 4, 3]])
    # One of six pairs is discordant; squared rank differences of 2 in 4·15.
    assert rank_correlation(scores, users).kendall == pytest.approx((1 + 4 / 6) / 2)
    assert rank_correlation(scores, users).spearman == pytest.approx((1 + (1 - 6 * 2 / 60)) / 2)


def test_scores_without_ranks_are_refused() -> None:
    with pytest.raises(ValueError, match="predicted scores are all equal"):
        rank_correlation(np.ones(3), np.arange(3.0)[None])
    with pytest.raises(ValueError, match="user 2"):
        rank_correlation(np.arange(3.0), np.array([[1.0, 2, 3], [1, 1, 1]]))


@pytest.mark.parametrize("users", [np.zeros((2, 5)), np.zeros(4), np.zeros((0, 4))])
def test_shapes_that_do_not_fit_are_refused(users: np.ndarray) -> None:
    with pytest.raises(ValueError, match="do not fit"):
        summary_f1(np.zeros(4, dtype=bool), users.astype(bool))
