"""Facts about a video file: tracks, times, size, orientation, colours, timecode; read with PyAV, mostly undecoded."""

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

__all__ = ["VideoTrack", "VideoInfo", "list_all_packets", "video_stream", "probe", "survey"]

SMALL_FILE = 64 << 20  # bytes; up to here every packet is listed, beyond only those near the end
TAIL_WINDOWS = (10.0, 120.0)  # seconds before the declared end in which the last picture is looked for
MAX_UNDECODABLE = 2000  # packets without a picture at the beginning, which a recording that starts anywhere may have

TIMECODE = re.compile(r"(\d\d):([0-5]\d):([0-5]\d)([:;.,])(\d\d+)")


@dataclass(frozen=True)
class VideoInfo:
    """What a video file holds.

    Attributes:
        path: the file.
        duration: seconds from the first picture to the end of the last one.
        fps: pictures a second, on average.
        width: in pixels, as shown: after rotation and with square pixels.
        height: the same.
        rotation: degrees, clockwise, by which players turn the stored pictures: 0, 90, 180 or 270.
        codec: of the pictures, e.g. "h264".
        audio: codec of the sound, e.g. "aac"; None if there is none.
        title: as the file itself says; None if it does not.
        mirrored: players flip the stored pictures upside down before they turn them.
        timecode: of the first picture, hh:mm:ss:ff, with a semicolon before the frames where the count is drop-frame;
            None where the file has none.
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
    """What sampling and writing must know beyond `VideoInfo`, exactly.

    Attributes:
        info: the public part.
        clock: seconds a tick.
        first: time of the first picture shown, in ticks.
        duration: seconds from the first picture to the end of the last one.
        file_start: seconds at which the file's own clock starts (its earliest stream).
        packets: every coded picture in decoding order; None for files too large to list, and where the container does
            not date each picture.
        container: FFmpeg's name for the kind of file.
        video_streams: how many there are; the first is the one meant.
        square: pixels are as wide as high.
        dated: the container says when each picture is shown.
        seekable: times may be jumped to.
        index: of the track among the streams of the file.
        joined: the clock of the file begins anew or jumps on the way; `packets` and `duration` continue it.
        orientation: how the stored pictures are turned and mirrored.
        transfer: transfer characteristics under FFmpeg's name, e.g. "bt709" or "smpte2084"; None where not said.
        primaries: colour primaries, the same.
        matrix: matrix coefficients, the same.
        full_range: values go from 0 to 255 (or the same for more bits) instead of 16 to 235.
        depth: bits of a value.
        coded_width: pixels of a row as it is coded, before it is turned.
        coded_height: the same of a column.
        pixel_bits: bits that a decoded pixel takes in memory.
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
        """How the values of the pictures stand for colours."""
        is_hd = self.info.width >= HD_WIDTH or self.info.height >= HD_HEIGHT
        return Colours(self.transfer, self.primaries, self.matrix, self.full_range, is_hd)


def probe(path: str | os.PathLike[str]) -> VideoInfo:
    """Tell what a video file holds; reads its header, its first picture and the packets near its end.

    Args:
        path: the file.

    Raises:
        VideoError: missing, a folder, empty, not readable, not a video, without pictures, damaged or cut short.
    """
    return survey(path).info


def survey(path: str | os.PathLike[str]) -> VideoTrack:
    """Do what `probe` does and keep what sampling and writing need.

    Raises:
        VideoError: as `probe`.
    """
    file = Path(path)
    check_readable(file)
    status = file.stat()
    if status.st_size <= SMALL_FILE:
        return _survey_file(file)
    try:
        track = _survey_large(file.absolute(), status.st_size, status.st_mtime_ns)
    except VideoError as error:
        raise VideoError(path, error.reason) from None  # named as it was given
    return replace(track, info=replace(track.info, path=file))


@functools.lru_cache(maxsize=64)
def _survey_large(path: Path, size: int, modified: int) -> VideoTrack:
    """Kept, as all of a transport stream has to be read for it."""
    return _survey_file(path)


def _survey_file(path: Path) -> VideoTrack:
    with open_container(path) as container:
        try:
            return _survey(path, container)
        except reading_errors() as error:
            raise VideoError(path, f"cannot be read ({error}): copy or download it again") from None


