"""Training: what it leaves, that it goes on bit for bit, that processes agree, and what stops it before it starts."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from training_sets import QUERY_WIDTH, VIDEO_WIDTH, write_data_set

import vtg
from vtg.datasets import videos_of
from vtg.errors import VtgError
from vtg.evaluation import evaluate
from vtg.features.store import PublishedFeatures
from vtg.library.settings import Storage
from vtg.models.specs import model_spec
from vtg.r2.checkpoints import save_pickled
from vtg.recipes import Recipe, load_recipe
from vtg.training.log import read_log
from vtg.training.train import Sources, TrainingResult, TrainingStep, check, member_recipes, rate_at, train
from vtg.weights import read_content


@pytest.fixture
def recipe(tmp_path: Path) -> Path:
    return write_data_set(tmp_path / "data")


def run(recipe: Path, out: Path, *settings: str, **options: object) -> TrainingResult:
    return train(load_recipe(recipe, settings), Sources(), out, **options)  # type: ignore[arg-type]


def losses_of(out: Path) -> list[dict[str, float]]:
    """The log's steps, without what a clock says."""
    steps = [line for line in read_log(out / "log.jsonl") if "loss" in line]
    return [{key: value for key, value in step.items() if key != "samples_per_second"} for step in steps]


def same_weights(one: Path, other: Path) -> bool:
    first, second = load_file(one), load_file(other)
    return first.keys() == second.keys() and all(torch.equal(first[name], second[name]) for name in first)


def test_training_leaves_a_head_that_loads_and_has_learnt(recipe: Path, tmp_path: Path) -> None:
    states: list[TrainingStep] = []
    out = tmp_path / "out"
    result = run(recipe, out, "train.epochs=6", "model.dropout=0", plot=True, report=states.append)
    assert (result.epochs, result.step, result.finished) == (6, 24, True)
    assert {path.name for path in out.iterdir()} == {
        "best.safetensors", "last.safetensors", "log.jsonl", "tensorboard", "recipe.json", "state.pt", "curves.png",
    }  # fmt: skip
    assert (out / "curves.png").read_bytes().startswith(b"\x89PNG")
    assert next((out / "tensorboard").iterdir()).stat().st_size > 1000
    head = vtg.load_head(result.head)
    assert (head.config.name, head.config.video_width, head.config.fps) == ("mine", VIDEO_WIDTH, 0.5)
    steps = losses_of(out)
    assert [step["step"] for step in steps] == list(range(1, 25))
    assert steps[0]["rate"] == pytest.approx(1e-6) and steps[-1]["rate"] == 1e-3
    parts = sum(steps[0][name] for name in ("cls", "reg", "sal", "video_cal", "layer_cal"))
    assert steps[0]["loss"] == pytest.approx(parts)
    assert np.mean([step["loss"] for step in steps[-4:]]) < 0.9 * np.mean([step["loss"] for step in steps[:4]])
    assert [state.batches for state in states] == list(range(1, 25)) and states[-1].all_batches == 24


def test_the_figure_is_that_of_vtg_evaluate(recipe: Path, tmp_path: Path) -> None:
    result = run(recipe, tmp_path / "out")
    chosen = replace(load_recipe(recipe), evaluation=replace(load_recipe(recipe).evaluation, split="val"))
    evaluation = evaluate(chosen, recipe.parent, tmp_path / "predictions.jsonl", model=str(result.head))
    assert evaluation.scores is not None
    assert result.figure == evaluation.scores.brief["MR-full-mAP"]
    logged = [line for line in read_log(tmp_path / "out" / "log.jsonl") if "figures" in line]
    assert max(line["figures"]["MR-full-mAP"] for line in logged) == result.figure
    assert logged[result.best_epoch - 1]["best"]


def test_validation_asks_videos_whole_whatever_the_windows_of_the_head(recipe: Path, tmp_path: Path) -> None:
    figures = []
    for name, window in (("long", 150), ("short", 6)):  # its videos have 12 to 24 s
        settings = (f"model.window_seconds={window}", "model.step_seconds=4", "train.epochs=4")
        result = run(recipe, tmp_path / name, *settings)
        assert vtg.load_head(result.head).config.window_seconds == window
        figures.append([line["figures"] for line in read_log(tmp_path / name / "log.jsonl") if "figures" in line])
    assert same_weights(tmp_path / "long" / "last.safetensors", tmp_path / "short" / "last.safetensors")
    assert figures[0] == figures[1]


