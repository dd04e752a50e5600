"""Grounding without training: a curve's peaks become moments, and nothing else does."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

import vtg
from vtg.errors import VideoError, VtgError
from vtg.features.store import VideoFeatures
from vtg.grounding.grounder import Grounder, Grounding, Moment, Saliency
from vtg.grounding.zero_shot import MAX_MOMENTS, propose_moments, query_margin
from vtg.timespans import interval_iou, suppress


def curve(length: int, *events: tuple[int, int], noise: float = 0.3, seed: int = 0) -> np.ndarray:
    margin = np.random.default_rng(seed).normal(-3.0, noise, length)
    for start, end in events:
        margin[start:end] += 6.0
    return margin


@pytest.mark.parametrize("event", [(10, 13), (0, 6), (50, 60), (20, 45), (30, 31)])
@pytest.mark.parametrize("seed", range(5))
def test_one_event_is_found_whole(event: tuple[int, int], seed: int) -> None:
    windows = propose_moments(curve(60, event, seed=seed), fps=0.5, duration=120.0)
    assert windows[0, :2].tolist() == [2.0 * event[0], 2.0 * event[1]]
    assert windows[0, 2] > 0.8


def test_each_of_several_events_is_found() -> None:
    events = [(5, 9), (20, 30), (50, 53)]
    windows = propose_moments(curve(60, *events), fps=0.5, duration=120.0)
    true = 2.0 * np.array(events)
    assert (interval_iou(windows[:3], true).max(axis=0) > 0.9).all()


def test_a_short_gap_does_not_hide_the_whole() -> None:
    margin = curve(60, (10, 30))
    margin[20] = -3.0
    windows = propose_moments(margin, fps=1.0, duration=60.0)
    assert interval_iou(windows[:3], np.array([[10.0, 30.0]])).max() > 0.9


def test_no_event_scores_low() -> None:
    assert propose_moments(curve(60), fps=0.5, duration=120.0)[:, 2].max() < 0.2


@pytest.mark.parametrize("length", [1, 2, 3])
def test_the_shortest_videos_have_a_moment(length: int) -> None:
    windows = propose_moments(np.full(length, -1.0), fps=0.5, duration=length * 2 - 0.7)
    assert len(windows) >= 1
    assert windows[0, 0] == 0.0
    assert windows[0, 1] == pytest.approx(length * 2 - 0.7)
    assert np.isfinite(windows).all()


def test_windows_are_inside_the_video_best_first_and_apart() -> None:
    margin = np.random.default_rng(1).normal(0, 3, 500)
    windows = propose_moments(margin, fps=0.5, duration=999.0)
    assert len(windows) <= MAX_MOMENTS
    assert (windows[:, 0] >= 0).all() and (windows[:, 1] <= 999.0).all() and (windows[:, 0] < windows[:, 1]).all()
    assert (np.diff(windows[:, 2]) <= 0).all()
    overlaps = interval_iou(windows, windows) - np.eye(len(windows))
    assert overlaps.max() < 0.5


def test_margin_is_against_the_background_together() -> None:
    query, background = np.array([0.3, 0.2]), np.array([[0.2, 0.2], [0.2, 0.3]])
    margin = query_margin(query, background, 100.0)
    assert margin[0] == pytest.approx(10.0)
    assert margin[1] == pytest.approx(20 - (30 + np.log((1 + np.exp(-10)) / 2)))


class TestIntervals:
    """Overlap of windows."""

    def test_iou(self) -> None:
        windows, others = np.array([[0.0, 10.0], [3.0, 3.0]]), np.array([[5.0, 15.0], [20.0, 30.0], [3.0, 3.0]])
        expected = [[1 / 3, 0, 0], [0, 0, 0]]
        np.testing.assert_allclose(interval_iou(windows, others), expected)

    def test_suppression_keeps_the_best(self) -> None:
        windows = np.array([[0, 10, 0.5], [1, 10, 0.9], [20, 30, 0.1], [4, 10, 0.8]])
        kept = suppress(windows, "normal", 0.7)
        assert kept.tolist() == [[1, 10, 0.9], [4, 10, 0.8], [20, 30, 0.1], [0, 10, 0]]
        assert suppress(np.zeros((0, 3)), "normal", 0.5).shape == (0, 3)


@pytest.fixture(scope="module")
def grounder(tiny_clip: Path) -> Grounder:
    return vtg.load("zero-shot", pretrained=tiny_clip, device="cpu")


class TestGrounder:
    """From a file and a sentence to a grounding."""

    def test_a_file_is_encoded_once(
        self,
        grounder: Grounder,
        tmp_path: Path,
        make_video: Callable[..., Path],
        monkeypatch: pytest.MonkeyPatch,
    ) -> None:
        path = make_video(tmp_path / "a.mp4", seconds=12)
        first = grounder.ground(path, "a red circle")
        assert first.duration == pytest.approx(12.0)
        assert first.saliency.times.tolist() == [0, 2, 4, 6, 8, 10]
        assert ((first.saliency.scores >= 0) & (first.saliency.scores <= 1)).all()
        monkeypatch.setattr("vtg.features.decoding.sample_frames", lambda *_, **__: pytest.fail("decoded again"))
        again = grounder.ground_many(str(path), ["a blue square", "a red circle"])
        assert [grounding.query for grounding in again] == ["a blue square", "a red circle"]
        # A batch of texts rounds a little differently than one text.
        assert [(m.start, m.end) for m in again[1].moments] == [(m.start, m.end) for m in first.moments]

    def test_a_changed_file_is_encoded_again(
        self, grounder: Grounder, tmp_path: Path, make_video: Callable[..., Path]
    ) -> None:
        path = make_video(tmp_path / "a.mp4", seconds=12)
        grounder.ground(path, "a red circle")
        make_video(path, seconds=6, seed=4)
        assert grounder.ground(path, "a red circle").duration == pytest.approx(6.0)

    def test_the_frame_that_looks_like_the_query_is_found(self, grounder: Grounder) -> None:
        text = grounder.encoder.encode_text("a red circle").embedding.numpy()
        other = grounder.encoder.encode_text("a photo").embedding.numpy()
        embedding = np.stack([other] * 30)
        embedding[12:18] = text
        grounding = grounder.ground(VideoFeatures(0.5, 60.0, embedding=embedding, name="made up"), "a red circle")
        assert (grounding.moments[0].start, grounding.moments[0].end) == (24.0, 36.0)
        assert grounding.saliency.scores[12:18].min() > grounding.saliency.scores[:12].max()

    def test_a_missing_file_is_named(self, grounder: Grounder, tmp_path: Path) -> None:
        with pytest.raises(VideoError, match=r"none\.mp4"):
            grounder.ground(tmp_path / "none.mp4", "a dog")

    def test_unknown_models_are_named(self) -> None:
        with pytest.raises(VtgError, match="no such model"):
            vtg.load("r3-none")
        assert {"demo", "zero-shot"} <= set(vtg.available_models())


def test_submission_fields() -> None:
    saliency = Saliency(np.array([0.0, 2.0]), np.array([0.25, 0.5]))
    grounding = Grounding("a dog", "films/lake.mp4", 4.0, [Moment(0.0, 2.0, 0.75)], saliency)
    assert grounding.to_dict(qid=7) == {
        "qid": 7,
        "query": "a dog",
        "vid": "lake",
        "pred_relevant_windows": [[0.0, 2.0, 0.75]],
        "pred_saliency_scores": [0.25, 0.5],
    }
    assert grounding.to_dict(vid="x")["vid"] == "x"
    assert "qid" not in grounding.to_dict()
