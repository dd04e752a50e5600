"""Read manifests: one video or query a line, as text or as JSON."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import PurePosixPath, PureWindowsPath
from typing import Any

from vtg.datasets.files import lines_of
from vtg.extraction.jobs import VideoJob, repeated_ids, why_no_file_name
from vtg.files.text import read_json, short_repr

__all__ = ["looks_like_manifest", "manifest_jobs"]

COLUMNS = ("path", "id", "start", "end")  # of a line of text, separated by tabs; only the first is required


class _WrongLineError(ValueError):
    """A line is not valid; the message follows "file:line: "."""


def looks_like_manifest(text: str) -> bool:
    """Whether the first line is a path, or a JSON object with a path."""
    _, line = next(lines_of(text), (0, ""))
    if not line.startswith("{"):
        return True
    try:
        record = read_json(line)
    except ValueError:
        return False
    return "path" in record


def manifest_jobs(
    text: str, name: str, resolve: Callable[[str], str], fps: float | None
) -> tuple[list[VideoJob], list[str]]:
    """Read a manifest.

    A line has a path, and optionally an id, a start and an end in seconds, separated by tabs; or it is a JSON object
    with these fields, others being ignored. The default id is the file's name without its suffix. Empty lines and lines
    that start with # are ignored.

    Args:
        text: the manifest.
        name: of its file, for messages.
        resolve: converts a path or URL in it to an absolute one.
        fps: frames a second of every job.

    Returns:
        The jobs in order, and one line for each problem.
    """
    jobs: list[VideoJob] = []
    problems: list[tuple[int, str]] = []
    for number, line in lines_of(text):
        if line.startswith("#"):
            continue
        try:
            jobs.append(_job(_fields(line), number, resolve, fps))
        except _WrongLineError as error:
            problems.append((number, f"{name}:{number}: {error}"))
    first, repeated = repeated_ids(jobs, name)
    return first, [reason for _, reason in sorted(problems + repeated)]


def _fields(line: str) -> dict[str, Any]:
    if not line.startswith("{"):
        values = [value.strip() for value in line.split("\t")]
        if len(values) > len(COLUMNS):
            raise _WrongLineError(f"has {len(values)} columns; they are {', '.join(COLUMNS)}, with tabs between them")
        return {column: value for column, value in zip(COLUMNS, values, strict=False) if value}
    try:
        record = read_json(line)
    except ValueError as error:
        raise _WrongLineError(f"not valid JSON ({error})") from None
    return {column: record[column] for column in COLUMNS if record.get(column) is not None}


def _job(fields: dict[str, Any], line: int, resolve: Callable[[str], str], fps: float | None) -> VideoJob:
    path = fields.get("path")
    if path is None:
        raise _WrongLineError("no path")
    if not isinstance(path, str) or not path.strip():
        raise _WrongLineError(f"the path must be a text, not {short_repr(path)}")
    job_id = fields.get("id", _stem(path))
    if isinstance(job_id, bool) or not isinstance(job_id, (str, int)):
        raise _WrongLineError(f"the id must be a text or a whole number, not {short_repr(job_id)}")
    why = why_no_file_name(str(job_id))
    if why:
        raise _WrongLineError(f"the id {short_repr(job_id)} {why}; give another one")
    start = _seconds(fields.get("start", 0.0), "start")
    end = None if "end" not in fields else _seconds(fields["end"], "end")
    if end is not None and end <= start:
        raise _WrongLineError(f"the end, {end:g} s, is not after the start, {start:g} s")
    return VideoJob(str(job_id), resolve(path), fps, start=start, end=end, line=line)


def _stem(path: str) -> str:
    pure = PureWindowsPath(path) if "\\" in path else PurePosixPath(path)
    return pure.stem


def _seconds(value: object, name: str) -> float:
    try:
        seconds = math.nan if isinstance(value, bool) else float(value)  # type: ignore[arg-type]
    except (TypeError, ValueError):
        seconds = math.nan
    if not 0 <= seconds < math.inf:
        raise _WrongLineError(f"the {name} must be seconds of 0 or more, not {short_repr(value)}")
    return seconds
