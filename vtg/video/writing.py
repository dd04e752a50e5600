"""What all ways to write a clip share: codecs and containers, sound of an exact length, one run of ffmpeg."""

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
from vtg.files.whole import check_name
from vtg.text import from_utf8
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
    "Progress",
    "FrameRange",
    "chapter_options",
    "check_output",
    "checked_range",
    "copying",
    "decoded_origin",
    "decoding",
    "even",
    "h264",
    "layout",
    "own_times",
    "frame_range",
    "scaled",
    "audio_filters",
    "writable",
    "write",
]

Progress = Callable[[float], None]  # called with the share done, 0…1

OUTPUT_SUFFIXES = (".mp4", ".m4v", ".mov", ".mkv")  # what H.264 with AAC can be written to
TOLERANCE_SECONDS = Fraction(1, 1000)  # seconds; Matroska rounds times to this, and people type 3 digits
MAX_OVERSHOOT_SECONDS = 1.0  # seconds by which an end may lie beyond the video and still mean "to the end"
MAX_LEAD_SECONDS = 1  # seconds by which a span may start before the time asked for, to have its first picture whole
MATROSKA_TICKS_PER_SECOND = 1000  # a second
MIN_TICKS_PER_SECOND = 10000  # a second, of a clock that can say where a span ends; also ffmpeg's own least for MP4
JOINED_CLOCK_TOLERANCE_SECONDS = Fraction(1, 4000)  # seconds by which FFmpeg may miss the times of a joined file
AUDIO_RATE_HZ = 48000  # Hz
H264 = {"c:v": "libx264", "preset": "veryfast", "crf": 20, "pix_fmt": "yuv420p"}
# Pixels of a picture from which on x264 gets along with few pictures: it keeps six bytes a pixel of each, for each
# thread and for what it looks ahead, 2.8 GB for 4K on a machine of 16 cores.
LARGE_PIXELS, VERY_LARGE_PIXELS = 2_500_000, 9_500_000
MAX_ENCODING_THREADS = 8
AAC = {"c:a": "aac", "b:a": "160k"}
# What ffmpeg says, in lower case, where it cannot write a file, and the reasons that the system gives.
WRITING_FAILED = ("error writing trailer", "error closing file", "error muxing", "av_interleaved_write_frame")
WRITING_ERRORS = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS, errno.EIO)


@dataclass(frozen=True)
class FrameRange:
    """What is shown between two times of a video; seconds from its first picture.

    Attributes:
        first: when the first of its pictures appears.
        last: when the last one does.
        start_time: when the span begins: with its first picture, but not long before the time asked for.
        finish: when it ends: with its last picture, but not behind the time asked for.
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

    def trimmed(self, picture: Any, track: VideoTrack) -> Any:
        """The pictures of the span alone, the first at 0, of all pictures (ffmpeg-python stream)."""
        # In ticks: in seconds the edges would be rounded, and a picture of another shot would flash up.
        origin = decoded_origin(track)
        first, last, start_time = (round((origin + time) / track.clock) for time in (self.first, self.last, self.start))
        slack = math.ceil(JOINED_CLOCK_TOLERANCE_SECONDS / track.clock) if track.joined else 0
        kept = picture.filter("trim", start_pts=first - slack, end_pts=last + slack + 1)
        return kept.filter("setpts", f"max(PTS-{start_time},0)")


def frame_range(track: VideoTrack, start: float, end: float) -> FrameRange:
    """What is shown between two times, from the picture at `start` on, up to the last one before `end`.

    Raises:
        VideoError: there is no picture between the two.
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
        raise VideoError(track.info.path, f"holds no pictures between {start:.2f} s and {end:.2f} s")
    later = [time for time in times if time > wanted[-1]]
    end_time = min(Fraction(end), later[0] if later else track.duration)
    if wanted[0] >= start_time - MAX_LEAD_SECONDS:
        start_time = wanted[0]
    frame_durations = [after - max(time, start_time) for time, after in pairwise([*wanted, end_time])]
    has_constant_rate = len(wanted) > 1 and max(frame_durations) - min(frame_durations[:-1]) <= 2 * TOLERANCE_SECONDS
    return FrameRange(wanted[0], wanted[-1], start_time, end_time, max(frame_durations), has_constant_rate)


