"""The README's worked example does what it says."""

from __future__ import annotations

import json
import re
import shlex
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from vtg.cli import main as cli

README = Path(__file__).resolve().parents[1] / "README.md"


def blocks(heading: str) -> dict[str, str]:
    """The code blocks of a section, by their language."""
    section = README.read_text("utf-8").split(f"### {heading}\n")[1].split("\n## ")[0]
    return dict(re.findall(r"```(\w+)\n(.*?)```", section, re.S))


def test_a_benchmark_of_ones_own(
    tmp_path: Path, make_video: Callable[..., Path], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    example = blocks("A benchmark of your own")
    monkeypatch.chdir(tmp_path)
    Path("mine.jsonl").write_text(example["json"])
    Path("mine.toml").write_text(example["toml"])
    Path("films").mkdir()
    make_video(tmp_path / "films" / "holiday.mp4", seconds=60)
    commands = [shlex.split(line[2:]) for line in example["console"].splitlines() if line.startswith("$ ")]
    assert len(commands) == 3
    for command in commands:
        monkeypatch.setattr(sys, "argv", command)
        cli.app(standalone_mode=False)
    predictions = [json.loads(line) for line in Path("predictions.jsonl").read_text().splitlines()]
    assert [line["qid"] for line in predictions] == [1, 2]
    assert all(len(line["pred_saliency_scores"]) == 30 for line in predictions)
    assert "MR-full-R1@0.5" in capsys.readouterr().out