def list_all_packets(track: VideoTrack) -> Sequence[Packet]:
    """Every coded picture of a video in decoding order; reads all of the file where that was not done before.

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
    """The first picture track, which is the one meant, and how many there are; covers and thumbnails are none."""
    from av.stream import Disposition

    still = Disposition.attached_pic | Disposition.timed_thumbnails
    tracks = [stream for stream in container.streams.video if not stream.disposition & still]
    return (tracks[0] if tracks else None), len(tracks)


def _survey(path: Path, container: InputContainer) -> VideoTrack:
    stream, tracks = video_stream(container)
    if stream is None:
        raise VideoError(path, "has no picture track (sound only): name a video")
    context = stream.codec_context
    if context is None:
        raise VideoError(path, "uses a codec that FFmpeg cannot decode: convert it to H.264 first")
    check_size(path, context.width, context.height)
    kinds = frozenset(container.format.name.split(","))
    declared = None if container.duration is None else Fraction(container.duration, 1_000_000)
    file_start = Fraction(container.start_time or 0, 1_000_000)
    # Everything that bears out when a file ends is read of small files, and of those whose clock may jump anywhere.
    is_small = path.stat().st_size <= SMALL_FILE
    whole = is_small or declared is None or may_restart_clock(container)
    rate = _average_rate(stream)

    frame, listing, jumped = _read_beginning(container, stream, to_end=whole, keep=is_small)
    if frame is None:
        raise VideoError(path, "holds no picture that can be decoded: it is damaged")
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
    """Width and height of a picture as it is shown: upright, and with square pixels."""
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
    """What is public of a video."""
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
    """Decode up to the first picture, list the packets, all if `to_end`, and tell whether the clock has jumped."""
    listing = PacketListing(_clock(stream), [] if keep else None)
    times = continuous_times(container, stream)
    # One thread: with more, the decoder would be fed several pictures before it gives the first.
    stream.codec_context.thread_count = 1
    stream.codec_context.options = {"max_pixels": str(MAX_PIXELS)}
    frame: VideoFrame | None = None
    try:
        for packet in read_packets(container, stream, times, every=to_end):
            is_picture = packet.stream_index == stream.index
            if is_picture and frame is None and listing.count < MAX_UNDECODABLE:
                frame = _first_picture(stream, packet)
            if packet.size:
                listing.add(packet, is_picture)
            if not to_end and (frame is not None or listing.count >= MAX_UNDECODABLE):
                break
    except reading_errors():
        pass  # what cannot be read is as if the file ended there, which is told from its declared duration
    return frame, listing, times is not None and times.clock_restarted


def _first_picture(stream: VideoStream, packet: av.Packet) -> VideoFrame | None:
    try:
        frames = stream.codec_context.decode(packet)
    except reading_errors():
        return None  # the next may be better
    return frames[0] if frames else None


def _tail(container: InputContainer, stream: VideoStream, declared: Fraction) -> PacketListing:
    """The packets near the end of a large file: looks ever further back until there is a picture."""
    clock = _clock(stream)
    listing = PacketListing(clock, None)
    start = container.start_time or 0
    since = [declared - Fraction(window) for window in TAIL_WINDOWS if window < declared]
    for seconds in (*since, Fraction(0)):
        listing = PacketListing(clock, None)
        with contextlib.suppress(*reading_errors()):  # a damaged length is jumped to in vain: look further back
            container.seek(start + round(seconds * 1_000_000))
            for packet in read_packets(container, stream, None, every=True):
                if packet.size:
                    listing.add(packet, packet.stream_index == stream.index)
        if listing.count and listing.dated:
            break
    return listing


def _clock(stream: VideoStream) -> Fraction:
    """Seconds a tick of a stream."""
    clock = rational(stream.time_base)
    assert clock is not None
    return clock


def _average_rate(stream: VideoStream) -> Fraction:
    """Pictures a second: the container's average, or the nearest common rate where the two agree."""
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
    # The track's own before the file's (MXF), and both before those of other tracks.
    tracks = [stream, *(other for other in container.streams if other.index != stream.index)]
    for metadata in (stream.metadata, container.metadata, *(track.metadata for track in tracks[1:])):
        found = TIMECODE.fullmatch(metadata.get("timecode", "").strip())
        if found:
            separator = ":" if found[4] == ":" else ";"
            return f"{found[1]}:{found[2]}:{found[3]}{separator}{found[5]}"
    return None
