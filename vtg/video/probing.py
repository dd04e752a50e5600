"""Finds out what a file holds without decoding all of it: one picture tells size and start, packets tell the end."""

from __future__ import annotations

import os
import re
from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path

from vtg.errors import VideoError
from vtg.video.process import absolute, check_readable, explain, ffmpeg_binary, run

__all__ = ["Packet", "PictureTrack", "VideoInfo", "list_packets", "listing_options", "parse_listing", "probe", "survey"]

SMALL_FILE = 64 << 20  # bytes; up to here every packet is listed, beyond only those near the end
TAIL_WINDOWS = (10.0, 120.0)  # seconds before the declared end in which the last picture is looked for
TOLERATED_SHORTFALL = 1.0  # seconds by which a file may end before the duration it declares
TOLERATED_SHORTFALL_SHARE = 0.02  # the same as a share of that duration; the larger counts

# Demuxers that turn stills or plain text into pictures: nobody who names such a file means a video.
NOT_VIDEOS = re.compile(r"^(image2|tty|\w+_pipe)\b")
# Containers that write their duration down; of the others ffmpeg only has an estimate, no promise to hold them to.
DECLARING = re.compile(r"\b(mp4|matroska|avi|flv|asf)\b")

_INPUT = re.compile(r"^Input #0, (?P<container>\S+), from ", re.M)
_DURATION = re.compile(
    r"^  Duration: (?:(?P<hours>\d+):(?P<minutes>\d\d):(?P<seconds>\d\d\.\d+)|N/A)(?:, start: (?P<start>-?[\d.]+))?",
    re.M,
)
_TITLE = re.compile(r"^    title +: (?P<title>.*)$", re.M | re.I)
_STREAM = re.compile(r"^  Stream #0:\d+\S*: (?P<kind>Video|Audio): (?P<codec>\w+)(?P<rest>.*)$", re.M)
_RATE = re.compile(r"(?P<rate>\d+(?:\.\d+)?k?) (?:fps|tbr)\b")
_ROTATION = re.compile(r"[Dd]isplay ?[Mm]atrix: rotation of (?P<degrees>-?[\d.]+) degrees")
_FILTER_CLOCK = re.compile(r"config in time_base: (?P<base>\d+/\d+), frame_rate: (?P<rate>\d+/\d+)")
_FIRST_PICTURE = re.compile(
    r"\] n: +0 pts: *(?P<pts>-?\d+) .*?\bfmt:(?P<format>\S+).*? sar:(?P<sar>\d+/\d+) s:(?P<width>\d+)x(?P<height>\d+)"
)
_PACKET_FLAGS = re.compile(r"F=0x(?P<flags>[0-9A-F]+)")
UNDATED = -(1 << 63)  # how ffmpeg prints a time that is not known
KEY, DISCARD = 1, 4  # packet flags as ffmpeg prints them; a packet without the field is a plain key packet


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


@dataclass(frozen=True)
class Packet:
    """One coded picture: when it is shown (None: the container does not say) and for how long, in ticks."""

    pts: int | None
    duration: int
    key: bool
    shown: bool


@dataclass(frozen=True)
class PictureTrack:
    """What sampling must know beyond `VideoInfo`, exactly.

    Attributes:
        info: the public part.
        clock: seconds a tick.
        first: time of the first picture shown, in ticks.
        duration: seconds from the first picture to the end of the last one.
        file_start: seconds at which the file's own clock starts (its earliest stream).
        packets: every coded picture in decoding order; None for files too large to list, and where the container does
            not date each picture.
        container: ffmpeg's name for the kind of file.
        picture_tracks: how many there are; the first is the one meant.
        square: pixels are as wide as high.
        dated: the container says when each picture is shown.
        seekable: times may be jumped to.
    """

    info: VideoInfo
    clock: Fraction
    first: int
    duration: Fraction
    file_start: float
    packets: tuple[Packet, ...] | None
    container: str
    picture_tracks: int
    square: bool
    dated: bool
    seekable: bool


def probe(path: str | os.PathLike[str]) -> VideoInfo:
    """Tells what a video file holds; reads its header, its first picture and the packets near its end.

    Args:
        path: the file.

    Raises:
        VideoError: missing, a folder, empty, not readable, not a video, without pictures, or cut short.
    """
    return survey(path).info


