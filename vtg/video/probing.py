"""Probe a video file with PyAV: streams, times, frame size, orientation, colours, timecode."""

from __future__ import annotations

import contextlib
import functools
import os
import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from fractions import Fraction
from pathlib import Path
from typing import TYPE_CHECKING

from vtg.errors import VideoError
from vtg.video.colour import HD_HEIGHT, HD_WIDTH, Colours
from vtg.video.containers import check_readable, open_container, rational, reading_errors, tag_text
from vtg.video.damage import check_coded_rate, check_shape, check_times
from vtg.video.limits import MAX_PIXELS, check_size
from vtg.video.orientation import Orientation, orientation_of
from vtg.video.packets import Packet, PacketListing, coded_frame, continuous_times, may_restart_clock, read_packets

if TYPE_CHECKING:
    import av
    from av.container import InputContainer
    from av.video.frame import VideoFrame
    from av.video.stream import VideoStream

__all__ = ["VideoInfo", "VideoTrack", "list_all_packets", "probe", "survey", "video_stream"]

SMALL_FILE_BYTES = 64 << 20  # up to this size every packet is listed, above only those near the end
TAIL_SECONDS = (10.0, 120.0)  # before the declared end, in which the last frame is searched
MAX_UNDECODABLE_PACKETS = 2000  # at the beginning, as in a recording that does not start at a keyframe

TIMECODE = re.compile(r"(\d\d):([0-5]\d):([0-5]\d)([:;.,])(\d\d+)")


@dataclass(frozen=True)
class VideoInfo:
    """Properties of a video file.

    Attributes:
        path: the file.
        duration: seconds from the first frame to the end of the last one.
        fps: average frame rate, frames a second.
        width: as displayed (after rotation, with square pixels), pixels.
        height: as displayed, pixels.
        rotation: by which players turn the stored frames clockwise, degrees: 0, 90, 180 or 270.
        codec: of the video stream, e.g. "h264".
        audio: codec of the audio stream, e.g. "aac"; None if there is none.
        title: from the file's metadata; None if there is none.
        mirrored: players flip the stored frames vertically before the rotation.
        timecode: of the first frame, hh:mm:ss:ff, with a semicolon before the frames for drop-frame timecode; None if
            there is none.
    """

    path: Path
    duration: float
    fps: float
    width: int
    height: int
    rotation: int
    codec: str
    audio: str | None
    title: str | None = None
    mirrored: bool = False
    timecode: str | None = None


@dataclass(frozen=True)
class VideoTrack:
    """The exact properties of a video stream that sampling and writing need in addition to `VideoInfo`.

    Attributes:
        info: the public part.
        clock: timebase, seconds per tick.
        first: presentation time of the first frame, ticks.
        duration: seconds from the first frame to the end of the last one.
        file_start: timestamp of the file's earliest stream, seconds.
        packets: every coded frame in decoding order; None for files too large to list, and where frames have no
            timestamps.
        container: FFmpeg's name of the container format.
        video_streams: number of video streams; the first one is used.
        square: pixels are square.
        dated: each frame has a presentation time.
        seekable: seeking to a time is possible.
        index: of the stream in the file.
        joined: the clock of the file restarts or jumps; `packets` and `duration` are made continuous.
        orientation: rotation and mirroring of the stored frames.
        transfer: transfer characteristics by FFmpeg's name, e.g. "bt709" or "smpte2084"; None where not tagged.
        primaries: colour primaries by FFmpeg's name; None where not tagged.
        matrix: matrix coefficients by FFmpeg's name; None where not tagged.
        full_range: values go from 0 to 255 (or the same for more bits) instead of 16 to 235.
        depth: bits of a component.
        coded_width: of a stored frame, before rotation, pixels.
        coded_height: of a stored frame, before rotation, pixels.
        pixel_bits: memory of a decoded pixel, bits.
    """

    info: VideoInfo
    clock: Fraction
    first: int
    duration: Fraction
    file_start: float
    packets: tuple[Packet, ...] | None
    container: str
    video_streams: int
    square: bool
    dated: bool
    seekable: bool
    index: int
    joined: bool
    orientation: Orientation
    transfer: str | None = None
    primaries: str | None = None
    matrix: str | None = None
    full_range: bool = False
    depth: int = 8
    coded_width: int = 0
    coded_height: int = 0
    pixel_bits: int = 12

    @property
    def colours(self) -> Colours:
        """Colour properties of the frames."""
        is_hd = self.info.width >= HD_WIDTH or self.info.height >= HD_HEIGHT
        return Colours(self.transfer, self.primaries, self.matrix, self.full_range, is_hd)


