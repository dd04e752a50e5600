"""Fetch the file of a job and sample its frames."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from vtg.errors import VideoError
from vtg.extraction.jobs import VideoJob
from vtg.extraction.remote import fetched, is_url
from vtg.features.store import content_key
from vtg.video import Chunk, sample_frames
from vtg.video.probing import survey

__all__ = ["OpenedVideo", "open_video"]


@dataclass(frozen=True)
class OpenedVideo:
    """A video whose frames can be taken.

    Attributes:
        duration: of all of it, seconds.
        content: its content key; "" where nobody asked.
        chunks: times [N] seconds and frames [N, size, size, 3] uint8, N at most 32; where one ends depends on nothing
            but the video.
    """

    duration: float
    content: str
    chunks: Iterator[Chunk]


@contextlib.contextmanager
def open_video(job: VideoJob, size: int, with_content: bool, threads: int = 1) -> Iterator[OpenedVideo]:
    """Open the file of a job, fetching it first where it lies elsewhere.

    Args:
        job: the job.
        size: side of a frame, pixels.
        with_content: whether its content key is wanted, for which all of it is read.
        threads: that decode; one where other videos are decoded at the same time. The frames do not depend on it.

    Raises:
        VtgError: the file cannot be had or read, here or while its chunks are taken.
    """
    if not is_url(job.source):
        with _opened(job, Path(job.source), size, with_content, threads) as video:
            yield video
        return
    try:
        with fetched(job.source) as path, _opened(job, path, size, with_content, threads) as video:
            yield video
    except VideoError as error:
        # The reader of the message knows the URL, not the copy.
        raise VideoError(job.source, error.reason) from None


@contextlib.contextmanager
def _opened(job: VideoJob, path: Path, size: int, with_content: bool, threads: int) -> Iterator[OpenedVideo]:
    track = survey(path)
    duration = track.info.duration
    chunks = sample_frames(path, job.rate(duration), size, job.start, job.end, track=track, threads=threads)
    with contextlib.closing(chunks):  # type: ignore[type-var]
        yield OpenedVideo(duration, content_key(path) if with_content else "", chunks)
