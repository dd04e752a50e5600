"""Limits on the resources of decoding one video: process memory, frame size, decoding threads.

A damaged or hostile file can claim any frame size, and a decoder allocates what is claimed. So frames beyond
`MAX_PIXELS` are refused, and libav decodes in this process only what fits into `MAX_DECODING_MEMORY`; `MemoryGuard`
stops files that make it buffer more frames than usual. Everything else is decoded by the ffmpeg binary, whose memory
the operating system limits (see `vtg.video.child_processes`).

Measured with PyAV, in addition to the memory before: 8192x8192 H.264 takes 290, 480 and 850 MB with 1, 2 and 4
threads, and 2300 MB with one thread where the file has 16 reference frames; 3840x2160 takes 120 to 190 MB (H.264), 210
to 290 MB (HEVC, 10 bits), 60 to 100 MB (VP9).
"""

from __future__ import annotations

import os
import sys
from pathlib import Path

from vtg.errors import VideoError

__all__ = [
    "MAX_DECODING_MEMORY",
    "MAX_PIXELS",
    "MAX_PIXELS_AT_OPENING",
    "MAX_PROCESS_MEMORY",
    "MAX_THREADS",
    "MemoryGuard",
    "check_size",
    "child_threads",
    "decoding_threads",
    "process_memory",
]

MAX_PROCESS_MEMORY = 1_500_000_000  # bytes, of any one process
MAX_DECODING_MEMORY = 300_000_000  # bytes, for one video in this process; PyTorch, LanceDB and a model take 1.1 GB
MAX_CHILD_DECODING_MEMORY = 1_000_000_000  # bytes, in an ffmpeg process; the rest is for filters and encoders
MAX_PIXELS = 8192 * 8192  # of one coded frame
MAX_PIXELS_AT_OPENING = 4096 * 2304  # above, `av.open` decodes no frames: header and parser say enough
MAX_THREADS = 4  # for one video; more are not faster

USUAL_BUFFERED_FRAMES = 6  # of a decoder; the levels of H.264 and HEVC allow as many of the largest size
MAX_BUFFERED_FRAMES = 22  # in the worst case
BUFFERED_FRAMES_PER_THREAD = 2  # in addition, for each thread
BITS_PER_PIXEL_YUV420 = 12  # 8-bit frames with 4:2:0 chroma


def check_size(path: str | os.PathLike[str], width: int, height: int) -> None:
    """Check that the frames of a file are small enough to be decoded within the limits.

    Args:
        path: the file, for the message.
        width: of its coded frames, pixels.
        height: of its coded frames, pixels.

    Raises:
        VideoError: they are too large.
    """
    if width * height > MAX_PIXELS:
        raise VideoError(
            path,
            f"has frames of {width}x{height} pixels; the limit is {MAX_PIXELS // 10**6} megapixels (8192x8192): "
            "make a smaller copy",
        )


def decoding_threads(width: int, height: int, bits: int = BITS_PER_PIXEL_YUV420) -> int:
    """Number of threads that libav may use in this process for one video.

    Args:
        width: of its coded frames, pixels.
        height: of its coded frames, pixels.
        bits: of a decoded pixel, including padding (`av.VideoFormat.padded_bits_per_pixel`).

    Returns:
        At most one per core and `MAX_THREADS`; 0 where even one thread would exceed `MAX_DECODING_MEMORY`, so that the
        ffmpeg binary has to decode.
    """
    return min(_threads_within(MAX_DECODING_MEMORY, width, height, bits), os.cpu_count() or 1, MAX_THREADS)


def child_threads(width: int, height: int, bits: int = BITS_PER_PIXEL_YUV420) -> int:
    """Number of decoding threads of an ffmpeg process (`-threads` before `-i`), from 1 to `MAX_THREADS`.

    By default ffmpeg uses one per core, each with its own frames: 8192x8192 needs 350 MB with one thread and fails
    with 8.

    Args:
        width: of the coded frames, pixels.
        height: of the coded frames, pixels.
        bits: of a decoded pixel, including padding.
    """
    return max(
        1, min(_threads_within(MAX_CHILD_DECODING_MEMORY, width, height, bits), os.cpu_count() or 1, MAX_THREADS)
    )


class MemoryGuard:
    """Detects when decoding in this process takes more than `MAX_DECODING_MEMORY`; call `check` after each packet.

    Does nothing for frames so small that no file can exceed the limit. Memory that other threads allocate meanwhile
    counts as well: at worst the ffmpeg binary decodes the video without need, with the same result.

    Args:
        width: of the coded frames, pixels. The decoder's option `max_pixels` keeps them from growing.
        height: of the coded frames, pixels.
        threads: of the decoder.
        bits: of a decoded pixel, including padding.
    """

    def __init__(self, width: int, height: int, threads: int, bits: int = BITS_PER_PIXEL_YUV420) -> None:
        most = _picture_bytes(width, height, bits) * (MAX_BUFFERED_FRAMES + BUFFERED_FRAMES_PER_THREAD * threads)
        self._before = process_memory() if most > MAX_DECODING_MEMORY else None

    def check(self) -> None:
        """Compare the memory of this process with that at the start.

        Raises:
            MemoryError: decoding has exceeded the limit.
        """
        if self._before is None:
            return
        now = process_memory()
        if now is not None and now - self._before > MAX_DECODING_MEMORY:
            raise MemoryError(f"decoding takes more than {MAX_DECODING_MEMORY // 10**6} MB")


def process_memory() -> int | None:
    """Resident memory of this process in bytes (on macOS: the peak); None where unknown."""
    if sys.platform == "win32":
        from vtg.video._windows import resident_bytes

        return resident_bytes()
    if sys.platform == "darwin":
        import resource

        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    try:
        return int(Path("/proc/self/statm").read_bytes().split()[1]) * os.sysconf("SC_PAGE_SIZE")
    except (OSError, ValueError, IndexError):
        return None


def _threads_within(memory: int, width: int, height: int, bits: int) -> int:
    return max(0, (memory // _picture_bytes(width, height, bits) - USUAL_BUFFERED_FRAMES) // BUFFERED_FRAMES_PER_THREAD)


def _picture_bytes(width: int, height: int, bits: int) -> int:
    return max(1, width * height * bits // 8)
