"""Shared parts of writing video files: encoder options, frame ranges, audio of exact length, running ffmpeg."""

from __future__ import annotations

import errno
import math
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from fractions import Fraction
from itertools import pairwise
from pathlib import Path
from typing import Any

from vtg.errors import VideoError, VtgError
from vtg.files.text import from_utf8
from vtg.files.whole import check_name
from vtg.progress import Progress, Reporter
from vtg.video.chapters import Chapter, chapters_text
from vtg.video.containers import input_options, open_container, reading_errors
from vtg.video.limits import child_threads
from vtg.video.probing import VideoTrack
from vtg.video.process import explain, ffmpeg_binary, run
from vtg.video.seeking import jump_before, packets_between, presentation_times

__all__ = [
    "AAC",
    "AUDIO_RATE_HZ",
    "TOLERANCE_SECONDS",
    "FrameRange",
    "audio_filters",
    "chapter_options",
    "check_output",
    "checked_range",
    "copying",
    "decoded_origin",
    "decoding",
    "even",
    "frame_range",
    "h264",
    "layout",
    "own_times",
    "progress_reader",
    "writable",
    "write",
]

OUTPUT_SUFFIXES = (".mp4", ".m4v", ".mov", ".mkv")  # containers for H.264 with AAC
TOLERANCE_SECONDS = Fraction(1, 1000)  # Matroska rounds times to this, and users type 3 digits
MAX_OVERSHOOT_SECONDS = 1.0  # by which an end may lie beyond the video and still mean "to the end"
MAX_LEAD_SECONDS = 1  # by which a range may start before the requested time, to show its first frame completely
MATROSKA_TICKS_PER_SECOND = 1000
MIN_TICKS_PER_SECOND = 10000  # of a timebase that is exact enough for the end of a range; also ffmpeg's minimum for MP4
JOINED_CLOCK_TOLERANCE_SECONDS = Fraction(1, 4000)  # error of FFmpeg's times in a file whose clock restarts
AUDIO_RATE_HZ = 48000
H264 = {"c:v": "libx264", "preset": "veryfast", "crf": 20, "pix_fmt": "yuv420p"}
# From these frame sizes on, x264 buffers fewer frames: it needs six bytes per pixel of each, for each thread and for
# its lookahead, 2.8 GB for 4K on a machine of 16 cores.
LARGE_PIXELS, VERY_LARGE_PIXELS = 2_500_000, 9_500_000
MAX_ENCODING_THREADS = 8
AAC = {"c:a": "aac", "b:a": "160k"}
# Text in ffmpeg's messages, in lower case, where it cannot write a file, and the system's error codes.
WRITING_FAILED = ("error writing trailer", "error closing file", "error muxing", "av_interleaved_write_frame")
WRITING_ERRORS = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS, errno.EIO)


@dataclass(frozen=True)
class FrameRange:
    """The frames shown between two times of a video; times in seconds from its first frame.

    Attributes:
        first: presentation time of the first frame.
        last: presentation time of the last frame.
        start_time: when the span begins: with its first frame, but not long before the time asked for.
        finish: when it ends: with its last frame, but not after the time asked for.
        longest: for how long one of its pictures stands at most.
        has_constant_rate: all its pictures stand equally long, the last one not longer.
    """

    first: Fraction
    last: Fraction
    start: Fraction
    end: Fraction
    longest: Fraction
    has_constant_rate: bool

    def jump(self, track: VideoTrack) -> list[str]:
        """Options of an input that is decoded from before the span on; none: from the start of the video."""
        # Pictures that stand long lie in the file far from the sound that is audio with them.
        if track.info.audio and self.longest > MAX_LEAD_SECONDS:
            return []
        return jump_before(track, self.first + TOLERANCE_SECONDS)

    def trimmed(self, video: Any, track: VideoTrack) -> Any:
        """Trim a video stream of ffmpeg-python to the range, starting at time 0."""
        # In ticks: in seconds the edges would be rounded, and a frame of another shot could appear.
        origin = decoded_origin(track)
        first, last, start_time = (round((origin + time) / track.clock) for time in (self.first, self.last, self.start))
        slack = math.ceil(JOINED_CLOCK_TOLERANCE_SECONDS / track.clock) if track.joined else 0
        kept = video.filter("trim", start_pts=first - slack, end_pts=last + slack + 1)
        return kept.filter("setpts", f"max(PTS-{start_time},0)")


