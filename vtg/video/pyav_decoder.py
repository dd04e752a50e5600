"""Decode with PyAV, FFmpeg's libraries in this process, and only the frames needed for the samples.

Packets give the presentation times of their frames before anything is decoded, so it is known which frames are sampled.
Unsampled frames that no other refers to are skipped, and so is everything between a sampled frame and the next keyframe
from which decoding can start. Each frame is checked to be the expected one: a missing or reordered frame is an error,
after which the next decoder continues.
"""

from __future__ import annotations

import bisect
import itertools
import math
import re
from collections import deque
from collections.abc import Generator, Iterator, Sequence
from dataclasses import dataclass
from fractions import Fraction
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from vtg.video.colour import resize_to_rgb
from vtg.video.containers import open_container, rational, reading_errors
from vtg.video.filters import Filter, filter_graph
from vtg.video.limits import MAX_PIXELS, MemoryGuard, decoding_threads
from vtg.video.packets import ContinuousTimes, continuous_times, read_packets
from vtg.video.probing import VideoTrack, video_stream
from vtg.video.samples import DecodingError, Samples
from vtg.video.seeking import SEEK_MARGINS_SECONDS

if TYPE_CHECKING:
    import av
    from av.container import InputContainer
    from av.video.stream import VideoStream

__all__ = ["INDEXED", "ONE_FRAME_CODECS", "can_decode", "decode", "threads_for"]

ONE_FRAME_CODECS = frozenset({"h264", "hevc", "vp9", "av1", "mpeg4"})  # each packet is one frame with a timestamp
INDEXED = re.compile(r"\b(mp4|matroska)\b")  # every packet has a timestamp, and a seek finds a keyframe
SEQUENTIAL = re.compile(r"\bmpegts\b")  # every packet has a timestamp; after a seek, read on to a keyframe
MAX_REORDERED_PACKETS = 32  # no codec reorders a frame by more than 16 others
SECTION_PACKETS = 64  # read at a time
MAX_SECTION_PACKETS = 1024  # read without a place at which all earlier frames are shown before all later ones
MIN_SKIPPED_PACKETS = 12  # restarting the decoder for fewer is slower than decoding them
MAX_PENDING_BYTES = 16 << 20  # of packets kept undecoded because the next keyframe may make them unnecessary
TOLERATED_SHORTFALL_SECONDS = Fraction(1)  # by which packets may end before the known duration


def can_decode(track: VideoTrack) -> bool:
    """Whether PyAV can decode exactly: codec and container give each frame the timestamp of its packet."""
    if not track.dated or track.info.codec not in ONE_FRAME_CODECS or not threads_for(track):
        return False
    if SEQUENTIAL.search(track.container):
        return track.seekable or track.joined
    return track.seekable and INDEXED.search(track.container) is not None


def threads_for(track: VideoTrack, most: int | None = None) -> int:
    """Number of threads for decoding a video in this process; 0 where its frames are too large for that."""
    threads = decoding_threads(track.coded_width, track.coded_height, track.pixel_bits)
    return threads if most is None else min(threads, most)


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
) -> Generator[npt.NDArray[np.uint8], None, None]:
    """Yield the frames of samples first…stop-1, [N, height, width, 3] uint8 RGB, at most `chunk` at a time.

    Args:
        track: the video.
        rate: samples a second.
        first: the first sample.
        stop: the one after the last.
        width: of a frame, pixels.
        height: of a frame, pixels.
        chunk: frames yielded at a time.
        threads: for decoding; None: one per core, at most 4. Frames do not depend on it.
        interpolation: one of `vtg.video.framing.INTERPOLATIONS`.

    Raises:
        DecodingError: a frame cannot be decoded, or is missing; the frames yielded before are correct.
    """
    wanted = Samples(track, rate, first, stop)
    try:
        with open_container(track.info.path) as container:
            stream = _open_stream(container, track)
            shaping = resize_to_rgb(track.colours, width, height, interpolation)
            filters = [*track.orientation.filters, *shaping]
            decoder = _Decoder(stream, track, filters, threads_for(track, threads))
            frames = _frames(wanted, _sections(_packets(container, stream, wanted)), decoder)
            try:
                while batch := list(itertools.islice(frames, chunk)):
                    yield np.stack(batch)
            finally:
                decoder.stop_threads()
    except reading_errors() as error:
        raise DecodingError(str(error)) from error


