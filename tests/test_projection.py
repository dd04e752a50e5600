"""Projections: the predictions from them are those from the layers, in floats and as int8, batched in any way."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from safetensors import safe_open

from vtg.errors import VtgError
from vtg.r2 import HeadConfig, Predictor, R2Head, VideoProjection, read_head
from vtg.r2.predictor import MAX_ROWS, WindowPredictions
from vtg.timespans import interval_iou

HERE = Path(__file__).parent / "data" / "r2"
SHARED = Path(__file__).parents[2] / "shared" / "parity"
CASES = ["tiny.t1", "tiny.t3", "tiny.t8", "tiny.t13", "tiny.t75", "highlight.t2", "highlight.t31", "full.t12"]


def parity(case: str) -> tuple[R2Head, torch.Tensor, torch.Tensor]:
    """A head, and the reference's video and query of one case."""
    kind = case.partition(".")[0]
    full = kind == "full"
    arrays = SHARED / "head_parity_full.safetensors" if full else HERE / "head_parity.safetensors"
    head = SHARED / "head_vit_b_32.pth" if full else HERE / f"head_{'highlight_' * (kind != 'tiny')}tiny.pth"
    if not arrays.exists() or not head.exists():
        pytest.skip("the full-size reference arrays are not here")
    with safe_open(arrays, framework="pt") as file:
        return read_head(head), file.get_tensor(f"{case}.video"), file.get_tensor(f"{case}.query")


def lively(**settings: object) -> R2Head:
    """A head of random weights whose gates let everything take part."""
    torch.manual_seed(0)
    values = {"hidden_width": 32, "video_width": 24, "query_width": 20, "layers": 3, "tokens": 5, "attention_heads": 4}
    head = R2Head(HeadConfig(**{**values, **settings})).eval()  # type: ignore[arg-type]
    with torch.no_grad():
        if head.block.spatial_pooling:
            head.block.scale.uniform_(0.5, 1.0)
        if head.block.gate is not None:
            head.block.gate.uniform_(-1.0, 1.0)
        head.level_scale.uniform_(0.5, 1.5)
    return head


def random_input(head: R2Head, windows: int, frames: int, words: list[int]) -> tuple[torch.Tensor, list[torch.Tensor]]:
    config, generator = head.config, torch.Generator().manual_seed(1)
    video = torch.randn(windows, frames, config.layers, config.tokens or 5, config.video_width, generator=generator)
    queries = [torch.randn(count, config.layers, config.query_width, generator=generator) for count in words]
    return video, queries


@torch.no_grad()
def project(head: R2Head, video: torch.Tensor) -> VideoProjection:
    return head.project(video)


def predict(head: R2Head, projection: VideoProjection, queries: list[torch.Tensor]) -> WindowPredictions:
    return Predictor(head).predict([projection], queries, 0.5)[0]


def assert_as_raw(head: R2Head, video: torch.Tensor, queries: list[torch.Tensor], tolerance: float = 1e-4) -> None:
    """Every window and query answered together is what `R2Head.predict` says of the pair alone."""
    answers = predict(head, project(head, video), queries)
    assert answers.saliency.shape == (len(video), len(queries), video.shape[1])
    for v, window in enumerate(video):
        for n, query in enumerate(queries):
            raw = head.predict(window, query, fps=0.5)
            torch.testing.assert_close(answers.saliency[v, n], raw.saliency, atol=tolerance, rtol=0)
            if raw.windows is None:
                assert answers.windows is None
            else:
                assert answers.windows is not None
                torch.testing.assert_close(answers.windows[v, n], raw.windows, atol=tolerance, rtol=0)


@pytest.mark.parametrize("case", CASES)
def test_projected_float32_is_the_raw_path(case: str) -> None:
    head, video, query = parity(case)
    assert_as_raw(head, video[None], [query])