def audio_filters(source: Any, at: Fraction, duration: Fraction) -> Any:
    """The sound from a time of the file's clock on, exactly as long as asked; silence where there is none."""
    return (
        source["a:0"]
        .filter("asetpts", f"PTS-{float(at):.9f}/TB")
        .filter("aresample", AUDIO_RATE_HZ, **{"async": 1, "first_pts": 0})
        .filter("aformat", channel_layouts="stereo")
        .filter("apad")
        .filter("atrim", start=0, end=f"{float(duration):.9f}")
    )


def h264(width: int, height: int, parameters: Sequence[str] = ()) -> dict[str, Any]:
    """Options that encode pictures of a size as H.264 within the memory that a process may take.

    Args:
        width: pixels.
        height: the same.
        parameters: further ones of x264, as name=value.
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
    """Options of an input that is decoded from a keyframe on, on the clock of `decoded_origin`.

    Args:
        track: the video.
        jump: options that start reading in its middle.
    """
    threads = child_threads(track.coded_width, track.coded_height, track.pixel_bits)
    options: dict[str, str | None] = {"reinit_filter": "0", "threads": str(threads)}
    if not track.joined:  # else FFmpeg must continue the times where they start again, and leaves copied ones alone
        options["copyts"] = None
    return {**options, **_as_options([*jump, *input_options()])}


def copying(at: float, seconds: float) -> dict[str, str | None]:
    """Options of an input that is copied from about a time of the file on, for some seconds."""
    return _as_options(["-ss", f"{at:.6f}", "-t", f"{seconds:.6f}", *input_options()])


def _as_options(words: Sequence[str]) -> dict[str, str | None]:
    """Words of a command line as ffmpeg-python takes them."""
    options: dict[str, str | None] = {}
    for word in words:
        if word.startswith("-"):
            options[word[1:]] = None
        else:
            options[next(reversed(options))] = word
    return options


def decoded_origin(track: VideoTrack) -> Fraction:
    """When the first picture is shown, in seconds on the clock of what is decoded with `decoding`."""
    origin = track.first * track.clock
    return origin - Fraction(track.file_start) if track.joined else origin


def own_times(track: VideoTrack, out: Path, span: FrameRange | None = None) -> dict[str, str]:
    """Options that keep a variable picture rate as it is: each picture has its own time, on the clock of the source.

    Without the mode, older versions repeat pictures until there is one for every tick of that clock.

    Args:
        track: the source.
        out: the file that is written.
        span: of the source; then the last picture lasts until it finishes, however long it stands in the source.
    """
    ticks = MATROSKA_TICKS_PER_SECOND if out.suffix.lower() == ".mkv" else track.clock.denominator
    while ticks < MIN_TICKS_PER_SECOND and out.suffix.lower() != ".mkv":
        ticks *= 2
    options = {"fps_mode": "vfr", "enc_time_base": f"1/{ticks}", "video_track_timescale": str(ticks)}
    if span is None or not span.has_constant_rate:
        options["bf"] = "0"  # with B-pictures the length of the file depends on the order of unequal ones
    if span is not None:
        last = round(max(span.last - span.start, Fraction(0)) * ticks)
        end_ticks = round((span.end - span.start) * ticks)
        usual = max(1, round(ticks / Fraction(track.info.fps)))
        # The clocks of encoder and file are one, because versions differ in which of them they count in here; older
        # ones do not know yet how long a picture lasts.
        others = f"min(if(gt(DURATION,0),DURATION,{usual}),{end_ticks}-PTS)"
        duration = f"if(gte(PTS,{last}),{max(1, end_ticks - last)},{others})".replace(",", "\\,")
        options["bsf:v"] = f"setts=pts=PTS:dts=DTS:duration={duration}"
    return options


def chapter_options(chapters: Sequence[Chapter], out: Path) -> tuple[list[str], list[str]]:
    """Options of a second input and of the output that give a file these chapters, and none of its sources.

    Args:
        chapters: of the file that is written.
        out: the file, in a working folder; the list of chapters is written beside it.
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
    progress: Progress | None,
    chapters: Sequence[Chapter] = (),
) -> None:
    """Runs an ffmpeg-python output node to its end.

    Args:
        output: the node.
        sources: files that it reads; the first is named where it fails.
        out: the file that it writes, in a working folder.
        seconds: how long that will be, for progress.
        progress: called now and then with the share done.
        chapters: of the file; only where it has one input. Those of the sources are left out.

    Raises:
        VideoError: ffmpeg fails.
        OSError: the file cannot be written.
    """
    node = output.global_args("-hide_banner", "-nostdin", "-nostats", "-v", "error", "-progress", "pipe:1")
    # ffmpeg-python takes no names but UTF-8.
    command = [from_utf8(word) for word in node.overwrite_output().compile(cmd=ffmpeg_binary())]
    listing, mapping = chapter_options(chapters, out)
    behind_inputs = len(command) - command[::-1].index("-i") + 1
    # Of ffmpeg-python's nodes only streams can be inputs.
    command[behind_inputs:behind_inputs] = listing
    place = command.index(str(out))
    command[place:place] = mapping
    report = None if progress is None else _follow(progress, seconds)
    status, _, stderr = run(command, report or (lambda line: None))
    check_output(out, sources[0], status, stderr)