def test_going_on_is_the_same_as_not_stopping(recipe: Path, tmp_path: Path) -> None:
    run(recipe, tmp_path / "straight", "train.epochs=4", "train.rate_drop_epoch=3")
    run(recipe, tmp_path / "halves", "train.epochs=2", "train.rate_drop_epoch=3")
    torch.rand(7)  # whatever happens between the two runs
    result = run(recipe, tmp_path / "halves", "train.epochs=4", "train.rate_drop_epoch=3", resume=True)
    assert result.epochs == 4
    assert same_weights(tmp_path / "straight" / "last.safetensors", tmp_path / "halves" / "last.safetensors")
    assert same_weights(tmp_path / "straight" / "best.safetensors", tmp_path / "halves" / "best.safetensors")
    assert losses_of(tmp_path / "straight") == losses_of(tmp_path / "halves")


@pytest.mark.parametrize("accumulate", [1, 2])
def test_an_interrupted_epoch_is_saved_and_gone_on_with(recipe: Path, tmp_path: Path, accumulate: int) -> None:
    settings = ("train.epochs=2", f"train.accumulate={accumulate}", "train.batch=2")

    def interrupt(state: TrainingStep) -> None:
        if state.batches == 11:
            signal.raise_signal(signal.SIGINT)

    run(recipe, tmp_path / "straight", *settings)
    before = signal.getsignal(signal.SIGINT)
    stopped = run(recipe, tmp_path / "stopped", *settings, report=interrupt)
    assert signal.getsignal(signal.SIGINT) is before
    assert not stopped.finished and stopped.step == {1: 11, 2: 6}[accumulate]
    # What a killed process wrote after its state is dropped.
    with (tmp_path / "stopped" / "log.jsonl").open("a", encoding="utf-8") as log:
        log.write(json.dumps({"step": 99, "epoch": 2, "loss": 0.0}) + '\n{"step": 100, "half a li')
    assert run(recipe, tmp_path / "stopped", *settings, resume=True).finished
    assert losses_of(tmp_path / "straight") == losses_of(tmp_path / "stopped")
    assert same_weights(tmp_path / "straight" / "last.safetensors", tmp_path / "stopped" / "last.safetensors")


