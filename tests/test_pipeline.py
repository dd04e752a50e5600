"""Decoding beside encoding: every frame arrives once and in order, and a bad file stops nothing but itself."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

from vtg.clip.encoder import ClipEncoder
from vtg.clip.outputs import FrameFeatures
from vtg.errors import VideoError
from vtg.features.pipeline import encode_video, encode_videos
from vtg.video import sample_frames
from vtg.video.framing import Framing


class CountingEncoder:
    """Gives each frame's mean colour as its features, and counts the frames."""

    framing = Framing(32)

    def __init__(self) -> None:
        self.frames = 0

    def encode_frames(self, frames: np.ndarray) -> FrameFeatures:
        self.frames += len(frames)
        means = torch.from_numpy(frames.reshape(len(frames), -1, 3).mean(1)).float()
        return FrameFeatures(means[:, None, None, :], torch.nn.functional.normalize(means, dim=-1))


def decoding_threads() -> list[threading.Thread]:
    return [thread for thread in threading.enumerate() if thread.name == "vtg-decode"]


def wait_until_no_thread_decodes() -> None:
    deadline = time.monotonic() + 10
    while decoding_threads() and time.monotonic() < deadline:
        time.sleep(0.01)
    assert not decoding_threads()


def test_a_video_is_encoded_as_its_frames_are(tmp_path: Path, make_video: Callable[..., Path], tiny_clip: Path) -> None:
    path = make_video(tmp_path / "a.mp4", seconds=10)
    encoder = ClipEncoder(pretrained=tiny_clip, device="cpu")
    chunks = list(encode_video(path, encoder, fps=1.0))
    frames = np.concatenate([frames for _, frames in sample_frames(path, 1.0, encoder.framing)])
    expected = encoder.encode_frames(frames)
    layers = np.concatenate([chunk.layers for chunk in chunks])
    assert layers.dtype == np.float16
    assert layers.shape == (10, 4, 5, 64)
    np.testing.assert_allclose(layers, expected.layers.half().numpy(), atol=0.01)
    np.testing.assert_allclose(np.concatenate([chunk.embedding for chunk in chunks]), expected.embedding, atol=1e-5)
    assert np.concatenate([chunk.times for chunk in chunks]).tolist() == list(range(10))


def test_videos_come_in_order_and_a_bad_one_stops_nothing(tmp_path: Path, make_video: Callable[..., Path]) -> None:
    first, last = make_video(tmp_path / "a.mp4", seed=1), make_video(tmp_path / "c.mp4", seconds=4, seed=2)
    bad = tmp_path / "b.mp4"
    bad.write_text("not a video")
    counts, failures = {}, {}
    for video in encode_videos([first, bad, tmp_path / "none.mp4", last], CountingEncoder(), fps=0.5):
        try:
            counts[video.path.name] = sum(len(chunk.times) for chunk in video)
        except VideoError as error:
            failures[video.path.name] = error.reason
    assert counts == {"a.mp4": 4, "c.mp4": 2}
    assert set(failures) == {"b.mp4", "none.mp4"}


def test_what_is_known_is_not_decoded(tmp_path: Path, make_video: Callable[..., Path]) -> None:
    path = make_video(tmp_path / "a.mp4")
    encoder = CountingEncoder()
    (video,) = list(encode_videos([path], encoder, fps=1.0, skip=lambda key: len(key) == 32))
    assert video.skipped
    assert list(video) == []
    assert encoder.frames == 0


def test_a_video_that_is_not_taken_is_thrown_away_unencoded(tmp_path: Path, make_video: Callable[..., Path]) -> None:
    paths = [make_video(tmp_path / f"{i}.mp4", seed=i) for i in range(3)]
    encoder = CountingEncoder()
    for video in encode_videos(paths, encoder, fps=1.0):
        if video.path == paths[1]:
            assert sum(len(chunk.times) for chunk in video) == 8
    assert encoder.frames == 8


def test_stopping_early_ends_the_decoding(tmp_path: Path, make_video: Callable[..., Path]) -> None:
    path = make_video(tmp_path / "a.mp4", seconds=200)
    chunks = encode_video(path, CountingEncoder(), fps=4.0)
    next(chunks)
    assert decoding_threads()
    chunks.close()
    wait_until_no_thread_decodes()


def test_an_encoder_that_fails_ends_the_decoding(tmp_path: Path, make_video: Callable[..., Path]) -> None:
    class Broken(CountingEncoder):
        def encode_frames(self, frames: np.ndarray) -> FrameFeatures:
            raise RuntimeError("device lost")

    path = make_video(tmp_path / "a.mp4", seconds=200)
    with pytest.raises(RuntimeError, match="device lost"):
        list(encode_video(path, Broken(), fps=4.0))
    wait_until_no_thread_decodes()


def test_an_unforeseen_error_while_decoding_reaches_the_caller(
    tmp_path: Path, make_video: Callable[..., Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(*_: object, **__: object) -> None:
        raise ZeroDivisionError

    monkeypatch.setattr("vtg.features.decoding.sample_frames", broken)
    with pytest.raises(ZeroDivisionError):
        list(encode_video(make_video(tmp_path / "a.mp4"), CountingEncoder(), fps=1.0))


def test_large_activations_stay_finite(tmp_path: Path, make_video: Callable[..., Path]) -> None:
    class Large(CountingEncoder):
        def encode_frames(self, frames: np.ndarray) -> FrameFeatures:
            features = super().encode_frames(frames)
            return FrameFeatures(features.layers * 1e6, features.embedding)

    (chunk,) = encode_video(make_video(tmp_path / "a.mp4"), Large(), fps=0.5)
    assert np.isfinite(chunk.layers).all()
    assert chunk.layers.max() > 60000
