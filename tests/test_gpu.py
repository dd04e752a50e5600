"""On a CUDA device: encoding, projections, answers, training and extraction agree with the CPU."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors import safe_open
from training_sets import write_data_set

import vtg
from vtg.clip.encoder import MAX_BATCH_FRAMES
from vtg.clip.specs import EncoderSpec
from vtg.demo import choose_sentences, make_scene, split_seed, write_video
from vtg.extraction import extract, read_source
from vtg.features.pipeline import encode_video
from vtg.features.store import PublishedFeatures
from vtg.r2 import Predictor, read_head
from vtg.recipes import load_recipe
from vtg.timespans import interval_iou
from vtg.training.log import read_log
from vtg.training.train import Sources, train
from vtg.video import sample_frames

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no CUDA device here"),
]
ARRAYS = Path(__file__).parent / "data" / "r2"
CASES = ["tiny.t1", "tiny.t3", "tiny.t75", "highlight.t31"]


def parity(case: str) -> tuple[vtg.r2.R2Head, torch.Tensor, torch.Tensor]:
    """A head on the GPU, and the reference's video and query of one case."""
    head = ARRAYS / ("head_tiny.pth" if case.startswith("tiny") else "head_highlight_tiny.pth")
    with safe_open(ARRAYS / "head_parity.safetensors", framework="pt") as file:
        return read_head(head).cuda(), file.get_tensor(f"{case}.video"), file.get_tensor(f"{case}.query")


@pytest.mark.parametrize("case", CASES)
def test_a_head_predicts_as_on_the_cpu(case: str) -> None:
    head, video, query = parity(case)
    found = head.predict(video.cuda(), query.cuda(), fps=0.5)
    expected = head.cpu().predict(video, query, fps=0.5)
    torch.testing.assert_close(found.saliency.cpu(), expected.saliency, atol=1e-4, rtol=0)
    if expected.windows is not None and found.windows is not None:
        torch.testing.assert_close(found.windows.cpu(), expected.windows, atol=1e-3, rtol=0)


@pytest.mark.parametrize("quantized", [False, True])
@pytest.mark.parametrize("case", ["tiny.t3", "tiny.t75"])
def test_projections_are_asked_as_on_the_cpu(case: str, quantized: bool) -> None:
    head, video, query = parity(case)
    with torch.no_grad():
        projection = head.project([video.cuda()])
    found = Predictor(head).predict([projection.quantized() if quantized else projection], [query.cuda()], 0.5)[0]
    raw = head.cpu().predict(video, query, fps=0.5)
    assert raw.windows is not None and found.windows is not None
    assert interval_iou(found.windows[0, 0, :1, :2].cpu().numpy(), raw.windows[:1, :2].numpy())[0, 0] >= 0.98
    assert (found.saliency[0, 0].cpu() - raw.saliency).abs().max() <= 5e-3


@pytest.mark.parametrize("dtype", [torch.float16, torch.float32])
def test_frames_and_texts_are_encoded_as_on_the_cpu(dtype: torch.dtype) -> None:
    spec = vtg.models.specs.model_spec("demo").encoder
    gpu = vtg.ClipEncoder(spec.clip, spec.weights, device="cuda", dtype=dtype)
    cpu = vtg.ClipEncoder(spec.clip, spec.weights, device="cpu")
    frames = np.stack([make_scene(number).frame(5.0, gpu.image_size, gpu.image_size) for number in range(9)])
    found, expected = gpu.encode_frames(frames), cpu.encode_frames(frames)
    cosine = (found.embedding.float().cpu() * expected.embedding.float()).sum(dim=1)
    assert cosine.min() >= 0.9995
    scale = expected.layers.float().abs().amax()
    torch.testing.assert_close(found.layers.float().cpu() / scale, expected.layers.float() / scale, atol=5e-3, rtol=0)
    one, other = (encoder.encode_text("a red ball rolls to the left") for encoder in (gpu, cpu))
    assert torch.equal(one.tokens.cpu(), other.tokens.cpu())
    assert (one.embedding.float().cpu() * other.embedding.float().cpu()).sum() >= 0.9995


def test_batches_fit_into_the_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    spec = vtg.models.specs.model_spec("demo").encoder
    encoder = vtg.ClipEncoder(spec.clip, spec.weights, device="cuda")
    free = torch.cuda.mem_get_info()[0]
    assert 1 <= encoder.batch_size <= MAX_BATCH_FRAMES
    scarce = vtg.ClipEncoder(spec.clip, spec.weights, device="cuda")
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda device=None: (4_000_000, free))
    assert scarce.batch_size < encoder.batch_size
    assert scarce.batch_size >= 1


def test_a_batch_that_does_not_fit_is_halved() -> None:
    """With a limit on the memory of this process, a batch that is far too large is encoded all the same."""
    spec = vtg.models.specs.model_spec("demo").encoder
    frames = np.random.default_rng(0).integers(0, 256, (512, 112, 112, 3), dtype=np.uint8)
    expected = vtg.ClipEncoder(spec.clip, spec.weights, layers=0, device="cuda", batch_size=8).encode_frames(frames)
    encoder = vtg.ClipEncoder(spec.clip, spec.weights, layers=0, device="cuda", batch_size=len(frames))
    torch.cuda.empty_cache()
    total = torch.cuda.get_device_properties(0).total_memory
    torch.cuda.set_per_process_memory_fraction((torch.cuda.memory_reserved() + 48 * 2**20) / total)
    try:
        found = encoder.encode_frames(frames)
    finally:
        torch.cuda.set_per_process_memory_fraction(1.0)
    assert encoder.batch_size < len(frames)
    cosine = (found.embedding.float() * expected.embedding.float()).sum(dim=1)
    assert cosine.min() >= 0.9995


