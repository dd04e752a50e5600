"""Cut a clip out of a video, re-encoded to the exact frame or remuxed from a keyframe (copy)."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Any

from vtg.errors import VideoError, VtgError
from vtg.files.text import to_utf8
from vtg.files.whole import write_whole
from vtg.progress import Reporter, silent
from vtg.video.chapters import chapters_between, read_chapters
from vtg.video.colour import resize_for_encoding
from vtg.video.containers import absolute, input_options
from vtg.video.filters import Filter
from vtg.video.probing import VideoTrack, survey
from vtg.video.process import ffmpeg_binary, run
from vtg.video.seeking import EXTRA_SECONDS, list_packets, presentation_times, time_in_file
from vtg.video.writing import (
    AAC,
    TOLERANCE_SECONDS,
    FrameRange,
    audio_filters,
    checked_range,
    copying,
    decoded_origin,
    decoding,
    even,
    frame_range,
    h264,
    layout,
    own_times,
    writable,
    write,
)

__all__ = ["Cut", "cut", "encode_range"]

KEYFRAME_OFFSETS_SECONDS = (0.0, 0.15, 0.3)  # tried after the wanted time
NO_TIMECODE = {"metadata": "timecode=", "metadata:s:v:0": "timecode="}  # that of the source does not apply to a part


@dataclass(frozen=True)
class Cut:
    """A clip that was written: the file, and its time range in the source video, seconds."""

    path: Path
    start: float
    end: float


def cut(
    path: str | os.PathLike[str],
    start: float,
    end: float,
    out: str | os.PathLike[str],
    copy: bool = False,
    progress: Reporter = silent,
) -> Cut:
    """Write the part of a video between two times, with its audio.

    Re-encoded (H.264 and AAC), the clip starts with the frame shown at `start` and holds every frame shown before
    `end`, upright, with square pixels and in SDR colours. A frame that has been shown for more than a second by then
    starts at `start`. With `copy` the streams are remuxed, which is as fast as the disk, but the clip can only start at
    the keyframe at or before `start` and may hold a few frames after `end`. Chapters are clipped to the part; the
    timecode, which would be that of the start of the video, is left out.

    Args:
        path: the video.
        start: seconds from the first frame.
        end: seconds from the first frame; up to 1 s beyond the end of the video means the end.
        out: file to write: .mp4, .m4v, .mov or .mkv.
        copy: remux instead of re-encoding.
        progress: called as the output is written.

    Returns:
        The file and its exact time range: the time of the first frame, and the end of the last.

    Raises:
        VtgError: the times lie outside the video or are in the wrong order, or `out` cannot be written.
        VideoError: `path` cannot be read.
    """
    target = writable(out, [path])
    track = survey(path)
    end = checked_range(track, start, end)
    write_part = _copy_part if copy else _encode_part
    with write_whole(target) as partial:
        first, last = write_part(track, start, end, partial, progress)
    return Cut(target, first, last)


def _encode_part(track: VideoTrack, start: float, end: float, partial: Path, progress: Reporter) -> tuple[float, float]:
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
    video_options: Mapping[str, Any],
    sound_options: Mapping[str, Any],
    progress: Reporter = silent,
) -> None:
    """Encode a frame range of a video with its audio and chapters.

    Args:
        track: the video.
        span: the frame range.
        out: file to write, in a working folder.
        filters: that resize and convert the frames.
        video_options: of the video encoder.
        sound_options: of the audio encoder.
        progress: called as the output is written.

    Raises:
        VideoError: it cannot be decoded or written.
    """
    import ffmpeg

    source = ffmpeg.input(to_utf8(absolute(track.info.path)), **decoding(track, span.jump(track)))
    video = span.trimmed(source["V:0"], track)
    for step in filters:
        video = step.applied(video)
    streams = [video.filter("setsar", 1)]
    duration = span.end - span.start
    options = {**video_options, **own_times(track, out, span), **NO_TIMECODE}
    if track.info.audio:
        streams.append(audio_filters(source, decoded_origin(track) + span.start, duration))
        options |= sound_options
    output = ffmpeg.output(*streams, to_utf8(str(out)), **options, **layout(out))
    chapters = chapters_between(read_chapters(track), span.start, span.end)
    write(output, [track.info.path], out, float(duration), progress, chapters)


def _copy_part(track: VideoTrack, start: float, end: float, partial: Path, progress: Reporter) -> tuple[float, float]:
    import ffmpeg

    if not track.dated:
        raise VideoError(track.info.path, "has frames without timestamps: re-encode it (without --copy)")
    if track.joined:
        raise VideoError(track.info.path, "has timestamps that start again: re-encode it (without --copy)")
    at, start_time = _seek_to_keyframe(track, start, end)
    reach = time_in_file(track, end) - at
    held = presentation_times(track, list_packets(track.info.path, at, reach))
    if not held:
        raise VideoError(track.info.path, "has no frames in this range that can be copied: re-encode (without --copy)")
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
            f"{'copy to .mkv, or ' if partial.suffix.lower() != '.mkv' else ''}re-encode (without --copy)"
        ) from None
    return float(start_time), float(finish)


def _refused_codec(track: VideoTrack, partial: Path) -> str | None:
    """The codec that the output container cannot hold, by trial, because versions of ffmpeg differ; None: none."""
    info = track.info
    for name, stream in ((f"{info.codec} video", "0:V:0"), (f"{info.audio} audio", "0:a:0" if info.audio else None)):
        if stream is not None:
            command = [ffmpeg_binary(), "-hide_banner", "-nostdin", "-v", "error", "-y", *input_options()]
            command += ["-i", absolute(info.path)]
            status, _, _ = run([*command, "-map", stream, "-c", "copy", "-t", "0.1", str(partial)])
            if status:
                return name
    return None


def _seek_to_keyframe(track: VideoTrack, start: float, end: float) -> tuple[float, Fraction]:
    """The seek time, in the file, that reads from the last keyframe up to `start`; and the time of that keyframe."""
    latest = Fraction(start) + TOLERANCE_SECONDS
    best = (0.0, Fraction(0))
    # Demuxers differ in which keyframe they seek to: a slightly later time may give a closer one.
    for offset in KEYFRAME_OFFSETS_SECONDS:
        at = time_in_file(track, start) + offset
        if at >= time_in_file(track, end):
            break
        times = presentation_times(track, list_packets(track.info.path, at, EXTRA_SECONDS), key=True)
        if times and best[1] <= times[0] <= latest:
            best = (at, times[0])
    return best
