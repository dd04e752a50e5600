"""Which clips are chosen: the exact knapsack, shots, highlights and summaries, on numbers alone."""

from __future__ import annotations

from dataclasses import replace
from itertools import combinations, pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from vtg.features.store import VideoFeatures
from vtg.summary import choose_highlights, choose_summary, frame_embedding, shot_edges, shots, video_shots
from vtg.summary.choosing import as_shares
from vtg.summary.knapsack import best_within
from vtg.summary.shots import change_points

# The knapsack


def worth_by_trying_all(values: np.ndarray, lengths: np.ndarray, capacity: int) -> float:
    items = range(len(values))
    choices = (choice for size in range(len(values) + 1) for choice in combinations(items, size))
    fitting = (choice for choice in choices if lengths[list(choice)].sum() <= capacity)
    return max(float(values[list(choice)].sum()) for choice in fitting)


@given(
    items=st.lists(st.tuples(st.integers(0, 50), st.integers(1, 30)), min_size=1, max_size=10),
    capacity=st.integers(0, 120),
    unit=st.sampled_from([1, 2, 7]),
)
@settings(deadline=None)
def test_no_choice_within_the_capacity_is_worth_more(items: list[tuple[int, int]], capacity: int, unit: int) -> None:
    values, lengths = (np.array(column) for column in zip(*items, strict=True))
    chosen = best_within(values, lengths * unit, capacity)
    assert chosen == sorted(set(chosen))
    assert (lengths[chosen] * unit).sum() <= capacity
    assert values[chosen].sum() == worth_by_trying_all(values, lengths * unit, capacity)


def test_items_without_a_length_are_refused() -> None:
    with pytest.raises(ValueError, match="length above 0"):
        best_within(np.ones(2), np.array([1, 0]), 3)
    with pytest.raises(ValueError, match="value of at least 0"):
        best_within(np.array([1.0, -1.0]), np.array([1, 1]), 3)


# Shots


def made_of_shots(lengths: list[int], noise: float = 0.1, width: int = 32, seed: int = 0) -> np.ndarray:
    """Unit vectors around a direction of its own for each shot."""
    random = np.random.default_rng(seed)
    centres = np.repeat(random.normal(size=(len(lengths), width)), lengths, axis=0)
    frames = centres / np.linalg.norm(centres, axis=1, keepdims=True)
    frames = frames + noise * random.normal(size=frames.shape) / np.sqrt(width)
    return np.asarray(frames / np.linalg.norm(frames, axis=1, keepdims=True), np.float32)


@pytest.mark.parametrize("noise", [0.0, 0.1, 0.3])
def test_shots_are_found_where_the_frames_change(noise: float) -> None:
    lengths = [5, 1, 12, 3, 30, 2, 8]
    assert shot_edges(made_of_shots(lengths, noise)).tolist() == [0, *np.cumsum(lengths)]


def test_a_video_of_one_shot_or_one_frame_has_no_boundary() -> None:
    assert shot_edges(made_of_shots([40])).tolist() == [0, 40]
    assert shot_edges(made_of_shots([1])).tolist() == [0, 1]
    assert shot_edges(made_of_shots([2])).tolist() == [0, 2]


def test_a_slow_drift_is_no_cut() -> None:
    angle = np.linspace(0, np.pi / 2, 200)
    assert shot_edges(np.column_stack([np.cos(angle), np.sin(angle)])).tolist() == [0, 200]


def test_a_change_that_the_picture_does_not_show_is_no_cut() -> None:
    lengths = [5, 1, 12, 3]
    frames = made_of_shots(lengths)
    pictures = np.random.default_rng(4).integers(0, 256, (2, 8, 8, 3)).astype(np.uint8)
    shown = pictures[(np.arange(21) >= 6).astype(int)]
    assert shot_edges(frames, shown).tolist() == [0, 6, 21]
    features = VideoFeatures(0.5, 42.0, embedding=frames, thumbnails=shown)
    assert video_shots(features).tolist() == [0, 6, 21]
    assert video_shots(replace(features, thumbnails=None)).tolist() == [0, *np.cumsum(lengths)]


