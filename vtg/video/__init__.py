"""Read and write video files with PyAV; decord and the ffmpeg binary stand behind the same functions."""

from __future__ import annotations

from typing import TYPE_CHECKING

from vtg.lazy import lazy_names

if TYPE_CHECKING:
    from vtg.video.editing import Cut, cut
    from vtg.video.joining import Reel, Span, concat, write_reel
    from vtg.video.probing import VideoInfo, probe
    from vtg.video.sampling import Chunk, sample_frames, thumbnail

__all__ = [
    "Chunk",
    "Cut",
    "Reel",
    "Span",
    "VideoInfo",
    "concat",
    "cut",
    "probe",
    "sample_frames",
    "thumbnail",
    "write_reel",
]

__getattr__, __dir__ = lazy_names(
    __name__,
    {
        "Chunk": "sampling",
        "Cut": "editing",
        "Reel": "joining",
        "Span": "joining",
        "VideoInfo": "probing",
        "concat": "joining",
        "cut": "editing",
        "probe": "probing",
        "sample_frames": "sampling",
        "thumbnail": "sampling",
        "write_reel": "joining",
    },
)
