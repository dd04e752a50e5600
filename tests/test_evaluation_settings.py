"""With which settings, options and features an evaluation asks a head, and the line that says what is missing."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from benchmark_sets import RATE, write_benchmark, write_head
from commands import Result, vtg_in_process
from tiny_models import write_tiny_head

import vtg
from vtg.errors import VtgError
from vtg.evaluation import Heads, LibraryGrounder, LibrarySource, evaluate
from vtg.evaluation.heads import evaluation_config
from vtg.features.store import PublishedFeatures
from vtg.library.library import Library
from vtg.library.settings import Storage
from vtg.models.specs import model_spec
from vtg.r2 import HeadConfig, Predictor, save_head
from vtg.r2.checkpoints import save_published
from vtg.recipes import DataRecipe, EvaluationRecipe, Recipe, load_recipe

SAID = HeadConfig(
    fps=1.0, unit=2.0, nms="normal", nms_threshold=0.6, clip_model=None, window_seconds=90.0, step_seconds=60.0
)


@pytest.fixture
def run(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Callable[..., Result]:
    return vtg_in_process(capsys, monkeypatch, "evaluate")


def own_recipe(folder: Path, content: str = "") -> Path:
    path = folder / "mine.toml"
    data = '[data]\nvideo_name = "{vid}-cam-002"\nannotations = { val = "test.jsonl" }\n'
    path.write_text(data + content, encoding="utf-8")
    return path


def lines_of(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def test_what_a_recipe_states_counts_and_the_rest_is_the_heads(tmp_path: Path) -> None:
    def config(recipe: Recipe) -> tuple[Any, ...]:
        found = evaluation_config(recipe, SAID, "head")
        return found.fps, found.unit, found.nms, found.nms_threshold, found.window_seconds, found.step_seconds

    assert config(load_recipe("tacos")) == (0.5, None, "linear", 0.7, 2048.0, 1365.3)
    assert config(load_recipe("qvhighlights")) == (0.5, 2.0, "normal", 0.7, 90.0, 60.0)
    assert config(load_recipe("charades")) == (1.0, 0.1, "linear", 0.7, 90.0, 60.0)
    assert config(load_recipe(own_recipe(tmp_path))) == (1.0, 2.0, "normal", 0.6, 90.0, 60.0)
    stated = own_recipe(tmp_path, 'fps = 2\n[evaluation]\nunit = "none"\n')
    assert config(load_recipe(stated)) == (2.0, None, "normal", 0.6, 90.0, 60.0)
    assert config(load_recipe(stated, ["evaluation.nms=none"]))[2] is None
    in_python = Recipe("mine", DataRecipe(), EvaluationRecipe(nms="linear"))
    assert config(in_python) == (1.0, 2.0, "linear", 0.7, 90.0, 60.0)
    based = tmp_path / "based.toml"
    based.write_text('base = "charades"\n', encoding="utf-8")
    assert config(load_recipe(based))[:3] == (1.0, 0.1, "linear")
    with pytest.raises(VtgError, match=r"model.step_seconds 1365\.3 must not exceed window_seconds 30"):
        config(load_recipe("tacos", ["model.window_seconds=30"]))


def test_the_rate_of_the_recipe_is_that_of_the_times(run: Callable[..., Result], tmp_path: Path) -> None:
    write_benchmark(tmp_path, "tacos", [100], queries=1)
    write_head(tmp_path / "head.safetensors", fps=2.0)
    found = {}
    for rate in ("0.5", "1", None):
        out = tmp_path / f"{rate}.jsonl"
        settings = () if rate is None else ("--set", f"data.fps={rate}")
        arguments = ("--features", tmp_path, "--model", tmp_path / "head.safetensors", "--out", out)
        assert run(own_recipe(tmp_path), *arguments, *settings).status == 0
        found[rate] = np.array(lines_of(out)[0]["pred_relevant_windows"])
    inside = found["0.5"][:, 1] < 199
    np.testing.assert_allclose(found["1"][inside], found["0.5"][inside] * [0.5, 0.5, 1], atol=1e-4)
    np.testing.assert_allclose(found[None][inside], found["0.5"][inside] * [0.25, 0.25, 1], atol=1e-4)  # the head's


@pytest.fixture
def says_nothing(tmp_path: Path) -> Path:
    """A checkpoint in the published layout that the registry does not know, beside annotations and features."""
    write_benchmark(tmp_path, "tacos", [100], queries=1)
    save_published(write_head(tmp_path / "ours.safetensors").state_dict(), tmp_path / "head.pth")
    return tmp_path / "head.pth"


def test_a_checkpoint_that_says_nothing_needs_a_recipe_or_like(
    run: Callable[..., Result], tmp_path: Path, says_nothing: Path
) -> None:
    out = tmp_path / "out.jsonl"
    arguments = ("--features", tmp_path, "--model", says_nothing, "--out", out)
    refused = run(own_recipe(tmp_path), *arguments)
    assert (refused.status, refused.out) == (1, "")
    assert refused.err == (
        f"vtg: {says_nothing}: does not contain its rate, unit, suppression; name a published head with the "
        "same settings with --like, or set data.fps, evaluation.unit, evaluation.nms in the recipe or with --set\n"
    )
    assert not out.exists() and not list(tmp_path.glob("*.part"))
    partly = run(own_recipe(tmp_path, "fps = 0.5\n"), *arguments, "--set", "evaluation.nms=linear")
    assert "does not contain its unit; " in partly.err and partly.status == 1
    written = []
    for recipe, more in (
        (own_recipe(tmp_path), ("--like", "r2-tacos")),
        ("tacos", ("--annotations", tmp_path)),
        (
            own_recipe(tmp_path),
            ("--set", "data.fps=0.5", "--set", "evaluation.nms=linear", "--set", "evaluation.unit=none"),
        ),
    ):
        result = run(recipe, *arguments, *more)
        assert result.status == 0, result.err
        written.append(out.read_text())
    assert written[0] == written[1] == written[2]
    for wrong, message in (("r2-taco", "did you mean r2-tacos"), ("r2-tacos", "contains its settings")):
        ours = ("--features", tmp_path, "--model", tmp_path / "ours.safetensors", "--like", wrong)
        refused = run(own_recipe(tmp_path), *ours)
        assert refused.status == 1 and message in refused.err and refused.err.count("\n") == 1


def test_a_highlight_head_that_says_nothing_needs_a_rate_alone() -> None:
    config = replace(SAID, guessed=True, moment_retrieval=False)
    recipe = Recipe("mine", DataRecipe(), EvaluationRecipe())
    with pytest.raises(VtgError, match=r"does not contain its rate; .* set data\.fps in the recipe"):
        evaluation_config(recipe, config, "head.pth")
    assert not evaluation_config(load_recipe("youtube-dog"), config, "head.pth").guessed


def test_a_configuration_that_is_guessed_says_so_in_its_file(tmp_path: Path) -> None:
    head = write_head(tmp_path / "ours.safetensors")
    save_published(head.state_dict(), tmp_path / "head.pth")
    guessed = vtg.load_head(tmp_path / "head.pth")
    assert guessed.config.guessed and not vtg.load_head(tmp_path / "ours.safetensors").config.guessed
    save_head(guessed, tmp_path / "again.safetensors")
    assert vtg.load_head(tmp_path / "again.safetensors").config.guessed
    assert "guessed" not in head.config.to_json()  # what does not need the field is read by earlier versions


def test_annotations_may_be_a_folder_and_settings_and_the_device_are_given(
    run: Callable[..., Result], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "data").mkdir()
    write_benchmark(tmp_path / "data", "tacos", [90, 100])
    (tmp_path / "annotations").mkdir()
    (tmp_path / "data" / "test.jsonl").rename(tmp_path / "annotations" / "test.jsonl")
    write_head(tmp_path / "head.safetensors")
    monkeypatch.chdir(tmp_path)
    arguments = ("--features", "data", "--annotations", "annotations", "--model", "head.safetensors")
    result = run("tacos", *arguments, "--device", "cpu", "--set", "evaluation.nms=none", "--json")
    assert result.status == 0 and result.json["predictions"] == "tacos-head-test.jsonl"
    scores = np.array(lines_of(tmp_path / "tacos-head-test.jsonl")[0]["pred_relevant_windows"])[:, 2]
    assert len(scores) == 50 and (np.diff(scores) <= 0).all() and scores[-1] > 0.01  # nothing was suppressed
    for words, message in (
        (("--device", "warp"), "vtg: there is no device warp here; name cuda, mps or cpu, or leave out --device\n"),
        (("--set", "evaluation.nsm=linear"), "vtg: --set evaluation.nsm=linear: there is no evaluation.nsm; "),
        (("--annotations", "data"), "vtg: data: no annotations for test; put test.jsonl or tacos_test.jsonl there\n"),
    ):
        refused = run("tacos", *arguments, *words)
        assert refused.status == 1 and refused.err.startswith(message) and refused.err.count("\n") == 1


def test_a_head_of_fewer_layers_reads_the_last_of_those_cached(tmp_path: Path) -> None:
    (query,) = write_benchmark(tmp_path, "tacos", [100], queries=1)
    head = write_head(tmp_path / "head.safetensors", layers=1)
    evaluate(load_recipe("tacos"), tmp_path, tmp_path / "out.jsonl", tmp_path, str(tmp_path / "head.safetensors"))
    published = PublishedFeatures(tmp_path)
    video, text = published.video("v0-cam-002")[:, -1:], published.query(query.file)[:, -1:]
    found = head.predict(*(torch.from_numpy(np.array(array)) for array in (video, text)), fps=RATE)
    (line,) = lines_of(tmp_path / "out.jsonl")
    np.testing.assert_allclose(line["pred_saliency_scores"], found.saliency, atol=1e-5)


def make_library(
    folder: Path, make_video: Callable[..., Path], clip: Path, head: Path, storage: Storage, seconds: float
) -> tuple[Path, Path]:
    """A library of one video for a head, and a recipe with a query about it."""
    video = make_video(folder / "holiday.mp4", seconds=seconds)
    spec = replace(model_spec(head, pretrained=clip), fps=0.5)
    library = Library(folder / f"library-{storage.keep_layers}-{seconds:g}", spec, device="cpu", storage=storage)
    library.add([video])
    line = {"qid": 1, "query": "a red circle", "vid": "holiday", "duration": seconds, "relevant_windows": [[4, 10]]}
    (folder / "val.jsonl").write_text(json.dumps(line) + "\n", encoding="utf-8")
    (folder / "mine.toml").write_text('[data.annotations]\nval = "val.jsonl"\n', encoding="utf-8")
    return library.folder, folder / "mine.toml"


def test_a_library_is_asked_whole_from_its_layers_or_says_that_it_needs_them(
    run: Callable[..., Result], tmp_path: Path, make_video: Callable[..., Path], tiny_clip: Path, tiny_head: Path
) -> None:
    kept, recipe = make_library(tmp_path, make_video, tiny_clip, tiny_head, Storage("float16", keep_layers=True), 60)
    out = tmp_path / "out.jsonl"
    assert run(recipe, "--features", kept, "--model", tiny_head, "--out", out, "--device", "cpu").status == 0
    library, head = Library(kept, device="cpu"), vtg.load_head(tiny_head)
    layers = library.open_features(tmp_path / "holiday.mp4").layers
    (text,) = library.encoder.encode_texts(["a red circle"])
    found = head.predict(torch.from_numpy(np.array(layers)), text.layers, fps=0.5)
    (line,) = lines_of(out)
    np.testing.assert_allclose(line["pred_saliency_scores"], found.saliency, atol=1e-5)
    # Elsewhere a library is asked in the head's windows of 20 s, as before.
    in_windows = library.ground(tmp_path / "holiday.mp4", "a red circle").saliency.scores
    assert np.abs(in_windows - line["pred_saliency_scores"]).max() > 1e-3
    out.unlink()
    alone, _ = make_library(tmp_path, make_video, tiny_clip, tiny_head, Storage("float16"), 60)
    refused = run(recipe, "--features", alone, "--model", tiny_head, "--out", out, "--device", "cpu")
    assert refused.status == 1 and not out.exists() and not list(tmp_path.glob("*.part"))
    assert refused.err == (
        "vtg: holiday: evaluation needs the whole video, and only a projection of 20 s windows is stored; index it "
        "again with --keep-layers\n"
    )


def test_a_head_of_fewer_layers_reads_the_last_of_a_librarys(
    run: Callable[..., Result], tmp_path: Path, make_video: Callable[..., Path], tiny_clip: Path, tiny_head: Path
) -> None:
    kept, recipe = make_library(tmp_path, make_video, tiny_clip, tiny_head, Storage(keep_layers=True), 16)
    path, out = write_tiny_head(tmp_path / "two.safetensors", layers=2), tmp_path / "out.jsonl"
    arguments = ("--model", path, "--pretrained", tiny_clip, "--device", "cpu")
    result = run(recipe, "--features", kept, *arguments, "--out", out)
    assert result.status == 0, result.err
    layers = Library(kept, device="cpu").open_features(tmp_path / "holiday.mp4").layers
    library = Library(kept, replace(model_spec(path, pretrained=tiny_clip), fps=0.5), device="cpu")
    (text,) = library.encoder.encode_texts(["a red circle"])
    assert layers is not None and layers.shape[1] == 4 and text.layers.shape[1] == 4
    head, video, query = vtg.load_head(path), np.array(layers[:, -2:]), text.layers[:, -2:]
    expected = head.predict(torch.from_numpy(video), query, fps=0.5).saliency
    np.testing.assert_allclose(lines_of(out)[0]["pred_saliency_scores"], expected, atol=1e-5)
    grounding = library.ground(tmp_path / "holiday.mp4", "a red circle")
    projection = head.project([torch.from_numpy(video)]).quantized()
    (found,) = Predictor(head).predict([projection], [query], 0.5)
    np.testing.assert_allclose(grounding.saliency.scores, found.saliency[0, 0], atol=1e-5)
    assert grounding.attention(3).shape == (2, 2)
    more = write_tiny_head(tmp_path / "five.safetensors", layers=5)
    refused = run(recipe, "--features", kept, "--model", more, *arguments[2:], "--out", out)
    assert refused.status == 1 and "(4 layers)" in refused.err and "(5 layers)" in refused.err


def test_a_projection_of_a_video_in_one_window_is_the_whole_of_it(
    run: Callable[..., Result], tmp_path: Path, make_video: Callable[..., Path], tiny_clip: Path, tiny_head: Path
) -> None:
    alone, recipe = make_library(tmp_path, make_video, tiny_clip, tiny_head, Storage("float32"), 16)
    out = tmp_path / "out.jsonl"
    result = run(recipe, "--features", alone, "--model", tiny_head, "--out", out, "--device", "cpu")
    assert result.status == 0, result.err
    expected = Library(alone, device="cpu").ground(tmp_path / "holiday.mp4", "a red circle")
    np.testing.assert_allclose(lines_of(out)[0]["pred_saliency_scores"], expected.saliency.scores, atol=1e-6)
    refused = run(recipe, "--features", alone, "--model", tiny_head, "--out", out, "--set", "data.fps=1")
    assert refused.status == 1 and "has 0.5 frames a second, the recipe 1; index at that rate" in refused.err


def test_a_library_is_asked_with_each_domains_own_head(
    tmp_path: Path, make_video: Callable[..., Path], tiny_clip: Path, tiny_head: Path
) -> None:
    kept, path = make_library(tmp_path, make_video, tiny_clip, tiny_head, Storage("float16", keep_layers=True), 16)
    other = vtg.load_head(tiny_head)
    with torch.no_grad():
        for parameter in other.parameters():
            parameter.add_(0.01)
    save_head(other, tmp_path / "other.safetensors")
    recipe = load_recipe(path)
    source = LibraryGrounder(LibrarySource(kept, recipe.data, "cpu"), Heads(recipe, device="cpu"))
    samples = recipe.data.samples("val")
    both = [source.ground(str(model), samples)[0] for model in (tiny_head, tmp_path / "other.safetensors")]
    assert np.abs(both[0].saliency.scores - both[1].saliency.scores).max() > 1e-3


def test_clip_alone_needs_a_library(run: Callable[..., Result], tmp_path: Path) -> None:
    write_benchmark(tmp_path, "tacos", [100], queries=1)
    refused = run("tacos", "--features", tmp_path, "--annotations", tmp_path, "--model", "zero-shot")
    assert refused.status == 1
    assert refused.err == "vtg: zero-shot: needs CLIP's embeddings, which cached features lack; give a library\n"
