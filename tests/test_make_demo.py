"""The demo models from nothing: the smoke run, what heads learn from, and the table that compares them."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from tools.compare_demo import summarised
from tools.demo.features import Asked, draw_scene, features_folder, write_features
from tools.demo.test_set import FIGURES, TestSet, figures_of, make_test_set
from vtg import ClipEncoder
from vtg.demo import make_scene, split_seed, truth
from vtg.features.store import PublishedFeatures
from vtg.grounding.grounder import Grounding, Moment, Saliency
from vtg.r2 import HeadConfig, R2Head

ROOT = Path(__file__).resolve().parents[1]


@pytest.fixture(scope="module")
def encoder(tiny_clip: Path) -> ClipEncoder:
    """A CLIP with random weights."""
    return ClipEncoder(pretrained=str(tiny_clip), device="cpu")


@pytest.fixture(scope="module")
def tests_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where the test set lies."""
    return tmp_path_factory.mktemp("unseen")


@pytest.fixture(scope="module")
def unseen(tests_folder: Path, encoder: ClipEncoder) -> TestSet:
    """One unseen video."""
    return make_test_set(tests_folder, encoder, 1, 6, 1, lambda label, done, total: None)


@pytest.mark.slow
def test_a_smoke_run_rebuilds_both_files_from_nothing(tmp_path: Path):
    command = [sys.executable, str(ROOT / "tools" / "make_demo.py"), "--smoke", "--out", str(tmp_path)]
    run = subprocess.run(command, capture_output=True, text=True, timeout=560, check=False)
    assert run.returncode == 0, run.stderr
    first, last = re.search(r"loss ([\d.]+) → ([\d.]+)", run.stdout).groups()  # type: ignore[union-attr]
    assert float(last) < 0.85 * float(first)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["clip.safetensors", "head.safetensors"]
    clip, head = tmp_path / "clip.safetensors", tmp_path / "head.safetensors"
    assert clip.stat().st_size <= 4_000_000 and head.stat().st_size <= 3_000_000

    from vtg.grounding.grounder import Grounder
    from vtg.models.registry import load_head

    encoder = ClipEncoder(pretrained=str(clip), device="cpu")
    scene = draw_scene(Asked("val", 1), 0, encoder.image_size)
    layers = encoder.encode_frames(scene.frames).layers
    query = encoder.encode_text("a red circle after a blue square").layers
    prediction = Grounder(encoder, load_head(head)).head.predict(layers, query)  # type: ignore[union-attr]
    assert torch.isfinite(prediction.windows).all() and len(prediction.saliency) == len(layers)


def test_smoke_does_not_overwrite_what_is_bundled():
    command = [sys.executable, str(ROOT / "tools" / "make_demo.py"), "--smoke"]
    run = subprocess.run(command, capture_output=True, text=True, check=False)
    assert run.returncode == 1 and run.stderr.startswith("--smoke: ") and len(run.stderr.splitlines()) == 1


def test_what_heads_learn_from_looks_like_what_a_decoder_gives(unseen: TestSet, encoder: ClipEncoder):
    from vtg.video import sample_frames

    drawn = draw_scene(Asked("test", 6), 0, encoder.image_size)
    decoded = np.concatenate([frames for _, frames in sample_frames(unseen.videos[0].path, 0.5, encoder.image_size)])
    assert drawn.frames.shape == decoded.shape and drawn.frames.dtype == np.uint8
    assert np.abs(drawn.frames.astype(float) - decoded).mean() < 8


def test_sentences_to_learn_from_are_true_and_half_of_them_in_other_words():
    scenes = [draw_scene(Asked("train", 12, 6), index, 16) for index in range(4)]
    asked = [fields for scene in scenes for fields in scene.annotations]
    assert len({fields["qid"] for fields in asked}) == len(asked) == 4 * (12 + 6)
    plain = []
    for scene in scenes:
        index = int(scene.name.rsplit("_", 1)[1])
        world = make_scene(split_seed("train", index))
        from vtg.demo import true_sentences

        by_text = {sentence.text: sentence for sentence in true_sentences(world)}
        assert [bool(fields["relevant_windows"]) for fields in scene.annotations] == [True] * 12 + [False] * 6
        for fields in scene.annotations:
            assert fields["duration"] == world.duration
            if fields["query"] in by_text:
                plain.append(fields)
                windows = truth(world, by_text[fields["query"]]).windows
                assert fields["relevant_windows"] == [list(window) for window in windows]
    true = [fields for fields in asked if fields["relevant_windows"]]
    assert 0.3 * len(true) < len(plain) < 0.8 * len(true)
    again = draw_scene(Asked("train", 12, 6), 0, 16)
    assert np.array_equal(again.frames, scenes[0].frames) and again.annotations == scenes[0].annotations


