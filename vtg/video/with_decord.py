"""Decodes with decord, which is quick to start, jumps between keyframes and converts only the pictures asked for.

decord counts decoded pictures instead of looking at their times, and while it waits for one it reads ahead without
limit, giving up (with a wrong picture) after 10 000 packets. So it gets short videos whole and long ones in stretches
copied into memory, where counting is right and reading ahead has an end, and any error ends its turn.
"""

from __future__ import annotations

import bisect
import ctypes
import functools
import importlib
import io
import math
import os
import re
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from fractions import Fraction
from typing import Any

import numpy as np
import numpy.typing as npt

from vtg.video.probing import Packet, PictureTrack, listing_options, parse_listing
from vtg.video.process import absolute, ffmpeg_binary, run
from vtg.video.seeking import file_time

__all__ = ["DecordError", "can_decode", "decode"]

MOST_PACKETS = 9000  # decord stops waiting after reading 10 000 packets ahead: a shorter file ends before that
STRETCH_BYTES = 12 << 20  # of a long video held in memory at a time; decord holds as much again
RUN_UP = Fraction(1)  # seconds before the first sample to jump to: some demuxers find keyframes by decoding time
RUN_ON = Fraction(2)  # seconds copied beyond the last sample, because packets come in decoding order
# Elsewhere packets and pictures may not match one to one. Not HEVC: its decoder may give two pictures for a packet,
# on which decord 3.4 fails.
ONE_PICTURE_A_PACKET = frozenset({"h264", "vp9", "av1", "mpeg4"})
INDEXED = re.compile(r"\b(mp4|matroska)\b")  # containers in which a jump finds the keyframe meant
MOST_THREADS = 4


class DecordError(Exception):
    """decord could not decode, or not what was expected."""


@functools.cache
def import_decord() -> Any:
    """decord, imported without the CUDA libraries that it would load beside itself.

    It loads every library of pip's ``nvidia`` packages for all to see, NVBLAS among them, which takes torch's matrix
    products over and crashes on the first where no GPU is; and 600 MB go with them. Decoding here needs none.
    """
    hidden = sys.modules.get("nvidia")
    sys.modules["nvidia"] = None  # type: ignore[assignment]
    try:
        decord = importlib.import_module("decord")
    finally:
        if hidden is None:
            del sys.modules["nvidia"]
        else:
            sys.modules["nvidia"] = hidden
    decord.logging.set_level(decord.logging.QUIET)
    return decord


def can_decode(track: PictureTrack) -> bool:
    """Whether decord may try: in a short video, whether the n-th picture it counts is certainly the n-th shown."""
    listed = track.packets is None or (
        0 < len(track.packets) <= MOST_PACKETS and _countable(track.packets, track.first)
    )
    return (
        listed
        and track.seekable
        and track.info.codec in ONE_PICTURE_A_PACKET
        and INDEXED.search(track.container) is not None
        and track.info.rotation == 0
        and track.picture_tracks == 1
    )


def _countable(packets: Sequence[Packet], first: int) -> bool:
    """Every packet is one picture shown at its own time, and none is shown before a keyframe that it comes after."""
    times = [packet.pts for packet in packets if packet.shown and packet.pts is not None]
    if len(set(times)) < len(packets) or not packets[0].key or times[0] != first or min(times) != first:
        return False
    newest = first - 1
    keyframe = first
    for packet, time in zip(packets, times, strict=True):
        if packet.key:
            if time <= newest:
                return False
            keyframe = time
        elif time < keyframe:
            return False
        newest = max(newest, time)
    return True


