"""Grounding with a head: a short video as the head alone would, a long one by windows, never on another CLIP."""

from __future__ import annotations

import mmap
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import vtg
from vtg.clip.encoder import ClipEncoder
from vtg.errors import VtgError
from vtg.features.store import VideoFeatures
from vtg.grounding import grounder as vtg_grounding
from vtg.grounding.grounder import Grounder, Grounding, Moment
from vtg.grounding.window_layout import join_curves, window_starts
from vtg.r2 import HeadConfig, R2Head, attention_map, postprocess_windows


@pytest.fixture(scope="module")
def grounder(tiny_clip: Path, tiny_head: Path) -> Grounder:
    return vtg.load(tiny_head, pretrained=tiny_clip, device="cpu")


def features(frames: int, seed: int = 0, **changes: object) -> VideoFeatures:
    random = np.random.default_rng(seed)
    layers = random.normal(size=(frames, 4, 5, 64)).astype(np.float16)
    return VideoFeatures(0.5, 2.0 * frames, layers, name="made up", **changes)  # type: ignore[arg-type]


def head_of(grounder: Grounder) -> R2Head:
    assert grounder.head is not None
    return grounder.head


def test_a_short_video_is_what_the_head_says_post_processed(grounder: Grounder) -> None:
    video = features(9)
    grounding = grounder.ground(video, "a red circle")
    text = grounder.encoder.encode_text("a red circle")
    prediction = head_of(grounder).predict(torch.from_numpy(video.layers), text.layers, fps=0.5)
    windows = postprocess_windows(prediction.windows.numpy(), 18.0, unit=2.0, nms="normal")
    found = np.array([[moment.start, moment.end, moment.score] for moment in grounding.moments])
    np.testing.assert_allclose(found, windows, atol=1e-6)
    np.testing.assert_allclose(grounding.saliency.scores, prediction.saliency, atol=1e-6)
    assert grounding.saliency.times.tolist() == [2.0 * i for i in range(9)]


def test_a_window_of_a_long_video_is_what_its_frames_alone_are(grounder: Grounder) -> None:
    video = features(47)
    text = grounder.encoder.encode_text("a red circle").layers
    joined = grounder.ground(video, "a red circle").saliency.scores
    assert joined.shape == (47,)
    starts = window_starts(47, 10, 6)
    assert len(starts) > 5
    parts = [torch.from_numpy(video.layers[start : start + 10]) for start in starts]
    alone = [head_of(grounder).predict(part, text, fps=0.5).saliency.numpy() for part in parts]
    np.testing.assert_allclose(joined, join_curves(alone, starts), atol=1e-5)
    # Frames that one window alone has seen, at the very start, are exactly its own.
    np.testing.assert_allclose(joined[:6], alone[0][:6], atol=1e-5)


def test_moments_of_a_long_video_lie_where_their_window_does(grounder: Grounder) -> None:
    quiet, loud = features(47), features(10, seed=5)
    layers = np.concatenate([quiet.layers[:24], loud.layers, quiet.layers[34:]])
    moments = grounder.ground(replace(quiet, layers=layers), "a red circle").moments
    alone = grounder.ground(loud, "a red circle").moments
    starts = {start for moment in alone for start in [moment.start]}
    assert any(moment.start - 48.0 in starts for moment in moments)
    assert all(0 <= moment.start <= moment.end <= 94.0 for moment in moments)
    scores = [moment.score for moment in moments]
    assert scores == sorted(scores, reverse=True)
    assert len(moments) <= 50


def test_many_queries_are_answered_as_each_alone(grounder: Grounder) -> None:
    video = features(23)
    queries = ["a red circle", "two dogs jump into the lake", ""]
    together = grounder.ground_many(video, queries)
    for query, grounding in zip(queries, together, strict=True):
        alone = grounder.ground(video, query)
        assert grounding.query == query
        np.testing.assert_allclose(grounding.saliency.scores, alone.saliency.scores, atol=1e-5)
        for ours, theirs in zip(grounding.moments[:5], alone.moments[:5], strict=True):
            assert ours.score == pytest.approx(theirs.score, abs=1e-5)
    assert grounder.ground_many(video, []) == []