def survey(path: str | os.PathLike[str]) -> PictureTrack:
    """Does what `probe` does and keeps what sampling needs.

    Raises:
        VideoError: as `probe`.
    """
    check_readable(path)
    small = Path(path).stat().st_size <= SMALL_FILE
    command = [ffmpeg_binary(), "-hide_banner", "-nostdin", "-nostats", "-copyts", "-i", absolute(path)]
    command += ["-map", "0:V:0", "-vf", "showinfo", "-frames:v", "1", "-f", "null", "-"]
    if small:
        command += listing_options()
    _, listing, said = run(command)
    header = said.split("Stream mapping:", 1)[0]
    _check_kind(path, header, said)
    picture = _FIRST_PICTURE.search(said)
    clock = _FILTER_CLOCK.search(said)
    if picture is None or clock is None:
        raise VideoError(path, _why_no_picture(said))

    declared, file_start = _declared(header)
    if small or declared is None:
        packets, ends = parse_listing(listing if small else _list(path))
    else:
        packets, ends = _tail(path, declared)
    container = _container(header)
    if declared is not None and DECLARING.search(container) and "Estimating duration from bitrate" not in header:
        # Matroska declares when it ends, others how long it lasts: a file that starts late gets the better of the two.
        _check_whole(path, declared, max(ends, default=Fraction(0)) - min(Fraction(file_start), Fraction(0)))

    tick, guessed_rate = Fraction(clock["base"]), Fraction(clock["rate"])
    first = int(picture["pts"])
    rate = _average_rate(header, guessed_rate)
    dated = all(packet.pts is not None for packet in packets)
    if dated or small or declared is None:
        duration = _picture_duration(packets, tick, first, rate)
    else:
        duration = Fraction(declared)
    sar = Fraction(picture["sar"]) if not picture["sar"].startswith("0/") else Fraction(1)
    videos = [stream for stream in _STREAM.finditer(header) if _is_picture_track(stream)]
    audio = next((stream["codec"] for stream in _STREAM.finditer(header) if stream["kind"] == "Audio"), None)
    info = VideoInfo(
        path=Path(path),
        duration=float(duration),
        fps=float(rate),
        width=max(1, round(int(picture["width"]) * sar)),
        height=int(picture["height"]),
        rotation=_rotation(header),
        codec=videos[0]["codec"],
        audio=audio,
        title=_title(header),
    )
    return PictureTrack(
        info=info,
        clock=tick,
        first=first,
        duration=duration,
        file_start=file_start,
        packets=tuple(packets) if small and dated else None,
        container=container,
        picture_tracks=len(videos),
        square=sar == 1,
        dated=dated,
        seekable=dated and declared is not None,
    )


def listing_options(all_streams: bool = True, out: str = "pipe:1") -> list[str]:
    """Options of an ffmpeg output that lists packets, as `parse_listing` reads them."""
    others = ["-map", "0:a?", "-map", "0:s?", "-map", "0:d?"] if all_streams else []
    return ["-map", "0:V:0", *others, "-c", "copy", "-copyinkf", "-f", "framecrc", out]


def list_packets(path: str | os.PathLike[str], since: float, seconds: float) -> list[Packet]:
    """Coded pictures, in decoding order, that reading gives after a jump.

    Args:
        path: the file.
        since: where to jump to, seconds from the start of the file's own clock.
        seconds: how far to read from there.
    """
    return parse_listing(_list(path, "-ss", f"{since:.6f}", "-t", f"{seconds:.6f}"))[0]


def _list(path: str | os.PathLike[str], *options: str) -> bytes:
    command = [ffmpeg_binary(), "-hide_banner", "-nostdin", "-v", "error", "-copyts", *options, "-i", absolute(path)]
    return run([*command, *listing_options()])[1]


def _tail(path: str | os.PathLike[str], declared: float) -> tuple[list[Packet], list[Fraction]]:
    """The packets near the end of a large file: looks ever further back until there is a picture."""
    for window in TAIL_WINDOWS:
        if window < declared:
            packets, ends = parse_listing(_list(path, "-ss", f"{declared - window:.3f}"))
            if packets:
                return packets, ends
    return parse_listing(_list(path))


