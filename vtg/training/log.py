"""Log a training run to JSON lines and TensorBoard, and plot its curves."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Any

from vtg.errors import VtgError
from vtg.files.text import read_json
from vtg.files.whole import write_whole

__all__ = ["TrainingLog", "draw_curves", "read_log"]

DOTS_PER_INCH = 150
COLOURS = {"total": "#222222", "cls": "#2a6fbb", "reg": "#d9622b", "sal": "#2f9e6e", "video_cal": "#8a52b0"}
COLOURS["layer_cal"] = "#c23b5a"
SMOOTHED_SHARE = 0.02  # share of all steps in the moving average of a plotted loss


class TrainingLog:
    """Appends to `log.jsonl` and to TensorBoard events; use it in a ``with`` statement.

    Args:
        folder: of the run.
        step: number of steps already done; records of later steps by an earlier run are removed.
    """

    def __init__(self, folder: Path, step: int) -> None:
        self.path = folder / "log.jsonl"
        kept = [line for line in read_log(self.path) if line["step"] <= step] if step else []
        with write_whole(self.path) as beside:
            beside.write_text("".join(json.dumps(line) + "\n" for line in kept), encoding="utf-8")
        self._file = self.path.open("a", encoding="utf-8")
        self._events = _EventFile(folder / "tensorboard", step)

    def __enter__(self) -> TrainingLog:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._file.close()
        self._events.close()

    def step(
        self, epoch: int, step: int, rate: float, losses: Mapping[str, float], norm: float, samples_per_second: float
    ) -> None:
        """Log one step of the optimizer.

        Args:
            epoch: from 1.
            step: from 1.
            rate: learning rate.
            losses: weighted, by name.
            norm: of the gradient before clipping.
            samples_per_second: training speed.
        """
        total = sum(losses.values())
        record = {"step": step, "epoch": epoch, "rate": rate, "loss": total, **losses, "gradient_norm": norm}
        self._write({**record, "samples_per_second": round(samples_per_second, 2)})
        for name, value in {**losses, "total": total}.items():
            self._events.add_scalar(f"loss/{name}", value, step)
        self._events.add_scalar("training/rate", rate, step)
        self._events.add_scalar("training/gradient_norm", norm, step)
        self._events.add_scalar("training/samples_per_second", samples_per_second, step)

    def figures(self, epoch: int, step: int, figures: Mapping[str, float], is_best: bool) -> None:
        """Log a validation.

        Args:
            epoch: finished before it, from 1.
            step: done before it.
            figures: by their published names.
            is_best: whether it is the best so far.
        """
        self._write({"step": step, "epoch": epoch, "figures": dict(figures), "best": is_best})
        for name, value in figures.items():
            self._events.add_scalar(f"validation/{name}", value, step)
        self._events.flush()

    def _write(self, record: Mapping[str, Any]) -> None:
        self._file.write(json.dumps(record) + "\n")
        self._file.flush()


class _EventFile:
    """A file of scalars for TensorBoard, written in the calling thread.

    TensorBoard's own writer uses a thread, in which errors only print a traceback.

    Args:
        folder: the log folder for TensorBoard.
        step: number of steps already done; TensorBoard ignores later steps of earlier files.
    """

    def __init__(self, folder: Path, step: int) -> None:
        from tensorboard.compat.proto.event_pb2 import SessionLog
        from tensorboard.summary.writer.record_writer import RecordWriter

        folder.mkdir(parents=True, exist_ok=True)
        # The name pattern of TensorBoard; for steps in two files, the later file is used.
        self._file = (folder / f"events.out.tfevents.{time.time_ns() // 10**9:010d}.{os.getpid()}.vtg").open("ab")
        self._records = RecordWriter(self._file)
        self._add(file_version="brain.Event:2")
        if step:
            self._add(step=step + 1, session_log=SessionLog(status=SessionLog.START))

    def add_scalar(self, tag: str, value: float, step: int) -> None:
        """Write a value."""
        from torch.utils.tensorboard.summary import scalar

        self._add(step=step, summary=scalar(tag, value))

    def flush(self) -> None:
        """Flush the file."""
        self._file.flush()

    def close(self) -> None:
        """Close the file."""
        self._file.close()

    def _add(self, **fields: Any) -> None:
        from tensorboard.compat.proto.event_pb2 import Event

        self._records.write(Event(wall_time=time.time(), **fields).SerializeToString())


def read_log(path: Path) -> list[dict[str, Any]]:
    """The records of a log; an incomplete line of a killed run is skipped.

    Raises:
        VtgError: the log does not exist.
    """
    try:
        text = path.read_text(encoding="utf-8")
    except OSError as error:
        raise VtgError(f"{path}: cannot be read ({error.strerror}); train first") from None
    lines = []
    for line in text.split("\n"):
        try:
            lines.append(read_json(line))
        except ValueError:
            continue
    return lines


def draw_curves(log: Path, metric: str, out: Path) -> None:
    """Plot the losses by step and the validation metric by epoch.

    Args:
        log: a `log.jsonl`.
        metric: name of the validation metric.
        out: the PNG file, written atomically.

    Raises:
        VtgError: the log does not exist, or has no step yet.
    """
    import numpy as np
    from matplotlib import rc_context
    from matplotlib.figure import Figure
    from matplotlib.ticker import MaxNLocator

    lines = read_log(log)
    steps = [line for line in lines if "loss" in line]
    if not steps:
        raise VtgError(f"{log}: has no step to draw; train first")
    validations = [line for line in lines if metric in line.get("figures", {})]
    with rc_context({"font.size": 10, "axes.spines.top": False, "axes.spines.right": False, "axes.axisbelow": True}):
        figure = Figure(figsize=(10, 4), layout="constrained")
        left, right = figure.subplots(1, 2)
        width = max(1, round(SMOOTHED_SHARE * len(steps)))
        at = [line["step"] for line in steps][width - 1 :]
        for name, colour in COLOURS.items():
            key = "loss" if name == "total" else name
            if key in steps[0]:
                smooth = np.convolve([line[key] for line in steps], np.full(width, 1 / width), mode="valid")
                left.plot(at, smooth, color=colour, label=name, linewidth=2 if name == "total" else 1.2)
        left.set(xlabel="step", ylabel="weighted loss", ylim=(0, None))
        figure.legend(frameon=False, loc="outside upper left", ncols=len(COLOURS))
        left.grid(alpha=0.3)
        epochs, values = ([line["epoch"] for line in validations], [line["figures"][metric] for line in validations])
        right.plot(epochs, values, color=COLOURS["cls"], marker="o", markersize=3)
        if values:
            best = int(np.argmax(values))
            right.annotate(f"{values[best]:g}", (epochs[best], values[best]), (0, 6), textcoords="offset points")
        right.set(xlabel="epoch", ylabel=metric)
        right.margins(y=0.15)
        right.grid(alpha=0.3)
        for axes in (left, right):
            # At least one tick: with two, the axis of a single epoch would have ticks at fractions.
            axes.xaxis.set_major_locator(MaxNLocator(integer=True, min_n_ticks=1))
        with write_whole(out) as beside:
            figure.savefig(beside, format="png", dpi=DOTS_PER_INCH)