def test_moments_that_rounding_left_nothing_of_are_not_shown(
    grounder: Grounder, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = grounder.ground(features(23), "a red circle")
    ground = vtg_grounding.ground_each_with_head

    def with_nothing(*asked: Any) -> list[list[Grounding]]:
        nothing = Moment(2.0, 2.0, 1.0)
        return [[replace(one, moments=[nothing, *one.moments]) for one in own] for own in ground(*asked)]

    monkeypatch.setattr("vtg.grounding.grounder.ground_each_with_head", with_nothing)
    after = grounder.ground(features(23), "a red circle")
    assert after.moments == before.moments and after.moments
    assert np.array_equal(after.attention(8.0), before.attention(8.0))


def test_a_file_is_grounded_through_its_features(
    grounder: Grounder, tmp_path: Path, make_video: Callable[..., Path]
) -> None:
    path = make_video(tmp_path / "a.mp4", seconds=30)
    grounding = grounder.ground(path, "a red circle")
    mapped = grounder.features(path)
    assert mapped.layers is not None and isinstance(mapped.layers.base, mmap.mmap)
    assert grounding.duration == pytest.approx(30.0)
    again = grounder.ground(mapped, "a red circle")
    assert grounding.moments == again.moments


class TestAttention:
    """What the head looked at."""

    def test_it_is_the_heads_own_attention_folded(self, grounder: Grounder) -> None:
        video = features(9)
        grounding = grounder.ground(video, "a red circle")
        text = grounder.encoder.encode_text("a red circle")
        weights = head_of(grounder).attention(torch.from_numpy(video.layers), text.layers).numpy()
        np.testing.assert_allclose(grounding.attention(7.9), attention_map(weights)[3], atol=1e-6)
        np.testing.assert_allclose(
            grounding.attention(8.0, layer=1, word=2), attention_map(weights, layer=1, word=2)[4], atol=1e-6
        )
        whole = grounding.attention(18.0)
        assert whole.shape == (2, 2)
        assert 0 <= whole.min() <= whole.max() <= 1

    def test_a_long_video_is_looked_at_in_the_window_around_the_time(self, grounder: Grounder) -> None:
        video = features(47)
        grounding = grounder.ground(video, "a red circle")
        part = replace(video, layers=video.layers[12:22], duration=20.0)  # the window that frame 17 is in the middle of
        expected = grounder.ground(part, "a red circle").attention(10.0)
        np.testing.assert_allclose(grounding.attention(34.0), expected, atol=1e-6)

    def test_what_there_is_not_is_one_line(self, grounder: Grounder, tiny_clip: Path) -> None:
        grounding = grounder.ground(features(9), "a red circle")
        with pytest.raises(VtgError, match=r"99 s is not in it"):
            grounding.attention(99.0)
        with pytest.raises(VtgError, match="layer 4 is not one of"):
            grounding.attention(1.0, layer=4)
        with pytest.raises(VtgError, match="word 3 is not one of"):
            grounding.attention(1.0, word=3)
        bare = Grounder(grounder.encoder)
        embedding = np.eye(4, 32, dtype=np.float32)
        with pytest.raises(VtgError, match="has no attention maps"):
            bare.ground(VideoFeatures(0.5, 8.0, embedding=embedding), "a").attention(1.0)


class TestFit:
    """A head and a CLIP that do not belong together never meet."""

    def test_features_of_another_clip_are_refused(self, grounder: Grounder) -> None:
        with pytest.raises(VtgError, match="another CLIP"):
            grounder.ground(features(9, encoder="0" * 16), "a red circle")
        grounder.ground(features(9, encoder=grounder.encoder.fingerprint), "a red circle")

    def test_a_head_of_another_size_is_refused(self, tiny_clip: Path) -> None:
        encoder = ClipEncoder(pretrained=tiny_clip, device="cpu")
        with pytest.raises(VtgError, match="4 layers of 50 tokens, 768 and 512 wide, and this CLIP has 4 layers of 5"):
            Grounder(encoder, R2Head(HeadConfig()))

    def test_a_tower_without_a_class_token_is_refused(
        self, tiny_clip: Path, tiny_head: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        encoder = ClipEncoder(pretrained=tiny_clip, device="cpu")
        monkeypatch.setattr(ClipEncoder, "class_tokens", 0)
        with pytest.raises(VtgError, match="needs a class token"):
            Grounder(encoder, vtg.load_head(tiny_head))

    def test_what_a_model_needs_is_asked_for(self, grounder: Grounder) -> None:
        with pytest.raises(VtgError, match="embeddings only"):
            grounder.ground(VideoFeatures(0.5, 4.0, embedding=np.eye(2, 32)), "a")
        with pytest.raises(VtgError, match="no embeddings"):
            Grounder(grounder.encoder).ground(features(3), "a")

    def test_features_without_frames_are_refused(self) -> None:
        with pytest.raises(ValueError, match="at least one"):
            VideoFeatures(0.5, 4.0)
        with pytest.raises(ValueError, match="same number"):
            VideoFeatures(0.5, 4.0, np.zeros((2, 4, 5, 8)), np.zeros((3, 8)))


def test_a_highlight_only_head_has_a_curve_and_no_moments(grounder: Grounder) -> None:
    config = replace(head_of(grounder).config, moment_retrieval=False, temporal_extent=False, strides=(1,), nms=None)
    grounding = Grounder(grounder.encoder, R2Head(config)).ground(features(30), "a red circle")
    assert grounding.moments == []
    assert grounding.saliency.scores.shape == (30,)


def test_a_checkpoint_brings_its_rate(tiny_clip: Path, tiny_head: Path) -> None:
    assert vtg.load(tiny_head, pretrained=tiny_clip, device="cpu").fps == 0.5
    assert vtg.load(tiny_head, pretrained=tiny_clip, fps=2.0, device="cpu").fps == 2.0