def probe(path: str | os.PathLike[str]) -> VideoInfo:
    """Read the properties of a video file from its header, its first frame and the packets near its end.

    Args:
        path: the file.

    Raises:
        VideoError: missing, a folder, empty, not readable, not a video, without frames, damaged or cut short.
    """
    return survey(path).info


def survey(path: str | os.PathLike[str]) -> VideoTrack:
    """Probe a video file for sampling and writing; `probe` gives the public part.

    Raises:
        VideoError: as `probe`.
    """
    file = Path(path)
    check_readable(file)
    status = file.stat()
    if status.st_size <= SMALL_FILE_BYTES:
        return _survey_file(file)
    try:
        track = _survey_large(file.absolute(), status.st_size, status.st_mtime_ns)
    except VideoError as error:
        raise VideoError(path, error.reason) from None  # the path as the caller gave it
    return replace(track, info=replace(track.info, path=file))


@functools.lru_cache(maxsize=64)
def _survey_large(path: Path, size: int, modified: int) -> VideoTrack:
    """Cached, because a transport stream has to be read completely."""
    return _survey_file(path)


def _survey_file(path: Path) -> VideoTrack:
    with open_container(path) as container:
        try:
            return _survey(path, container)
        except reading_errors() as error:
            raise VideoError(path, f"cannot be read ({error}): copy or download it again") from None


def list_all_packets(track: VideoTrack) -> Sequence[Packet]:
    """Every coded frame of a video in decoding order; reads the whole file where `track` does not list them.

    Raises:
        VideoError: the file cannot be read any more, or has changed.
    """
    if track.packets is not None:
        return track.packets
    with open_container(track.info.path) as container:
        stream, _ = video_stream(container)
        if stream is None or stream.index != track.index or stream.time_base is None:
            raise VideoError(track.info.path, "has changed while it was read: try again")
        packets = read_packets(container, stream, continuous_times(container, stream))
        return [coded_frame(packet) for packet in packets if packet.size]


def video_stream(container: InputContainer) -> tuple[VideoStream | None, int]:
    """The first video stream, which is used, and the number of them, not counting cover images and thumbnails."""
    from av.stream import Disposition

    still = Disposition.attached_pic | Disposition.timed_thumbnails
    tracks = [stream for stream in container.streams.video if not stream.disposition & still]
    return (tracks[0] if tracks else None), len(tracks)


def _survey(path: Path, container: InputContainer) -> VideoTrack:
    stream, tracks = video_stream(container)
    if stream is None:
        raise VideoError(path, "has no video stream (audio only): name a video")
    context = stream.codec_context
    if context is None:
        raise VideoError(path, "uses a codec that FFmpeg cannot decode: convert it to H.264 first")
    check_size(path, context.width, context.height)
    kinds = frozenset(container.format.name.split(","))
    declared = None if container.duration is None else Fraction(container.duration, 1_000_000)
    file_start = Fraction(container.start_time or 0, 1_000_000)
    # Small files, and those whose clock may restart anywhere, are read completely to find their end.
    is_small = path.stat().st_size <= SMALL_FILE_BYTES
    whole = is_small or declared is None or may_restart_clock(container)
    rate = _average_rate(stream)

    frame, listing, jumped = _read_beginning(container, stream, to_end=whole, keep=is_small)
    if frame is None:
        raise VideoError(path, "has no frame that can be decoded: it is damaged; copy or download it again")
    first = next((time for time in (frame.pts, frame.dts) if time is not None), 0)
    if not whole:
        assert declared is not None
        listing = _tail(container, stream, declared)
    check_times(path, listing, kinds, declared, file_start, rate)
    check_coded_rate(path, rational(context.framerate))

    duration = listing.duration(first, rate)
    orientation, colours, tagged = orientation_of(frame), Colours.of_pictures(frame), Colours.of_pictures(context)
    sar = rational(stream.sample_aspect_ratio) or Fraction(1)
    check_shape(path, frame.width * sar, frame.height)
    return VideoTrack(
        info=_info(path, container, stream, duration, rate, orientation, _shown_size(frame, sar, orientation)),
        clock=listing.clock,
        first=first,
        duration=duration,
        file_start=float(file_start),
        packets=tuple(listing.packets) if listing.packets is not None and listing.dated else None,
        container=container.format.name,
        video_streams=tracks,
        square=sar == 1,
        dated=listing.dated,
        seekable=listing.dated and declared is not None and not jumped,
        index=stream.index,
        joined=jumped,
        orientation=orientation,
        transfer=colours.transfer or tagged.transfer,
        primaries=colours.primaries or tagged.primaries,
        matrix=colours.matrix or tagged.matrix,
        full_range=colours.full_range or tagged.full_range or frame.format.name.startswith("yuvj"),
        depth=frame.format.components[0].bits,
        coded_width=frame.width,
        coded_height=frame.height,
        pixel_bits=frame.format.padded_bits_per_pixel,
    )


