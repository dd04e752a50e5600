"""Join videos, or spans of videos, into one file: exact to the frame, with audio in sync."""

from __future__ import annotations

import math
import os
from collections.abc import Sequence
from dataclasses import dataclass, replace
from fractions import Fraction
from itertools import pairwise
from pathlib import Path
from typing import Any

from vtg.errors import VtgError
from vtg.files.text import to_utf8
from vtg.files.whole import write_whole
from vtg.progress import Progress, Reporter, part_of, silent
from vtg.video.captions import render_caption
from vtg.video.chapters import Chapter
from vtg.video.colour import resize_for_encoding
from vtg.video.containers import absolute
from vtg.video.probing import VideoTrack, survey
from vtg.video.process import ffmpeg_binary, run
from vtg.video.writing import (
    AAC,
    AUDIO_RATE_HZ,
    FrameRange,
    audio_filters,
    chapter_options,
    check_output,
    checked_range,
    decoded_origin,
    decoding,
    even,
    frame_range,
    h264,
    layout,
    writable,
    write,
)

__all__ = ["Reel", "Span", "concat", "write_reel"]

MAX_FRAME_RATE = 60  # frames a second
MIN_REEL_FRAME_RATE = 10  # frames a second; slower videos repeat frames, so that the reel has the requested length
ENCODING_SHARE = 0.95  # of the progress; the rest is joining
AUDIO_FADE_SECONDS = 0.008  # at the edges of a span: a hard edge would be heard as a click
MAX_HOLD_SECONDS = 1  # for which the last frame of a part may replace missing ones, beyond its own duration
CAPTION_MARGIN_SHARE = 0.04  # of the frame's height, around a caption


@dataclass(frozen=True)
class Span:
    """A span of a video that goes into a reel.

    Attributes:
        path: the video.
        start: seconds from its first frame.
        end: seconds from its first frame; up to 1 s beyond the end of the video means the end.
        caption: shown during the whole span; "" for none.
        chapter: title of its chapter; neighbouring spans with the same title form one chapter.
    """

    path: str | os.PathLike[str]
    start: float
    end: float
    caption: str = ""
    chapter: str = ""


@dataclass(frozen=True)
class Reel:
    """A reel that was written.

    Attributes:
        path: the file.
        starts: time in the file at which each span starts, seconds.
        duration: of the file, seconds.
    """

    path: Path
    starts: tuple[float, ...]
    duration: float


@dataclass(frozen=True)
class _Form:
    """The common format of all parts: size in pixels, frames a second, audio or none, fades in seconds.

    `to_bt709`: colours differ between the parts, so that all are converted to BT.709.
    """

    width: int
    height: int
    rate: Fraction
    sound: bool
    to_bt709: bool = False
    fade: float = 0.0
    audio_fade: float = 0.0


@dataclass(frozen=True)
class _Part:
    """One part of the output: a whole video, or a span of it."""

    track: VideoTrack
    duration: Fraction  # wanted, seconds
    span: FrameRange | None = None
    caption: str = ""
    frames: int = 0


def concat(paths: Sequence[str | os.PathLike[str]], out: str | os.PathLike[str], progress: Reporter = silent) -> Path:
    """Join videos in sequence into one file (H.264, and AAC if any of them has audio).

    All get the size of the largest (black bars where the aspect ratio differs) and the highest frame rate, at most 60;
    missing audio becomes silence.

    Args:
        paths: the videos, in order.
        out: file to write: .mp4, .m4v, .mov or .mkv.
        progress: called as the output is written.

    Returns:
        The file written.

    Raises:
        VtgError: no videos, or `out` cannot be written.
        VideoError: one of them cannot be read.
    """
    if not paths:
        raise VtgError("there are no clips to join: give at least one")
    tracks = [survey(path) for path in paths]
    target = writable(out, paths)
    _write_joined([_Part(track, track.duration) for track in tracks], _common_form(tracks), target, [], progress)
    return target