def test_decoding_beside_encoding_gives_the_features_of_one_after_the_other(tmp_path: Path) -> None:
    film = tmp_path / "scene.mp4"
    write_video(make_scene(5), film)
    spec = vtg.models.specs.model_spec("demo").encoder
    encoder = vtg.ClipEncoder(spec.clip, spec.weights, device="cuda")
    beside = np.concatenate([chunk.embedding for chunk in encode_video(film, encoder, 2.0)])
    frames = np.concatenate([part for _, part in sample_frames(film, 2.0, encoder.framing)])
    after = encoder.encode_frames(frames).embedding.float().numpy()
    assert (beside * after).sum(axis=1).min() >= 0.9995


@pytest.mark.parametrize("case", ["tiny.t3", "tiny.t75"])
def test_both_engines_answer_the_same(case: str) -> None:
    """The compiled engine on the CPU, where there is one, against PyTorch on the GPU, from the same int8 projection."""
    head, video, query = parity(case)
    with torch.no_grad():
        projection = head.project([video.cuda()]).quantized()
    on_gpu = Predictor(head).predict([projection], [query.cuda()], 0.5)[0]
    held = replace(projection, values=projection.values.cpu(), scale=projection.scale.cpu())
    on_cpu = Predictor(head.cpu()).predict([held], [query], 0.5)[0]
    assert on_gpu.windows is not None and on_cpu.windows is not None
    best, other = on_gpu.windows[0, 0, :1].cpu().numpy(), on_cpu.windows[0, 0, :1].cpu().numpy()
    assert interval_iou(best, other)[0, 0] >= 0.98
    assert (on_gpu.saliency[0, 0].cpu() - on_cpu.saliency[0, 0]).abs().max() <= 5e-3


def test_the_demo_model_finds_the_same_moments(tmp_path: Path) -> None:
    film = tmp_path / "scene.mp4"
    scene = make_scene(split_seed("val", 3))
    write_video(scene, film)
    (sentence,) = choose_sentences(scene, 1, np.random.default_rng(0))
    query = sentence.text
    found, expected = (vtg.load("demo", device=device).ground(film, query) for device in ("cuda", "cpu"))
    assert len(found.moments) and len(expected.moments)
    best, other = found.moments[0], expected.moments[0]
    assert interval_iou(np.array([[best.start, best.end]]), np.array([[other.start, other.end]]))[0, 0] >= 0.95
    assert abs(best.score - other.score) <= 0.02
    np.testing.assert_allclose(found.saliency.scores, expected.saliency.scores, atol=0.03)


def test_zero_shot_grounds_as_on_the_cpu(tmp_path: Path) -> None:
    film = tmp_path / "scene.mp4"
    write_video(make_scene(4), film, 160, 120)
    spec = vtg.models.specs.model_spec("demo").encoder
    found, expected = (
        vtg.Grounder(vtg.ClipEncoder(spec.clip, spec.weights, device=device)).ground(film, "a red ball")
        for device in ("cuda", "cpu")
    )
    np.testing.assert_allclose(found.saliency.scores, expected.saliency.scores, atol=0.03)


def losses_of(out: Path) -> np.ndarray:
    return np.array([line["loss"] for line in read_log(out / "log.jsonl") if "loss" in line])


@pytest.mark.parametrize("precision", ["float32", "bf16"])
def test_training_loses_as_on_the_cpu(tmp_path: Path, precision: str) -> None:
    recipe = write_data_set(tmp_path / "data")
    settings = [f"train.precision={precision}", "model.dropout=0", "model.drop_path=0"]
    for device in ("cuda", "cpu"):
        train(load_recipe(recipe, settings), Sources(), tmp_path / device, device=device)
    found, expected = (losses_of(tmp_path / device) for device in ("cuda", "cpu"))
    np.testing.assert_allclose(found, expected, rtol=1e-3 if precision == "float32" else 0.1)


def test_going_on_is_the_same_as_not_stopping(tmp_path: Path) -> None:
    recipe = write_data_set(tmp_path / "data")
    whole, parted = tmp_path / "whole", tmp_path / "parted"
    train(load_recipe(recipe, ["train.epochs=4"]), Sources(), whole, device="cuda")
    train(load_recipe(recipe, ["train.epochs=2"]), Sources(), parted, device="cuda")
    train(load_recipe(recipe, ["train.epochs=4"]), Sources(), parted, device="cuda", resume=True)
    np.testing.assert_allclose(losses_of(parted), losses_of(whole), rtol=1e-4)


def test_extraction_gives_the_features_of_the_cpu(
    tmp_path: Path, tiny_clip: Path, make_video: Callable[..., Path]
) -> None:
    films = tmp_path / "films"
    films.mkdir()
    for number, seconds in enumerate((2, 8, 72)):
        make_video(films / f"{number}.mp4", seconds=seconds, seed=number)
    spec = EncoderSpec(pretrained=str(tiny_clip))
    for device in ("cuda", "cpu"):
        report = extract(read_source(str(films), 1.0), str(tmp_path / device), spec, device=device)
        assert not report.failed
    for number in range(3):
        found, expected = (
            PublishedFeatures(tmp_path / device, "tiny_vid_k4").video(str(number)) for device in ("cuda", "cpu")
        )
        assert found.shape == expected.shape
        np.testing.assert_allclose(found, expected, atol=0.02 * float(np.abs(expected).max()))
