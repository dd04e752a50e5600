"""Open a video file and decode its sampled frames; the first stage of indexing and of extraction.

Neither this module nor its imports need torch, so that machines of a cluster that only decode can do without it.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from vtg.errors import VideoError, VtgError
from vtg.features.store import content_key
from vtg.video import Chunk, VideoInfo, sample_frames
from vtg.video.framing import Framing
from vtg.video.probing import survey

__all__ = ["OpenedVideo", "failure_reason", "open_video"]


@dataclass(frozen=True)
class OpenedVideo:
    """An open video.

    Attributes:
        info: from `probe`.
        content: its content key; "" if not requested.
        chunks: times [N] seconds and frames [N, size, size, 3] uint8, N at most 32; the division into chunks depends
            on the video only.
    """

    info: VideoInfo
    content: str
    chunks: Iterator[Chunk]


@contextlib.contextmanager
def open_video(
    path: Path,
    framing: Framing,
    rate: Callable[[float], float],
    start: float = 0.0,
    end: float | None = None,
    threads: int | None = None,
    with_content: bool = False,
) -> Iterator[OpenedVideo]:
    """Open a video; its frames are decoded lazily, and decoding ends with the block.

    Args:
        path: the file.
        framing: how its frames become squares.
        rate: returns the frame rate to sample at for the duration of the video in seconds.
        start: seconds, as for `sample_frames`.
        end: seconds, as for `sample_frames`.
        threads: decoding threads, as for `sample_frames`.
        with_content: whether to compute its content key, which reads the whole file.

    Raises:
        VtgError: the file cannot be read, here or while iterating over its chunks.
    """
    track = survey(path)
    chunks = sample_frames(path, rate(track.info.duration), framing, start, end, track=track, threads=threads)
    with contextlib.closing(chunks):  # type: ignore[type-var]
        yield OpenedVideo(track.info, content_key(path) if with_content else "", chunks)


def failure_reason(error: VtgError) -> str:
    """The reason why a video has no features, on one line, without the name of its file."""
    return error.reason if isinstance(error, VideoError) else str(error)
