"""Post-processing against the reference's cases, and its rules one by one."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from vtg.r2.postprocess import postprocess_windows
from vtg.timespans import suppress

CASES = json.loads((Path(__file__).parent / "data" / "r2" / "postprocess.json").read_text())


@pytest.mark.parametrize("case", CASES, ids=[f"{case['nms']}-{case['unit']}" for case in CASES])
def test_reference_cases(case):
    nms = case["nms"] or {}
    found = postprocess_windows(
        np.array(case["windows"], dtype=np.float32),
        case["duration"],
        unit=case["unit"],
        nms=nms.get("type"),
        threshold=nms.get("thres", 0.7),
        sigma=nms.get("sigma", 0.5),
    )
    expected = np.array(case["expected"], dtype=np.float32)
    alive = expected[:, 2] > 0
    assert len(found) == len(expected) and alive.any()
    np.testing.assert_allclose(found[alive], expected[alive], atol=1e-4)
    assert not found[~alive, 2].any()

    def in_order(windows):
        return windows[np.lexsort(windows.T)]

    np.testing.assert_allclose(in_order(found[~alive]), in_order(expected[~alive]), atol=1e-4)


def test_times_are_clipped_to_the_video():
    windows = np.array([[-3, 5, 0.9], [90, 130, 0.8]], dtype=np.float32)
    assert postprocess_windows(windows, 100).tolist() == [[0, 5, windows[0, 2]], [90, 100, windows[1, 2]]]


def test_times_are_rounded_half_to_even_unless_the_window_ended_beyond_the_video():
    windows = np.array([[1, 7.2, 0.9], [3, 5, 0.8], [2.9, 12, 0.7]], dtype=np.float32)
    assert postprocess_windows(windows, 11, unit=2)[:, :2].tolist() == [[0, 8], [4, 4], [pytest.approx(2.9), 11]]


def test_input_is_left_alone():
    windows = np.array([[-3, 5, 0.9], [-2, 5, 0.8]], dtype=np.float32)
    before = windows.copy()
    postprocess_windows(windows, 4, unit=2, nms="normal")
    assert np.array_equal(windows, before)


def test_soft_suppression_reorders_by_the_lowered_scores():
    windows = np.array([[0, 10, 0.9], [0, 8, 0.8], [20, 30, 0.5]], dtype=np.float32)
    linear = suppress(windows, "linear")
    assert linear[:, 0].tolist() == [0, 20, 0]
    assert linear[:, 2] == pytest.approx([0.9, 0.5, 0.8 * 0.2])
    gaussian = suppress(windows, "gaussian", sigma=0.5)
    assert gaussian[:, 2] == pytest.approx([0.9, 0.5, 0.8 * np.exp(-(0.8**2) / 0.5)])


def test_empty_windows_suppress_nothing():
    windows = np.array([[4, 4, 0.9], [4, 4, 0.8]], dtype=np.float32)
    assert suppress(windows, "normal")[:, 2] == pytest.approx([0.9, 0.8])


def test_no_windows_stay_none():
    assert postprocess_windows(np.zeros((0, 3), dtype=np.float32), 10, unit=2, nms="normal").shape == (0, 3)


def test_unknown_suppression_is_an_error():
    with pytest.raises(ValueError, match="median"):
        suppress(np.zeros((2, 3), dtype=np.float32), "median")


def test_repeats_found_all_at_once_are_those_found_one_after_the_other(monkeypatch):
    rng = np.random.default_rng(0)
    start = rng.uniform(0, 50, 60)
    windows = np.stack((start, start + rng.uniform(1, 30, 60), np.sort(rng.uniform(0, 1, 60))[::-1]), axis=1)
    at_once = suppress(windows, "normal", threshold=0.5)
    monkeypatch.setattr("vtg.timespans.MAX_WINDOWS_AT_ONCE", 0)
    one_by_one = suppress(windows, "normal", threshold=0.5)
    kept = one_by_one[:, 2] > 0
    assert 5 < kept.sum() < 55
    np.testing.assert_array_equal(at_once[kept], one_by_one[kept])
    assert not at_once[~kept, 2].any()
    np.testing.assert_array_equal(suppress(windows, "normal", threshold=0.5, at_most=4), one_by_one[:4])
