"""Read and write video files with PyAV; falls back to the ffmpeg binary (decord on request).

In: paths of video files, times in seconds from the first frame. Out: sampled frames (uint8 RGB, in SDR colours), still
images, clips and joined videos. Read `containers` (open a file), `probing` (what it holds), `sampling` with the
decoders (`decoders`, `pyav_decoder`, `decord_decoder`), then `editing` (cut one clip), `joining` (several into one) and
`preview` (small copies for browsers), which share `writing`. `process` runs ffmpeg with limits on memory and time, and
`subtitles` reads the transcript of a video. What is listed in `__all__` is public.
"""

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
