"""Data classes of annotations: samples, and problems of a file."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal, TypeAlias

import numpy as np
from numpy.typing import NDArray

__all__ = ["Annotations", "Problem", "QueryId", "Sample", "Split"]

QueryId: TypeAlias = "int | str"
Split: TypeAlias = Literal["train", "val"]


@dataclass(frozen=True, eq=False)
class Sample:
    """One query on one video with its annotations; missing ones are None.

    Attributes:
        video_id: the video's name in its data set.
        query_id: as in the file: a number stays a number. The video's id where a data set has one query a video.
        query: the sentence; a title for YouTube Highlights and TVSum.
        duration: of the video, seconds.
        windows: [N, 2] start and end of the relevant moments in seconds, as in the file: some data sets have reversed
            windows, windows without length and windows that reach beyond the video.
        ratings: [clips, raters] the annotators' marks: 0…4 by three raters in QVHighlights (0 outside the relevant
            clips), 1…5 by twenty in TVSum, -1, 0 or 1 in YouTube Highlights.
        saliency: [clips] the same as one number in 0…1, the target in training: the sum of the marks over its maximum.
        clips: [clips, 2] start and end of the rated clips in seconds.
        domain: "BK", "dog", … in the data sets that have domains.
        split: the published part of its domain that the video belongs to.
        line: line number in the file, from 1; 0 for a file without lines.
    """

    video_id: str
    query_id: QueryId
    query: str
    duration: float
    windows: NDArray[np.float64] | None = None
    ratings: NDArray[np.float64] | None = None
    saliency: NDArray[np.float64] | None = None
    clips: NDArray[np.float64] | None = None
    domain: str | None = None
    split: Split | None = None
    line: int = 0


@dataclass(frozen=True)
class Problem:
    """A problem in a file.

    Attributes:
        path: the file.
        line: from 1; 0 for a file without lines, or the whole file.
        reason: a description, with the query's id if known.
        is_repaired: whether training repairs it (as a reversed window), so that the sample is kept.
    """

    path: Path
    line: int
    reason: str
    is_repaired: bool = False

    def __str__(self) -> str:
        return f"{self.path}:{self.line}: {self.reason}" if self.line else f"{self.path}: {self.reason}"


@dataclass(frozen=True, eq=False)
class Annotations:
    """An annotation file as read.

    Attributes:
        path: the file.
        dataset: the data set, as given or detected; None for JSON lines with windows, which several data sets share.
        samples: in the order of the file, without those with a problem that is not repaired.
        problems: in the order of the file.
    """

    path: Path
    dataset: str | None
    samples: tuple[Sample, ...]
    problems: tuple[Problem, ...]