def frame_range(track: VideoTrack, start: float, end: float) -> FrameRange:
    """The frames shown between two times: from the frame at `start` up to the last one before `end`.

    Raises:
        VideoError: there is no frame between the two.
    """
    if track.dated:
        times = presentation_times(track, packets_between(track, start, end))
    else:
        rate = Fraction(track.info.fps).limit_denominator(1001)
        times = [number / rate for number in range(round(track.duration * rate))]
    start_time = Fraction(start)
    before = [time for time in times if time <= start_time + TOLERANCE_SECONDS]
    wanted = before[-1:] + [
        time for time in times if start_time + TOLERANCE_SECONDS < time < Fraction(end) - TOLERANCE_SECONDS
    ]
    if not wanted:
        raise VideoError(track.info.path, f"has no frames between {start:.2f} s and {end:.2f} s: choose other times")
    later = [time for time in times if time > wanted[-1]]
    end_time = min(Fraction(end), later[0] if later else track.duration)
    if wanted[0] >= start_time - MAX_LEAD_SECONDS:
        start_time = wanted[0]
    frame_durations = [after - max(time, start_time) for time, after in pairwise([*wanted, end_time])]
    has_constant_rate = len(wanted) > 1 and max(frame_durations) - min(frame_durations[:-1]) <= 2 * TOLERANCE_SECONDS
    return FrameRange(wanted[0], wanted[-1], start_time, end_time, max(frame_durations), has_constant_rate)


def audio_filters(source: Any, at: Fraction, duration: Fraction) -> Any:
    """The audio of exactly a duration from a time of the input on, padded with silence (ffmpeg-python stream)."""
    return (
        source["a:0"]
        .filter("asetpts", f"PTS-{float(at):.9f}/TB")
        .filter("aresample", AUDIO_RATE_HZ, **{"async": 1, "first_pts": 0})
        .filter("aformat", channel_layouts="stereo")
        .filter("apad")
        .filter("atrim", start=0, end=f"{float(duration):.9f}")
    )


def h264(width: int, height: int, parameters: Sequence[str] = ()) -> dict[str, Any]:
    """Options that encode frames of a size as H.264 within the memory limit of a process.

    Args:
        width: pixels.
        height: pixels.
        parameters: further parameters of x264, as name=value.
    """
    pixels, threads = width * height, min(os.cpu_count() or 1, MAX_ENCODING_THREADS)
    words = list(parameters)
    if pixels > LARGE_PIXELS:
        threads = min(threads, 2)
        words += ["sliced-threads=1", "sync-lookahead=0", f"rc-lookahead={0 if pixels > VERY_LARGE_PIXELS else 4}"]
    if pixels > VERY_LARGE_PIXELS:
        words += ["bframes=0"]
    return {**H264, "threads": threads, **({"x264-params": ":".join(words)} if words else {})}


def decoding(track: VideoTrack, jump: Sequence[str] = ()) -> dict[str, str | None]:
    """Options of an input that is decoded; its timestamps are those of `decoded_origin`.

    Args:
        track: the video.
        jump: seek options.
    """
    threads = child_threads(track.coded_width, track.coded_height, track.pixel_bits)
    options: dict[str, str | None] = {"reinit_filter": "0", "threads": str(threads)}
    if not track.joined:  # else FFmpeg must make the times continuous, which it does not do with copyts
        options["copyts"] = None
    return {**options, **_as_options([*jump, *input_options()])}


def copying(at: float, seconds: float) -> dict[str, str | None]:
    """Options of an input that is remuxed from about a time of the file on, for some seconds."""
    return _as_options(["-ss", f"{at:.6f}", "-t", f"{seconds:.6f}", *input_options()])


