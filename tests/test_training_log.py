"""The record of a training: its curves have whole numbers on their axes, and TensorBoard reads its scalars."""

from __future__ import annotations

import json
import threading
from pathlib import Path

import pytest
from matplotlib.figure import Figure

from vtg.training.log import TrainingLog, draw_curves, read_log


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


def test_tensorboard_reads_what_was_logged_and_forgets_what_a_later_run_repeats(tmp_path: Path) -> None:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    threads = threading.active_count()
    for begun, steps in ((0, (1, 2, 3)), (2, (3, 4))):
        with TrainingLog(tmp_path, begun) as log:
            for step in steps:
                log.step(1, step, 1e-3, {"cls": begun + step, "reg": 0.5}, 2.0, 10.0)
            log.figures(1, steps[-1], {"MR-full-mAP": 40.0 + begun}, is_best=True)
        assert threading.active_count() == threads  # an error in a thread would be a traceback on the terminal
    read = EventAccumulator(str(tmp_path / "tensorboard"))
    read.Reload()
    assert [(event.step, event.value) for event in read.Scalars("loss/cls")] == [(1, 1.0), (2, 2.0), (3, 5.0), (4, 6.0)]
    assert [event.value for event in read.Scalars("loss/total")] == [1.5, 2.5, 5.5, 6.5]
    assert [(event.step, event.value) for event in read.Scalars("validation/MR-full-mAP")] == [(4, 42.0)]
    assert set(read.Tags()["scalars"]) >= {"training/rate", "training/gradient_norm", "training/samples_per_second"}
    assert [line["step"] for line in read_log(tmp_path / "log.jsonl")] == [1, 2, 3, 4, 4]
