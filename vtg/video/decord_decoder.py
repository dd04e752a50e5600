"""Decode with decord (`VTG_DECODER=decord`): the same frames as the other decoders, for common formats."""

from __future__ import annotations

import bisect
import re
from collections.abc import Iterator, Sequence
from fractions import Fraction
from typing import Any

import numpy as np
import numpy.typing as npt

from vtg.video.containers import absolute
from vtg.video.orientation import UPRIGHT
from vtg.video.packets import Packet
from vtg.video.probing import VideoTrack, list_all_packets
from vtg.video.pyav_decoder import ONE_FRAME_CODECS, threads_for
from vtg.video.samples import DecodingError, Samples

__all__ = ["can_decode", "decode"]

CONTAINERS = re.compile(r"\b(mp4|matroska)\b")


def can_decode(track: VideoTrack) -> bool:
    """Whether decord can decode exactly: upright 8-bit SDR frames in MP4 and Matroska."""
    return (
        CONTAINERS.search(track.container) is not None
        and track.info.codec in ONE_FRAME_CODECS
        and track.dated
        and track.seekable
        and track.depth == 8
        and track.orientation == UPRIGHT
        and not track.colours.is_mapped
        and track.video_streams == 1
        and threads_for(track) > 0
    )


def decode(
    track: VideoTrack,
    rate: Fraction,
    first: int,
    stop: int,
    width: int,
    height: int,
    chunk: int,
    threads: int | None = None,
    interpolation: str = "bicubic",
) -> Iterator[npt.NDArray[np.uint8]]:
    """Yield the frames of samples first…stop-1, [N, height, width, 3] uint8 RGB, at most `chunk` at a time.

    decord numbers frames in presentation order. Their times come from the packets, because its own times are rounded
    and start at 0.

    Raises:
        DecodingError: decord cannot decode or resize it so, or finds other frames; the frames yielded before are
            correct.
    """
    if interpolation != "bicubic":
        raise DecodingError("is resized by decord with bicubic interpolation only")
    samples = Samples(track, rate, first, stop)
    packets = list_all_packets(track)
    if _has_leading_frames(packets) or not all(packet.shown for packet in packets):
        raise DecodingError("has frames that are hidden, or shown before their keyframe: decord miscounts them")
    times = sorted(packet.pts for packet in packets if packet.pts is not None)
    reader = _reader(track, width, height, threads_for(track, threads))
    if len(reader) != len(times):
        raise DecodingError(f"has {len(times)} frames, of which decord finds {len(reader)}")
    for begin in range(first, stop, chunk):
        middles = [samples.middle(sample) for sample in range(begin, min(stop, begin + chunk))]
        # The last frame shown strictly before the middle of each interval, or the first frame.
        numbers = [max(0, bisect.bisect_left(times, middle) - 1) for middle in middles]
        frames = _frames(reader, numbers)
        if frames.shape != (len(numbers), height, width, 3):
            raise DecodingError(f"gives frames of another shape {frames.shape} with decord")
        yield frames


def _has_leading_frames(packets: Sequence[Packet]) -> bool:
    """Whether a frame is coded after a keyframe and shown before it (an open group of pictures)."""
    key: int | None = None
    for packet in packets:
        if packet.key:
            key = packet.pts
        elif key is not None and packet.pts is not None and packet.pts < key:
            return True
    return False


def _reader(track: VideoTrack, width: int, height: int, threads: int) -> Any:
    import torch

    # torch must run a matrix product before decord is loaded: decord's bundled libraries have crashed it otherwise.
    torch.ones(1, 1) @ torch.ones(1, 1)
    import decord

    decord.logging.set_level(decord.logging.QUIET)
    try:
        return decord.VideoReader(
            absolute(track.info.path), ctx=decord.cpu(0), width=width, height=height, num_threads=threads
        )
    except (decord.DECORDError, RuntimeError, OSError, ValueError) as error:  # also for a name that is not UTF-8
        raise DecodingError(f"cannot be opened by decord: {error}") from error


def _frames(reader: Any, numbers: Sequence[int]) -> npt.NDArray[np.uint8]:
    import decord

    try:
        frames: npt.NDArray[np.uint8] = reader.get_batch(list(numbers)).asnumpy()
    except (decord.DECORDError, RuntimeError, OSError) as error:
        raise DecodingError(f"cannot be decoded by decord: {error}") from error
    return frames