def decode(
    track: PictureTrack, rate: Fraction, first: int, stop: int, width: int, height: int, chunk: int
) -> Iterator[npt.NDArray[np.uint8]]:
    """Yields the frames of samples first…stop-1, [N, height, width, 3] uint8 RGB, at most `chunk` at a time.

    Raises:
        DecordError: a picture cannot be decoded; what was yielded before is right.
    """
    decord = import_decord()
    threads = min(os.cpu_count() or 1, MOST_THREADS)
    try:
        while first < stop:
            stretch = _whole(track, stop) if track.packets is not None else _cut_out(track, rate, first, stop)
            # The smallest tolerance: a single picture stood in for by another is an error.
            reader = decord.VideoReader(stretch.source, width=width, height=height, num_threads=threads, fault_tol=1)
            if isinstance(stretch.source, io.BytesIO):
                stretch.source.close()  # decord has made its own copy
            if len(reader) != len(stretch.times):
                raise DecordError(f"counts {len(reader)} pictures where there are {len(stretch.times)}")
            for begin in range(first, stretch.stop, chunk):
                samples = range(begin, min(begin + chunk, stretch.stop))
                yield reader.get_batch([stretch.index(_middle(track, rate, sample)) for sample in samples]).asnumpy()
            first = stretch.stop
            del reader  # before the next one takes as much memory again
            _give_memory_back()
    except (decord.DECORDError, decord.DECORDLimitReachedError, RuntimeError, IndexError) as error:
        raise DecordError(str(error)) from error


@functools.cache
def _trimmer() -> Callable[[int], int] | None:
    try:
        trim = ctypes.CDLL(None).malloc_trim  # glibc's; other libraries do it by themselves
    except (AttributeError, OSError, TypeError):
        return None
    return lambda kept: int(trim(kept))


def _give_memory_back() -> None:
    # Every stretch is freed by other threads than took it; glibc would keep the pieces, a megabyte a minute of video.
    trim = _trimmer()
    if trim is not None:
        trim(0)


@dataclass(frozen=True)
class _Stretch:
    """A piece of a video in which decord may count.

    Attributes:
        source: file or bytes.
        times: when its pictures are shown, in ticks, ascending.
        stop: the sample after the last that it serves.
    """

    source: str | io.BytesIO
    times: tuple[int, ...]
    stop: int

    def index(self, middle: Fraction) -> int:
        """Number of the last picture shown strictly before a time, or of the first."""
        # In fractions of ticks: decord's own times are 32-bit and wrong by more than a tick in a long video.
        return max(0, bisect.bisect_left(self.times, middle) - 1)


def _middle(track: PictureTrack, rate: Fraction, sample: int) -> Fraction:
    """Middle of a sample's interval, in ticks."""
    return track.first + (sample + Fraction(1, 2)) / rate / track.clock


def _whole(track: PictureTrack, stop: int) -> _Stretch:
    assert track.packets is not None
    return _Stretch(absolute(track.info.path), _times(track.packets), stop)


def _cut_out(track: PictureTrack, rate: Fraction, first: int, stop: int) -> _Stretch:
    """Copies a stretch of a long video into memory, from the keyframe before a sample on."""
    info = track.info
    seconds = STRETCH_BYTES * info.duration / info.path.stat().st_size
    seconds = max(1 / float(rate), min(seconds, MOST_PACKETS / 2 / info.fps))
    stop = min(stop, first + max(1, math.floor(seconds * rate)))
    at = file_time(track, (first + Fraction(1, 2)) / rate - RUN_UP) if first else 0.0
    until = file_time(track, (stop + Fraction(1, 2)) / rate + RUN_ON)
    command = [ffmpeg_binary(), "-v", "quiet", "-nostdin", "-nostats", "-copyts"]
    command += [*(["-ss", f"{at:.6f}"] if at else []), "-t", f"{until - at:.6f}", "-i", absolute(info.path)]
    command += ["-map", "0:V:0", "-c", "copy", "-fs", str(4 * STRETCH_BYTES), "-f", "nut", "pipe:1"]
    _, data, listing = run([*command, *listing_options(all_streams=False, out="pipe:2")])
    packets = parse_listing(listing.encode())[0]
    if len(data) > 3 * STRETCH_BYTES or not 0 < len(packets) <= MOST_PACKETS:
        raise DecordError("keyframes are too far apart to decode it in stretches")
    times = _times(packets)
    if (
        not _countable(packets, times[0])
        or times[0] >= _middle(track, rate, first)
        or (first == 0 and times[0] != track.first)
    ):
        raise DecordError("pictures cannot be counted from its keyframes")
    return _Stretch(io.BytesIO(data), times, stop)


def _times(packets: Sequence[Packet]) -> tuple[int, ...]:
    return tuple(sorted(packet.pts for packet in packets if packet.pts is not None))
