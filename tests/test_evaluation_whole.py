"""`vtg evaluate` on long videos: the answers are those of the head on the whole video, up to 1,024 frames."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from benchmark_sets import RATE, SPLITS, Query, write_benchmark, write_head
from commands import Result, vtg_in_process

from vtg.features.store import PublishedFeatures
from vtg.grounding.window_layout import WHOLE_FRAMES
from vtg.r2 import R2Head
from vtg.r2.postprocess import postprocess_windows
from vtg.recipes import load_recipe

HIGHLIGHTS = {"strides": (1,), "moment_retrieval": False, "temporal_extent": False}
BEST = 10


@pytest.fixture
def run(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Callable[..., Result]:
    return vtg_in_process(capsys, monkeypatch, "evaluate")


def predictions(path: Path) -> dict[str, dict[str, Any]]:
    return {line["qid"]: line for line in map(json.loads, path.read_text(encoding="utf-8").splitlines())}


def expected(folder: Path, dataset: str, head: R2Head, query: Query) -> tuple[np.ndarray | None, np.ndarray]:
    """The windows, best first, and the saliency of one pass over the whole video, post-processed by the recipe."""
    recipe, published = load_recipe(dataset), PublishedFeatures(folder)
    video = published.video(recipe.data.video_feature_file(query.video_id).stem)
    both = (torch.from_numpy(np.array(array)) for array in (video, published.query(query.file)))
    found = head.predict(*both, fps=RATE)
    if found.windows is None:
        return None, found.saliency.numpy()
    chosen = recipe.evaluation
    windows = postprocess_windows(
        found.windows.numpy(),
        query.duration,
        unit=chosen.unit,
        nms=chosen.nms,
        threshold=chosen.nms_threshold,
    )
    return windows, found.saliency.numpy()


def same_windows(found: np.ndarray, wanted: np.ndarray) -> bool:
    """Whether the best windows are there, ties in any order: scores to 1e-5, times to 1e-3 s."""
    best = wanted[:BEST]
    apart = np.abs(found[None] - best[:, None]) <= (1e-3, 1e-3, 1e-5)
    return bool(np.abs(found[:BEST, 2] - best[:, 2]).max() <= 1e-5 and apart.all(axis=2).any(axis=1).all())


@pytest.mark.parametrize("dataset", ["tacos", "ego4d", "tvsum"])
def test_answers_are_the_heads_on_the_whole_video(run: Callable[..., Result], tmp_path: Path, dataset: str) -> None:
    frames = np.random.default_rng(1).integers(80, 301, size=20).tolist()
    queries = write_benchmark(tmp_path, dataset, frames)
    # What the head says of itself is QVHighlights'; the recipe's suppression and unit count.
    changes = HIGHLIGHTS if dataset == "tvsum" else {"nms": "normal", "unit": 2.0}
    head = write_head(tmp_path / "head.safetensors", **changes)
    result = run(
        dataset, "--features", tmp_path, "--annotations", tmp_path, "--split", SPLITS[dataset],
        "--model", tmp_path / "head.safetensors", "--out", tmp_path / "out.jsonl", "--device", "cpu", "--json",
    )  # fmt: skip
    assert result.status == 0, result.err
    lines = predictions(tmp_path / "out.jsonl")
    assert list(lines) == [query.query_id for query in queries] and len({query.video_id for query in queries}) == 20
    for query in queries:
        windows, saliency = expected(tmp_path, dataset, head, query)
        line = lines[query.query_id]
        np.testing.assert_allclose(line["pred_saliency_scores"], saliency, rtol=0, atol=1e-5)
        if windows is None:
            assert "pred_relevant_windows" not in line
        else:
            assert same_windows(np.array(line["pred_relevant_windows"]), windows), query.query_id


def test_longer_videos_are_asked_in_windows_of_1024_frames(run: Callable[..., Result], tmp_path: Path) -> None:
    frames = [WHOLE_FRAMES, WHOLE_FRAMES + 300]
    queries = write_benchmark(tmp_path, "tacos", frames, queries=1)
    head = write_head(tmp_path / "head.safetensors")
    arguments = ("--features", tmp_path, "--annotations", tmp_path, "--model", tmp_path / "head.safetensors")
    assert run("tacos", *arguments, "--out", tmp_path / "out.jsonl").status == 0
    whole, cut = (predictions(tmp_path / "out.jsonl")[query.query_id] for query in queries)
    windows, saliency = expected(tmp_path, "tacos", head, queries[0])
    np.testing.assert_allclose(whole["pred_saliency_scores"], saliency, rtol=0, atol=1e-5)
    assert windows is not None and same_windows(np.array(whole["pred_relevant_windows"]), windows)
    # Two windows: from the beginning, and up to the end; outside their overlap each has the curve to itself.
    video = PublishedFeatures(tmp_path).video("v1-cam-002")
    query = torch.from_numpy(np.array(PublishedFeatures(tmp_path).query(queries[1].file)))
    parts = [
        head.predict(torch.from_numpy(np.array(video[start : start + WHOLE_FRAMES])), query, RATE) for start in (0, 300)
    ]
    curve = np.array(cut["pred_saliency_scores"])
    np.testing.assert_allclose(curve[:300], parts[0].saliency[:300], rtol=0, atol=1e-5)
    np.testing.assert_allclose(curve[WHOLE_FRAMES:], parts[1].saliency[WHOLE_FRAMES - 300 :], rtol=0, atol=1e-5)
    moved = [
        part.windows.numpy() + np.array([start / RATE, start / RATE, 0])
        for part, start in zip(parts, (0, 300), strict=True)
    ]
    merged = np.concatenate(moved).astype(np.float32)
    merged = postprocess_windows(merged[np.argsort(-merged[:, 2], kind="stable")], queries[1].duration, nms="linear")
    assert same_windows(np.array(cut["pred_relevant_windows"]), merged)


def test_windows_of_longer_videos_are_the_recipes_or_the_heads(run: Callable[..., Result], tmp_path: Path) -> None:
    write_benchmark(tmp_path, "tacos", [WHOLE_FRAMES + 76], queries=1)
    write_head(tmp_path / "head.safetensors", window_seconds=300.0, step_seconds=200.0)
    (tmp_path / "mine.toml").write_text(
        '[data]\nfps = 0.5\nvideo_name = "{vid}-cam-002"\nannotations = { val = "test.jsonl" }\n', encoding="utf-8"
    )
    curves = {}
    for name, settings in {
        "own": (),
        "same": ("--set", "model.window_seconds=300", "--set", "model.step_seconds=200"),
        "other": ("--set", "model.window_seconds=400"),
    }.items():
        out = tmp_path / f"{name}.jsonl"
        arguments = ("--features", tmp_path, "--model", tmp_path / "head.safetensors", "--out", out)
        assert run(tmp_path / "mine.toml", *arguments, *settings).status == 0
        curves[name] = np.array(predictions(out)["v0_0"]["pred_saliency_scores"])
    np.testing.assert_array_equal(curves["own"], curves["same"])
    assert np.abs(curves["own"] - curves["other"]).max() > 1e-4
