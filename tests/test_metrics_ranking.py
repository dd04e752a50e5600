"""The average precision of TVSum and YouTube Highlights, and the order of equal scores that it depends on."""

from __future__ import annotations

import numpy as np
import pytest

from vtg.metrics import tvsum_precision, youtube_precision
from vtg.metrics.order import falling_order


def slow_precision(positive: list[bool]) -> float:
    """Trapezoids under precision over recall, walking down the ranking."""
    total = sum(positive)
    area, recall, precision, found = 0.0, 0.0, 1.0, 0
    for place, is_positive in enumerate(positive, start=1):
        found += is_positive
        if total:
            area += (found / total - recall) * (precision + found / place) / 2
            recall = found / total
        precision = found / place
    return area


@pytest.mark.parametrize("seed", range(20))
def test_youtube_agrees_with_the_slow_implementation(seed: int) -> None:
    generator = np.random.default_rng(seed)
    match = generator.integers(-1, 2, 25).astype(float)
    saliency = generator.permutation(25).astype(float)
    ranked = sorted(range(25), key=lambda clip: -saliency[clip])
    assert youtube_precision(saliency, match) == pytest.approx(slow_precision([match[clip] > 0 for clip in ranked]))


@pytest.mark.parametrize("clips", [6, 7, 30])
def test_tvsum_agrees_with_the_slow_implementation(clips: int) -> None:
    generator = np.random.default_rng(clips)
    ratings = generator.integers(1, 6, (clips, 20)).astype(float)
    saliency = generator.permutation(clips).astype(float)
    ranked = sorted(range(clips), key=lambda clip: -saliency[clip])[:5]
    expected = []
    for rater in range(20):
        median = sorted(ratings[:, rater])[(clips - 1) // 2]
        expected.append(slow_precision([ratings[clip, rater] > median for clip in ranked]))
    np.testing.assert_allclose(tvsum_precision(saliency, ratings), expected)


def test_tvsum_counts_recall_within_the_five_best() -> None:
    ratings = np.array([[5.0]] * 4 + [[1.0]] * 6)
    saliency = np.array([9.0, 0, 0, 0, 8, 7, 6, 5, -1, -2])
    assert tvsum_precision(saliency, ratings)[0] == 1.0


def test_a_rater_without_a_positive_among_the_five_counts_zero() -> None:
    ratings = np.array([[1.0]] * 5 + [[5.0]])
    assert tvsum_precision(np.arange(6.0)[::-1], ratings)[0] == 0


def test_a_video_without_a_match_counts_zero() -> None:
    assert youtube_precision(np.array([1.0, 2.0]), np.array([-1.0, 0.0])) == 0


@pytest.mark.parametrize("count", [0, 3])
def test_predictions_that_do_not_fit_the_video_are_refused(count: int) -> None:
    with pytest.raises(ValueError, match="2 clips"):
        youtube_precision(np.zeros(count), np.zeros(2))


@pytest.mark.parametrize("count", [1, 5, 16, 17, 50, 300])
def test_the_order_falls_and_is_a_permutation(count: int) -> None:
    scores = np.random.default_rng(count).integers(0, 4, count).astype(np.float32)
    order = falling_order(scores)
    assert sorted(order.tolist()) == list(range(count))
    assert (np.diff(scores[order]) <= 0).all()


def test_equal_scores_keep_their_order_in_short_videos() -> None:
    assert falling_order(np.zeros(16)).tolist() == list(range(16))


def test_scores_that_are_one_in_single_precision_are_equal() -> None:
    assert falling_order(np.array([0.1, 0.1 + 1e-12])).tolist() == [0, 1]


def test_hostile_scores_are_ordered_in_time() -> None:
    # A median-of-three killer: rising and falling halves interleaved.
    scores = np.concatenate([np.arange(0, 4000, 2), np.arange(1, 4000, 2), np.zeros(2)]).astype(np.float32)
    assert (np.diff(scores[falling_order(scores)]) <= 0).all()


@pytest.mark.parametrize("count", [17, 31, 64, 117, 200, 413])
@pytest.mark.parametrize("distinct", [1, 2, 7, 40])
def test_equal_scores_come_as_the_reference_sort_leaves_them(count: int, distinct: int) -> None:
    torch = pytest.importorskip("torch")
    generator = np.random.default_rng(count + distinct)
    scores = generator.integers(0, distinct, count).astype(np.float32)
    probe = torch.argsort(torch.zeros(17), descending=True).tolist()
    if probe != falling_order(np.zeros(17)).tolist():
        pytest.skip("this build of torch sorts in another way")
    expected = torch.argsort(torch.from_numpy(scores), descending=True).numpy()
    np.testing.assert_array_equal(falling_order(scores), expected)
