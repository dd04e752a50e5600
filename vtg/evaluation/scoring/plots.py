"""Plots of a report: recall by IoU, recall by length of the window, and the queries with the worst results."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from vtg.datasets import Prediction, Sample
from vtg.errors import VtgError
from vtg.evaluation.scoring.figures import Scores
from vtg.evaluation.scoring.report import Report
from vtg.files.whole import write_whole
from vtg.metrics import RECALL_THRESHOLDS, crossed_iou

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

__all__ = ["plot"]

_COLOURS = (
    "#2a6fbb",
    "#d9622b",
    "#2f9e6e",
    "#8a52b0",
    "#c23b5a",
    "#6b6b6b",
)  # one a prediction file, then from the start
_TRUTH_COLOUR = "#2f9e6e"
_DOTS_PER_INCH = 150
_FOUND_IOU = 0.5  # of a true window with one of the first predictions, to count as found
_TOP_WINDOWS = 5
_LENGTH_EDGES = (0.0, 5.0, 10.0, 20.0, 30.0, 60.0, 90.0, np.inf)  # seconds
_MAX_WORST_QUERIES = 12
_MAX_QUERY_CHARACTERS = 90


def plot(report: Report, folder: Path) -> list[Path]:
    """Write the plots of a report as PNG files.

    Args:
        report: from `score_files`.
        folder: created if it does not exist; existing files are replaced.

    Returns:
        `recall_by_iou.png`, `recall_by_length.png` and, for each prediction file, `worst_queries.png` (with the name of
        the prediction file if there are several). YouTube Highlights and TVSum have no windows:
        `precision_by_domain.png` alone.

    Raises:
        VtgError: the folder cannot be written, or the predictions have no windows to draw.
    """
    from matplotlib import rc_context

    folder = Path(folder)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with rc_context(
            {"font.size": 10, "axes.spines.top": False, "axes.spines.right": False, "axes.axisbelow": True}
        ):
            return [_saved(figure, folder / name) for name, figure in _pictures(report)]
    except OSError as error:
        raise VtgError(
            f"{folder}: cannot write the plots ({error.strerror or error}); give a folder you can write"
        ) from None


def _pictures(report: Report) -> list[tuple[str, Figure]]:
    if "mAP" in report.scores[0].brief:
        return [("precision_by_domain.png", _precision_by_domain(report))]
    if "full" not in report.scores[0].breakdown:
        raise VtgError(f"{report.scores[0].name}: no windows to draw; plots need pred_relevant_windows")
    pictures = [("recall_by_iou.png", _recall_by_iou(report)), ("recall_by_length.png", _recall_by_length(report))]
    for place, scores in enumerate(report.scores, start=1):
        name = "worst_queries.png" if len(report.scores) == 1 else f"worst_queries_{place}.png"
        pictures.append((name, _worst_queries(scores)))
    return pictures


def _recall_by_iou(report: Report) -> Figure:
    figure, (axes,) = _canvas(7.0, 4.5)
    for scores, colour in zip(report.scores, _colours(report), strict=True):
        for key, style in (("MR-R1", "-"), ("MR-R5", "--")):
            recall = [scores.breakdown["full"][key][str(threshold)] for threshold in RECALL_THRESHOLDS]
            label = f"{scores.name}, first {'window' if key == 'MR-R1' else 'five'}"
            axes.plot(RECALL_THRESHOLDS, recall, style, color=colour, marker="o", markersize=3, label=label)
    axes.set(xlabel="IoU at least", ylabel="queries, %", ylim=(0, 100), title="Recall by overlap")
    axes.grid(alpha=0.3)
    axes.legend(fontsize=8, frameon=False)
    return figure


def _recall_by_length(report: Report) -> Figure:
    figure, (axes,) = _canvas(7.0, 4.5)
    width = 0.8 / len(report.scores)
    counts = np.zeros(len(_LENGTH_EDGES) - 1, dtype=int)
    for place, (scores, colour) in enumerate(zip(report.scores, _colours(report), strict=True)):
        lengths, found = _found_windows(scores)
        bins = np.digitize(lengths, _LENGTH_EDGES[1:-1], right=True)
        counts = np.bincount(bins, minlength=len(counts))
        recall = 100 * np.bincount(bins, weights=found, minlength=len(counts)) / np.maximum(counts, 1)
        offset = (place - (len(report.scores) - 1) / 2) * width
        axes.bar(np.arange(len(counts)) + offset, recall, width, color=colour, label=scores.name)
    labels = [f"{low:g}–{high:g}" if np.isfinite(high) else f"over {low:g}" for low, high in pairwise(_LENGTH_EDGES)]
    axes.set_xticks(range(len(counts)), [f"{label}\n({count})" for label, count in zip(labels, counts, strict=True)])
    axes.set(xlabel="length of the true window, s (how many)", ylabel="windows found, %", ylim=(0, 100))
    axes.set_title(f"True windows met with IoU ≥ {_FOUND_IOU} by one of the first {_TOP_WINDOWS} predictions")
    axes.grid(axis="y", alpha=0.3)
    axes.legend(fontsize=8, frameon=False)
    return figure


def _found_windows(scores: Scores) -> tuple[NDArray[np.float64], NDArray[np.bool_]]:
    """Length in seconds of every true window, and whether one of the first predictions meets it."""
    lengths, found = [], []
    for sample, prediction in zip(scores.samples, scores.predictions, strict=True):
        if sample.windows is None or prediction.windows is None or not len(sample.windows):
            continue
        iou = np.nan_to_num(crossed_iou(prediction.windows[:_TOP_WINDOWS, :2], sample.windows))
        lengths.append(sample.windows[:, 1] - sample.windows[:, 0])
        found.append(iou.max(axis=0) >= _FOUND_IOU)
    return np.concatenate(lengths), np.concatenate(found)


def _worst_queries(scores: Scores) -> Figure:
    """Plot the queries with the lowest IoU of the first window; ties are ordered by average precision."""
    overlaps = scores.per_query["MR-full-mIoU"]
    precision = scores.per_query["MR-full-mAP"]
    order = np.lexsort((precision, overlaps))
    worst = [row for row in order if not np.isnan(overlaps[row])][:_MAX_WORST_QUERIES]
    figure, grid = _canvas(9.0, 0.4 + 0.95 * len(worst), rows=len(worst))
    for axes, row in zip(grid, worst, strict=True):
        _draw_query(axes, scores.samples[row], scores.predictions[row], overlaps[row])
    grid[-1].set_xlabel(
        "seconds; green: true windows, blue: the first five predictions, the first on top, paler as their score falls"
    )
    figure.suptitle(f"{scores.name}: queries with the worst results", fontsize=11)
    return figure


def _draw_query(axes: Axes, sample: Sample, prediction: Prediction, overlap: float) -> None:
    if sample.windows is None or prediction.windows is None:
        raise ValueError(f"query {sample.query_id} has no windows to draw")
    for start, end in sample.windows:
        axes.barh(0, max(end - start, sample.duration / 500), left=start, height=0.9, color=_TRUTH_COLOUR)
    shown = prediction.windows[:_TOP_WINDOWS]
    scores = shown[:, 2]
    spread = float(np.ptp(scores)) or 1.0
    for place, (start, end, score) in enumerate(shown, start=1):
        strength = 0.25 + 0.75 * (score - scores.min()) / spread if len(shown) > 1 else 1.0
        width = max(end - start, sample.duration / 500)
        axes.barh(-0.25 - 0.55 * place, width, left=start, height=0.45, color=_COLOURS[0], alpha=strength)
    query = (
        sample.query if len(sample.query) <= _MAX_QUERY_CHARACTERS else f"{sample.query[: _MAX_QUERY_CHARACTERS - 1]}…"
    )
    # Do not parse dollar signs in queries as formulas.
    title = f"{sample.query_id}: {query}  (IoU {overlap / 100:.2f})"
    axes.set_title(title, fontsize=8, loc="left", pad=2, parse_math=False)
    axes.set(xlim=(0, sample.duration), yticks=[])
    axes.tick_params(labelsize=7)
    axes.spines["left"].set_visible(False)


def _precision_by_domain(report: Report) -> Figure:
    figure, (axes,) = _canvas(7.0, 4.5)
    names = list(report.scores[0].brief)
    width = 0.8 / len(report.scores)
    for place, (scores, colour) in enumerate(zip(report.scores, _colours(report), strict=True)):
        offset = (place - (len(report.scores) - 1) / 2) * width
        axes.bar(
            np.arange(len(names)) + offset,
            [scores.brief[name] for name in names],
            width,
            color=colour,
            label=scores.name,
        )
    axes.set_xticks(range(len(names)), names, rotation=30, ha="right")
    axes.set(ylabel="average precision", ylim=(0, 1), title="Highlights by domain; mAP is the mean over domains")
    axes.grid(axis="y", alpha=0.3)
    axes.legend(fontsize=8, frameon=False)
    return figure


def _canvas(width: float, height: float, rows: int = 1) -> tuple[Figure, list[Axes]]:
    """A new figure of the given size in inches, with axes in one column."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    # Without pyplot, which keeps references to figures and may fail without a display.
    figure = Figure(figsize=(width, height), dpi=_DOTS_PER_INCH, layout="constrained")
    FigureCanvasAgg(figure)
    return figure, list(figure.subplots(rows, squeeze=False)[:, 0])


def _colours(report: Report) -> Sequence[str]:
    return [_COLOURS[place % len(_COLOURS)] for place in range(len(report.scores))]


def _saved(figure: Figure, path: Path) -> Path:
    with write_whole(path) as unfinished:
        figure.savefig(unfinished, format="png")
    return path
