"""Extraction jobs: a video, a span of a video, or a query, each with the id of its output file."""

from __future__ import annotations

import os
import re
import shlex
from dataclasses import dataclass, replace
from typing import TypeVar

from vtg.clip.specs import EncoderSpec, is_safetensors
from vtg.errors import VtgError

__all__ = ["QueryJob", "VideoJob", "Work", "repeated_ids", "why_no_file_name"]

MAX_NAME_BYTES = 200  # of a path component; file systems allow 255 bytes, including our suffixes
_FORBIDDEN = re.compile(r"[\\\x00-\x1f]")
# Windows also forbids some characters, a blank or dot at the end, and the names of its devices.
_FORBIDDEN_ON_WINDOWS = re.compile(r'[<>:"|?*]|[ .](/|$)|(^|/)(con|prn|aux|nul|com\d|lpt\d)(\.|/|$)', re.IGNORECASE)


@dataclass(frozen=True)
class VideoJob:
    """A video, or a span of one, to extract features of.

    Attributes:
        id: name of the features; slashes separate folders.
        source: path or URL of the file.
        fps: frames a second; None if ``clips`` is given.
        clips: number of frames, evenly spaced over the whole video; None if ``fps`` is given.
        start: seconds; only frames whose whole interval is after it.
        end: seconds; only frames whose whole interval is before it; None for the end of the video.
        line: number of its line in the manifest or annotation file, from 1; 0 if there are no lines.
    """

    id: str
    source: str
    fps: float | None = None
    clips: int | None = None
    start: float = 0.0
    end: float | None = None
    line: int = 0

    def rate(self, duration: float) -> float:
        """Frames a second for a video of a duration in seconds."""
        if self.fps is not None:
            return self.fps
        return (self.clips or 1) / duration


@dataclass(frozen=True)
class QueryJob:
    """A sentence to extract features of.

    Attributes:
        id: name of the features.
        text: the sentence.
        line: as for `VideoJob`.
    """

    id: str
    text: str
    line: int = 0


Job = TypeVar("Job", VideoJob, QueryJob)


@dataclass(frozen=True)
class Work:
    """The jobs of a source, and its problems.

    Attributes:
        source: that it was read from, as given by the user.
        videos: in the order of the source.
        queries: in the order of the source.
        problems: one line each, with file and line number if there is one.
        video_folder: of the published layout; None to name it after the CLIP.
        query_folder: of the published layout; None to name it after the CLIP.
        clip: the CLIP that its recipe names; None if there is none.
    """

    source: str
    videos: tuple[VideoJob, ...]
    queries: tuple[QueryJob, ...] = ()
    problems: tuple[str, ...] = ()
    video_folder: str | None = None
    query_folder: str | None = None
    clip: EncoderSpec | None = None

    def encoder(self, named: EncoderSpec | None, default: EncoderSpec) -> EncoderSpec:
        """The CLIP to encode with: that of the user, else that of the recipe, else the default.

        Raises:
            VtgError: the recipe names a file of weights that is not safetensors, which the user has to name.
        """
        chosen = named or self.clip
        if chosen is None:
            return default
        if named is None and chosen.in_file and not is_safetensors(chosen.pretrained):
            raise VtgError(
                f"{self.source}: names CLIP weights that are not safetensors; if you trust them, add "
                f"--pretrained {shlex.quote(chosen.pretrained)}"
            )
        return chosen

    def shard(self, number: int, of: int) -> Work:
        """Shard ``number``, counted from 1, of ``of``: every ``of``-th job."""
        return replace(self, videos=self.videos[number - 1 :: of], queries=self.queries[number - 1 :: of])


def why_no_file_name(job_id: str) -> str:
    """The reason why an id cannot be a file name; "" if it can."""
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
    if max(lengths) > MAX_NAME_BYTES:
        return f"is longer than {MAX_NAME_BYTES} bytes"
    return ""


def repeated_ids(jobs: list[Job], where: str) -> tuple[list[Job], list[tuple[int, str]]]:
    """Separate jobs with repeated ids.

    Args:
        jobs: in order.
        where: the file or folder that they come from.

    Returns:
        The first job of each id; and for each of the others its line and a message.
    """
    first: dict[str, Job] = {}
    repeated = [job for job in jobs if first.setdefault(job.id, job) is not job]
    return list(first.values()), [(job.line, _repeated(job, first[job.id], where)) for job in repeated]


def _repeated(job: Job, first: Job, where: str) -> str:
    if job.line:
        return f"{where}:{job.line}: the id {job.id!r} is there twice, first on line {first.line}"
    paths = f" ({first.source} and {job.source})" if isinstance(job, VideoJob) and isinstance(first, VideoJob) else ""
    return f"{where}: the id {job.id!r} is there twice{paths}; give ids of your own in a manifest"
