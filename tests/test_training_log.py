"""The curves of a training: epochs and steps are whole numbers on their axes, however few there are."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from matplotlib.figure import Figure

from vtg.training.log import draw_curves


@pytest.mark.parametrize("epochs", [[1], [7], [1, 2], [1, 2, 3], [10, 20, 30], list(range(1, 101)), []])
def test_ticks_of_steps_and_epochs_are_whole_numbers(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, epochs: list[int]
) -> None:
    drawn: list[Figure] = []
    save = Figure.savefig

    def note(self: Figure, *arguments: object, **options: object) -> None:
        drawn.append(self)
        save(self, *arguments, **options)  # type: ignore[arg-type]

    monkeypatch.setattr(Figure, "savefig", note)
    lines = [{"step": step, "epoch": step, "loss": 1.0, "cls": 1.0} for step in epochs or [1]]
    lines += [{"step": epoch, "epoch": epoch, "figures": {"mAP": 10.0 + epoch}} for epoch in epochs]
    (tmp_path / "log.jsonl").write_text("".join(f"{json.dumps(line)}\n" for line in lines), encoding="utf-8")
    draw_curves(tmp_path / "log.jsonl", "mAP", tmp_path / "curves.png")
    (figure,) = drawn
    for axes in figure.axes:
        low, high = axes.get_xlim()
        shown = [tick for tick in axes.get_xticks() if low <= tick <= high]
        assert shown and all(tick == round(tick) for tick in shown), axes.get_xlabel()
        labels = [label.get_text() for label in axes.get_xticklabels() if low <= label.get_position()[0] <= high]
        assert all(label.isdigit() for label in labels), labels