def check_output(out: Path, source: str | os.PathLike[str], status: int, stderr: str) -> None:
    """Makes sure that ffmpeg has written a file whole: where a disk is full, it says so and ends with status 0.

    Args:
        out: the file, in a working folder.
        source: the file that was read, which is named where anything else is wrong.
        status: that ffmpeg ended with.
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
    if failed or status or not out.exists():  # without such a reason, it is what was read that cannot be written
        raise VideoError(source, explain(stderr))
    if not _has_pictures(out):
        raise VideoError(source, "has no picture there that can be decoded: it is damaged; choose another span")


def _has_pictures(out: Path) -> bool:
    """Whether a file that ffmpeg has written holds one at least: where it could decode none, it writes the sound."""
    try:
        with open_container(out) as container:
            return any(packet.size for packet in container.demux(video=0))
    except VideoError:
        return False
    except reading_errors():
        return False


def _follow(progress: Progress, seconds: float) -> Callable[[str], None]:
    def on_line(line: str) -> None:
        key, _, value = line.partition("=")
        if key == "out_time_us" and value.isdigit() and seconds > 0:
            progress(min(1.0, int(value) / 1e6 / seconds))
        elif key == "progress" and value == "end":
            progress(1.0)

    return on_line


def scaled(progress: Progress | None, start_time: float, end: float) -> Progress | None:
    """Progress of a part of the work, which takes the whole from the share `start_time` to the share `end`."""
    # Not beyond the end by a rounding: what comes next begins exactly there.
    return None if progress is None else lambda part: progress(min(end, start_time + (end - start_time) * part))


def checked_range(track: VideoTrack, start: float, end: float) -> float:
    """The end, at most that of the video.

    Raises:
        VtgError: the times lie outside the video or the wrong way round.
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
    """The file to write, if it can be.

    Raises:
        VtgError: another kind of file, too long a name, no such folder, or one of the sources.
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
    """Options of the container: the index first, so that a browser can start to play before it has all of the file."""
    return {} if out.suffix.lower() == ".mkv" else {"movflags": "+faststart"}


def even(pixels: int) -> int:
    """The side of a picture that H.264 can have: 4:2:0 colour halves both sides."""
    return max(2, pixels // 2 * 2)