def test_windows_give_what_the_whole_gives(monkeypatch: pytest.MonkeyPatch) -> None:
    random = np.random.default_rng(3)
    signal = made_of_shots(random.integers(1, 40, 60).tolist(), seed=3).astype(float)
    monkeypatch.setattr(shots, "WINDOW_FRAMES", len(signal) + 1)
    whole = change_points(signal, 0.2)
    monkeypatch.setattr(shots, "WINDOW_FRAMES", 100)
    assert change_points(signal, 0.2).tolist() == whole.tolist()
    assert len(whole) > 50


def test_a_shot_longer_than_a_window_is_not_cut(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shots, "WINDOW_FRAMES", 50)
    assert shot_edges(made_of_shots([333, 20, 90])).tolist() == [0, 333, 353, 443]


def test_published_features_are_cut_by_their_class_token() -> None:
    frames = made_of_shots([6, 9, 4])
    layers = np.random.default_rng(0).normal(size=(19, 2, 3, 32))
    layers[:, -1, 0] = 5 * frames
    features = VideoFeatures(0.5, 38.0, layers.astype(np.float16))
    np.testing.assert_allclose(frame_embedding(features), frames, atol=1e-2)
    assert shot_edges(frame_embedding(features)).tolist() == [0, 6, 15, 19]


def test_published_features_without_a_class_token_are_cut_by_the_mean_of_their_patches() -> None:
    frames = made_of_shots([6, 9, 4])
    layers = np.random.default_rng(0).normal(size=(19, 2, 4, 32))
    layers[:, -1] += 5 * frames[:, None] - layers[:, -1].mean(axis=1, keepdims=True)
    features = VideoFeatures(0.5, 38.0, layers.astype(np.float16))
    np.testing.assert_allclose(frame_embedding(features), frames, atol=1e-2)


# Highlights and summaries

CURVES = st.integers(0, 2**32 - 1).map(np.random.default_rng)


def random_video(random: np.random.Generator) -> tuple[np.ndarray, np.ndarray, float, float]:
    """Scores, shot edges, rate and duration of some video."""
    frames = int(random.integers(1, 120))
    scores = random.normal(size=frames) * random.choice([0.0, 1e-3, 1.0, 50.0])
    inner = np.flatnonzero(random.random(frames) < random.choice([0.0, 0.1, 0.5]))
    edges = np.unique([0, *inner, frames])
    fps = float(random.choice([0.5, 1.0, 0.4, 3.0]))
    return scores, edges, fps, max(0.1, (frames + random.uniform(-0.5, 0.5)) / fps)


@given(random=CURVES, top=st.integers(1, 8), seconds=st.sampled_from([1.0, 4.0, 10.0, 33.3]))
@settings(deadline=None, max_examples=200)
def test_highlights_lie_apart_in_the_video_around_peaks(random: np.random.Generator, top: int, seconds: float) -> None:
    scores, edges, fps, duration = random_video(random)
    clips = choose_highlights(scores, edges, fps, duration, top, seconds)
    assert 1 <= len(clips) <= top
    best = int(np.argmax(scores))
    # The last frame stands for what is left of the video, even if that is longer than the others' intervals.
    best_end = duration if best == len(scores) - 1 else min((best + 1) / fps, duration)
    assert clips[0].start <= (best / fps + best_end) / 2 + 1e-6
    assert clips[0].end >= best / fps - 1e-6
    assert [clip.score for clip in clips] == sorted((clip.score for clip in clips), reverse=True)
    for clip in clips:
        assert 0 <= clip.start <= clip.peak <= clip.end <= duration + 1e-9
        assert min(0.5 * seconds, duration) - 1e-6 <= clip.seconds <= 1.5 * seconds + 1e-6
    for earlier, later in pairwise(sorted(clips, key=lambda clip: clip.start)):
        assert earlier.end <= later.start + 1e-9


