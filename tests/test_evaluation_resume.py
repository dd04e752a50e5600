"""A stopped evaluation goes on only with the same head, settings and features, whatever their files are called."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from benchmark_sets import LAYERS, QUERY_WIDTH, TOKENS, VIDEO_WIDTH, write_benchmark, write_head

from vtg.datasets import Sample
from vtg.evaluation import CacheGrounder, evaluate
from vtg.features.store import PublishedFeatures
from vtg.grounding.grounder import Grounding
from vtg.recipes import load_recipe

HEAD = "best.safetensors"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Three TACoS videos with two queries each, and a head."""
    write_benchmark(tmp_path, "tacos", [12, 16, 20])
    write_head(tmp_path / HEAD)
    return tmp_path


@pytest.fixture
def stop_before(monkeypatch: pytest.MonkeyPatch) -> Callable[[str | None], list[str]]:
    """Stops every evaluation before a video, or none any more; gives the list of videos that are asked from then on."""
    ground = CacheGrounder.ground

    def stop(video: str | None) -> list[str]:
        asked: list[str] = []

        def watched(self: CacheGrounder, model: str, samples: list[Sample]) -> list[Grounding]:
            if samples[0].video_id == video:
                raise KeyboardInterrupt
            asked.append(samples[0].video_id)
            return ground(self, model, samples)

        monkeypatch.setattr(CacheGrounder, "ground", watched)
        return asked

    return stop


def run(folder: Path, out: str = "out.jsonl", *settings: str, head: str = HEAD) -> list[str]:
    """Evaluate; gives what was said."""
    said: list[str] = []
    evaluate(load_recipe("tacos", settings), folder, folder / out, folder, str(folder / head), warn=said.append)
    return said


def stopped(folder: Path, stop_before: Callable[[str | None], list[str]]) -> list[str]:
    """Leave an evaluation unfinished after two of three videos; gives the list of what is asked from then on."""
    stop_before("v2")
    with pytest.raises(KeyboardInterrupt):
        run(folder)
    assert (folder / "out.jsonl.part").is_file() and not (folder / "out.jsonl").exists()
    return stop_before(None)


def test_the_same_goes_on_under_another_name_of_the_head(
    folder: Path, stop_before: Callable[[str | None], list[str]]
) -> None:
    asked = stopped(folder, stop_before)
    (folder / HEAD).rename(folder / "other.safetensors")
    assert run(folder, head="other.safetensors") == []
    assert asked == ["v2"]
    run(folder, "whole.jsonl", head="other.safetensors")
    assert (folder / "out.jsonl").read_bytes() == (folder / "whole.jsonl").read_bytes()
    assert not list(folder.glob("*.part"))


def retrain(folder: Path) -> list[str]:
    write_head(folder / HEAD, seed=1)
    return []


def say_another_rate_of_the_head(folder: Path) -> list[str]:
    write_head(folder / HEAD, window_seconds=30.0, step_seconds=20.0, fps=2.0, max_windows=7)
    return []


def rename_a_query(folder: Path) -> list[str]:
    path = folder / "test.jsonl"
    path.write_text(path.read_text().replace("what happens in v0_0", "who cuts it"))
    return []


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (retrain, "another head"),
        (say_another_rate_of_the_head, "other settings"),
        (rename_a_query, "other annotations"),
        (lambda folder: ["evaluation.nms=normal"], "other settings"),
        (lambda folder: ["evaluation.unit=2"], "other settings"),
        (lambda folder: ["data.fps=1"], "other settings"),
        (lambda folder: ["model.window_seconds=1400"], "other settings"),
    ],
)
def test_what_another_evaluation_left_is_begun_anew_with_a_line(
    folder: Path,
    stop_before: Callable[[str | None], list[str]],
    change: Callable[[Path], list[str]],
    reason: str,
) -> None:
    asked = stopped(folder, stop_before)
    settings = change(folder)
    part = folder / "out.jsonl.part"
    assert run(folder, "out.jsonl", *settings) == [f"{part}: is of an evaluation with {reason}; starting again"]
    assert asked == ["v0", "v1", "v2"]
    assert run(folder, "whole.jsonl", *settings) == []
    assert (folder / "out.jsonl").read_bytes() == (folder / "whole.jsonl").read_bytes()


@pytest.mark.parametrize("changed", ["video", "query"])
def test_predictions_of_features_that_have_changed_are_made_anew(
    folder: Path, stop_before: Callable[[str | None], list[str]], changed: str
) -> None:
    asked = stopped(folder, stop_before)
    published, random = PublishedFeatures(folder), np.random.default_rng(9)
    if changed == "video":
        published.write_video("v0-cam-002", random.normal(size=(12, LAYERS, TOKENS, VIDEO_WIDTH)))
    else:
        published.write_query("v0_1", random.normal(size=(5, LAYERS, QUERY_WIDTH)))
    count = 2 if changed == "video" else 1
    (line,) = run(folder)
    assert line == (
        f"{folder / 'out.jsonl.part'}: {count} of its 4 predictions are of other features; they are computed again"
    )
    assert asked == ["v0", "v2"]
    run(folder, "whole.jsonl")
    one, other = ([json.loads(line) for line in (folder / name).open()] for name in ("out.jsonl", "whole.jsonl"))
    assert [line["qid"] for line in one] == [line["qid"] for line in other]
    for left, right in zip(one, other, strict=True):  # batches differ, so that sums may round otherwise
        np.testing.assert_allclose(left["pred_saliency_scores"], right["pred_saliency_scores"], atol=1e-5)


def test_lines_of_a_process_with_another_head_are_not_taken(
    folder: Path, stop_before: Callable[[str | None], list[str]]
) -> None:
    """Two evaluations with one name for their predictions: what both added to one file is told apart."""
    asked = stopped(folder, stop_before)
    mine = (folder / "out.jsonl.part").read_text().splitlines()
    stop_before("v2")
    write_head(folder / "b.safetensors", seed=1)
    with pytest.raises(KeyboardInterrupt):
        run(folder, head="b.safetensors")
    others = (folder / "out.jsonl.part").read_text().splitlines()
    asked = stop_before(None)
    (folder / "out.jsonl.part").write_text("\n".join([*mine[:3], *others[3:]]) + "\n")
    (line,) = run(folder)
    assert "2 of its 4 predictions are of other features" in line
    assert asked == ["v1", "v2"]


def test_what_is_no_unfinished_evaluation_is_written_over(folder: Path) -> None:
    part = folder / "out.jsonl.part"
    for content in ("", "hello", "[1]\n", '{"queries": ["v0_0"], "models": ["x"]}\n{"qid": "v0_0"}\n'):
        part.write_text(content)
        said = run(folder)
        assert said == (
            [f"{part}: is of an evaluation with another version of vtg; starting again"] if "models" in content else []
        )
        assert len((folder / "out.jsonl").read_text().splitlines()) == 6
