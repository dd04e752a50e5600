"""The manual's half for researchers: its examples run as they are written.

Blocks of `shell` and titled files in docs/training.md and docs/changing-the-method.md are run here, in one folder and
in a copy of the package, as they patch it. What is marked as parsed, `console` blocks, links and options are checked in
test_documents.py. Those that train heads are marked slow.
"""

from __future__ import annotations

import json
import os
import re
import shlex
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from examples import REPOSITORY, Example, check_command, commands, examples

from tools import recipe_reference
from vtg.recipes import load_recipe

DOCS = REPOSITORY / "docs"
TRAINING = DOCS / "training.md"
CHANGES = DOCS / "changing-the-method.md"
PAGES = [DOCS / f"{name}.md" for name in ("benchmarks", "training", "changing-the-method", "extraction", "performance")]
SECONDS = 300  # at most for one command, on a busy machine

needs_git = pytest.mark.skipif(shutil.which("git") is None, reason="git is not installed")


def sections(page: Path) -> dict[str, list[Example]]:
    """The blocks of a page by the heading of the second level above them."""
    heads = [
        (number, line[3:]) for number, line in enumerate(page.read_text("utf-8").splitlines(), 1) if line[:3] == "## "
    ]
    found: dict[str, list[Example]] = {title: [] for _, title in heads}
    for example in examples(page):
        above = [title for number, title in heads if number < example.line]
        if above:
            found[above[-1]].append(example)
    return found


def run_section(blocks: list[Example], folder: Path) -> list[str]:
    """Write the titled blocks of a section to files and run its commands, in their order.

    Returns:
        What each command printed.
    """
    printed = []
    environment = {**os.environ, "PYTHONPATH": str(folder)}
    for block in blocks:
        if block.title:
            path = folder / block.title
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(block.text, encoding="utf-8")
        elif block.language == "shell":
            for words, _ in commands(block):
                if words[0] == "cp":
                    shutil.copy(folder / words[1], folder / words[2])
                    continue
                program = {"vtg": [sys.executable, "-m", "vtg"], "python": [sys.executable], "git": ["git"]}[words[0]]
                done = subprocess.run(
                    [*program, *words[1:]], cwd=folder, env=environment, capture_output=True, text=True, timeout=SECONDS
                )
                assert done.returncode == 0, f"{block}: {shlex.join(words)}: {done.stderr[-2000:]}"
                printed.append(done.stdout + done.stderr)
    return printed


def copy_package(folder: Path) -> None:
    """The package as in a fresh checkout."""
    shutil.rmtree(folder / "vtg", ignore_errors=True)
    shutil.copytree(REPOSITORY / "vtg", folder / "vtg", ignore=shutil.ignore_patterns("__pycache__"))


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, list[str]]:
    """The folder in which the walk-through of training was followed, and what its commands printed."""
    folder = tmp_path_factory.mktemp("research")
    copy_package(folder)
    return folder, run_section(sections(TRAINING)["A head for your own videos"], folder)


@pytest.fixture
def checkout(trained: tuple[Path, list[str]]) -> Iterator[Path]:
    """That folder with an unchanged copy of the package."""
    folder, _ = trained
    yield folder
    copy_package(folder)


def losses_of(run: Path) -> dict[str, float]:
    """The first step's line in the log of a run."""
    return json.loads((run / "log.jsonl").read_text("utf-8").splitlines()[0])


def figures(file: Path) -> list[dict[str, object]]:
    return [json.loads(line) for line in file.read_text("utf-8").splitlines()]


def run_named_tests(checkout: Path) -> None:
    """Run the tests that the manual names for changes of the code, on the code of a folder."""
    shutil.copytree(REPOSITORY / "tests", checkout / "tests", dirs_exist_ok=True)
    shutil.copy(REPOSITORY / "pyproject.toml", checkout)
    named = re.findall(r"tests/test_\w+\.py", CHANGES.read_text("utf-8").split("\n## ")[0])
    assert "tests/test_r2_losses.py" in named
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "--basetemp", "named-tests"]
    environment = {**os.environ, "PYTHONPATH": str(checkout)}
    done = subprocess.run(
        [*command, *named], cwd=checkout, env=environment, capture_output=True, text=True, timeout=SECONDS
    )
    assert done.returncode == 0, done.stdout[-3000:]


@pytest.mark.slow
def test_a_head_is_trained_on_videos_of_ones_own(trained: tuple[Path, list[str]]) -> None:
    folder, printed = trained
    run = folder / "training" / "mine"
    named = re.findall(r"^\| `([\w./]+)` \|", TRAINING.read_text("utf-8").split("## What a run leaves")[1], re.M)
    assert {path.name for path in run.iterdir()} == {name.strip("/") for name in named}
    assert any("overfit check passed: 8 of 8 samples" in text for text in printed)
    assert {line["qid"] for line in figures(folder / "val-predictions.jsonl")} == {8, 9, 10, 11}
    assert ".mp4" in printed[-1]  # the search with the trained head