def test_two_processes_have_the_losses_of_one(recipe: Path, tmp_path: Path) -> None:
    settings = ["train.epochs=3", "model.dropout=0", "model.drop_path=0", "train.warmup_steps=0"]
    run(recipe, tmp_path / "one", *settings)
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = str(probe.getsockname()[1])
    command = [sys.executable, "-m", "vtg", "train", str(recipe), "--out", str(tmp_path / "two"), "--device", "cpu"]
    command += [part for setting in settings for part in ("--set", setting)]
    processes = []
    for rank in "01":
        world = {"RANK": rank, "LOCAL_RANK": rank, "WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port}
        processes.append(subprocess.Popen(command, env={**os.environ, **world}, stderr=subprocess.PIPE, text=True))
    outputs = [process.communicate(timeout=120)[1] for process in processes]
    assert [process.returncode for process in processes] == [0, 0], outputs
    assert outputs[0].strip() and not outputs[1].strip()  # one of them speaks
    one, two = losses_of(tmp_path / "one"), losses_of(tmp_path / "two")
    assert len(one) == len(two) == 12
    for first, second in zip(one[:10], two[:10], strict=True):
        assert second == pytest.approx(first, abs=1e-5, rel=0), (first, second)
    figures = [
        [line["figures"] for line in read_log(tmp_path / name / "log.jsonl") if "figures" in line]
        for name in ("one", "two")
    ]
    assert figures[1][0].keys() == figures[0][0].keys()


def test_the_rate_grows_then_stays_then_drops() -> None:
    recipe = load_recipe("qvhighlights").train
    assert rate_at(recipe, 0, 0) == pytest.approx(5e-7)
    assert rate_at(recipe, 0, 250) == pytest.approx(5e-4 * 0.5005)
    assert rate_at(recipe, 3, 500) == rate_at(recipe, 19, 4000) == 5e-4
    assert rate_at(recipe, 20, 4500) == pytest.approx(5e-5)
    assert rate_at(load_recipe("tvsum-bk").train, 499, 499) == 5e-4


def test_each_domain_has_a_head_of_its_own(tmp_path: Path) -> None:
    random = np.random.default_rng(0)
    published, annotations = PublishedFeatures(tmp_path), {}
    for domain in ("BK", "BT"):
        for part in ("train", "val"):
            for video in videos_of("tvsum", domain, part):
                marks = random.integers(1, 6, size=(9, 20)).tolist()
                annotations[video] = {"title": "a title", "anno": marks}
                published.write_video(video, random.normal(size=(9, 4, 5, VIDEO_WIDTH)))
                published.write_query(video, random.normal(size=(4, 4, QUERY_WIDTH)))
    file = tmp_path / "tvsum_anno.json"
    file.write_text(json.dumps(annotations), encoding="utf-8")
    settings = ["train.epochs=3", "model.hidden_width=32", "model.clip_model=none"]
    members = member_recipes(load_recipe("tvsum", settings))
    assert [member.name for member in members][:2] == ["tvsum-bk", "tvsum-bt"] and len(members) == 10
    figures = []
    for member in members[:2]:
        result = train(member, Sources(tmp_path, file), tmp_path / member.name)
        head = vtg.load_head(result.head)
        assert not head.config.moment_retrieval and head.coordinate_head is None
        assert "reg" not in losses_of(tmp_path / member.name)[0]
        figures.append(result.figure)
    assert all(figure is not None and 0 < figure <= 1 for figure in figures)


def test_a_library_is_trained_on_like_cached_features(
    tmp_path: Path, tiny_clip: Path, make_video: Callable[..., Path]
) -> None:
    lines = []
    for number in range(4):
        make_video(tmp_path / f"v{number}.mp4", 12.0, seed=number)
        for query, text in enumerate(("a red square", "blue")):
            window = [[2 * number, 2 * number + 4]]
            fields = {"qid": f"{number}-{query}", "vid": f"v{number}", "query": text, "duration": 12}
            lines.append(json.dumps({**fields, "relevant_windows": window}) + "\n")
    annotations = tmp_path / "all.jsonl"
    annotations.write_text("".join(lines), encoding="utf-8")
    spec = model_spec("zero-shot", pretrained=tiny_clip)
    library = vtg.Library(tmp_path / "library", spec, storage=Storage("float16", keep_layers=True))
    library.add(sorted(tmp_path.glob("*.mp4")))
    (tmp_path / "own.toml").write_text(
        'data = { annotations = { train = "all.jsonl", val = "all.jsonl" } }\n'
        "model = { hidden_width = 32 }\ntrain = { batch = 4, epochs = 2 }\n",
        encoding="utf-8",
    )
    recipe = load_recipe(tmp_path / "own.toml")
    result = train(recipe, Sources(tmp_path / "library"), tmp_path / "out")
    config = vtg.load_head(result.head).config
    assert (config.fps, config.tokens, config.video_width) == (0.5, 5, 64)
    assert model_spec(result.head).encoder.fingerprint == library.fingerprint
    evaluation = evaluate(
        recipe, tmp_path / "library", tmp_path / "predictions.jsonl", annotations, str(result.head), "val"
    )
    assert evaluation.scores is not None
    assert evaluation.scores.brief["MR-full-mIoU"] == pytest.approx(
        [line["figures"] for line in read_log(tmp_path / "out" / "log.jsonl") if line.get("best")][-1]["MR-full-mIoU"],
        abs=1.0,
    )
    with pytest.raises(VtgError, match=r"has 0\.5 frames a second, the recipe 1; "):
        train(load_recipe(tmp_path / "own.toml", ["data.fps=1"]), Sources(tmp_path / "library"), tmp_path / "again")
    annotations.write_text("".join(lines).replace('"v3"', '"v9"'), encoding="utf-8")
    with pytest.raises(VtgError, match="has no video v9; index it first"):
        train(recipe, Sources(tmp_path / "library"), tmp_path / "again")


def test_layers_below_those_cached_are_the_last(recipe: Path, tmp_path: Path) -> None:
    cut = tmp_path / "cut"
    published, whole = PublishedFeatures(cut), PublishedFeatures(recipe.parent)
    for path in sorted(whole.videos.glob("*.npy")):
        published.write_video(path.stem, whole.video(path.stem)[:, -1:])
    for path in sorted(whole.queries.glob("*.npy")):
        published.write_query(path.stem, whole.query(path.stem)[:, -1:])
    for features in (recipe.parent, cut):
        chosen = load_recipe(recipe, ["model.layers=1"])
        train(chosen, Sources(features=features), tmp_path / f"from-{features.name}")
    assert same_weights(tmp_path / "from-data" / "last.safetensors", tmp_path / "from-cut" / "last.safetensors")


def test_a_head_without_spatial_pooling_sees_class_tokens_alone(recipe: Path, tmp_path: Path) -> None:
    result = run(recipe, tmp_path / "out", "model.spatial_pooling=false")
    head = vtg.load_head(result.head)
    names = set(head.state_dict())
    assert not names & {"block.scale", "block.video_key.weight", "block.query_key.weight"}
    published = PublishedFeatures(recipe.parent)
    video, query = (torch.from_numpy(np.array(array)) for array in (published.video("val0"), published.query("val-0")))
    expected = head.predict(video, query).windows
    noisy = video.clone()
    noisy[:, :, 1:] = 7.0
    assert torch.equal(head.predict(noisy, query).windows, expected)
    many = head.predict_batch([video], [query, query[:2]])
    torch.testing.assert_close(many[0].windows, expected, atol=1e-5, rtol=0)
    with pytest.raises(VtgError, match="has no attention maps"):
        head.attention(video, query)


def test_half_precision_trains_nearly_the_same(recipe: Path, tmp_path: Path) -> None:
    for name in ("float32", "bf16"):
        run(recipe, tmp_path / name, f"train.precision={name}", "model.dropout=0", "model.drop_path=0")
    exact, rounded = (np.array([step["loss"] for step in losses_of(tmp_path / name)]) for name in ("float32", "bf16"))
    assert not np.array_equal(exact, rounded)
    np.testing.assert_allclose(rounded, exact, rtol=0.1)


def test_check_learns_a_few_samples_and_says_when_it_cannot(recipe: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    result = check(load_recipe(recipe, ["train.rate=2e-3"]), Sources())
    assert result.fits and result.samples == result.learnt == 8 and result.steps < 400
    assert "recipe match" in result.verdict and result.last_loss < result.first_loss
    monkeypatch.setattr("vtg.training.overfitting.MAX_STEPS", 20)
    result = check(load_recipe(recipe, ["train.rate=0"]), Sources())
    assert not result.fits and result.steps == 20
    assert "overfit check failed" in result.verdict and "\n" not in result.verdict


def remove(name: str) -> object:
    return lambda folder: (folder / name).unlink()


def rewrite(name: str, *shape: int) -> object:
    def write(folder: Path) -> None:
        np.save(folder / name, np.zeros(shape, np.float16))

    return write


@pytest.mark.parametrize(
    ("damage", "settings", "message"),
    [
        (remove("clip_b32_vid_k4/train3.npy"), [], r"train3\.npy: no such features"),
        (remove("clip_b32_txt_k4/train-5.npy"), [], r"train-5\.npy: no such features"),
        (remove("clip_b32_txt_k4/val-1.npy"), [], r"val-1\.npy: no such features"),
        (remove("val.jsonl"), [], r"no annotations for val; put val\.jsonl there"),
        (rewrite("clip_b32_vid_k4/train3.npy", 9, 3, 5, 16), [], r"train3\.npy: .*\[_, 3, 5, 16\] and not \[_, 4, 5"),
        (rewrite("clip_b32_vid_k4/train3.npy", 9, 4, 5, 24), [], r"train3\.npy: .*\[_, 4, 5, 24\]"),
        (rewrite("clip_b32_txt_k4/train-5.npy", 4, 4, 16), [], r"train-5\.npy: .*\[_, 4, 16\] and not \[_, 4, 12\]"),
        (None, ["model.layers=6"], r"has 4 layers, and the recipe reads 6; .*--set model\.layers=4"),
        (None, ["model.clip_model=ViT-B-32-quickgelu"], r"5 tokens a frame, 16 wide.*has 50, 768 and 512"),
        (None, ["evaluation.metric=MR-full-R1@0.55"], r"MR-full-R1@0\.55.*did you mean MR-full-R1@0\.5\?"),
        (None, ["data.fps=2"], r"frames for .*which is not the recipe's 2 a second"),
        (None, ["data.fps=none"], r"has no sampling rate"),
        (None, ["model.hidden_width=33"], r"--set model.hidden_width=33: model\.hidden_width 33 must be even"),
        (None, ["train.validation=test"], r"has no part 'test'; it has train, val"),
    ],
)  # fmt: skip
def test_what_does_not_fit_stops_before_the_first_step(
    recipe: Path, tmp_path: Path, damage: object, settings: list[str], message: str
) -> None:
    if callable(damage):
        damage(recipe.parent)
    with pytest.raises(VtgError, match=message) as caught:
        run(recipe, tmp_path / "out", *settings)
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "out").exists()


def test_a_folder_is_not_trained_into_twice(recipe: Path, tmp_path: Path) -> None:
    with pytest.raises(VtgError, match="contains no training to resume"):
        run(recipe, tmp_path / "out", resume=True)
    run(recipe, tmp_path / "out", "train.epochs=1", "train.validation=none")
    assert not (tmp_path / "out" / "best.safetensors").exists()
    with pytest.raises(VtgError, match="contains a training already; continue it with --resume"):
        run(recipe, tmp_path / "out")
    with pytest.raises(VtgError, match=r"was trained with train\.rate = 0\.001, not 0\.002"):
        run(recipe, tmp_path / "out", "train.rate=2e-3", "train.validation=none", resume=True)
    content = read_content(tmp_path / "out" / "state.pt")
    del content["values"]["model.max_patches"]  # as in the state of an earlier version, which did not have the key
    save_pickled(content, tmp_path / "out" / "state.pt")
    assert run(recipe, tmp_path / "out", "train.epochs=2", "train.validation=none", resume=True).epochs == 2
    (tmp_path / "out" / "state.pt").write_bytes(b"PK\x03\x04 nothing")
    with pytest.raises(VtgError, match="damaged; train again"):
        run(recipe, tmp_path / "out", "train.validation=none", resume=True)


def test_a_loss_that_is_no_number_stops_with_advice(recipe: Path, tmp_path: Path) -> None:
    published = PublishedFeatures(recipe.parent)
    video = np.array(published.video("train0"))
    video[2] = np.inf
    published.write_video("train0", video)
    with pytest.raises(VtgError, match="the loss is not finite; check the features for infinite values"):
        run(recipe, tmp_path / "out")


def vtg_train(*arguments: object) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "vtg", "train", *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)


