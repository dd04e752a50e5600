"""Read JSON lines in the format of QVHighlights, also used for Charades-STA, TACoS, Ego4D-NLQ, demo and custom data."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

import vtg.datasets.fields as fields
from vtg.datasets.fields import MalformedError
from vtg.datasets.samples import Sample
from vtg.files.text import short_repr

__all__ = ["CLIP_SECONDS", "clip_grid", "moment_sample"]

CLIP_SECONDS = 2.0  # of a rated clip

_RATERS = 3
_MAX_SUM = 12.0  # three raters with marks up to 4


def moment_sample(record: Mapping[str, Any], line: int) -> Sample:
    """One sample from one JSON line.

    Args:
        record: `qid`, `vid`, `query` and `duration`; optional `relevant_windows`, and `relevant_clip_ids` with
            `saliency_scores`, three marks of 0…4 for each relevant clip of two seconds. Other fields are ignored.
        line: its line number.

    Raises:
        MalformedError: a field is missing or wrong.
    """
    query_id = fields.query_id(record, "qid")
    try:
        duration = fields.number(record.get("duration"), "duration")
        if duration <= 0:
            raise MalformedError(f"duration must be above 0 seconds, not {short_repr(record['duration'])}")
        windows = fields.optional(record, "relevant_windows")
        ratings = _ratings(record, duration)
        return Sample(
            video_id=fields.text(record, "vid"),
            query_id=query_id,
            query=fields.text(record, "query"),
            duration=duration,
            windows=None if windows is None else fields.table(windows, "relevant_windows", columns=2),
            ratings=ratings,
            saliency=None if ratings is None else ratings.sum(axis=1) / _MAX_SUM,
            clips=None if ratings is None else clip_grid(len(ratings)),
            line=line,
        )
    except MalformedError as error:
        raise MalformedError(f"query {query_id}: {error}") from None


def clip_grid(count: int) -> NDArray[np.float64]:
    """[count, 2] start and end in seconds of consecutive clips of two seconds, from 0."""
    starts = CLIP_SECONDS * np.arange(count)
    return np.stack([starts, starts + CLIP_SECONDS], axis=1)


def _ratings(record: Mapping[str, Any], duration: float) -> NDArray[np.float64] | None:
    """[clips, 3] marks of the whole video, 0 outside the relevant clips; None without any relevant clip."""
    clip_ids = fields.optional(record, "relevant_clip_ids")
    scores = fields.optional(record, "saliency_scores")
    if clip_ids is None and scores is None:
        return None
    if clip_ids is None or scores is None:
        raise MalformedError("relevant_clip_ids and saliency_scores must be given together")
    marks = fields.table(scores, "saliency_scores", columns=_RATERS)
    clips = fields.numbers(clip_ids, "relevant_clip_ids")
    if len(clips) != len(marks):
        raise MalformedError(f"{len(clips)} relevant_clip_ids but {len(marks)} saliency_scores")
    if not len(clips):
        return None
    count = int(duration / CLIP_SECONDS)
    beyond = clips[(clips < 0) | (clips >= count) | (clips != np.floor(clips))]
    if beyond.size:
        raise MalformedError(f"clip {beyond[0]:g} is not one of the {count} clips of a video of {duration:g} s")
    wrong = marks[(marks < 0) | (marks > 4)]
    if wrong.size:
        raise MalformedError(f"a saliency score of {wrong[0]:g}; marks go from 0 to 4")
    ratings = np.zeros((count, _RATERS))
    ratings[clips.astype(int)] = marks
    return ratings
