"""Extraction jobs: a video, a span of a video, or a query, each with the id of its output file."""

from __future__ import annotations

import os
import re
from dataclasses import dataclass, replace
from typing import TypeVar

__all__ = ["QueryJob", "VideoJob", "Work", "repeated_ids", "why_no_file_name"]

LONGEST_NAME = 200  # characters between two slashes: file systems take 255 bytes, endings of our own included
_FORBIDDEN = re.compile(r"[\\\x00-\x1f]")
# Windows forbids more: signs, an ending of a blank or a dot, and the names of its devices.
_FORBIDDEN_ON_WINDOWS = re.compile(r'[<>:"|?*]|[ .](/|$)|(^|/)(con|prn|aux|nul|com\d|lpt\d)(\.|/|$)', re.IGNORECASE)


@dataclass(frozen=True)
class VideoJob:
    """One video, or a stretch of one, whose features are wanted.

    Attributes:
        id: names the features; may have slashes, which become folders.
        source: path or URL of the file.
        fps: frames a second; None where ``clips`` says how many there are to be.
        clips: so many frames spread over the whole video; None where ``fps`` is given.
        start: seconds; only frames whose whole interval lies after it.
        end: seconds; only frames whose whole interval lies before it; None for the end of the video.
        line: where it stands in its manifest or annotation file, from 1; 0 where there are no lines.
    """

    id: str
    source: str
    fps: float | None = None
    clips: int | None = None
    start: float = 0.0
    end: float | None = None
    line: int = 0

    def rate(self, duration: float) -> float:
        """Frames a second in a video of so many seconds."""
        if self.fps is not None:
            return self.fps
        return (self.clips or 1) / duration


@dataclass(frozen=True)
class QueryJob:
    """One sentence whose features are wanted.

    Attributes:
        id: names the features.
        text: the sentence.
        line: as for `VideoJob`.
    """

    id: str
    text: str
    line: int = 0


Job = TypeVar("Job", VideoJob, QueryJob)


@dataclass(frozen=True)
class Work:
    """Everything that a source asks for, and what is wrong with it.

    Attributes:
        source: what it was read from, in the user's words.
        videos: in the order of the source.
        queries: in the order of the source.
        problems: one line each, with file and line number where there is one.
        video_folder: where the published layout keeps videos.
        query_folder: where it keeps queries.
    """

    source: str
    videos: tuple[VideoJob, ...]
    queries: tuple[QueryJob, ...] = ()
    problems: tuple[str, ...] = ()
    video_folder: str = "clip_b32_vid_k4"
    query_folder: str = "clip_b32_txt_k4"

    def shard(self, number: int, of: int) -> Work:
        """Every ``of``-th job from the ``number``-th on, counted from 1: all shards together are the whole."""
        return replace(self, videos=self.videos[number - 1 :: of], queries=self.queries[number - 1 :: of])


def why_no_file_name(job_id: str) -> str:
    """Why an id cannot name a file here; "" where it can."""
    parts = job_id.split("/")
    if any(part in ("", ".", "..") for part in parts):
        return "has an empty or dotted part"
    if _FORBIDDEN.search(job_id):
        return "has a backslash or a control character"
    if os.name == "nt" and _FORBIDDEN_ON_WINDOWS.search(job_id):
        return "is not a name that a file may have on Windows"
    try:
        lengths = [len(part.encode()) for part in parts]
    except UnicodeEncodeError:
        return "is not UTF-8"
    if max(lengths) > LONGEST_NAME:
        return f"is longer than {LONGEST_NAME} bytes"
    return ""


def repeated_ids(jobs: list[Job], where: str) -> tuple[list[Job], list[tuple[int, str]]]:
    """The first job of each id; and for each of the others its line, and what to tell the user.

    Args:
        jobs: in their order.
        where: the file or folder that they come from.
    """
    first: dict[str, Job] = {}
    repeated = [job for job in jobs if first.setdefault(job.id, job) is not job]
    return list(first.values()), [(job.line, _repeated(job, first[job.id], where)) for job in repeated]


def _repeated(job: Job, first: Job, where: str) -> str:
    if job.line:
        return f"{where}:{job.line}: the id {job.id!r} is there twice, first on line {first.line}"
    paths = f" ({first.source} and {job.source})" if isinstance(job, VideoJob) and isinstance(first, VideoJob) else ""
    return f"{where}: the id {job.id!r} is there twice{paths}; give ids of your own in a manifest"