def parse_listing(listing: bytes) -> tuple[list[Packet], list[Fraction]]:
    """Reads a listing: the picture packets, and the time in seconds at which each stream ends."""
    ticks: dict[int, Fraction] = {}
    ends: dict[int, Fraction] = {}
    packets = []
    for line in listing.decode("ascii", "replace").splitlines():
        if line.startswith("#tb "):
            stream, base = line[4:].split(": ")
            ticks[int(stream)] = Fraction(base)
        elif line and not line.startswith("#"):
            fields = [field.strip() for field in line.split(",")]
            stream_index, dts, pts, duration = (int(field) for field in fields[:4])
            end = (max(dts, pts) + duration) * ticks[stream_index]
            ends[stream_index] = max(end, ends.get(stream_index, end))
            if stream_index == 0:
                flag_field = _PACKET_FLAGS.search(line)
                flags = int(flag_field["flags"], 16) if flag_field else KEY
                shown_at = None if pts == UNDATED else pts
                packets.append(Packet(shown_at, duration, bool(flags & KEY), not flags & DISCARD))
    return packets, list(ends.values())


def _check_kind(path: str | os.PathLike[str], header: str, said: str) -> None:
    container = _container(header)
    if not container:
        raise VideoError(path, explain(said))
    if NOT_VIDEOS.match(container):
        raise VideoError(path, "is a still picture or text, not a video")
    if not any(_is_picture_track(stream) for stream in _STREAM.finditer(header)):
        raise VideoError(path, "has no picture track (sound only): name a video")


def _why_no_picture(said: str) -> str:
    reason = explain(said)
    return reason if not reason.startswith("cannot be read (") else "holds no picture that can be decoded"


def _check_whole(path: str | os.PathLike[str], declared: float, present: Fraction) -> None:
    missing = declared - float(present)
    if missing > max(TOLERATED_SHORTFALL, TOLERATED_SHORTFALL_SHARE * declared):
        raise VideoError(
            path,
            f"is cut short (it declares {declared:.1f} s, {missing:.1f} s are missing): copy or download it again",
        )


def _container(header: str) -> str:
    found = _INPUT.search(header)
    return found["container"].rstrip(",") if found else ""


def _declared(header: str) -> tuple[float | None, float]:
    """Duration that the container declares (None: none) and the time its clock starts at, both in seconds."""
    found = _DURATION.search(header)
    if found is None or found["hours"] is None:
        return None, 0.0
    seconds = int(found["hours"]) * 3600 + int(found["minutes"]) * 60 + float(found["seconds"])
    return seconds, float(found["start"] or 0.0)


def _title(header: str) -> str | None:
    # Before the duration: streams have titles of their own.
    found = _TITLE.search(header.split("\n  Duration:", 1)[0])
    return found["title"].strip() or None if found else None


def _is_picture_track(stream: re.Match[str]) -> bool:
    still = "(attached pic)" in stream["rest"] or "(timed thumbnails)" in stream["rest"]
    return stream["kind"] == "Video" and not still


def _rotation(header: str) -> int:
    found = _ROTATION.search(header)
    # ffmpeg states how far the stored picture is turned anticlockwise; a player turns it back.
    return round(-float(found["degrees"])) % 360 if found else 0


def _average_rate(header: str, guessed: Fraction) -> Fraction:
    """Pictures a second: the header's rounded average, made exact by the demuxer's guess where the two agree."""
    for stream in _STREAM.finditer(header):
        if _is_picture_track(stream):
            found = _RATE.search(stream["rest"])
            if found is None:
                break
            text = found["rate"]
            stated = Fraction(text[:-1]) * 1000 if text.endswith("k") else Fraction(text)
            return guessed if abs(guessed - stated) < Fraction(1, 100) else stated
    return guessed or Fraction(25)


def _picture_duration(packets: Sequence[Packet], tick: Fraction, first: int, rate: Fraction) -> Fraction:
    """Seconds from the first picture to the end of the last."""
    shown = [packet for packet in packets if packet.shown]
    dates = [(packet.pts, packet.duration) for packet in shown if packet.pts is not None]
    if len(dates) < len(shown) or not shown:
        return max(1, len(shown)) / rate
    last, lasting = max(dates)
    # Matroska may leave a picture's duration out; then it lasts as long as an average one.
    return (last - first) * tick + (lasting * tick if lasting > 0 else 1 / rate)
