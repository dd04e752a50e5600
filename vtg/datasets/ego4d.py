"""Read Ego4D's files of natural-language queries, `nlq_*.json`."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np

import vtg.datasets.fields as fields
from vtg.datasets.fields import MalformedError
from vtg.datasets.samples import Problem, Sample

__all__ = ["ego4d_samples"]


def ego4d_samples(path: Path, document: Mapping[str, Any]) -> tuple[list[Sample], list[Problem]]:
    """Read samples from Ego4D's document; the "video" of a sample is the clip, and times are relative to its start.

    The query id is the annotation's id, an underscore and the index of the query in that annotation. Empty queries,
    which occur in the release, are skipped, as is common.
    """
    samples: list[Sample] = []
    problems: list[Problem] = []
    for where, clip in _clips(document):
        for annotation in _objects(clip, "annotations"):
            for place, query in enumerate(_objects(annotation, "language_queries")):
                if not query.get("query"):
                    continue
                query_id = f"{annotation.get('annotation_uid', where)}_{place}"
                try:
                    samples.append(_sample(clip, query, query_id))
                except MalformedError as error:
                    problems.append(Problem(path, 0, f"query {query_id}: {error}"))
    if not samples and not problems:
        problems.append(Problem(path, 0, "no language queries under videos, clips, annotations"))
    return samples, problems


def _sample(clip: Mapping[str, Any], query: Mapping[str, Any], query_id: str) -> Sample:
    for first, last in (("clip_start_sec", "clip_end_sec"), ("video_start_sec", "video_end_sec")):
        if first in clip and last in clip:
            duration = fields.number(clip[last], last) - fields.number(clip[first], first)
            break
    else:
        raise MalformedError("its clip has no clip_start_sec and clip_end_sec")
    if duration <= 0:
        raise MalformedError(f"its clip is {duration:g} s long")
    windows = None
    if "clip_start_sec" in query and "clip_end_sec" in query:  # missing in the test split
        start = fields.number(query["clip_start_sec"], "clip_start_sec")
        windows = np.array([[start, fields.number(query["clip_end_sec"], "clip_end_sec")]])
    return Sample(fields.text(clip, "clip_uid"), query_id, fields.text(query, "query"), duration, windows=windows)


def _clips(document: Mapping[str, Any]) -> Iterator[tuple[str, Mapping[str, Any]]]:
    for video in _objects(document, "videos"):
        for place, clip in enumerate(_objects(video, "clips")):
            yield f"{clip.get('clip_uid', place)}", clip


def _objects(parent: Mapping[str, Any], name: str) -> list[Mapping[str, Any]]:
    children = parent.get(name)
    return [child for child in children if isinstance(child, dict)] if isinstance(children, list) else []