@given(random=CURVES, share=st.floats(0.02, 1.2))
@settings(deadline=None, max_examples=300)
def test_a_summary_keeps_within_its_budget_and_uses_it(random: np.random.Generator, share: float) -> None:
    scores, edges, fps, duration = random_video(random)
    budget = share * duration
    clips = choose_summary(scores, edges, fps, duration, budget)
    seconds = sum(clip.seconds for clip in clips)
    assert seconds <= budget + 1e-6
    # What is left is less than a clip that could be opened with it.
    assert seconds >= min(duration, 0.9 * budget, budget - 1.0) - 1e-6
    assert clips[0].start >= 0 and clips[-1].end <= duration + 1e-9
    for clip in clips:
        assert clip.start < clip.end and clip.start <= clip.peak <= clip.end and 0 <= clip.score <= 1
    for earlier, later in pairwise(clips):
        assert earlier.end < later.start


def test_a_highlight_ends_where_a_shot_ends_nearby() -> None:
    scores = np.exp(-0.5 * ((np.arange(60) - 30) / 2.0) ** 2)
    (free,) = choose_highlights(scores, np.array([0, 60]), 0.5, 120.0, 1, 12.0)
    assert free.seconds == pytest.approx(12.0) and free.peak == 61.0
    (snapped,) = choose_highlights(scores, np.array([0, 27, 34, 60]), 0.5, 120.0, 1, 12.0)
    assert (snapped.start, snapped.end) == (54.0, 68.0)
    (far,) = choose_highlights(scores, np.array([0, 15, 50, 60]), 0.5, 120.0, 1, 12.0)
    assert (far.start, far.end) == (free.start, free.end)


def test_a_highlight_lies_where_most_of_the_curve_is() -> None:
    scores = np.zeros(40)
    scores[10], scores[11:15] = 1.0, 0.9
    (clip,) = choose_highlights(scores, np.array([0, 40]), 1.0, 40.0, 1, 5.0)
    assert (clip.start, clip.end) == (10.0, 15.0)


def test_a_summary_takes_whole_shots_by_what_they_hold() -> None:
    edges = np.arange(0, 61, 4)  # shots of 8 s
    scores = np.zeros(60)
    scores[8:12], scores[40:44], scores[20:24] = 1.0, 0.8, 0.3
    clips = choose_summary(scores, edges, 0.5, 120.0, 24.5)
    assert [(clip.start, clip.end) for clip in clips] == [(16.0, 24.0), (40.0, 48.0), (80.0, 88.0)]
    assert [clip.score for clip in clips] == pytest.approx([1.0, 0.3, 0.8])


def test_a_summary_of_one_long_shot_keeps_its_event() -> None:
    scores = np.full(45, 0.1)
    scores[17:22] = 0.9
    clips = choose_summary(scores, np.array([0, 45]), 0.5, 90.0, 13.5)
    inside = sum(max(0.0, min(clip.end, 44.0) - max(clip.start, 34.0)) for clip in clips)
    assert inside == pytest.approx(10.0)
    assert sum(clip.seconds for clip in clips) == pytest.approx(13.5)
    assert len(clips) == 1  # the rest of the budget leads up to it and away from it


def test_what_is_not_asked_for_costs_nothing_when_all_fits() -> None:
    (clip,) = choose_summary(np.arange(10.0), np.array([0, 3, 10]), 0.5, 19.3, 60.0)
    assert (clip.start, clip.end, clip.peak) == (0.0, 19.3, pytest.approx(18.65))


def test_a_flat_curve_is_no_reason_to_show_nothing() -> None:
    assert as_shares(np.zeros(3)).tolist() == [1, 1, 1]
    clips = choose_summary(np.zeros(30), np.array([0, 10, 20, 30]), 0.5, 60.0, 20.0)
    assert sum(clip.seconds for clip in clips) == pytest.approx(20.0)
