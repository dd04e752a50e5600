"""Cuts one clip out of a video; what is written is whole and in sync, or not there at all."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Any

from vtg.errors import VideoError, VtgError
from vtg.files.whole import write_whole
from vtg.text import to_utf8
from vtg.video.chapters import chapters_between, read_chapters
from vtg.video.colour import resize_for_encoding
from vtg.video.containers import absolute, input_options
from vtg.video.filters import Filter
from vtg.video.probing import VideoTrack, survey
from vtg.video.process import ffmpeg_binary, run
from vtg.video.seeking import EXTRA_SECONDS, time_in_file, list_packets, presentation_times
from vtg.video.writing import (
    AAC,
    TOLERANCE_SECONDS,
    Progress,
    FrameRange,
    checked_range,
    copying,
    decoded_origin,
    decoding,
    even,
    h264,
    layout,
    own_times,
    frame_range,
    audio_filters,
    writable,
    write,
)

__all__ = ["Cut", "cut", "encode_range"]

KEYFRAME_OFFSETS_SECONDS = (0.0, 0.15, 0.3)  # seconds after the time wanted
NO_TIMECODE = {"metadata": "timecode=", "metadata:s:v:0": "timecode="}  # the source's is not that of its part


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
    `end`, upright, with square pixels and in the colours of SDR. One that has stood for more than a second by then is
    shown from `start` on. Copied, nothing is re-encoded, so it is as fast as the disk, but it can only start at the
    keyframe at or before `start` and may hold a few pictures beyond `end`. Chapters are those of the part; a timecode,
    which would be that of the video's start, is left out.

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
    target = writable(out, [path])
    track = survey(path)
    end = checked_range(track, start, end)
    write_part = _copy_part if copy else _encode_part
    with write_whole(target) as partial:
        first, last = write_part(track, start, end, partial, progress)
    return Cut(target, first, last)


def _encode_part(
    track: VideoTrack, start: float, end: float, partial: Path, progress: Progress | None
) -> tuple[float, float]:
    span = frame_range(track, start, end)
    size = even(track.info.width), even(track.info.height)
    filters = resize_for_encoding(track.colours, *size)
    encode_range(track, span, partial, filters, h264(*size), AAC, progress)
    return float(span.start), float(span.end)


def encode_range(
    track: VideoTrack,
    span: FrameRange,
    out: Path,
    filters: Sequence[Filter],
    picture_options: Mapping[str, Any],
    sound_options: Mapping[str, Any],
    progress: Progress | None = None,
) -> None:
    """Encodes a span of a video with its sound and its chapters.

    Args:
        track: the video.
        span: of it.
        out: file to write, in a working folder.
        filters: filters that give the pictures their size.
        picture_options: that choose the codec of the pictures.
        sound_options: the same of the sound.
        progress: called now and then with the share done.

    Raises:
        VideoError: it cannot be decoded or written.
    """
    import ffmpeg

    source = ffmpeg.input(to_utf8(absolute(track.info.path)), **decoding(track, span.jump(track)))
    picture = span.trimmed(source["V:0"], track)
    for step in filters:
        picture = step.applied(picture)
    streams = [picture.filter("setsar", 1)]
    duration = span.end - span.start
    options = {**picture_options, **own_times(track, out, span), **NO_TIMECODE}
    if track.info.audio:
        streams.append(audio_filters(source, decoded_origin(track) + span.start, duration))
        options |= sound_options
    output = ffmpeg.output(*streams, to_utf8(str(out)), **options, **layout(out))
    chapters = chapters_between(read_chapters(track), span.start, span.end)
    write(output, [track.info.path], out, float(duration), progress, chapters)


def _copy_part(
    track: VideoTrack, start: float, end: float, partial: Path, progress: Progress | None
) -> tuple[float, float]:
    import ffmpeg

    if not track.dated:
        raise VideoError(track.info.path, "has frames without timestamps: re-encode it (without --copy)")
    if track.joined:
        raise VideoError(track.info.path, "has timestamps that start again: re-encode it (without --copy)")
    at, start_time = _seek_to_keyframe(track, start, end)
    reach = time_in_file(track, end) - at
    held = presentation_times(track, list_packets(track.info.path, at, reach))
    if not held:
        raise VideoError(track.info.path, "has no pictures there that can be copied: encode again (without --copy)")
    beyond = presentation_times(track, track.packets or list_packets(track.info.path, at, reach + EXTRA_SECONDS))
    finish = next((time for time in beyond if time > held[-1]), track.duration)
    source = ffmpeg.input(to_utf8(absolute(track.info.path)), **copying(at, reach))
    streams = [source["V:0"], *([source["a:0"]] if track.info.audio else [])]
    options = {"c": "copy", "avoid_negative_ts": "make_zero", **NO_TIMECODE, **layout(partial)}
    output = ffmpeg.output(*streams, to_utf8(str(partial)), **options)
    chapters = chapters_between(read_chapters(track), start_time, Fraction(finish))
    try:
        write(output, [track.info.path], partial, end - float(start_time), progress, chapters)
    except VideoError:
        refused = _refused_codec(track, partial)
        if refused is None:
            raise
        raise VtgError(
            f"{track.info.path}: its {refused} cannot be copied into {partial.suffix}: "
            f"{'copy to .mkv, or ' if partial.suffix.lower() != '.mkv' else ''}encode again (without --copy)"
        ) from None
    return float(start_time), float(finish)


def _refused_codec(track: VideoTrack, partial: Path) -> str | None:
    """The codec that a container cannot hold: tried out, because versions of ffmpeg differ; None: it can hold all."""
    info = track.info
    for name, stream in ((f"{info.codec} pictures", "0:V:0"), (f"{info.audio} sound", "0:a:0" if info.audio else None)):
        if stream is not None:
            command = [ffmpeg_binary(), "-hide_banner", "-nostdin", "-v", "error", "-y", *input_options()]
            command += ["-i", absolute(info.path)]
            status, _, _ = run([*command, "-map", stream, "-c", "copy", "-t", "0.1", str(partial)])
            if status:
                return name
    return None


def _seek_to_keyframe(track: VideoTrack, start: float, end: float) -> tuple[float, Fraction]:
    """Where in the file to jump to so that reading starts at the last keyframe up to `start`, and its time."""
    latest = Fraction(start) + TOLERANCE_SECONDS
    best = (0.0, Fraction(0))
    # Demuxers land on the keyframe before the time asked for by some rule of their own: a little later may do better.
    for offset in KEYFRAME_OFFSETS_SECONDS:
        at = time_in_file(track, start) + offset
        if at >= time_in_file(track, end):
            break
        times = presentation_times(track, list_packets(track.info.path, at, EXTRA_SECONDS), key=True)
        if times and best[1] <= times[0] <= latest:
            best = (at, times[0])
    return best
