"""Compare prediction files: a table of figures, and bootstrap intervals of their differences."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import combinations
from pathlib import Path
from typing import Any

import numpy as np

from vtg.datasets import RATED_DATASETS, load_predictions, read_annotations, samples_of
from vtg.errors import VtgError
from vtg.evaluation.scoring.figures import Scores, score_predictions
from vtg.metrics import interval, resampled_means

__all__ = ["Cell", "Difference", "Report", "Row", "score_files"]

_PERCENT_DECIMALS = 2
_SHARE_DECIMALS = 5


@dataclass(frozen=True)
class Difference:
    """Difference of a figure between two prediction files (second minus first), with 95 % paired-bootstrap interval."""

    first: str
    second: str
    figure: str
    value: float
    low: float
    high: float

    @property
    def within_noise(self) -> bool:
        """Whether the interval contains 0, so that the difference is not significant."""
        return self.low <= 0 <= self.high

    def to_dict(self) -> dict[str, Any]:
        """For JSON."""
        return {
            "first": self.first,
            "second": self.second,
            "figure": self.figure,
            "difference": self.value,
            "interval": [self.low, self.high],
            "within_noise": self.within_noise,
        }


@dataclass(frozen=True)
class Cell:
    """One figure in a table; `is_best` for the best of several (also ties), `is_near` if the difference is in noise."""

    value: float
    text: str
    is_best: bool = False
    is_near: bool = False


@dataclass(frozen=True)
class Row:
    """One line of a table: a figure's published name, and its value in each prediction file."""

    figure: str
    cells: tuple[Cell, ...]


@dataclass(frozen=True, eq=False)
class Report:
    """Prediction files scored against the same annotations.

    Attributes:
        annotations: the file.
        dataset: one of `vtg.datasets.DATASETS`, or None for JSON lines whose data set was not named.
        scores: one for each prediction file, in the order given.
        differences: between every two of them, if intervals were computed.
    """

    annotations: Path
    dataset: str | None
    scores: tuple[Scores, ...]
    differences: tuple[Difference, ...] = ()

    @property
    def decimals(self) -> int:
        """Number of decimals of the published figures."""
        return _SHARE_DECIMALS if self.dataset in RATED_DATASETS else _PERCENT_DECIMALS

    def table(self) -> list[Row]:
        """The brief figures as rows, the prediction files as columns."""
        return [self._row(figure) for figure in self.scores[0].brief]

    def to_dict(self) -> dict[str, Any]:
        """For JSON: one file's scores at the top level; several under "results", with their "differences"."""
        head = {"annotations": str(self.annotations), "dataset": self.dataset}
        if len(self.scores) == 1:
            return {**head, **self.scores[0].to_dict()}
        differences = [difference.to_dict() for difference in self.differences]
        return {
            **head,
            "results": [scores.to_dict() for scores in self.scores],
            **({"differences": differences} if differences else {}),
        }

    def _row(self, figure: str) -> Row:
        best = max(self.scores, key=lambda scores: scores.brief[figure])
        near: set[str] = set()
        for difference in self.differences:
            pair = {difference.first, difference.second}
            if difference.figure == figure and difference.within_noise and best.name in pair:
                near |= pair
        cells = []
        for scores in self.scores:
            value = scores.brief[figure]
            is_best = len(self.scores) > 1 and value == best.brief[figure]
            is_near = not is_best and scores.name in near
            cells.append(Cell(value, self._written(scores, figure), is_best, is_near))
        return Row(figure, tuple(cells))

    def _written(self, scores: Scores, figure: str) -> str:
        text = f"{scores.brief[figure]:.{self.decimals}f}"
        if figure not in scores.intervals:
            return text
        low, high = scores.intervals[figure]
        return f"{text} [{low:.{self.decimals}f}, {high:.{self.decimals}f}]"


def score_files(
    predictions: Sequence[Path], annotations: Path, dataset: str | None = None, bootstrap: int | None = None
) -> Report:
    """Score prediction files against an annotation file.

    Args:
        predictions: at least one; see `vtg.datasets.load_predictions`.
        annotations: see `vtg.datasets.load_samples`.
        dataset: one of `vtg.datasets.DATASETS`; recognised from the annotations if None.
        bootstrap: number of resamples for 95 % intervals and differences; None for neither.

    Raises:
        VtgError: a file cannot be read or is malformed; the query ids of a prediction file are not those of the
            annotations; the annotations have no ground truth for what is predicted.
    """
    if not predictions:
        raise VtgError("no prediction file to score; give at least one")
    if bootstrap is not None and bootstrap < 1:
        raise VtgError(f"the bootstrap needs at least 1 round, not {bootstrap}; 1000 are recommended")
    truth = read_annotations(annotations, dataset)
    samples = samples_of(truth)
    names = _names(predictions)
    scores = tuple(
        score_predictions(load_predictions(path), samples, truth.dataset, name, path, truth.path)
        for path, name in zip(predictions, names, strict=True)
    )
    for path, each in zip(predictions, scores, strict=True):
        if tuple(each.brief) != tuple(scores[0].brief):
            raise VtgError(
                f"{path}: has other predictions than {predictions[0]} (windows, saliency or domains); "
                "score them separately"
            )
    report = Report(Path(annotations), truth.dataset, scores)
    return report if bootstrap is None else _with_intervals(report, bootstrap)


def _with_intervals(report: Report, rounds: int) -> Report:
    """The report with 95 % intervals of figures and differences, every file on the same draws of queries."""
    figures = list(report.scores[0].brief)
    means = [
        resampled_means(
            np.stack([scores.per_query[figure] for figure in figures], axis=1), rounds, strata=scores.strata
        )
        for scores in report.scores
    ]
    digits = report.decimals
    with_intervals = []
    for scores, drawn in zip(report.scores, means, strict=True):
        low, high = np.round(interval(drawn), digits).tolist()
        with_intervals.append(replace(scores, intervals=dict(zip(figures, zip(low, high, strict=True), strict=True))))
    differences = []
    for first, second in combinations(range(len(means)), 2):
        low, high = np.round(interval(means[second] - means[first]), digits).tolist()
        for column, figure in enumerate(figures):
            one, other = report.scores[first], report.scores[second]
            lag = round(other.brief[figure] - one.brief[figure], digits)
            differences.append(Difference(one.name, other.name, figure, lag, low[column], high[column]))
    return replace(report, scores=tuple(with_intervals), differences=tuple(differences))


def _names(paths: Sequence[Path]) -> list[str]:
    """File names if they are unique, else the paths, numbered if these are not unique either."""
    for names in ([Path(path).name for path in paths], [str(path) for path in paths]):
        if len(set(names)) == len(names):
            return names
    return [f"{path} ({place})" for place, path in enumerate(paths, start=1)]