def test_the_command_answers_in_json_and_names_mistakes_in_one_line(recipe: Path, tmp_path: Path) -> None:
    done = vtg_train(recipe, "--out", tmp_path / "out", "--set", "train.accumulate=2", "--json")
    assert done.returncode == 0, done.stderr
    answer = json.loads(done.stdout)
    assert answer["metric"] == "MR-full-mAP" and Path(answer["head"]).is_file() and answer["finished"]
    assert "contrasts only its own 4 samples" in done.stderr
    wrong = vtg_train(recipe, "--set", "train.rte=1", "--json")
    assert (wrong.returncode, wrong.stdout) == (1, "")
    assert wrong.stderr == "vtg: --set train.rte=1: there is no train.rte; did you mean train.rate?\n"


@pytest.mark.skipif(sys.platform == "win32", reason="a signal cannot be sent to another process there")
def test_interrupting_the_command_says_how_to_go_on(recipe: Path, tmp_path: Path) -> None:
    command = [sys.executable, "-m", "vtg", "train", str(recipe), "--out", str(tmp_path / "out"), "--set"]
    process = subprocess.Popen([*command, "train.epochs=100000"], stderr=subprocess.PIPE, text=True)
    assert process.stderr is not None
    for line in process.stderr:
        if "mine 2/100000" in line:
            break
    process.send_signal(signal.SIGINT)
    last = process.stderr.read().strip().splitlines()[-1]
    assert process.wait(timeout=60) == 130
    assert last.startswith("stopped and saved; resume with: vtg train") and last.endswith("--resume")
    going_on = run(recipe, tmp_path / "out", "train.epochs=2", resume=True)
    assert isinstance(load_recipe(recipe), Recipe) and going_on.epochs >= 2
