"""Read annotation files of all benchmarks, and custom ones, into samples; the format is detected."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

from vtg.datasets.charades import charades_samples, looks_like_charades
from vtg.datasets.ego4d import ego4d_samples
from vtg.datasets.fields import MalformedError
from vtg.datasets.files import json_document, json_records, read_text
from vtg.datasets.moments import moment_sample
from vtg.datasets.rated import rated_dataset, tvsum_sample, youtube_sample
from vtg.datasets.samples import Annotations, Problem, QueryId, Sample
from vtg.errors import VtgError

__all__ = ["DATASETS", "RATED_DATASETS", "load_samples", "read_annotations", "samples_of"]

DATASETS = ("qvhighlights", "charades", "tacos", "ego4d", "youtube", "tvsum", "demo")
RATED_DATASETS = ("youtube", "tvsum")  # with rated clips, in domains; the others have queries with windows

_RATED_SAMPLES: Mapping[str, Callable[[Mapping[str, Any], int, str | None], Sample]] = {
    "youtube": youtube_sample,
    "tvsum": tvsum_sample,
}


def load_samples(path: Path, dataset: str | None = None) -> list[Sample]:
    """Read the samples of an annotation file.

    Args:
        path: QVHighlights' `highlight_*_release.jsonl` and JSON lines in this format (Charades-STA, TACoS, Ego4D-NLQ,
            custom data); Charades-STA's text lines with the CSV of lengths beside them; Ego4D's `nlq_*.json`;
            `youtube_anno.json`, `tvsum_anno.json` and their JSON lines. Each of them may be gzipped.
        dataset: one of `DATASETS`, to check that the file belongs to it; None to detect it.

    Returns:
        In the order of the file. Windows that are reversed, have no length or reach beyond the video are left as they
        are.

    Raises:
        VtgError: the file cannot be read, is of another data set, or contains an invalid line.
    """
    return samples_of(read_annotations(path, dataset))


def samples_of(annotations: Annotations) -> list[Sample]:
    """The samples of annotations without problems that training cannot repair.

    Raises:
        VtgError: the first problem, and how many more there are; or there is no sample.
    """
    fatal = [problem for problem in annotations.problems if not problem.is_repaired]
    if fatal:
        more = f" (and {len(fatal) - 1} more like it)" if len(fatal) > 1 else ""
        raise VtgError(f"{fatal[0]}{more}; correct the file or remove the line")
    if not annotations.samples:
        raise VtgError(f"{annotations.path}: contains no annotations; check the path")
    return list(annotations.samples)


def read_annotations(path: Path, dataset: str | None = None) -> Annotations:
    """Read the samples of an annotation file and all its problems.

    Args:
        path: as for `load_samples`.
        dataset: as for `load_samples`.

    Raises:
        VtgError: the file cannot be read, or is of another data set.
    """
    if dataset is not None and dataset not in DATASETS:
        raise VtgError(f"unknown data set {dataset!r}; available are {', '.join(DATASETS)}")
    path = Path(path)
    found, samples, problems = _parsed(path, read_text(path))
    if dataset is not None and (found or dataset in RATED_DATASETS) and found != dataset and (samples or not problems):
        form = f"annotations of {found}" if found else "queries with windows"
        fitting = found or "qvhighlights"
        raise VtgError(f"{path}: holds {form}, not of {dataset}; give the other file or --dataset {fitting}")
    problems += _repeated(path, samples)
    problems += [problem for sample in samples for problem in _odd_windows(path, sample)]
    problems.sort(key=lambda problem: problem.line)
    return Annotations(path, dataset or found, tuple(samples), tuple(problems))


def _parsed(path: Path, text: str) -> tuple[str | None, list[Sample], list[Problem]]:
    """Data set by the format of the file (None for JSON lines with windows), samples, problems."""
    document = json_document(text)
    if document is not None and "videos" in document:
        return ("ego4d", *ego4d_samples(path, document))
    if document is not None:
        return _rated_document(path, document)
    if looks_like_charades(text):
        return ("charades", *charades_samples(path, text))
    return _json_lines(path, text)


def _rated_document(path: Path, document: Mapping[str, Any]) -> tuple[str | None, list[Sample], list[Problem]]:
    entries = {video_id: entry for video_id, entry in document.items() if isinstance(entry, dict)}
    dataset = next(filter(None, map(rated_dataset, entries.values())), None)
    if dataset is None:
        known = "JSON lines, youtube_anno.json, tvsum_anno.json or nlq_*.json"
        raise VtgError(f"{path}: not the annotations of a known data set; expected {known}")
    samples: list[Sample] = []
    problems = [
        Problem(path, 0, f"video {video_id}: expected a JSON object")
        for video_id in document
        if video_id not in entries
    ]
    for video_id, entry in entries.items():
        try:
            samples.append(_RATED_SAMPLES[dataset](entry, 0, video_id))
        except MalformedError as error:
            problems.append(Problem(path, 0, str(error)))
    return dataset, samples, problems


def _json_lines(path: Path, text: str) -> tuple[str | None, list[Sample], list[Problem]]:
    dataset: str | None = None
    samples: list[Sample] = []
    problems: list[Problem] = []
    for line, record in json_records(text):
        if isinstance(record, str):
            problems.append(Problem(path, line, record))
            continue
        dataset = dataset or rated_dataset(record)
        try:
            samples.append(_RATED_SAMPLES[dataset](record, line, None) if dataset else moment_sample(record, line))
        except MalformedError as error:
            problems.append(Problem(path, line, str(error)))
    return dataset, samples, problems


def _repeated(path: Path, samples: list[Sample]) -> Iterator[Problem]:
    lines: dict[QueryId, int] = {}
    for sample in samples:
        if sample.query_id in lines:
            first = f", first on line {lines[sample.query_id]}" if sample.line else ""
            yield Problem(path, sample.line, f"query {sample.query_id}: duplicate id{first}")
        else:
            lines[sample.query_id] = sample.line


def _odd_windows(path: Path, sample: Sample) -> Iterator[Problem]:
    if sample.windows is None:
        return
    for start, end in sample.windows.tolist():
        reason = ""
        if end < start:
            reason = f"window [{start:g}, {end:g}] ends before it starts"
        elif end == start:
            reason = f"window [{start:g}, {end:g}] has no length"
        elif start < 0 or start >= sample.duration:
            reason = f"window [{start:g}, {end:g}] starts outside the video of {sample.duration:g} s"
        if reason:
            yield Problem(path, sample.line, f"query {sample.query_id}: {reason}", is_repaired=True)
