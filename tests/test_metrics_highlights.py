"""Highlight detection against a slow, obvious implementation of the published protocol, and its rules one by one."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from vtg.metrics import RATING_LEVELS, highlight_detection
from vtg.metrics import highlights as module

Array = NDArray[np.float64]


def slow_precision(scores: list[float], positive: list[bool]) -> float:
    """Mean, over the recall levels that score thresholds reach, of the best precision at this recall or more."""
    total = sum(positive)
    if not total:
        return 0.0
    points = []
    for threshold in sorted(set(scores), reverse=True):
        chosen = [is_positive for score, is_positive in zip(scores, positive, strict=True) if score >= threshold]
        points.append((sum(chosen), sum(chosen) / len(chosen)))
    levels = sorted({found for found, _ in points if found})
    return float(np.mean([max(precision for found, precision in points if found >= level) for level in levels]))


def slow_figures(predicted: list[Array], ratings: list[Array], least: int) -> tuple[float, float]:
    precisions, hits = [], []
    for scores, marks in zip(predicted, ratings, strict=True):
        best = max(range(len(scores)), key=lambda clip: (scores[clip], -clip))
        hits.append(best < len(marks) and bool((marks[best] >= least).any()))
        fitted = [scores[clip] if clip < len(scores) else 0.0 for clip in range(len(marks))]
        precisions += [slow_precision(fitted, (marks[:, rater] >= least).tolist()) for rater in range(marks.shape[1])]
    return float(np.mean(precisions)), float(np.mean(hits))


def random_queries(seed: int) -> tuple[list[Array], list[Array]]:
    """Few distinct scores, predictions longer and shorter than the video, videos without and of only positive clips."""
    generator = np.random.default_rng(seed)
    predicted, ratings = [], []
    for _ in range(int(generator.integers(1, 8))):
        clips = int(generator.integers(1, 30))
        marks = generator.integers(0, 5, (clips, 3)).astype(float)
        if generator.random() < 0.2:
            marks[:] = generator.integers(0, 5)
        length = max(1, clips + int(generator.integers(-4, 5)))
        predicted.append(np.round(generator.normal(size=length), int(generator.integers(0, 3))))
        ratings.append(marks)
    return predicted, ratings


@pytest.mark.parametrize("seed", range(60))
def test_agrees_with_the_slow_implementation(seed: int) -> None:
    predicted, ratings = random_queries(seed)
    figures = highlight_detection(predicted, ratings)
    for level, least in RATING_LEVELS.items():
        got = figures[level].mean_precision(), figures[level].hit_at_one()
        assert got == pytest.approx(slow_figures(predicted, ratings, least), abs=1e-12)


def test_blocks_change_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    predicted, ratings = random_queries(3)
    whole = highlight_detection(predicted, ratings)["Fair"].precision
    monkeypatch.setattr(module, "_CELLS_AT_ONCE", 1)
    np.testing.assert_array_equal(highlight_detection(predicted, ratings)["Fair"].precision, whole)


def test_a_clip_is_positive_from_the_level_on() -> None:
    ratings = [np.array([[3.0, 0, 0], [0, 0, 0]])]
    figures = highlight_detection([np.array([1.0, 0.0])], ratings)
    assert [figures[level].hit_at_one() for level in ("Fair", "Good", "VeryGood")] == [1, 1, 0]


def test_hit_needs_only_one_rater() -> None:
    assert (
        highlight_detection([np.array([0.0, 1.0])], [np.array([[4.0, 4, 4], [0, 0, 4]])])["VeryGood"].hit_at_one() == 1
    )


def test_of_equal_scores_the_first_is_the_best_clip() -> None:
    ratings = [np.array([[0.0, 0, 0], [4, 4, 4]])]
    assert highlight_detection([np.array([1.0, 1.0])], ratings)["Fair"].hit_at_one() == 0


def test_a_best_clip_beyond_the_video_is_a_miss_but_does_not_touch_precision() -> None:
    figures = highlight_detection([np.array([1.0, 0.0, 9.0])], [np.array([[4.0, 4, 4], [0, 0, 0]])])["Fair"]
    assert (figures.hit_at_one(), figures.mean_precision()) == (0, 1)


def test_a_short_prediction_is_filled_with_zeros_which_outrank_negative_scores() -> None:
    ratings = [np.array([[4.0, 4, 4], [0, 0, 0]])]
    assert highlight_detection([np.array([-1.0])], ratings)["Fair"].mean_precision() == 0.5


def test_a_video_without_a_positive_clip_counts_zero() -> None:
    assert highlight_detection([np.array([1.0])], [np.zeros((1, 3))])["Fair"].mean_precision() == 0


def test_an_empty_prediction_is_refused() -> None:
    with pytest.raises(ValueError, match="saliency"):
        highlight_detection([np.array([])], [np.zeros((1, 3))])


@settings(max_examples=60, deadline=None)
@given(st.lists(st.integers(0, 4), min_size=1, max_size=40))
def test_saliency_that_orders_clips_as_a_rater_does_is_perfect(marks: list[int]) -> None:
    ratings = np.repeat(np.array(marks, dtype=float)[:, None], 3, axis=1)
    for level, least in RATING_LEVELS.items():
        figures = highlight_detection([ratings[:, 0]], [ratings])[level]
        expected = 1.0 if max(marks) >= least else 0.0
        assert (figures.mean_precision(), figures.hit_at_one()) == (expected, expected)


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 10_000))
def test_the_order_of_the_queries_does_not_matter(seed: int) -> None:
    predicted, ratings = random_queries(seed)
    order = np.random.default_rng(seed + 1).permutation(len(ratings))
    one = highlight_detection(predicted, ratings)
    other = highlight_detection([predicted[row] for row in order], [ratings[row] for row in order])
    for level in RATING_LEVELS:
        assert one[level].mean_precision() == pytest.approx(other[level].mean_precision(), abs=1e-12)
        assert one[level].hit_at_one() == pytest.approx(other[level].hit_at_one(), abs=1e-12)
