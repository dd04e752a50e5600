"""The compiled engine answers what PyTorch does, for every shape of head and question and any number of threads."""

from __future__ import annotations

import importlib.machinery
import os
import shutil
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors import safe_open

from vtg.errors import VtgError
from vtg.r2 import HeadConfig, Predictor, R2Head, VideoProjection, read_head
from vtg.r2.engine import ENGINES, CompiledEngine, _chosen, _load, _threads, engine_name
from vtg.r2.predictor import WindowPredictions
from vtg.timespans import interval_iou

CPU = Path("/proc/cpuinfo")
PARITY = Path(__file__).parent / "data" / "r2"
SHARED = Path(__file__).parents[2] / "shared" / "parity"
AVAILABLE = [name for name in ENGINES if _load(name) is not None]
each_engine = pytest.mark.parametrize(
    "engine", [pytest.param(name, marks=[] if name in AVAILABLE else pytest.mark.skip("not here")) for name in ENGINES]
)
needs_engine = pytest.mark.skipif(not AVAILABLE, reason="no engine was built that this processor can run")
SMALL = {"hidden_width": 32, "video_width": 24, "query_width": 20, "layers": 3, "tokens": 5, "attention_heads": 4}
NARROW = {"hidden_width": 64, "video_width": 24, "query_width": 22, "layers": 2, "tokens": 6, "attention_heads": 32}
HEADS = {
    "small": SMALL,
    "of few numbers a head, without a level": {**NARROW, "strides": (1, 4)},
    "one layer, highlights only": {**SMALL, "layers": 1, "moment_retrieval": False, "strides": (1,)},
    "odd widths": {**SMALL, "hidden_width": 96, "attention_heads": 3, "query_width": 46},
    "as published": {},
    "of pooled patches": {**SMALL, "tokens": 577, "max_patches": 64},
    "without a class token": {**SMALL, "tokens": 9, "class_token": False},
}


def lively(**settings: object) -> R2Head:
    """A head of random weights whose gates let everything take part."""
    torch.manual_seed(0)
    head = R2Head(HeadConfig(**settings)).eval()  # type: ignore[arg-type]
    with torch.no_grad():
        head.block.scale.uniform_(0.5, 1.0)
        if head.block.gate is not None:
            head.block.gate.uniform_(-1.0, 1.0)
        head.level_scale.uniform_(0.5, 1.5)
    return head


def asked(head: R2Head, windows: int, frames: int, words: list[int]) -> tuple[VideoProjection, list[torch.Tensor]]:
    """An int8 projection of random layers, and random queries."""
    config, generator = head.config, torch.Generator().manual_seed(1)
    video = torch.randn(windows, frames, config.layers, config.tokens or 0, config.video_width, generator=generator)
    queries = [torch.randn(count, config.layers, config.query_width, generator=generator) for count in words]
    with torch.no_grad():
        return head.project(video).quantized(), queries


def answers_of(head: R2Head, projection: VideoProjection, queries: list[torch.Tensor]) -> WindowPredictions:
    return Predictor(head).predict([projection], queries, 0.5)[0]


def assert_equal(one: WindowPredictions, other: WindowPredictions) -> None:
    assert torch.equal(one.saliency, other.saliency)
    assert (one.windows is None) == (other.windows is None)
    if one.windows is not None and other.windows is not None:
        assert torch.equal(one.windows, other.windows)


def assert_same_findings(one: WindowPredictions, other: WindowPredictions) -> None:
    """The curves are alike, and the best moment of each is about as good, and there, in the other."""
    torch.testing.assert_close(one.saliency, other.saliency, atol=5e-3, rtol=0)
    if one.windows is None or other.windows is None:
        assert one.windows is other.windows
        return
    for found, twin in zip(one.windows.flatten(0, 1).numpy(), other.windows.flatten(0, 1).numpy(), strict=True):
        best = interval_iou(found[:1, :2], twin[:, :2])[0].argmax()
        assert interval_iou(found[:1, :2], twin[best : best + 1, :2])[0, 0] >= 0.98
        assert abs(found[0, 2] - twin[best, 2]) < 5e-3
        assert twin[0, 2] - twin[best, 2] < 5e-3


