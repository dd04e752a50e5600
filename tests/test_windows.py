"""Long videos: every frame is seen, windows are alike, and their curves join without a seam."""

from __future__ import annotations

import itertools

import numpy as np
import pytest

from vtg.grounding.window_layout import WindowGrid, central_window, join_curves


@pytest.mark.parametrize("frames", [1, 74, 75, 76, 124, 125, 126, 200, 1000])
def test_all_frames_are_seen_by_windows_of_one_length(frames: int) -> None:
    starts = WindowGrid(length=75, step=50).starts(frames)
    seen = np.zeros(frames, bool)
    for start in starts:
        seen[start : start + 75] = True
        assert start + min(75, frames) <= frames
    assert seen.all()
    assert starts[0] == 0
    assert all(0 < later - start <= 50 for start, later in itertools.pairwise(starts))


def test_a_step_that_leaves_gaps_is_refused() -> None:
    with pytest.raises(ValueError, match="step"):
        WindowGrid(length=10, step=11)
    with pytest.raises(ValueError, match="step"):
        WindowGrid(length=10, step=0)


def test_one_window_keeps_its_curve() -> None:
    curve = np.random.default_rng(0).normal(size=40).astype(np.float32)
    np.testing.assert_array_equal(join_curves([curve], [0]), curve)


def test_windows_that_agree_join_to_what_they_are_parts_of() -> None:
    curve = np.random.default_rng(0).normal(size=210).astype(np.float32)
    starts = WindowGrid(75, 50).starts(210)
    np.testing.assert_allclose(join_curves([curve[s : s + 75] for s in starts], starts), curve, atol=1e-6)


def test_windows_that_disagree_join_without_a_seam() -> None:
    starts = WindowGrid(75, 50).starts(210)
    joined = join_curves([np.full(75, float(i % 2)) for i in range(len(starts))], starts)
    assert joined.min() == 0.0
    assert joined.max() == 1.0
    # 25 frames overlap: from one level to the other it goes in that many steps.
    assert np.abs(np.diff(joined)).max() < 1.5 / 25


def test_the_central_window_has_a_frame_nearest_its_middle() -> None:
    starts = WindowGrid(75, 50).starts(210)  # 0, 50, 100, 135
    assert [central_window(frame, starts, 75) for frame in (0, 60, 70, 112, 209)] == [0, 0, 1, 1, 3]
