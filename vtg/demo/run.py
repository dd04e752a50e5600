"""Run `vtg demo`: render videos, index them, search for moments, and plot them with the true windows."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from vtg.demo.sentences import truth
from vtg.demo.videos import make_videos
from vtg.files.whole import write_whole
from vtg.progress import Progress, Reporter, silent
from vtg.timespans import format_time, interval_iou

if TYPE_CHECKING:
    from matplotlib.axes import Axes

    from vtg.grounding.grounder import Grounding

__all__ = ["DemoResult", "DemoRun", "run_demo"]

VIDEOS = 3
VIDEO_SENTENCES = 4  # queries for each video
THUMBNAILS = 10  # of each video on the sheet
SHEET_INCHES, STRIP_INCHES, CURVE_INCHES = 14.0, 1.2, 0.6  # width of the sheet, heights of its rows


@dataclass(frozen=True)
class DemoResult:
    """The best moment for one query, and the true windows.

    Attributes:
        video: name of the file.
        query: the sentence.
        found: start and end of the best moment, in seconds.
        score: score of that moment, 0…1.
        windows: true windows, in seconds.
        iou: highest IoU of that moment with a true window.
    """

    video: str
    query: str
    found: tuple[float, float]
    score: float
    windows: list[tuple[float, float]]
    iou: float


@dataclass(frozen=True)
class DemoRun:
    """The results of all queries, and the files that were written.

    Attributes:
        answers: one result for each query, ordered by video.
        library: folder of the library.
        sheet: the contact sheet, a PNG file.
    """

    answers: list[DemoResult]
    library: Path
    sheet: Path

    @property
    def mean_iou(self) -> float:
        """Mean IoU of all results, 0…1."""
        return float(np.mean([answer.iou for answer in self.answers]))

    @property
    def found_share(self) -> float:
        """Share of the results with an IoU of at least 0.5."""
        return float(np.mean([answer.iou >= 0.5 for answer in self.answers]))

    def to_dict(self) -> dict[str, Any]:
        """The run as a JSON object."""
        return {
            "answers": [asdict(answer) for answer in self.answers],
            "mean_iou": self.mean_iou,
            "library": str(self.library),
            "sheet": str(self.sheet),
        }


def run_demo(folder: Path, progress: Reporter = silent) -> DemoRun:
    """Render videos, index them like other files, search for moments, and draw the contact sheet.

    Args:
        folder: folder of the videos, the library and the sheet; existing videos and library entries are reused.
        progress: called after every step.

    Raises:
        VtgError: the folder cannot be written to, or contains a library of another model.
    """
    from vtg.library.library import Library

    videos = make_videos(
        folder / "videos",
        split="demo",
        count=VIDEOS,
        sentences=VIDEO_SENTENCES,
        progress=progress,
    )
    library = Library(folder / "library", "demo")
    library.add([video.path for video in videos], progress)
    answers, groundings = [], []
    for number, video in enumerate(videos):
        progress(Progress("searching", number, len(videos), "videos"))
        for sentence in video.sentences:
            grounding = library.ground(video.path, sentence.text)
            answers.append(_make_result(video.path, grounding, truth(video.scene, sentence).windows))
            groundings.append(grounding)
    progress(Progress("drawing", 0, 1, "pictures"))
    sheet = folder / "sheet.png"
    draw_sheet(sheet, answers, groundings)
    return DemoRun(answers, library.folder, sheet)


def _make_result(path: Path, grounding: Grounding, windows: Sequence[tuple[float, float]]) -> DemoResult:
    best = grounding.moments[0]
    iou = interval_iou(np.array([[best.start, best.end]]), np.array(windows)).max()
    true = [(float(start), float(end)) for start, end in windows]
    return DemoResult(path.name, grounding.query, (best.start, best.end), best.score, true, float(iou))


def draw_sheet(path: Path, answers: list[DemoResult], groundings: list[Grounding]) -> None:
    """Draw thumbnails of each video above the saliency curves of its queries; shade found moments and true windows.

    Args:
        path: the PNG file, written whole or not at all.
        answers: results, ordered by video.
        groundings: the grounding of each result, with its saliency.
    """
    from matplotlib.figure import Figure

    videos = list(dict.fromkeys(grounding.video for grounding in groundings))
    ratios = []
    for video in videos:
        ratios += [STRIP_INCHES, *[CURVE_INCHES] * sum(grounding.video == video for grounding in groundings)]
    figure = Figure(figsize=(SHEET_INCHES, sum(ratios) * 1.5), layout="constrained", facecolor="white")
    rows = iter(figure.subplots(len(ratios), 1, squeeze=False, gridspec_kw={"height_ratios": ratios})[:, 0])
    for video in videos:
        _draw_strip(next(rows), video)
        for answer, grounding in zip(answers, groundings, strict=True):
            if grounding.video == video:
                _draw_curve(next(rows), answer, grounding)
    with write_whole(path) as beside:
        figure.savefig(beside, format="png", dpi=90)


def _draw_strip(axes: Axes, video: str) -> None:
    from vtg.video import probe, thumbnail

    duration = probe(video).duration
    for i in range(THUMBNAILS):
        # Each thumbnail spans the part of the time axis around its own time.
        start, end = i * duration / THUMBNAILS, (i + 1) * duration / THUMBNAILS
        margin = 0.01 * (end - start)
        picture = thumbnail(video, (start + end) / 2, 200)
        axes.imshow(picture, extent=(start + margin, end - margin, 0, 1), aspect="auto")
    axes.set_xlim(0, duration)
    axes.set_ylim(0, 1)
    axes.set_title(Path(video).name, loc="left", fontsize=13, fontweight="bold")
    axes.text(1.0, 1.04, "orange: found    green: true", transform=axes.transAxes, ha="right", va="bottom", fontsize=10)
    axes.set_axis_off()


def _draw_curve(axes: Axes, answer: DemoResult, grounding: Grounding) -> None:
    scores = grounding.saliency.scores
    step = grounding.duration / len(scores)
    axes.axvspan(*answer.found, color="#f2a541", alpha=0.45, linewidth=0)
    for start, end in answer.windows:
        axes.axvspan(start, end, ymin=0.0, ymax=0.1, color="#3a9d5d", linewidth=0)
    # Each curve is scaled to its own maximum, because only the position of peaks matters.
    axes.plot(
        grounding.saliency.times + step / 2, scores / max(float(scores.max()), 1e-9), color="#30343f", linewidth=1.5
    )
    axes.set_xlim(0, grounding.duration)
    axes.set_ylim(0, 1.08)
    axes.set_yticks([])
    axes.xaxis.set_major_formatter(lambda seconds, _: format_time(seconds))
    axes.tick_params(labelsize=8)
    for side in ("top", "right", "left"):
        axes.spines[side].set_visible(False)
    axes.set_title(f"{answer.query}    IoU {answer.iou:.2f}", loc="left", fontsize=10, pad=3)
