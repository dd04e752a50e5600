"""Training of the demo models: the smoke run, and the training features of heads."""

from __future__ import annotations

import re
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from tools.demo.features import SplitQueries, draw_scene, features_folder, write_features
from vtg import ClipEncoder
from vtg.demo import clip_path, head_path, make_scene, make_videos, split_seed, truth
from vtg.features.store import PublishedFeatures

ROOT = Path(__file__).resolve().parents[1]


@pytest.fixture(scope="module")
def encoder(tiny_clip: Path) -> ClipEncoder:
    """A CLIP with random weights."""
    return ClipEncoder(pretrained=str(tiny_clip), device="cpu")


@pytest.mark.slow
def test_a_smoke_run_rebuilds_both_files_from_nothing(tmp_path: Path):
    command = [sys.executable, str(ROOT / "tools" / "make_demo.py"), "--smoke", "--out", str(tmp_path)]
    run = subprocess.run(command, capture_output=True, text=True, timeout=560, check=False)
    assert run.returncode == 0, run.stderr
    first, last = re.search(r"loss ([\d.]+) → ([\d.]+)", run.stdout).groups()  # type: ignore[union-attr]
    assert float(last) < 0.85 * float(first)
    assert sorted(path.name for path in tmp_path.iterdir()) == [clip_path().name, head_path().name]
    clip, head = tmp_path / clip_path().name, tmp_path / head_path().name
    assert clip.stat().st_size <= 4_000_000 and head.stat().st_size <= 3_000_000

    from vtg.grounding.grounder import Grounder
    from vtg.models.registry import load_head

    encoder = ClipEncoder(pretrained=str(clip), device="cpu")
    scene = draw_scene(SplitQueries("val", 1), 0, encoder.image_size)
    layers = encoder.encode_frames(scene.frames).layers
    query = encoder.encode_text("a red circle after a blue square").layers
    prediction = Grounder(encoder, load_head(head)).head.predict(layers, query)  # type: ignore[union-attr]
    assert torch.isfinite(prediction.windows).all() and len(prediction.saliency) == len(layers)


def test_smoke_does_not_overwrite_what_is_bundled():
    command = [sys.executable, str(ROOT / "tools" / "make_demo.py"), "--smoke"]
    run = subprocess.run(command, capture_output=True, text=True, check=False)
    assert run.returncode == 1 and run.stderr.startswith("--smoke: ") and len(run.stderr.splitlines()) == 1


def test_training_frames_resemble_decoded_frames(tmp_path: Path, encoder: ClipEncoder):
    from vtg.video import sample_frames

    (video,) = make_videos(tmp_path, "test", 1)
    drawn = draw_scene(SplitQueries("test", 6), 0, encoder.image_size)
    decoded = np.concatenate([frames for _, frames in sample_frames(video.path, 0.5, encoder.image_size)])
    assert drawn.frames.shape == decoded.shape and drawn.frames.dtype == np.uint8
    assert np.abs(drawn.frames.astype(float) - decoded).mean() < 8


def test_training_sentences_are_true_and_half_of_them_are_paraphrased():
    scenes = [draw_scene(SplitQueries("train", 12, 6), index, 16) for index in range(4)]
    annotations = [fields for scene in scenes for fields in scene.annotations]
    assert len({fields["qid"] for fields in annotations}) == len(annotations) == 4 * (12 + 6)
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
    true = [fields for fields in annotations if fields["relevant_windows"]]
    assert 0.3 * len(true) < len(plain) < 0.8 * len(true)
    again = draw_scene(SplitQueries("train", 12, 6), 0, 16)
    assert np.array_equal(again.frames, scenes[0].frames) and again.annotations == scenes[0].annotations


def test_features_are_written_once_and_lie_where_training_finds_them(
    tmp_path: Path, encoder: ClipEncoder, monkeypatch: pytest.MonkeyPatch
):
    from vtg.recipes import load_recipe

    folder = features_folder(tmp_path, encoder)
    write_features(folder, encoder, SplitQueries("train", 3), 1)
    before = {path: path.stat().st_mtime_ns for path in folder.rglob("*.npy")}
    annotations = write_features(folder, encoder, SplitQueries("train", 3), 2)
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
    assert PublishedFeatures(folder, "demo_vid_k4").video("train_00001").shape[0] == samples[-1].duration / 2


@pytest.mark.slow
def test_features_of_a_smoke_run_train_a_head_by_the_recipe(tmp_path: Path):
    command = [sys.executable, "-m", "tools.make_demo", "--smoke", "--only", "features", "--work", str(tmp_path)]
    made = subprocess.run(
        [*command, "--out", str(clip_path().parent)], capture_output=True, text=True, check=False, cwd=ROOT
    )
    assert made.returncode == 0, made.stderr
    folder = made.stdout.strip()
    settings = ["--set", "model.layers=1", "--set", "train.epochs=1"]
    command = [sys.executable, "-m", "vtg", "train", "demo", "--features", folder, "--annotations", folder, *settings]
    trained = subprocess.run(
        [*command, "--out", str(tmp_path / "run"), "--device", "cpu"], capture_output=True, text=True, check=False
    )
    assert trained.returncode == 0, trained.stderr
    assert (tmp_path / "run" / "best.safetensors").is_file()