def write_reel(
    spans: Sequence[Span], out: str | os.PathLike[str], fade: float = 0.0, progress: Reporter = silent
) -> Reel:
    """Cut spans out of videos and join them into one file (H.264, and AAC if any video has audio).

    Each span starts with the frame shown at its start; decoding starts at the keyframe before it. Size and audio are
    those of `concat`, with at least 10 frames a second; the duration of the file is the sum of the spans, to half a
    frame.

    Args:
        spans: in order, of one video or several.
        out: file to write: .mp4, .m4v, .mov or .mkv.
        fade: seconds over which each span fades in from black and out to black; at most half of its length.
        progress: called as the output is written.

    Returns:
        The file, and the time in it at which each span starts.

    Raises:
        VtgError: no spans, times outside a video or in the wrong order, or `out` cannot be written.
        VideoError: a video cannot be read.
    """
    if not spans:
        raise VtgError("there are no spans to join: give at least one")
    if not fade >= 0:
        raise VtgError(f"a fade of {fade:g} s is not possible: give 0 or more")
    tracks = {os.fspath(path): survey(path) for path in dict.fromkeys(span.path for span in spans)}
    target = writable(out, list(tracks))
    parts = [_part(tracks[os.fspath(span.path)], span) for span in spans]
    form = _common_form(list(tracks.values()))
    rate = form.rate * max(1, math.ceil(MIN_REEL_FRAME_RATE / form.rate))
    form = replace(form, rate=rate, fade=fade, audio_fade=AUDIO_FADE_SECONDS)
    starts, duration = _write_joined(parts, form, target, [span.chapter for span in spans], progress)
    return Reel(target, starts, duration)


def _part(track: VideoTrack, span: Span) -> _Part:
    end = checked_range(track, span.start, span.end)
    return _Part(track, Fraction(end) - Fraction(span.start), frame_range(track, span.start, end), span.caption)


def _common_form(tracks: Sequence[VideoTrack]) -> _Form:
    largest = max((track.info for track in tracks), key=lambda info: info.width * info.height)
    rate = min(max(Fraction(track.info.fps).limit_denominator(1001) for track in tracks), Fraction(MAX_FRAME_RATE))
    colours = {replace(track.colours, is_hd=False) for track in tracks}
    has_sound = any(track.info.audio for track in tracks)
    return _Form(even(largest.width), even(largest.height), rate, has_sound, to_bt709=len(colours) > 1)


def _write_joined(
    parts: Sequence[_Part], form: _Form, target: Path, chapters: Sequence[str], progress: Reporter
) -> tuple[tuple[float, ...], float]:
    """Write all parts into one file; return the start of each part and the total duration, seconds."""
    counted = _with_frames(parts, form.rate)
    total = sum(part.frames for part in counted)
    edges = [0]
    with write_whole(target) as partial:
        # One part is encoded at a time, and audio stays uncompressed until the end: joined AAC has gaps at the seams.
        written: list[tuple[Path, Fraction]] = []
        for number, part in enumerate(counted):
            file = partial.with_name(f"{number:05d}.nut")
            edges.append(edges[-1] + part.frames)
            begin, end = (ENCODING_SHARE * edge / total for edge in edges[-2:])
            _encode_joinable(part, form, file, part_of(progress, begin, end))
            written.append((file, part.frames / form.rate))
        starts = tuple(float(edge / form.rate) for edge in edges)
        _join(written, form.sound, _chapter_list(starts, chapters), partial, parts[0].track.info.path)
    progress(Progress("writing", 1.0))
    return starts[:-1], starts[-1]


def _with_frames(parts: Sequence[_Part], rate: Fraction) -> list[_Part]:
    """Set the number of frames of each part, rounded on the common time axis, so that rounding does not accumulate."""
    counted, until, shown = [], Fraction(0), 0
    for part in parts:
        until += part.duration
        frames = max(1, round(until * rate) - shown)
        shown += frames
        counted.append(replace(part, frames=frames))
    return counted


def _encode_joinable(part: _Part, form: _Form, out: Path, progress: Reporter) -> None:
    """Write one part in the common format."""
    import ffmpeg

    track, duration = part.track, part.frames / form.rate
    jump = part.span.jump(track) if part.span is not None else []
    source = ffmpeg.input(to_utf8(absolute(track.info.path)), **decoding(track, jump))
    video = _convert(_stretch(source["V:0"], part, form.rate), part, form)
    if form.fade:
        video = _faded(video, "fade", min(form.fade, float(duration) / 2), float(duration))
    if part.caption:
        video = _captioned(video, part.caption, form, out.with_suffix(".png"))
    streams = [video]
    # Headers before each keyframe, because those of differently tagged sources differ.
    options = h264(form.width, form.height, ["repeat-headers=1"])
    if form.sound:
        streams.append(_audio(source, part, form, duration))
        options |= {"c:a": "pcm_s16le"}
    write(ffmpeg.output(*streams, to_utf8(str(out)), **options), [track.info.path], out, float(duration), progress)


