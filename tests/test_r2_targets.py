"""What the points of the pyramid should predict, against a loop over samples, points and windows."""

from __future__ import annotations

import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from vtg.r2.pyramid import level_points
from vtg.r2.targets import point_targets, true_windows

STRIDES = (1, 2, 4, 8)

# Quarters of seconds at powers of two: every position is exact, so a loop over scalars must agree to the last bit.
instants = st.integers(-40, 240).map(lambda quarters: quarters / 4)
sample_windows = st.lists(st.lists(st.tuples(instants, instants), max_size=4), min_size=1, max_size=3)


def mended(window, frames, fps):
    """A window in frames, by the book: clipped, turned round, widened."""
    start, end = sorted(min(max(second * fps, 0), frames) for second in window)
    if end - start < 1:
        centre = min(max((start + end) / 2, 0.5), frames - 0.5)
        start, end = centre - 0.5, centre + 0.5
    return start, end


def candidates(point, windows):
    """The (length, offset to start, offset to end) of each window that a point may stand for."""
    position, low, high, stride = point
    found = []
    for start, end in windows:
        inside = max(start, (start + end) / 2 - 1.5 * stride) <= position <= min(end, (start + end) / 2 + 1.5 * stride)
        if inside and low <= max(position - start, end - position) <= high:
            found.append((end - start, (position - start) / stride, (end - position) / stride))
    return found


@settings(max_examples=150, deadline=None)
@given(
    windows=sample_windows,
    lengths=st.lists(st.integers(1, 40), min_size=3, max_size=3),
    fps=st.sampled_from([0.5, 1.0, 2.0]),
    strides=st.sampled_from([STRIDES, STRIDES[:2], STRIDES[:1]]),
)
def test_targets_equal_a_loop_over_samples_points_and_windows(windows, lengths, fps, strides):
    frames = torch.tensor(lengths[: len(windows)])
    points = level_points(int(frames.max()), strides, like=torch.zeros(0))
    tensors = [torch.tensor(sample, dtype=torch.float32).reshape(-1, 2) for sample in windows]
    found = true_windows(tensors, frames, fps)
    targets = point_targets(points, found)
    assert targets.offsets.isfinite().all()
    for sample, annotated in enumerate(windows):
        expected = [mended(window, lengths[sample], fps) for window in annotated]
        assert [tuple(span) for span in found.spans[sample, found.present[sample]].tolist()] == expected
        for index, point in enumerate(points.tolist()):
            possible = candidates(point, expected)
            assert targets.positive[sample, index].item() == bool(possible)
            if possible:
                shortest = [offsets for length, *offsets in possible if length == min(possible)[0]]
                assert targets.offsets[sample, index].tolist() in shortest


@settings(max_examples=50, deadline=None)
@given(windows=st.lists(st.tuples(instants, instants), min_size=1, max_size=5), frames=st.integers(1, 40))
def test_true_windows_lie_in_the_video_and_last_a_frame(windows, frames):
    spans = true_windows([torch.tensor(windows)], torch.tensor([frames]), 0.5).spans
    assert (spans >= 0).all() and (spans <= frames).all() and (spans[..., 1] - spans[..., 0] >= 1).all()
    turned = true_windows([torch.tensor(windows).flip(1)], torch.tensor([frames]), 0.5).spans
    assert torch.equal(spans, turned)


def spans_of(windows, frames, fps=1.0):
    return true_windows([torch.tensor(windows)], torch.tensor([frames]), fps).spans[0].tolist()


def positives_of(windows, frames, strides):
    """The (position, stride) of the positive points, in order of level."""
    points = level_points(frames, strides, like=torch.zeros(0))
    positive = point_targets(points, true_windows([torch.tensor(windows)], torch.tensor([frames]), 1.0)).positive[0]
    return [(int(position), int(stride)) for position, _, _, stride in points[positive].tolist()]


def test_windows_outside_the_video_become_its_nearest_frame():
    assert spans_of([[-9.0, -3.0], [30.0, 40.0], [-5.0, 4.0]], frames=10) == [[0, 1], [9, 10], [0, 4]]


def test_windows_shorter_than_a_frame_are_widened_around_their_centre_inside_the_video():
    short = [[4.5, 5.0], [0.0, 0.25], [9.75, 10.0], [3.0, 3.0]]
    assert spans_of(short, frames=10) == [[4.25, 5.25], [0, 1], [9, 10], [2.5, 3.5]]
    assert spans_of([[9.0, 10.0]], frames=10, fps=0.5) == [[4.25, 5.25]]  # shorter than a frame of two seconds


def test_rows_that_are_not_finite_are_padding():
    missing = [[torch.inf, torch.inf], [torch.nan, 3.0]]
    assert positives_of([*missing, [4.0, 6.0], *missing], 8, (1,)) == positives_of([[4.0, 6.0]], 8, (1,))
    assert positives_of(missing, 8, (1,)) == []


def test_ends_of_windows_centres_and_ranges_are_included():
    assert positives_of([[2.0, 3.0]], 8, (1,)) == [(2, 1), (3, 1)]  # the window's own ends
    assert positives_of([[0.0, 5.0]], 8, (1,)) == [(1, 1), (2, 1), (3, 1), (4, 1)]  # 1.5 strides from 2.5
    # Both ends are 2 frames from frame 6: the upper end of the first level's range, the lower end of the second's.
    assert positives_of([[4.0, 8.0]], 16, (1, 2)) == [(6, 1), (4, 2), (6, 2), (8, 2)]


def test_of_several_windows_a_point_stands_for_the_shortest():
    points = level_points(16, (1,), like=torch.zeros(0))
    windows = true_windows([torch.tensor([[0.0, 12.0], [6.0, 7.0], [4.0, 8.0]])], torch.tensor([16]), 1.0)
    targets = point_targets(points, windows)
    assert targets.positive[0].nonzero().flatten().tolist() == [5, 6, 7]
    assert targets.offsets[0, 5:8].tolist() == [[1, 3], [0, 1], [1, 0]]


def test_a_video_of_one_frame_has_one_point_and_it_is_positive():
    points = level_points(1, STRIDES, like=torch.zeros(0))
    targets = point_targets(points, true_windows([torch.tensor([[0.5, 7.0]])], torch.tensor([1]), 0.5))
    assert targets.positive.tolist() == [[True]] and targets.offsets.tolist() == [[[0, 1]]]
