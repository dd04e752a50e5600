"""Moment retrieval against a slow, obvious implementation of the published protocol, and its rules one by one."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from vtg.metrics import (
    LENGTH_RANGES,
    PRECISION_THRESHOLDS,
    RECALL_THRESHOLDS,
    MomentFigures,
    crossed_iou,
    moment_retrieval,
    paired_iou,
)

Windows = list[list[float]]


def slow_iou(first: list[float], second: list[float]) -> float:
    shared = max(0.0, min(first[1], second[1]) - max(first[0], second[0]))
    union = (first[1] - first[0]) + (second[1] - second[0]) - shared
    return shared / union if union else float("nan")


def slow_recall_iou(predicted: Windows, true: Windows, count: int) -> float:
    overlaps = [slow_iou(window[:2], truth) for window in predicted[:count] for truth in true]
    return max(0.0 if np.isnan(overlap) else overlap for overlap in overlaps)


def slow_precision(predicted: Windows, true: Windows, threshold: float) -> float:
    """Area under the interpolated precision-recall curve of the first ten windows, each true window found once."""
    ranked = sorted(predicted[:10], key=lambda window: -window[2])
    free = list(range(len(true)))
    curve = []
    found = 0
    for place, window in enumerate(ranked, start=1):
        overlaps = [(slow_iou(window[:2], true[index]), index) for index in free]
        # 0/0 counts as a match; of equals the last true window is taken.
        overlaps = [(2.0 if np.isnan(overlap) else overlap, index) for overlap, index in overlaps]
        best = max(overlaps, default=(0.0, -1))
        if best[0] >= threshold:
            free.remove(best[1])
            found += 1
        curve.append((found / len(true), found / place))
    area, recalled = 0.0, 0.0
    for place, (recall, _) in enumerate(curve):
        area += (recall - recalled) * max(precision for _, precision in curve[place:])
        recalled = recall
    return area


def slow_figures(predicted: list[Windows], true: list[Windows]) -> dict[str, float]:
    figures: dict[str, float] = {}
    for threshold in RECALL_THRESHOLDS:
        for name, count in (("R1", 1), ("R5", 5)):
            pairs = zip(predicted, true, strict=True)
            figures[f"{name}@{threshold}"] = np.mean([slow_recall_iou(p, t, count) >= threshold for p, t in pairs])
    for threshold in PRECISION_THRESHOLDS:
        pairs = zip(predicted, true, strict=True)
        figures[f"mAP@{threshold}"] = np.mean([slow_precision(p, t, threshold) for p, t in pairs])
    figures["mIoU"] = np.mean([slow_recall_iou(p, t, 1) for p, t in zip(predicted, true, strict=True)])
    return figures


def as_figures(figures: MomentFigures) -> dict[str, float]:
    return {
        **{f"R1@{threshold}": figures.recall_at_one(threshold) for threshold in RECALL_THRESHOLDS},
        **{f"R5@{threshold}": figures.recall_at_five(threshold) for threshold in RECALL_THRESHOLDS},
        **{f"mAP@{t}": p for t, p in zip(PRECISION_THRESHOLDS, figures.mean_precision().tolist(), strict=True)},
        "mIoU": figures.mean_iou(),
    }


def retrieval(predicted: list[Windows], true: list[Windows]) -> dict[str, MomentFigures]:
    return moment_retrieval([np.array(windows) for windows in predicted], [np.array(windows) for windows in true])


def random_queries(seed: int) -> tuple[list[Windows], list[Windows]]:
    """Windows on a coarse grid, so that ties, repeats, exact thresholds and windows without length are common."""
    generator = np.random.default_rng(seed)
    grid, length = float(generator.choice([1, 2, 5])), float(generator.choice([10, 40, 150]))

    def windows(most: int, scored: bool) -> Windows:
        count = int(generator.integers(1, most))
        ends = np.sort(np.round(generator.uniform(0, length, (count, 2)) / grid) * grid, axis=1)
        scores = np.round(generator.uniform(0, 1, (count, 1)), 1)
        return np.hstack([ends, scores] if scored else [ends]).tolist()

    count = int(generator.integers(1, 8))
    return [windows(14, True) for _ in range(count)], [windows(6, False) for _ in range(count)]


@pytest.mark.parametrize("seed", range(40))
def test_agrees_with_the_slow_implementation_over_all_windows(seed: int) -> None:
    predicted, true = random_queries(seed)
    assert as_figures(retrieval(predicted, true)["full"]) == pytest.approx(slow_figures(predicted, true), abs=1e-12)


@pytest.mark.parametrize("seed", range(40))
def test_agrees_with_the_slow_implementation_by_length(seed: int) -> None:
    predicted, true = random_queries(seed)
    figures = retrieval(predicted, true)
    for name, (shorter, longest) in LENGTH_RANGES.items():
        in_range = [[w for w in windows if shorter < w[1] - w[0] <= longest] for windows in true]
        rows = [row for row, windows in enumerate(in_range) if windows]
        assert figures[name].is_full == (not rows)
        if rows:
            expected = slow_figures([predicted[row] for row in rows], [in_range[row] for row in rows])
        else:
            expected = slow_figures(predicted, true)
        assert as_figures(figures[name]) == pytest.approx(expected, abs=1e-12)


@pytest.mark.parametrize(("length", "name"), [(10, "short"), (10.5, "middle"), (30, "middle"), (30.5, "long")])
def test_the_upper_end_of_a_length_range_belongs_to_it(length: float, name: str) -> None:
    figures = retrieval([[[0, 5, 1]]], [[[0, length]]])
    assert [key for key in LENGTH_RANGES if not figures[key].is_full] == [name]


def test_a_window_without_length_belongs_to_no_range() -> None:
    figures = retrieval([[[0, 5, 1]]], [[[3, 3]]])
    assert all(figures[name].is_full for name in LENGTH_RANGES)


def test_recall_goes_by_the_order_in_the_file_and_precision_by_score() -> None:
    figures = retrieval([[[50, 60, 0.1], [0, 10, 0.9]]], [[[0, 10]]])["full"]
    assert figures.recall_at_one(0.5) == 0
    assert figures.mean_precision()[0] == 1


def test_equal_scores_keep_their_order() -> None:
    first_wrong = retrieval([[[50, 60, 0.5], [0, 10, 0.5]]], [[[0, 10]]])["full"].mean_precision()[0]
    first_right = retrieval([[[0, 10, 0.5], [50, 60, 0.5]]], [[[0, 10]]])["full"].mean_precision()[0]
    assert (first_wrong, first_right) == (0.5, 1.0)


def test_a_repeated_window_finds_its_truth_once() -> None:
    figures = retrieval([[[0, 10, 0.9], [0, 10, 0.8], [20, 30, 0.7]]], [[[0, 10], [20, 30]]])["full"]
    assert figures.mean_precision()[0] == pytest.approx(0.5 * 1 + 0.5 * 2 / 3)


def test_only_the_first_ten_windows_count_for_precision() -> None:
    misses = [[50 + place, 51 + place, 0.1] for place in range(10)]
    assert retrieval([[*misses, [0, 10, 1.0]]], [[[0, 10]]])["full"].mean_precision()[0] == 0


def test_windows_without_length_at_the_same_time_miss_recall_and_match_precision() -> None:
    figures = retrieval([[[5, 5, 1.0]]], [[[5, 5]]])["full"]
    assert (figures.mean_iou(), figures.recall_at_five(0.3), figures.mean_precision()[0]) == (0, 0, 1)


def test_an_overlap_of_exactly_the_threshold_counts() -> None:
    assert retrieval([[[0, 10, 1.0]]], [[[0, 20]]])["full"].recall_at_one(0.5) == 1


@pytest.mark.parametrize(
    ("predicted", "true"), [([], []), ([[[0, 1, 1]]], []), ([[]], [[[0, 1]]]), ([[[0, 1, 1]]], [[]])]
)
def test_a_query_without_windows_is_refused(predicted: Any, true: Any) -> None:
    with pytest.raises(ValueError, match=r"window|queries"):
        retrieval(predicted, true)


def test_both_forms_of_the_overlap_agree_where_windows_overlap() -> None:
    generator = np.random.default_rng(0)
    first, second = (np.sort(generator.uniform(0, 20, (50, 2)), axis=1) for _ in range(2))
    crossed = crossed_iou(first, second)
    paired = paired_iou(first[:, None], second[None])
    np.testing.assert_allclose(crossed, paired, atol=1e-12)


times = st.tuples(st.integers(0, 60), st.integers(1, 60)).map(lambda pair: [pair[0], pair[0] + pair[1]])
scored = st.tuples(times, st.sampled_from([0.1, 0.5, 0.9])).map(lambda pair: [*pair[0], pair[1]])
queries = st.lists(
    st.tuples(st.lists(scored, min_size=1, max_size=8), st.lists(times, min_size=1, max_size=4)), min_size=1, max_size=6
)


@settings(max_examples=60, deadline=None)
@given(queries, st.randoms(use_true_random=False))
def test_the_order_of_the_queries_does_not_matter(pairs: list[tuple[Windows, Windows]], random: Any) -> None:
    shuffled = list(pairs)
    random.shuffle(shuffled)
    one = retrieval(*map(list, zip(*pairs, strict=True)))
    other = retrieval(*map(list, zip(*shuffled, strict=True)))
    for name in one:
        assert as_figures(one[name]) == pytest.approx(as_figures(other[name]), abs=1e-12)


@settings(max_examples=60, deadline=None)
@given(queries)
def test_figures_do_not_rise_with_the_threshold(pairs: list[tuple[Windows, Windows]]) -> None:
    for figures in retrieval(*map(list, zip(*pairs, strict=True))).values():
        recall = [figures.recall_at_one(threshold) for threshold in RECALL_THRESHOLDS]
        recall_five = [figures.recall_at_five(threshold) for threshold in RECALL_THRESHOLDS]
        assert recall == sorted(recall, reverse=True)
        assert recall_five == sorted(recall_five, reverse=True)
        assert all(five >= one for one, five in zip(recall, recall_five, strict=True))


@settings(max_examples=60, deadline=None)
@given(st.lists(st.lists(times, min_size=1, max_size=5, unique_by=tuple), min_size=1, max_size=6))
def test_perfect_predictions_are_perfect(true: list[Windows]) -> None:
    predicted = [[[*window, 1.0] for window in windows] for windows in true]
    assert set(as_figures(retrieval(predicted, true)["full"]).values()) == {1.0}


@settings(max_examples=60, deadline=None)
@given(queries)
def test_every_figure_is_a_share(pairs: list[tuple[Windows, Windows]]) -> None:
    for figures in retrieval(*map(list, zip(*pairs, strict=True))).values():
        assert all(0 <= value <= 1 for value in as_figures(figures).values())
