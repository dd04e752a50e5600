"""Limits on what one video may cost: memory of a process, size of its pictures, decoding threads.

A file claims what it likes, and a decoder allocates what is claimed. So pictures beyond `MAX_PIXELS` are refused, and
libav decodes in this process only what fits into `MAX_DECODING_MEMORY`; `MemoryGuard` watches over files that make it keep
more pictures than usual. Everything else is for the ffmpeg binary, whose memory the operating system limits (see
`vtg.video.children`).

Measured with PyAV, beyond what the process had before: 8192x8192 H.264 takes 290, 480 and 850 MB with 1, 2 and 4
threads, and 2300 MB with one thread where the file refers to 16 pictures; 3840x2160 takes 120 to 190 MB (H.264), 210 to
290 MB (HEVC, 10 bits), 60 to 100 MB (VP9).
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
MAX_DECODING_MEMORY = 300_000_000  # bytes, of decoding one video in this process; PyTorch, LanceDB and a model have 1.1 GB
MAX_CHILD_DECODING_MEMORY = 1_000_000_000  # bytes, of decoding in an ffmpeg process; the rest is for filters and encoders
MAX_PIXELS = 8192 * 8192  # of one picture as it is coded
MAX_PIXELS_AT_OPENING = (
    4096 * 2304
)  # beyond, `av.open` is not to decode what it looks at; header and parser tell enough
MAX_THREADS = 4  # for one video; more do not make it faster

USUAL_BUFFERED_FRAMES = (
    6  # that a decoder usually holds at once; the levels of H.264 and HEVC allow as many of the largest size
)
MAX_BUFFERED_FRAMES = 22  # the same for the worst file
BUFFERED_FRAMES_PER_THREAD = 2  # pictures more for each thread
BITS_PER_PIXEL_YUV420 = 12  # a pixel, of 8-bit pictures with halved colour


def check_size(path: str | os.PathLike[str], width: int, height: int) -> None:
    """Makes sure that a file's pictures are not larger than can be decoded within the limits.

    Args:
        path: the file, for the message.
        width: of its pictures as they are coded, pixels.
        height: the same.

    Raises:
        VideoError: they are.
    """
    if width * height > MAX_PIXELS:
        raise VideoError(
            path,
            f"has pictures of {width}x{height}; the limit is {MAX_PIXELS // 10**6} megapixels (8192x8192): "
            "make a smaller copy",
        )


def decoding_threads(width: int, height: int, bits: int = BITS_PER_PIXEL_YUV420) -> int:
    """How many threads libav may use in this process for one video.

    Args:
        width: of its pictures as they are coded, pixels.
        height: the same.
        bits: that a decoded pixel takes, padding included (`av.VideoFormat.padded_bits_per_pixel`).

    Returns:
        At most one a core and `MAX_THREADS`; 0 where even one thread would need more than `MAX_DECODING_MEMORY`, so that
        the ffmpeg binary has to decode.
    """
    return min(_threads_within(MAX_DECODING_MEMORY, width, height, bits), os.cpu_count() or 1, MAX_THREADS)


def child_threads(width: int, height: int, bits: int = BITS_PER_PIXEL_YUV420) -> int:
    """How many decoding threads an ffmpeg process gets (its option `-threads` before `-i`), from 1 to `MAX_THREADS`.

    Left to itself ffmpeg takes one a core, each with pictures of its own: 8192x8192 needs 350 MB with one thread and
    fails with 8.

    Args:
        width: of the pictures as they are coded, pixels.
        height: the same.
        bits: that a decoded pixel takes, padding included.
    """
    return max(1, min(_threads_within(MAX_CHILD_DECODING_MEMORY, width, height, bits), os.cpu_count() or 1, MAX_THREADS))


class MemoryGuard:
    """Notices when decoding in this process takes more than `MAX_DECODING_MEMORY`; to be asked after each packet.

    Costs nothing for pictures so small that no file can make a decoder take that much. What other threads allocate in
    the meantime counts, too: a video is then left to the ffmpeg binary without need, which gives the same frames.

    Args:
        width: of the pictures as they are coded, pixels. A decoder's option `max_pixels` keeps them from growing.
        height: the same.
        threads: that decode.
        bits: that a decoded pixel takes, padding included.
    """

    def __init__(self, width: int, height: int, threads: int, bits: int = BITS_PER_PIXEL_YUV420) -> None:
        most = _picture_bytes(width, height, bits) * (MAX_BUFFERED_FRAMES + BUFFERED_FRAMES_PER_THREAD * threads)
        self._before = process_memory() if most > MAX_DECODING_MEMORY else None

    def check(self) -> None:
        """Compares the memory of this process with what it was at the beginning.

        Raises:
            MemoryError: decoding has taken too much.
        """
        if self._before is None:
            return
        now = process_memory()
        if now is not None and now - self._before > MAX_DECODING_MEMORY:
            raise MemoryError(f"decoding takes more than {MAX_DECODING_MEMORY // 10**6} MB")


def process_memory() -> int | None:
    """Bytes that this process holds in memory (on macOS: has held at most); None where that cannot be told."""
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
