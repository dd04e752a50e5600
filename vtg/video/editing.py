"""Cuts one clip out of a video; what is written is whole and in sync, or not there at all."""

from __future__ import annotations

import os
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Any

from vtg.errors import VideoError
from vtg.video.probing import PictureTrack, list_packets, survey
from vtg.video.process import absolute, written_whole
from vtg.video.seeking import file_time, jump_before, times_shown
from vtg.video.writing import (
    AAC,
    H264,
    RUN_ON,
    TOLERANCE,
    Progress,
    checked_range,
    decoding,
    even,
    layout,
    pictures_shown,
    sound_of,
    writable,
    write,
)

__all__ = ["Cut", "cut"]

KEYFRAME_JUMPS = (0.0, 0.15, 0.3)  # seconds after the time wanted


@dataclass(frozen=True)
class Cut:
    """A clip that was written: the file, and what it holds of the video it was cut from, seconds."""

    path: Path
    start: float
    end: float


def cut(
    path: str | os.PathLike[str],
    start: float,
    end: float,
    out: str | os.PathLike[str],
    copy: bool = False,
    progress: Progress | None = None,
) -> Cut:
    """Writes the part of a video between two times, with its sound.

    Re-encoded (H.264 and AAC), the clip starts with the picture shown at `start` and holds every picture shown before
    `end`, upright and with square pixels. Copied, nothing is re-encoded, so it is as fast as the disk, but it can only
    start at the keyframe at or before `start` and may hold a few pictures beyond `end`.

    Args:
        path: the video.
        start: seconds from the first picture.
        end: the same; up to 1 s beyond the end of the video means the end.
        out: file to write: .mp4, .m4v, .mov or .mkv.
        copy: copy instead of re-encoding.
        progress: called now and then with the share done.

    Returns:
        The file and the times that it really holds: of its first picture, and of the end of its last.

    Raises:
        VtgError: the times lie outside the video or the wrong way round, or `out` cannot be written.
        VideoError: `path` cannot be read.
    """
    track = survey(path)
    target = writable(out, [path])
    end = checked_range(track, start, end)
    write_part = _copy_part if copy else _encode_part
    with written_whole(target) as beside:
        first, last = write_part(track, start, end, beside, progress)
    return Cut(target, first, last)


def _encode_part(
    track: PictureTrack, start: float, end: float, beside: Path, progress: Progress | None
) -> tuple[float, float]:
    import ffmpeg

    begin, last, finish = pictures_shown(track, start, end)
    source = ffmpeg.input(absolute(track.info.path), **decoding(jump_before(track, begin + TOLERANCE)))
    first_tick, last_tick = (track.first + round(time / track.clock) for time in (begin, last))
    picture = (
        # In ticks: in seconds the edges would be rounded, and a picture more or less would get in.
        source["V:0"]
        .filter("trim", start_pts=first_tick, end_pts=last_tick + 1)
        .filter("setpts", f"PTS-{first_tick}")
        .filter("scale", even(track.info.width), even(track.info.height), flags="bicubic")
        .filter("setsar", 1)
    )
    streams = [picture]
    # A clock as fine as the source's keeps a variable picture rate as it is.
    options: dict[str, Any] = {**H264, "enc_time_base": f"{track.clock.numerator}/{track.clock.denominator}"}
    if track.info.audio:
        streams.append(sound_of(source, track.first * track.clock + begin, finish - begin))
        options |= AAC
    output = ffmpeg.output(*streams, str(beside), **options, **layout(beside))
    write(output, [track.info.path], beside, float(finish - begin), progress)
    return float(begin), float(finish)


def _copy_part(
    track: PictureTrack, start: float, end: float, beside: Path, progress: Progress | None
) -> tuple[float, float]:
    import ffmpeg

    if not track.dated:
        raise VideoError(track.info.path, "does not date its pictures: it can be cut only by re-encoding")
    at, begin = _keyframe_jump(track, start, end)
    reach = file_time(track, end) - at
    held = times_shown(track, list_packets(track.info.path, at, reach))
    beyond = times_shown(track, track.packets or list_packets(track.info.path, at, reach + RUN_ON))
    finish = next((time for time in beyond if time > held[-1]), track.duration)
    source = ffmpeg.input(absolute(track.info.path), ss=f"{at:.6f}", t=f"{reach:.6f}")
    streams = [source["V:0"], *([source["a:0"]] if track.info.audio else [])]
    output = ffmpeg.output(*streams, str(beside), c="copy", avoid_negative_ts="make_zero", **layout(beside))
    write(output, [track.info.path], beside, end - float(begin), progress)
    return float(begin), float(finish)


def _keyframe_jump(track: PictureTrack, start: float, end: float) -> tuple[float, Fraction]:
    """Where in the file to jump to so that reading starts at the last keyframe up to `start`, and its time."""
    latest = Fraction(start) + TOLERANCE
    best = (0.0, Fraction(0))
    # Demuxers land on the keyframe before the time asked for by some rule of their own: a little later may do better.
    for offset in KEYFRAME_JUMPS:
        at = file_time(track, start) + offset
        if at >= file_time(track, end):
            break
        times = times_shown(track, list_packets(track.info.path, at, RUN_ON), key=True)
        if times and best[1] <= times[0] <= latest:
            best = (at, times[0])
    return best