def _stretch(video: Any, part: _Part, rate: Fraction) -> Any:
    """The frames of a part at the common rate, starting at time 0, exactly `part.frames` of them."""
    track = part.track
    if part.span is None:
        begun = video.filter("setpts", "PTS-STARTPTS")
        frame_durations = 1 / Fraction(track.info.fps)
    else:
        begun = part.span.trimmed(video, track)
        frame_durations = part.span.longest
    return (
        begun.filter("fps", f"{rate.numerator}/{rate.denominator}")
        # Repeat the last frame: older versions lose its duration, and rounding may need one more.
        .filter("tpad", stop_mode="clone", stop_duration=f"{float(frame_durations + MAX_HOLD_SECONDS):.6f}")
        # Not as an option of the output, which would cut off some audio samples.
        .filter("trim", end_frame=part.frames)
    )


def _convert(video: Any, part: _Part, form: _Form) -> Any:
    """Frames at the common size, with the aspect ratio kept and black bars around them."""
    info = part.track.info
    shrink = min(Fraction(form.width, info.width), Fraction(form.height, info.height))
    inner = even(int(info.width * shrink)), even(int(info.height * shrink))
    for step in resize_for_encoding(part.track.colours, *inner, to_bt709=form.to_bt709):
        video = step.applied(video)
    return video.filter("pad", form.width, form.height, "(ow-iw)/2", "(oh-ih)/2").filter("setsar", 1)


def _audio(source: Any, part: _Part, form: _Form, duration: Fraction) -> Any:
    import ffmpeg

    if not part.track.info.audio:
        return ffmpeg.input(f"anullsrc=r={AUDIO_RATE_HZ}:cl=stereo", f="lavfi").filter("atrim", end=float(duration))
    start_time = part.span.start if part.span is not None else Fraction(0)
    audio = audio_filters(source, decoded_origin(part.track) + start_time, duration)
    edge = min(max(form.fade, form.audio_fade), float(duration) / 2)
    return _faded(audio, "afade", edge, float(duration)) if edge else audio


def _faded(stream: Any, name: str, fade: float, duration: float) -> Any:
    return stream.filter(name, type="in", start_time=0, duration=f"{fade:.6f}").filter(
        name, type="out", start_time=f"{duration - fade:.6f}", duration=f"{fade:.6f}"
    )


def _captioned(video: Any, caption: str, form: _Form, file: Path) -> Any:
    import ffmpeg
    from PIL import Image

    margin = round(CAPTION_MARGIN_SHARE * form.height)
    Image.fromarray(render_caption(caption, form.width - 2 * margin, form.height)).save(file)
    return ffmpeg.filter([video, ffmpeg.input(to_utf8(str(file)))], "overlay", "(W-w)/2", f"H-h-{margin}")


def _chapter_list(starts: Sequence[float], titles: Sequence[str]) -> list[Chapter]:
    """One chapter for all neighbouring parts with the same title; none where no part has a title."""
    if not any(titles):
        return []
    firsts = [i for i, title in enumerate(titles) if i == 0 or title != titles[i - 1]]
    return [
        Chapter(Fraction(starts[first]), Fraction(starts[stop]), titles[first])
        for first, stop in pairwise([*firsts, len(titles)])
    ]


def _join(
    parts: Sequence[tuple[Path, Fraction]], sound: bool, chapters: Sequence[Chapter], partial: Path, source: Path
) -> None:
    """Join the encoded parts; an error names `source`."""
    listing = partial.with_name("list.txt")
    # Explicit durations, because those found in the parts are rounded and would leave gaps between frames.
    lines = [f"file {part.name}\nduration {float(duration):.6f}\n" for part, duration in parts]
    listing.write_text("".join(lines), encoding="utf-8")
    titles, chapter_mapping = chapter_options(chapters, partial)
    command = [ffmpeg_binary(), "-hide_banner", "-nostdin", "-nostats", "-v", "error", "-y"]
    command += ["-f", "concat", "-safe", "0", "-i", str(listing), *titles, *chapter_mapping]
    command += ["-map", "0:v:0", *(["-map", "0:a:0"] if sound else []), "-c:v", "copy"]
    for name, value in {**(AAC if sound else {}), **layout(partial)}.items():
        command += [f"-{name}", str(value)]
    status, _, stderr = run([*command, str(partial)])
    check_output(partial, source, status, stderr)