def test_features_are_written_once_and_lie_where_training_finds_them(
    tmp_path: Path, encoder: ClipEncoder, monkeypatch: pytest.MonkeyPatch
):
    from vtg.recipes import load_recipe

    folder = features_folder(tmp_path, encoder)
    write_features(folder, encoder, Asked("train", 3), 1)
    before = {path: path.stat().st_mtime_ns for path in folder.rglob("*.npy")}
    annotations = write_features(folder, encoder, Asked("train", 3), 2)
    after = {path: path.stat().st_mtime_ns for path in folder.rglob("*.npy")}
    assert before.items() < after.items()
    data = replace(load_recipe("demo").data, folder=folder)
    samples = data.samples("train")
    assert data.annotation_file("train") == annotations and len(samples) == 6
    for sample in samples:
        video, query = (
            np.load(data.video_feature_file(sample.video_id)),
            np.load(data.query_feature_file(sample.query_id, sample.video_id)),
        )
        assert video.dtype == query.dtype == np.float16
        assert video.shape == (sample.duration / 2, 4, encoder.tokens, encoder.width) and query.shape[1] == 4
        assert np.array_equal(query, encoder.encode_text(sample.query).layers.half().numpy())
    assert PublishedFeatures(folder).video("train_00001").shape[0] == samples[-1].duration / 2


def test_the_truth_itself_scores_full_marks(unseen: TestSet, tmp_path: Path):
    groundings = []
    for sentence in unseen.videos[0].sentences:
        true = truth(unseen.videos[0].scene, sentence)
        saliency = np.zeros(unseen.videos[0].scene.clip_count)
        for clip, ratings in zip(true.relevant_clip_ids, true.saliency_scores, strict=True):
            saliency[clip] = sum(ratings)
        moments = [Moment(start, end, 1.0) for start, end in true.windows]
        groundings.append(
            Grounding(sentence.text, "", 0.0, moments, Saliency(np.arange(len(saliency)) * 2.0, saliency))
        )
    figures = figures_of(unseen, groundings, tmp_path / "predictions.jsonl")
    assert set(figures) == {"all", *unseen.kinds} and set(figures["all"]) == set(FIGURES)
    assert figures["all"]["R1@0.7"] == figures["all"]["MR mAP"] == 100 and figures["all"]["HD mAP"] > 90
    groundings[0] = replace(groundings[0], moments=[Moment(0.0, 0.5, 1.0)])
    worse = figures_of(unseen, groundings, tmp_path / "predictions.jsonl")
    assert worse["all"]["R1@0.5"] == pytest.approx(100 * (1 - 1 / len(groundings)), abs=0.01)


def test_a_head_of_one_layer_is_asked_by_the_last_layers_alone(unseen: TestSet, encoder: ClipEncoder):
    torch.manual_seed(0)
    config = HeadConfig(hidden_width=16, video_width=64, query_width=64, layers=1, tokens=5, nms="normal")
    head = R2Head(config).eval()
    groundings = unseen.answer(head, lambda done, total: None)
    assert len(groundings) == len(unseen.samples)
    layers = torch.from_numpy(np.array(unseen.features[0].layers[:, -1:]))  # type: ignore[index]
    query = encoder.encode_text(unseen.samples[0].query).layers[:, -1:]
    alone = head.predict(layers, query, 0.5).saliency.numpy()
    assert np.allclose(groundings[0].saliency.scores, alone, atol=1e-4)
    assert all(grounding.moments for grounding in unseen.answer(None, lambda done, total: None))  # zero-shot


def test_a_test_set_that_is_there_is_used_again(unseen: TestSet, tests_folder: Path, encoder: ClipEncoder):
    before = {path: path.stat().st_mtime_ns for path in tests_folder.rglob("*") if path.suffix != ".jsonl"}
    again = make_test_set(tests_folder, encoder, 1, 6, 1, lambda label, done, total: None)
    assert {path: path.stat().st_mtime_ns for path in before} == before
    assert [sample.query for sample in again.samples] == [sample.query for sample in unseen.samples]


def test_the_table_has_means_and_their_spread():
    def figures(value: float) -> dict[str, dict[str, float]]:
        return {"all": dict.fromkeys(FIGURES, value)}

    table = summarised({"zero-shot": [figures(50)], "k4": [figures(90), figures(92), figures(94)]})
    assert table["zero-shot"]["all"]["R1@0.5"] == [50, 0] and table["zero-shot"]["seeds"] == 1
    assert table["k4"]["all"]["MR mAP"] == [92, 2] and table["k4"]["seeds"] == 3
    assert json.loads(json.dumps(table)) == table