@pytest.mark.parametrize("precision", [torch.float16, torch.float32])
@pytest.mark.parametrize("case", [case for case in CASES if not case.startswith("highlight")])
def test_int8_projections_find_the_same_window(case: str, precision: torch.dtype) -> None:
    head, video, query = parity(case)
    raw = head.predict(video, query, fps=0.5)
    # Older libraries have projections of float16, which are converted.
    projection = VideoProjection(project(head, video[None]).values.to(precision)).quantized()
    found = predict(head, projection, [query])
    assert raw.windows is not None and found.windows is not None
    assert interval_iou(found.windows[0, 0, :1, :2].numpy(), raw.windows[:1, :2].numpy())[0, 0] >= 0.98
    assert (found.saliency[0, 0] - raw.saliency).abs().max() <= 5e-3


@pytest.mark.parametrize(
    ("windows", "words"),
    [(1, [7, 1, 12, 3, 3]), (9, [4]), (4, [6, 2, 9]), (2 * MAX_ROWS // 11, [3]), (1, [2] * 70)],
)
def test_any_number_of_windows_and_queries_together_is_each_alone(windows: int, words: list[int]) -> None:
    head = lively()
    assert_as_raw(head, *random_input(head, windows, 11, words))


@pytest.mark.parametrize("threads", [1, 2, 3])
def test_threads_change_nothing(threads: int) -> None:
    head = lively()
    video, queries = random_input(head, 5, 11, [4, 6])
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        assert_as_raw(head, video, queries)
    finally:
        torch.set_num_threads(before)


@pytest.mark.parametrize(
    "settings",
    [
        {"spatial_pooling": False},
        {"temporal_extent": False},
        {"layers": 1},
        {"moment_retrieval": False, "strides": (1,)},
        {"strides": (1, 4)},
        {"max_windows": 3},
    ],
    ids=str,
)
def test_every_kind_of_head_can_be_asked(settings: dict[str, object]) -> None:
    head = lively(**settings)
    assert_as_raw(head, *random_input(head, 2, 13, [4, 6]))


def test_attention_of_a_projection_is_that_of_the_layers() -> None:
    head = lively()
    video, (query,) = random_input(head, 3, 11, [6])
    raw = head.attention(video[1], query, frames=[7, 2])
    exact = head.attention(head.project(video)[1:2], query, frames=[7, 2])
    compact = head.attention(head.project(video).quantized()[1:2], query, frames=[7, 2])
    torch.testing.assert_close(exact, raw, atol=1e-5, rtol=0)
    torch.testing.assert_close(compact, raw, atol=0.02, rtol=0)
    assert not torch.equal(compact, raw)


def test_a_full_size_frame_takes_at_most_110_kilobytes_with_its_overlap() -> None:
    published = HeadConfig()
    overlap = published.window_seconds / published.step_seconds
    mapped = torch.zeros(1, published.layers, 2, published.tokens or 50, published.hidden_width)
    assert VideoProjection(mapped).quantized().nbytes / 2 * overlap <= 110_000


def test_windows_of_several_videos_are_asked_together() -> None:
    head = lively()
    shapes = [(2, 7), (1, 5), (3, 7), (1, 7), (1, 2)]  # windows, frames: some alike, some not
    queries = random_input(head, 1, 2, [4, 6])[1]
    for quantized in (False, True):
        videos = [random_input(head, windows, frames, [1])[0] for windows, frames in shapes]
        projections = [project(head, video) for video in videos]
        if quantized:
            projections = [projection.quantized() for projection in projections]
        together = Predictor(head).predict(projections, queries, 0.5)
        for projection, answers in zip(projections, together, strict=True):
            alone = predict(head, projection, queries)
            assert answers.windows is not None and alone.windows is not None
            torch.testing.assert_close(answers.saliency, alone.saliency, atol=1e-4, rtol=0)
            torch.testing.assert_close(answers.windows, alone.windows, atol=1e-4, rtol=0)


def test_queries_of_another_clip_are_refused() -> None:
    head = lively()
    video, (query,) = random_input(head, 1, 9, [4])
    for other in (query[:0], query[:, :2], query[..., :-2]):
        with pytest.raises(VtgError, match=r"this head reads \[L, 3, 20\]"):
            predict(head, project(head, video), [other])