@needs_git
@pytest.mark.slow
def test_a_loss_is_added(checkout: Path) -> None:
    assert "iou" not in losses_of(checkout / "training" / "mine")
    run_section(sections(CHANGES)["A loss"], checkout)
    assert 0 < losses_of(checkout / "training" / "iou")["iou"] <= 0.5  # 1 − IoU, times its weight
    assert json.loads((checkout / "training" / "iou" / "recipe.json").read_text("utf-8"))["train.iou"] == 0.5
    run_named_tests(checkout)


@needs_git
@pytest.mark.slow
def test_a_switch_of_the_block_is_added(checkout: Path) -> None:
    run_section(sections(CHANGES)["A switch of the block"], checkout)
    probe = (
        "import torch, vtg\n"
        "from vtg.r2.engine import CompiledEngine\n"
        "head = vtg.load_head('training/no-positions/best.safetensors')\n"
        "assert head.config.frame_positions is False and not CompiledEngine.supports(head.config, head.level_scale)\n"
        "config = head.config\n"
        "video = torch.randn(9, config.layers, config.tokens, config.video_width)\n"
        "query = torch.randn(5, config.layers, config.query_width)\n"
        "frames = head.answer(head.project([video]), query[None, None]).video\n"
        "head.block.frame_positions = True\n"
        "assert not torch.allclose(frames, head.answer(head.project([video]), query[None, None]).video)\n"
    )
    environment = {**os.environ, "PYTHONPATH": str(checkout)}
    subprocess.run([sys.executable, "-c", probe], cwd=checkout, env=environment, check=True, timeout=SECONDS)
    assert (checkout / "no-positions.jsonl").exists()


@pytest.mark.slow
def test_another_head_is_trained_and_scored(checkout: Path) -> None:
    printed = run_section(sections(CHANGES)["Another head"], checkout)
    assert "MR-full-mAP" in printed[-1] and "HL-min-Fair-mAP" in printed[-1]


@pytest.mark.slow
def test_another_encoder_is_trained_and_evaluated(checkout: Path) -> None:
    printed = run_section(sections(CHANGES)["Another encoder"], checkout)
    assert "MR-full-mAP" in printed[-1]


@pytest.mark.slow
def test_a_data_set_is_added(checkout: Path) -> None:
    printed = run_section(sections(CHANGES)["A data set"], checkout)
    assert "MR-full-R1@0.5" in printed[-1]
    assert [line["vid"] for line in figures(checkout / "shapes-best-val.jsonl")] == ["demo_00002"]


PATCHES = [example for example in examples(CHANGES) if example.title.endswith(".patch")]


@needs_git
@pytest.mark.parametrize("patch", PATCHES, ids=lambda patch: patch.title)
def test_patches_of_the_manual_apply(patch: Example, tmp_path: Path) -> None:
    copy_package(tmp_path)
    subprocess.run(["git", "apply", "--check"], cwd=tmp_path, input=patch.text, text=True, check=True, timeout=SECONDS)


def test_the_training_loop_of_ones_own_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (block,) = (one for one in sections(TRAINING)["A training loop of your own"] if one.language == "python")
    names: dict[str, object] = {}
    exec(compile(block.text, str(block), "exec"), names)
    assert set(names["losses"]) == {"cls", "reg", "sal", "video_cal", "layer_cal"}  # type: ignore[call-overload]
    assert (tmp_path / "loop.safetensors").exists()


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_recipes_of_the_pages_are_recipes(page: Path, tmp_path: Path) -> None:
    for block in examples(page):
        if block.language == "toml":
            path = tmp_path / "page.toml"
            path.write_text(block.text, encoding="utf-8")
            assert load_recipe(path).stated, block


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_commands_in_scripts_are_right(page: Path) -> None:
    for block in examples(page):
        if block.language in ("bash", "shell"):
            lines = block.text.replace("\\\n", " ").splitlines()
            for line in (line.removeprefix("$ ") for line in lines):
                if line.startswith("vtg "):
                    check_command(shlex.split(line, comments=True))


def test_the_list_of_recipe_keys_is_generated() -> None:
    assert recipe_reference.PAGE.read_text("utf-8") == recipe_reference.page(), "run: python -m tools.recipe_reference"


def test_each_value_of_a_published_recipe_is_listed() -> None:
    text = recipe_reference.page()
    for key in load_recipe("qvhighlights").stated - recipe_reference.PER_RECIPE:
        assert re.search(rf"^\| `{key}` \| .+ \| .+ \|$", text, re.M), key
    assert "| `train.rate` | `0.00025` |" in text and "`0.0005`" in text