def _shown_size(frame: VideoFrame, sar: Fraction, orientation: Orientation) -> tuple[int, int]:
    """Width and height of a frame as displayed: upright, and with square pixels."""
    width, height = frame.width, frame.height
    if orientation.swaps_sides:
        width, height, sar = height, width, 1 / sar
    return max(1, round(width * sar)), height


def _info(
    path: Path,
    container: InputContainer,
    stream: VideoStream,
    duration: Fraction,
    rate: Fraction,
    orientation: Orientation,
    size: tuple[int, int],
) -> VideoInfo:
    """The public properties of a video."""
    audio = next(iter(container.streams.audio), None)
    return VideoInfo(
        path=path,
        duration=float(duration),
        fps=float(rate),
        width=size[0],
        height=size[1],
        rotation=orientation.rotation,
        codec=stream.codec_context.codec.canonical_name,
        audio=None if audio is None else _codec_name(audio),
        title=_title(container),
        mirrored=orientation.mirrored,
        timecode=_timecode(container, stream),
    )


def _read_beginning(
    container: InputContainer, stream: VideoStream, to_end: bool, keep: bool
) -> tuple[VideoFrame | None, PacketListing, bool]:
    """Decode the first frame and list the packets, all if `to_end`; also return whether the clock has restarted."""
    listing = PacketListing(_clock(stream), [] if keep else None)
    times = continuous_times(container, stream)
    # One thread: with more, the decoder needs several packets before it returns the first frame.
    stream.codec_context.thread_count = 1
    stream.codec_context.options = {"max_pixels": str(MAX_PIXELS)}
    frame: VideoFrame | None = None
    try:
        for packet in read_packets(container, stream, times, every=to_end):
            is_picture = packet.stream_index == stream.index
            if is_picture and frame is None and listing.count < MAX_UNDECODABLE_PACKETS:
                frame = _first_picture(stream, packet)
            if packet.size:
                listing.add(packet, is_picture)
            if not to_end and (frame is not None or listing.count >= MAX_UNDECODABLE_PACKETS):
                break
    except reading_errors():
        pass  # treated as the end of the file, which is then compared with the declared duration
    return frame, listing, times is not None and times.clock_restarted


def _first_picture(stream: VideoStream, packet: av.Packet) -> VideoFrame | None:
    try:
        frames = stream.codec_context.decode(packet)
    except reading_errors():
        return None  # the next packet may be decodable
    return frames[0] if frames else None


def _tail(container: InputContainer, stream: VideoStream, declared: Fraction) -> PacketListing:
    """The packets near the end of a large file, read from ever further back until there is a frame."""
    clock = _clock(stream)
    listing = PacketListing(clock, None)
    start = container.start_time or 0
    since = [declared - Fraction(window) for window in TAIL_SECONDS if window < declared]
    for seconds in (*since, Fraction(0)):
        listing = PacketListing(clock, None)
        with contextlib.suppress(
            *reading_errors()
        ):  # seeking fails where the declared duration is damaged: try further back
            container.seek(start + round(seconds * 1_000_000))
            for packet in read_packets(container, stream, None, every=True):
                if packet.size:
                    listing.add(packet, packet.stream_index == stream.index)
        if listing.count and listing.dated:
            break
    return listing


def _clock(stream: VideoStream) -> Fraction:
    """Timebase of a stream, seconds per tick."""
    clock = rational(stream.time_base)
    assert clock is not None
    return clock


def _average_rate(stream: VideoStream) -> Fraction:
    """Frames a second: the container's average, or the nearest common rate where the two agree."""
    average = rational(stream.average_rate) or rational(stream.base_rate)
    guessed = rational(stream.guessed_rate)
    if guessed and (not average or abs(guessed - average) < Fraction(1, 100)):
        return guessed
    return average or Fraction(25)


def _codec_name(stream: av.audio.AudioStream) -> str:
    return stream.codec_context.codec.canonical_name if stream.codec_context is not None else "unknown"


def _title(container: InputContainer) -> str | None:
    titles = (tag_text(value).strip() for key, value in container.metadata.items() if key.lower() == "title")
    return next((title for title in titles if title), None)


def _timecode(container: InputContainer, stream: VideoStream) -> str | None:
    # That of the stream before that of the file (MXF), and both before those of other streams.
    tracks = [stream, *(other for other in container.streams if other.index != stream.index)]
    for metadata in (stream.metadata, container.metadata, *(track.metadata for track in tracks[1:])):
        found = TIMECODE.fullmatch(metadata.get("timecode", "").strip())
        if found:
            separator = ":" if found[4] == ":" else ";"
            return f"{found[1]}:{found[2]}:{found[3]}{separator}{found[5]}"
    return None
