"""Open a video file and decode its sampled frames; the first stage of indexing and of extraction.

Neither this module nor what it imports needs torch: on a cluster, machines that only decode do without it.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from vtg.errors import VideoError, VtgError
from vtg.features.store import content_key
from vtg.video import Chunk, VideoInfo, sample_frames
from vtg.video.probing import survey

__all__ = ["OpenedVideo", "failure_reason", "open_video"]


@dataclass(frozen=True)
class OpenedVideo:
    """A video whose frames can be taken.

    Attributes:
        info: what `probe` says.
        content: its content key; "" where nobody asked.
        chunks: times [N] seconds and frames [N, size, size, 3] uint8, N at most 32; where one ends depends on nothing
            but the video.
    """

    info: VideoInfo
    content: str
    chunks: Iterator[Chunk]


@contextlib.contextmanager
def open_video(
    path: Path,
    size: int,
    rate: Callable[[float], float],
    start: float = 0.0,
    end: float | None = None,
    threads: int | None = None,
    with_content: bool = False,
) -> Iterator[OpenedVideo]:
    """Open a video; its frames are decoded as they are taken, and decoding ends with the block.

    Args:
        path: the file.
        size: side of a frame, pixels.
        rate: gives the frames a second for the duration of the video in seconds.
        start: seconds, as for `sample_frames`.
        end: seconds, as for `sample_frames`.
        threads: that decode, as for `sample_frames`.
        with_content: whether its content key is wanted, for which all of it is read.

    Raises:
        VtgError: the file cannot be read, here or while its chunks are taken.
    """
    track = survey(path)
    chunks = sample_frames(path, rate(track.info.duration), size, start, end, track=track, threads=threads)
    with contextlib.closing(chunks):  # type: ignore[type-var]
        yield OpenedVideo(track.info, content_key(path) if with_content else "", chunks)


def failure_reason(error: VtgError) -> str:
    """Why a video has no features, in one line; the name of its file, which is reported beside it, is left out."""
    return error.reason if isinstance(error, VideoError) else str(error)
