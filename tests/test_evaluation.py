"""Evaluation: predictions are the head's, a stopped run goes on, and one's own data is a data set like the others."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

import vtg
from vtg.datasets import Sample
from vtg.errors import VtgError
from vtg.evaluation import CacheGrounder, evaluate
from vtg.features.store import PublishedFeatures, VideoFeatures
from vtg.grounding.grounder import Grounding, ground_with_head
from vtg.library.library import Library
from vtg.library.settings import Storage
from vtg.models.specs import model_spec
from vtg.recipes import load_recipe

QUERIES = {"a": ["a red circle", "a dog"], "b": ["a blue square"], "c": ["the lake", "a car"]}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Annotations in QVHighlights' form and features in the published layout, of three videos."""
    random = np.random.default_rng(0)
    published = PublishedFeatures(tmp_path)
    lines = []
    for vid, queries in QUERIES.items():
        published.write_video(vid, random.normal(size=(12, 4, 5, 64)))
        for query in queries:
            published.write_query(len(lines), random.normal(size=(6, 4, 64)))
            fields = {"qid": len(lines), "query": query, "vid": vid, "duration": 24, "relevant_windows": [[4, 10]]}
            lines.append({**fields, "relevant_clip_ids": [2, 3, 4], "saliency_scores": [[2, 3, 4]] * 3})
    (tmp_path / "annotations.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    return tmp_path


def lines_of(path: Path) -> list[dict[str, object]]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def test_predictions_are_the_heads(folder: Path, tiny_head: Path) -> None:
    out = folder / "predictions.jsonl"
    result = evaluate(load_recipe("qvhighlights"), folder, out, folder / "annotations.jsonl", model=str(tiny_head))
    lines = lines_of(out)
    assert [line["qid"] for line in lines] == [0, 1, 2, 3, 4]
    head = vtg.load_head(tiny_head)
    published = PublishedFeatures(folder)
    video = VideoFeatures(0.5, 24.0, published.video("b"))
    text = torch.from_numpy(np.array(published.query(2)))
    (expected,) = ground_with_head(head, video, ["a blue square"], [text], whole=True)
    np.testing.assert_allclose(lines[2]["pred_saliency_scores"], expected.saliency.scores, atol=1e-6)
    windows = [[moment.start, moment.end, moment.score] for moment in expected.moments]
    np.testing.assert_allclose(lines[2]["pred_relevant_windows"], windows, atol=1e-6)
    assert result.scores is not None
    assert {"MR-full-mAP", "HL-min-VeryGood-Hit1"} <= set(result.scores.brief)
    assert not list(folder.glob("*.part"))


def test_a_stopped_run_goes_on(folder: Path, tiny_head: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    arguments = (
        load_recipe("qvhighlights"),
        folder,
        folder / "out.jsonl",
        folder / "annotations.jsonl",
        str(tiny_head),
    )
    whole = folder / "whole.jsonl"
    evaluate(arguments[0], folder, whole, *arguments[3:])
    asked: list[str] = []
    ground = CacheGrounder.ground

    def stop_before_c(self: CacheGrounder, model: str, samples: list[Sample]) -> list[Grounding]:
        if samples[0].video_id == "c" and not asked.count("c"):
            asked.append("c")
            raise KeyboardInterrupt
        asked.append(samples[0].video_id)
        return ground(self, model, samples)

    monkeypatch.setattr(CacheGrounder, "ground", stop_before_c)
    with pytest.raises(KeyboardInterrupt):
        evaluate(*arguments)
    assert not (folder / "out.jsonl").exists()
    with (folder / "out.jsonl.part").open("a") as part:
        part.write('{"qid": 3, "half a li')  # as a killed process leaves it
    evaluate(*arguments)
    assert asked == ["a", "b", "c", "c"]
    assert (folder / "out.jsonl").read_text() == whole.read_text()


def test_another_models_unfinished_run_is_not_gone_on_with(folder: Path, tiny_head: Path) -> None:
    identity = {"queries": [0, 1, 2, 3, 4], "models": ["r2-qvhighlights"]}
    stale = {"qid": 0, "vid": "a", "pred_relevant_windows": [[0, 1, 1]], "pred_saliency_scores": [1]}
    (folder / "out.jsonl.part").write_text(json.dumps(identity) + "\n" + json.dumps(stale) + "\n")
    evaluate(load_recipe("qvhighlights"), folder, folder / "out.jsonl", folder / "annotations.jsonl", str(tiny_head))
    assert lines_of(folder / "out.jsonl")[0]["pred_relevant_windows"] != [[0, 1, 1]]


def test_what_is_missing_is_named(folder: Path, tiny_head: Path) -> None:
    recipe, annotations = load_recipe("qvhighlights"), folder / "annotations.jsonl"
    with pytest.raises(VtgError, match="neither clip_b32_vid_k4/ nor a library"):
        evaluate(recipe, folder / "none", folder / "out.jsonl", annotations, str(tiny_head))
    (folder / "clip_b32_vid_k4" / "b.npy").unlink()
    with pytest.raises(VtgError, match=r"b\.npy: no such features"):
        evaluate(recipe, folder, folder / "out.jsonl", annotations, str(tiny_head))
    PublishedFeatures(folder).write_video("b", np.zeros((12, 3, 5, 64)))
    with pytest.raises(VtgError):
        evaluate(recipe, folder, folder / "out.jsonl", annotations, str(tiny_head))
    assert not (folder / "out.jsonl").exists()


def test_a_library_is_a_source_of_features(
    tmp_path: Path, make_video: Callable[..., Path], tiny_clip: Path, tiny_head: Path
) -> None:
    path = make_video(tmp_path / "holiday.mp4", seconds=24)
    spec = model_spec("zero-shot", pretrained=tiny_clip)
    library = Library(tmp_path / "library", spec, device="cpu", storage=Storage("float16", keep_layers=True))
    library.add([path])
    line = {"qid": "x1", "query": "a red circle", "vid": "holiday", "duration": 24, "relevant_windows": [[4, 10]]}
    (tmp_path / "mine.jsonl").write_text(json.dumps(line) + "\n")
    # One's own data set: a recipe that names its files.
    (tmp_path / "mine.toml").write_text('[data]\nfps = 0.5\n[data.annotations]\nval = "mine.jsonl"\n')
    out = tmp_path / "out.jsonl"
    result = evaluate(load_recipe(tmp_path / "mine.toml"), library.folder, out, model="zero-shot")
    (written,) = lines_of(out)
    expected = library.ground(path, "a red circle")
    assert written["qid"] == "x1"
    assert written["pred_relevant_windows"][0][:2] == [expected.moments[0].start, expected.moments[0].end]  # type: ignore[index]
    assert result.scores is not None
    assert "MR-full-R1@0.5" in result.scores.brief
    by_head = evaluate(load_recipe(tmp_path / "mine.toml"), library.folder, out, model=str(tiny_head))
    assert by_head.scores is not None
    (written,) = lines_of(out)
    assert len(written["pred_saliency_scores"]) == 12  # type: ignore[arg-type]