def _as_options(words: Sequence[str]) -> dict[str, str | None]:
    """Convert command-line options to the keyword arguments of ffmpeg-python."""
    options: dict[str, str | None] = {}
    for word in words:
        if word.startswith("-"):
            options[word[1:]] = None
        else:
            options[next(reversed(options))] = word
    return options


def decoded_origin(track: VideoTrack) -> Fraction:
    """Presentation time of the first frame, seconds, in an input opened with `decoding`."""
    origin = track.first * track.clock
    return origin - Fraction(track.file_start) if track.joined else origin


def own_times(track: VideoTrack, out: Path, span: FrameRange | None = None) -> dict[str, str]:
    """Output options that keep a variable frame rate: each frame keeps its timestamp in the timebase of the source.

    Without the mode, older versions repeat frames until there is one for every tick of the timebase.

    Args:
        track: the source.
        out: the output file.
        span: frame range of the source; the last frame then ends with the range.
    """
    ticks = MATROSKA_TICKS_PER_SECOND if out.suffix.lower() == ".mkv" else track.clock.denominator
    while ticks < MIN_TICKS_PER_SECOND and out.suffix.lower() != ".mkv":
        ticks *= 2
    options = {"fps_mode": "vfr", "enc_time_base": f"1/{ticks}", "video_track_timescale": str(ticks)}
    if span is None or not span.has_constant_rate:
        options["bf"] = "0"  # with B-frames the duration of the file would depend on the order of unequal frames
    if span is not None:
        last = round(max(span.last - span.start, Fraction(0)) * ticks)
        end_ticks = round((span.end - span.start) * ticks)
        usual = max(1, round(ticks / Fraction(track.info.fps)))
        # Encoder and file have the same timebase, because versions differ in which of them applies here; in older ones
        # the duration of a frame is not known yet.
        others = f"min(if(gt(DURATION,0),DURATION,{usual}),{end_ticks}-PTS)"
        duration = f"if(gte(PTS,{last}),{max(1, end_ticks - last)},{others})".replace(",", "\\,")
        options["bsf:v"] = f"setts=pts=PTS:dts=DTS:duration={duration}"
    return options


def chapter_options(chapters: Sequence[Chapter], out: Path) -> tuple[list[str], list[str]]:
    """Options of a second input and of the output that give a file these chapters, and none of its sources.

    Args:
        chapters: of the output file.
        out: the output file, in a working folder; the chapters are written to a file beside it.
    """
    if not chapters:
        return [], ["-map_chapters", "-1"]
    listing = out.with_name("chapters.txt")
    listing.write_text(chapters_text(chapters), encoding="utf-8", newline="\n")
    return ["-f", "ffmetadata", "-i", str(listing)], ["-map_chapters", "1"]


def write(
    output: Any,
    sources: Sequence[str | os.PathLike[str]],
    out: Path,
    seconds: float,
    progress: Reporter,
    chapters: Sequence[Chapter] = (),
) -> None:
    """Run ffmpeg for an output node of ffmpeg-python.

    Args:
        output: the node.
        sources: files that it reads; errors name the first.
        out: the output file, in a working folder.
        seconds: its expected duration, for progress.
        progress: called as the output is written.
        chapters: of the output file; only with a single input. Those of the sources are left out.

    Raises:
        VideoError: ffmpeg fails.
        OSError: the file cannot be written.
    """
    node = output.global_args("-hide_banner", "-nostdin", "-nostats", "-v", "error", "-progress", "pipe:1")
    # ffmpeg-python accepts only names in UTF-8.
    command = [from_utf8(word) for word in node.overwrite_output().compile(cmd=ffmpeg_binary())]
    listing, mapping = chapter_options(chapters, out)
    behind_inputs = len(command) - command[::-1].index("-i") + 1
    # An input without streams cannot be expressed with ffmpeg-python.
    command[behind_inputs:behind_inputs] = listing
    place = command.index(str(out))
    command[place:place] = mapping
    status, _, stderr = run(command, progress_reader(progress, seconds))
    check_output(out, sources[0], status, stderr)