@dataclass(frozen=True, slots=True)
class _Coded:
    """A coded frame: start and end of its presentation, ticks; whether it is a keyframe, and whether it is shown."""

    packet: av.Packet
    time: int
    end: int
    is_key: bool
    is_shown: bool


def _open_stream(container: InputContainer, track: VideoTrack) -> VideoStream:
    stream, _ = video_stream(container)
    if stream is None or stream.index != track.index or rational(stream.time_base) != track.clock:
        raise DecodingError("has changed: its streams are different")
    return stream


def _packets(container: InputContainer, stream: VideoStream, wanted: Samples) -> Iterator[_Coded]:
    """The coded frames in decoding order, from a keyframe shown before the first sample on."""
    if wanted.first == 0 or not wanted.track.seekable:
        return _read(container, stream, continuous_times(container, stream))
    middle = wanted.middle(wanted.first)
    for margin in SEEK_MARGINS_SECONDS:
        # Well before: some demuxers find keyframes by decoding time, which is ahead of presentation time.
        at = math.floor(middle - Fraction(margin) / wanted.track.clock)
        if at <= wanted.track.first:
            break
        container.seek(at, stream=stream)
        packets = _read(container, stream, None)
        packet = next(packets, None)
        if SEQUENTIAL.search(wanted.track.container):
            while packet is not None and not packet.is_key:
                packet = next(packets, None)
        if packet is not None and packet.is_key and packet.time < middle:
            return itertools.chain([packet], packets)
    container.seek(wanted.track.first, stream=stream)
    return _read(container, stream, None)


def _read(container: InputContainer, stream: VideoStream, times: ContinuousTimes | None) -> Iterator[_Coded]:
    for packet in read_packets(container, stream, times):
        if packet.size == 0:
            return  # the end
        if packet.pts is None:
            raise DecodingError("has frames without timestamps")
        end = packet.pts + (packet.duration or 0)
        yield _Coded(packet, packet.pts, end, packet.is_keyframe, not packet.is_discard)


@dataclass(frozen=True)
class _Section:
    """Consecutive coded frames, all shown before the frames that follow.

    Attributes:
        packets: in decoding order.
        entries: indices of the keyframes from which decoding can start: all later frames are shown later.
        bound: presentation time of the next section, ticks; None if there is none.
    """

    packets: list[_Coded]
    entries: frozenset[int]
    bound: int | None


def _sections(packets: Iterator[_Coded]) -> Iterator[_Section]:
    window: list[_Coded] = []
    bound: int | None = None
    ended = False
    while not ended:
        more = list(itertools.islice(packets, SECTION_PACKETS))
        ended = not more
        window += more
        times = [packet.time for packet in window]
        earliest = list(itertools.accumulate(reversed(times), min))[::-1]  # of a packet and all after it
        latest = list(itertools.accumulate(times, max))  # of a packet and all before it
        if bound is not None and times and earliest[0] < bound:
            raise DecodingError("has an unsupported order of frames")
        clean = [0, *(number for number in range(1, len(times)) if latest[number - 1] < earliest[number])]
        end = (
            len(window)
            if ended
            else max(number for number in clean if number <= max(0, len(window) - MAX_REORDERED_PACKETS))
        )
        if end == 0 and not ended:
            if len(window) > MAX_SECTION_PACKETS:
                raise DecodingError("reorders frames over too long a distance")
            continue
        bound = None if ended else earliest[end]
        entries = frozenset(
            number for number in clean if number < end and window[number].is_key and times[number] == earliest[number]
        )
        yield _Section(window[:end], entries, bound)
        del window[:end]


def _frames(wanted: Samples, sections: Iterator[_Section], decoder: _Decoder) -> Iterator[npt.NDArray[np.uint8]]:
    """Yield one frame per sample."""
    held: list[_Coded] = []  # packets after the last sampled frame: needed only for frames that may refer to them
    held_bytes = 0
    sample = wanted.first
    for section in sections:
        sampled = _sampled(wanted, sample, section)
        sample += sum(sampled.values())
        decoder.expect(sampled)
        for number, packet in enumerate(section.packets):
            if number in section.entries and len(held) >= MIN_SKIPPED_PACKETS:
                held, held_bytes = [], 0
                yield from decoder.restart()
            held.append(packet)
            held_bytes += packet.packet.size
            if packet.time in sampled or held_bytes > MAX_PENDING_BYTES:
                for needed in held:
                    yield from decoder.decode(needed.packet, needed.time in sampled)
                held, held_bytes = [], 0
        if sample == wanted.stop:
            break
    yield from decoder.finish()