@each_engine
@pytest.mark.parametrize(
    ("windows", "frames", "words"),
    [(1, 75, [12]), (3, 13, [4, 7, 1]), (1, 1, [3]), (1, 2, [80, 2]), (5, 11, [2] * 70), (2, 301, [5])],
)
@pytest.mark.parametrize("kind", HEADS)
def test_engines_find_what_torch_does(
    kind: str, windows: int, frames: int, words: list[int], engine: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    head = lively(**HEADS[kind])
    projection, queries = asked(head, windows, frames, words)
    monkeypatch.setenv("VTG_ENGINE", engine)
    predictor = Predictor(head)
    assert predictor._engine is not None and engine_name() == engine
    found = predictor.predict([projection], queries, 0.5)[0]
    monkeypatch.setenv("VTG_ENGINE", "torch")
    assert Predictor(head)._engine is None
    expected = answers_of(head, projection, queries)
    assert_same_findings(found, expected)
    if engine != "avx512":  # all of it in float32
        torch.testing.assert_close(found.saliency, expected.saliency, atol=1e-5, rtol=0)


@each_engine
@pytest.mark.parametrize("case", ["tiny.t13", "tiny.t75", "full.t12"])
def test_engines_find_the_window_of_the_reference(case: str, engine: str, monkeypatch: pytest.MonkeyPatch) -> None:
    arrays = SHARED / "head_parity_full.safetensors" if case == "full.t12" else PARITY / "head_parity.safetensors"
    path = SHARED / "head_vit_b_32.pth" if case == "full.t12" else PARITY / "head_tiny.pth"
    if not arrays.exists() or not path.exists():
        pytest.skip("the full-size reference arrays are not here")
    with safe_open(arrays, framework="pt") as file:
        video, query = file.get_tensor(f"{case}.video"), file.get_tensor(f"{case}.query")
    head = read_head(path)
    monkeypatch.setenv("VTG_ENGINE", engine)
    with torch.no_grad():
        projection = head.project([video]).quantized()
    raw, found = head.predict(video, query, fps=0.5), answers_of(head, projection, [query, query[:2]])
    assert raw.windows is not None and found.windows is not None
    assert interval_iou(found.windows[0, 0, :1, :2].numpy(), raw.windows[:1, :2].numpy())[0, 0] >= 0.98
    assert (found.saliency[0, 0] - raw.saliency).abs().max() <= 5e-3


@needs_engine
@pytest.mark.parametrize("words", [[7], [3, 9, 1], [2] * 50])
@pytest.mark.parametrize("frames", [5, 75, 130])
def test_any_number_of_threads_says_the_same(frames: int, words: list[int]) -> None:
    head = lively(**SMALL)
    projection, queries = asked(head, 2, frames, words)
    before, found = torch.get_num_threads(), []
    try:
        for threads in (1, 2, 3, 7):
            torch.set_num_threads(threads)
            found.append(answers_of(head, projection, queries))
    finally:
        torch.set_num_threads(before)
    for other in found[1:]:
        assert_equal(found[0], other)


@needs_engine
def test_padding_and_company_change_nothing() -> None:
    head = lively(**SMALL)
    projection, queries = asked(head, 3, 21, [2, 17, 6])
    together = answers_of(head, projection, queries)
    assert together.windows is not None
    for number, query in enumerate(queries):
        alone = answers_of(head, projection, [query])
        assert alone.windows is not None
        torch.testing.assert_close(together.saliency[:, number], alone.saliency[:, 0], atol=1e-6, rtol=0)
        torch.testing.assert_close(together.windows[:, number], alone.windows[:, 0], atol=1e-4, rtol=0)
    for window in range(3):
        own = projection[window : window + 1]
        torch.testing.assert_close(
            answers_of(head, own, queries).saliency[0], together.saliency[window], atol=1e-6, rtol=0
        )


@needs_engine
def test_tokens_that_lie_otherwise_in_memory_are_read_as_they_are_meant() -> None:
    head = lively(**SMALL)
    projection, queries = asked(head, 2, 9, [4])
    assert projection.scale is not None
    layers_first = VideoProjection(
        projection.values.transpose(0, 1).contiguous().transpose(0, 1),
        projection.scale.transpose(0, 1).contiguous().transpose(0, 1),
    )
    patches_first = VideoProjection(
        projection.values.transpose(2, 3).contiguous().transpose(2, 3),
        projection.scale.transpose(2, 3).contiguous().transpose(2, 3),
    )
    plain = answers_of(head, projection, queries)
    for other in (layers_first, patches_first):
        assert_equal(plain, answers_of(head, other, queries))


@needs_engine
@pytest.mark.parametrize("kind", HEADS)
@pytest.mark.parametrize(("windows", "frames", "words"), [(2, 9, [4, 1]), (1, 1, [3]), (1, 130, [17])])
def test_nothing_is_read_that_was_not_written(
    kind: str, windows: int, frames: int, words: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    head = lively(**HEADS[kind])
    projection, queries = asked(head, windows, frames, words)
    found = []
    for filling in (0, 255):  # the bytes of zeros, and of numbers that are none
        memory = staticmethod(lambda size, filling=filling: torch.full((size,), filling, dtype=torch.uint8))
        monkeypatch.setattr("vtg.r2.engine.CompiledEngine._memory", memory)
        found.append(answers_of(head, projection, queries))
    assert_equal(*found)


@needs_engine
def test_what_does_not_fit_the_head_is_refused() -> None:
    head = lively(**SMALL)
    projection, (query,) = asked(head, 1, 9, [4])
    engine = CompiledEngine(head)
    for other, length in ((query[:, :2], 4), (query[..., :-2], 4), (query, 0), (query, 5)):
        with pytest.raises(ValueError, match=r"queries must be \[N, L, 3, 20\]"):
            engine.answer([(projection, 0)], other[None], [length])
    narrower = VideoProjection(projection.values[..., :16], projection.scale)
    with pytest.raises(ValueError, match="windows must all be"):
        engine.answer([(narrower, 0)], query[None], [4])


@needs_engine
def test_several_may_ask_one_head_at_once() -> None:
    head = lively(**SMALL)
    predictor = Predictor(head)
    questions = [asked(head, 1, frames, [4, frames]) for frames in range(5, 25)]
    alone = [predictor.predict([projection], queries, 0.5)[0] for projection, queries in questions]
    with ThreadPoolExecutor(4) as threads:
        together = list(threads.map(lambda one: predictor.predict([one[0]], one[1], 0.5)[0], questions * 5))
    for number, found in enumerate(together):
        assert_equal(found, alone[number % len(alone)])


@needs_engine
def test_the_weights_are_those_when_the_pass_was_made() -> None:
    head = lively(**SMALL)
    projection, queries = asked(head, 1, 9, [4])
    before = Predictor(head)
    first = before.predict([projection], queries, 0.5)[0]
    with torch.no_grad():
        head.block.refinement.feed_forward[0].weight.mul_(-1)
    assert not torch.equal(answers_of(head, projection, queries).saliency, first.saliency)
    assert_equal(before.predict([projection], queries, 0.5)[0], first)


def test_only_heads_that_the_engine_can_read_are_given_to_it() -> None:
    like = torch.zeros(1)
    small = HeadConfig(**SMALL)  # type: ignore[arg-type]
    assert CompiledEngine.supports(small, like) == bool(AVAILABLE)
    assert not CompiledEngine.supports(small, like.double())
    for other in ({"hidden_width": 24}, {"attention_heads": 32}, {"query_width": 21}, {"spatial_pooling": False}):
        assert not CompiledEngine.supports(HeadConfig(**{**SMALL, **other}), like)  # type: ignore[arg-type]


def test_an_engine_is_there_where_it_can_be() -> None:
    able = CPU.exists() and " avx2 " in CPU.read_text() and shutil.which("gcc") is not None
    assert "avx2" in AVAILABLE or not able


def test_the_variable_names_the_engine(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("VTG_ENGINE", raising=False)
    assert engine_name() == next(iter(AVAILABLE), "torch")
    monkeypatch.setenv("VTG_ENGINE", "torch")
    assert engine_name() == "torch"
    monkeypatch.setenv("VTG_ENGINE", "sse")
    with pytest.raises(VtgError, match="VTG_ENGINE=sse: not available on this machine"):
        engine_name()


@needs_engine
def test_engines_of_other_sources_are_not_used(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("vtg.r2.engine.VERSION", -1)
    assert _load(AVAILABLE[0]) is None


@pytest.mark.parametrize("content", [None, b"not a library"], ids=["not built", "built for another machine"])
def test_without_an_engine_torch_answers(
    content: bytes | None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    head = lively(**SMALL)
    projection, queries = asked(head, 2, 13, [4, 6])
    found = answers_of(head, projection, queries)
    path = tmp_path / "_engine.so"
    if content is not None:
        path.write_bytes(content)
    spec = None if content is None else importlib.machinery.ModuleSpec("vtg.r2._engine", None, origin=str(path))
    monkeypatch.delenv("VTG_ENGINE", raising=False)
    monkeypatch.setattr("vtg.r2.engine.importlib.util.find_spec", lambda _: spec)
    _chosen.cache_clear()
    try:
        assert engine_name() == "torch"
        assert_same_findings(answers_of(head, projection, queries), found)
    finally:
        monkeypatch.undo()
        _chosen.cache_clear()


def test_a_question_does_not_wait_for_threads_that_are_busy_elsewhere() -> None:
    over = threading.Event()
    head = lively(**SMALL)
    projection, queries = asked(head, 1, 75, [4])
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    busy = [_threads(2, os.getpid()).submit(over.wait, 30) for _ in range(2)]
    try:
        begun = time.perf_counter()
        answers_of(head, projection, queries)
        assert time.perf_counter() - begun < 20 and not any(one.done() for one in busy)
    finally:
        over.set()
        torch.set_num_threads(before)


@needs_engine
def test_answers_are_finite_at_the_ends_of_what_tokens_can_be() -> None:
    head = lively(**SMALL)
    projection, queries = asked(head, 1, 9, [4])
    assert projection.scale is not None
    for tokens, scale in ((127, 100.0), (-127, 100.0), (0, 1.0), (127, 0.0)):
        extreme = VideoProjection(torch.full_like(projection.values, tokens), torch.full_like(projection.scale, scale))
        found = answers_of(head, extreme, [100 * queries[0]])
        assert found.windows is not None
        assert np.isfinite(found.saliency.numpy()).all() and not torch.isnan(found.windows).any()
