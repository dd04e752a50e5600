"""Asking a video again: what its first question made ready is used, and is not kept longer than it should be."""

from __future__ import annotations

import gc

import numpy as np
import pytest
import torch

from vtg.projections import StoredProjection
from vtg.r2 import HeadConfig, QueryPass, R2Head, VideoProjection
from vtg.r2.kept import KeptTokens, ReadyTokens
from vtg.r2.pooling import Pooling, TokenPart
from vtg.r2.query_pass import Answers

CONFIG = HeadConfig(hidden_width=32, video_width=24, query_width=20, layers=3, tokens=5, attention_heads=4)


@pytest.fixture
def head() -> R2Head:
    torch.manual_seed(0)
    head = R2Head(CONFIG).eval()
    with torch.no_grad():
        head.block.scale.uniform_(0.5, 1.0)
    return head


@pytest.fixture
def made_ready(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Frames of each part that was made ready; int8 tokens are read as bfloat16, whatever this processor prefers."""
    monkeypatch.setattr("vtg.r2.query_pass._has_tiles", lambda: True)
    ready, frames = Pooling.ready, []

    def counted(self: Pooling, part: TokenPart) -> TokenPart:
        frames.append(part.tokens.shape[1])
        return ready(self, part)

    monkeypatch.setattr(Pooling, "ready", counted)
    return frames


def stored(head: R2Head, frames: int, windows: int = 1) -> StoredProjection:
    generator = torch.Generator().manual_seed(frames)
    video = torch.randn(windows, frames, 3, 5, 24, generator=generator)
    projection = head.project(video, "int8")
    assert projection.scale is not None
    return StoredProjection(projection.values.numpy(), projection.scale.numpy(), frames, list(range(windows)))


def ask(query_pass: QueryPass, projection: VideoProjection, count: int = 1) -> Answers:
    generator = torch.Generator().manual_seed(9)
    queries = [torch.randn(4, 3, 20, generator=generator) for _ in range(count)]
    return query_pass.ask_each([projection], queries, 0.5)[0]


@pytest.mark.parametrize("threads", [1, 2])
@pytest.mark.parametrize("frames", [1, 13, 75])
def test_asked_again_a_video_answers_the_same_and_reads_nothing(
    head: R2Head, made_ready: list[int], frames: int, threads: int
) -> None:
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        video, query_pass = stored(head, frames), QueryPass(head)
        first = ask(query_pass, video.windows())
        assert sum(made_ready) == 3 * frames
        again = ask(query_pass, video.windows())
        assert sum(made_ready) == 3 * frames
    finally:
        torch.set_num_threads(before)
    assert torch.equal(first.saliency, again.saliency)
    assert first.windows is not None and again.windows is not None and torch.equal(first.windows, again.windows)


def test_windows_of_a_video_are_kept_together_or_not_at_all(head: R2Head, made_ready: list[int]) -> None:
    video, query_pass = stored(head, 20, windows=2), QueryPass(head)
    both = ask(query_pass, video.windows())
    one = ask(query_pass, video.windows(slice(1, 2)))
    torch.testing.assert_close(one.saliency[0], both.saliency[1], atol=1e-5, rtol=0)
    made_ready.clear()
    torch.testing.assert_close(ask(query_pass, video.windows(slice(1, 2))).saliency, one.saliency, atol=0, rtol=0)
    assert sum(made_ready) == 3 * 20


def test_what_nobody_has_any_more_is_not_kept(head: R2Head, made_ready: list[int]) -> None:
    video, query_pass = stored(head, 13), QueryPass(head)
    ask(query_pass, video.windows())
    assert len(query_pass._kept) == 1
    del video
    gc.collect()
    assert len(query_pass._kept) == 0


def test_a_long_video_is_read_again_and_not_held(
    head: R2Head, made_ready: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("vtg.r2.query_pass.KEPT_BYTES", 3 * 75 * 5 * 32 * 2 - 1)
    video, query_pass = stored(head, 75), QueryPass(head)
    first, again = (ask(query_pass, video.windows()) for _ in range(2))
    assert torch.equal(first.saliency, again.saliency)
    assert sum(made_ready) == 2 * 3 * 75 and len(query_pass._kept) == 0


def test_those_asked_last_are_kept_as_far_as_there_is_room() -> None:
    def projection() -> VideoProjection:
        return VideoProjection(torch.zeros(1, 1, 1, 1, 1))

    def ready(numbers: int) -> ReadyTokens:
        part = TokenPart(0, torch.zeros(1, 1, 1, numbers - 1), None)
        return ReadyTokens([part], torch.zeros(1, 1, 1))

    kept = KeptTokens(most=4 * 30)
    one, two, three = projection(), projection(), projection()
    kept.put(one, ready(10))
    kept.put(two, ready(20))
    assert kept.get(one) is not None
    kept.put(three, ready(11))
    assert [kept.get(each) is not None for each in (one, two, three)] == [True, False, True]
    kept.put(two, ready(31))
    assert len(kept) == 0


def test_a_stored_video_gives_its_windows_as_one_and_the_same() -> None:
    values = np.zeros((2, 1, 3, 1, 4), np.int8)
    video = StoredProjection(values, np.ones((2, 1, 3, 1), np.float16), 5, [0, 2])
    assert video.windows() is video.windows()
    assert len(video.windows(slice(1, 2))) == 1