def _sampled(wanted: Samples, sample: int, section: _Section) -> dict[int, int]:
    """Presentation times (ticks, ascending) of the sampled frames of a section, and how often each is sampled."""
    track = wanted.track
    if section.bound is None:
        end = max((packet.end for packet in section.packets), default=track.first)
        if (end - track.first) * track.clock + TOLERATED_SHORTFALL_SECONDS < track.duration:
            raise DecodingError("ends early")
    shown = sorted(packet.time for packet in section.packets if packet.is_shown and packet.time >= track.first)
    sampled: dict[int, int] = {}
    while sample < wanted.stop and (section.bound is None or wanted.middle(sample) <= section.bound):
        place = bisect.bisect_left(shown, wanted.middle(sample)) - 1
        if place < 0:
            raise DecodingError("has no frame where one is expected")
        sampled[shown[place]] = sampled.get(shown[place], 0) + 1
        sample += 1
    return sampled


class _Decoder:
    """Decodes packets; yields the expected frames only, each as often as it is sampled.

    Args:
        stream: of the packets.
        track: its properties.
        filters: that convert and resize the frames.
        threads: for decoding.
    """

    def __init__(self, stream: VideoStream, track: VideoTrack, filters: Sequence[Filter], threads: int) -> None:
        self._stream = stream
        self._context = stream.codec_context
        self._context.thread_count = threads
        if threads > 1:
            self._context.thread_type = "AUTO"
        self._context.options = {"max_pixels": str(MAX_PIXELS)}
        self._context.open(strict=False)
        self._memory = MemoryGuard(track.coded_width, track.coded_height, threads, track.pixel_bits)
        self._steps = filters
        self._graph: Any = None
        self._frame_format: tuple[int, int, str] | None = None
        self._expected: deque[tuple[int, int]] = deque()
        self._newest: int | None = None
        self._is_fresh = True

    def stop_threads(self) -> None:
        """Wait for the threads of the codec, before it is freed."""
        # PyAV frees it with the GIL held, for which a thread waits that logs, if a library turned on PyAV's logging.
        self._context.flush_buffers()

    def expect(self, sampled: dict[int, int]) -> None:
        """Add expected frames: presentation times (ticks, ascending), and how often each is sampled."""
        self._expected.extend(sampled.items())

    def decode(self, packet: av.Packet, is_sampled: bool) -> Iterator[npt.NDArray[np.uint8]]:
        """Decode a packet and yield the expected frames that are ready."""
        self._is_fresh = False
        self._context.skip_frame = "DEFAULT" if is_sampled else "NONREF"
        yield from self._expected_frames(self._context.decode(packet))
        self._memory.check()

    def restart(self) -> Iterator[npt.NDArray[np.uint8]]:
        """Yield the buffered frames and reset the decoder; the next packet must be a keyframe."""
        if not self._is_fresh:
            yield from self._expected_frames(self._context.decode(None))
            self._context.flush_buffers()
            self._is_fresh = True

    def finish(self) -> Iterator[npt.NDArray[np.uint8]]:
        """Yield the buffered frames.

        Raises:
            DecodingError: an expected frame is missing.
        """
        yield from self.restart()
        if self._expected:
            raise DecodingError("an expected frame is missing")

    def _expected_frames(self, pictures: list[av.VideoFrame]) -> Iterator[npt.NDArray[np.uint8]]:
        for decoded in pictures:
            if decoded.pts is None or (self._newest is not None and decoded.pts <= self._newest):
                raise DecodingError("frames are out of order")
            self._newest = decoded.pts
            if self._expected and decoded.pts >= self._expected[0][0]:
                expected, often = self._expected.popleft()
                if decoded.pts > expected:
                    raise DecodingError("an expected frame is missing")
                yield from itertools.repeat(self._convert(decoded), often)

    def _convert(self, decoded: av.VideoFrame) -> npt.NDArray[np.uint8]:
        frame_format = (decoded.width, decoded.height, decoded.format.name)
        if self._graph is None:
            self._frame_format = frame_format
            self._graph = filter_graph(self._stream, self._steps)
        if frame_format != self._frame_format:
            raise DecodingError("frames change their size or format")
        self._graph.push(decoded)
        frame: npt.NDArray[np.uint8] = self._graph.pull().to_ndarray()
        return frame