def check_output(out: Path, source: str | os.PathLike[str], status: int, stderr: str) -> None:
    """Check that ffmpeg has written a complete file: on a full disk it only prints a message and exits with 0.

    Args:
        out: the output file, in a working folder.
        source: the input file, for the message.
        status: exit status of ffmpeg.
        stderr: its standard error.

    Raises:
        OSError: it cannot be written.
        VideoError: ffmpeg failed.
    """
    lowered = stderr.lower()
    failed = any(sign in lowered for sign in WRITING_FAILED)
    reason = next((number for number in WRITING_ERRORS if os.strerror(number).lower() in lowered), None)
    if failed and reason is not None:
        raise OSError(reason, os.strerror(reason), str(out))
    if failed or status or not out.exists():  # without such a code the input is at fault
        raise VideoError(source, explain(stderr))
    if not _has_frames(out):
        raise VideoError(source, "has no frame in this range that can be decoded: it is damaged; choose other times")


def _has_frames(out: Path) -> bool:
    """Whether an output file has a frame: where ffmpeg can decode none, it writes the audio only."""
    try:
        with open_container(out) as container:
            return any(packet.size for packet in container.demux(video=0))
    except VideoError:
        return False
    except reading_errors():
        return False


def progress_reader(progress: Reporter, seconds: float) -> Callable[[str], None]:
    """What takes the lines that ffmpeg writes for -progress, and reports the share of the output that is written.

    Args:
        progress: the reporter.
        seconds: how long the output will be.
    """

    def on_line(line: str) -> None:
        key, _, value = line.partition("=")
        if key == "out_time_us" and value.isdigit() and seconds > 0:
            progress(Progress("writing", min(1.0, int(value) / 1e6 / seconds)))
        elif key == "progress" and value == "end":
            progress(Progress("writing", 1.0))

    return on_line


def checked_range(track: VideoTrack, start: float, end: float) -> float:
    """Check a time range in seconds; return its end, at most that of the video.

    Raises:
        VtgError: the times lie outside the video or are in the wrong order.
    """
    path, duration = track.info.path, track.info.duration
    if not 0 <= start < end:
        raise VtgError(
            f"{path}: nothing lies between {start:g} s and {end:g} s: give a start of 0 or more, then an end"
        )
    if start >= duration or end > duration + MAX_OVERSHOOT_SECONDS:
        raise VtgError(f"{path}: {start:g} s to {end:g} s is not in the video: it is {duration:.2f} s long")
    return min(end, duration)


def writable(out: str | os.PathLike[str], sources: Sequence[str | os.PathLike[str]]) -> Path:
    """Check that an output file can be written; return its path.

    Raises:
        VtgError: unsupported suffix, name too long, no such folder, or it is one of the sources.
    """
    target = Path(out)
    check_name(target)
    if target.suffix.lower() not in OUTPUT_SUFFIXES:
        raise VtgError(f"{target}: clips are written as {', '.join(OUTPUT_SUFFIXES)}: choose one of these endings")
    if not target.parent.is_dir():
        raise VtgError(f"{target}: the folder {target.parent} does not exist: make it first")
    if target.is_dir():
        raise VtgError(f"{target}: is a folder: give the name of a file")
    if target.exists() and any(Path(source).exists() and target.samefile(source) for source in sources):
        raise VtgError(f"{target}: would overwrite the video it is made from: choose another name")
    return target


def layout(out: Path) -> dict[str, str]:
    """Muxer options: the index at the start, so that a browser can play before it has loaded the whole file."""
    return {} if out.suffix.lower() == ".mkv" else {"movflags": "+faststart"}


def even(pixels: int) -> int:
    """Round a side down to an even number, as H.264 with 4:2:0 chroma needs."""
    return max(2, pixels // 2 * 2)
