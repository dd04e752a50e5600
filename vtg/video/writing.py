"""What all ways to write a clip share: codecs and containers, sound of an exact length, one run of ffmpeg."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from fractions import Fraction
from pathlib import Path
from typing import Any

from vtg.errors import VideoError, VtgError
from vtg.video.probing import PictureTrack, list_packets
from vtg.video.process import explain, ffmpeg_binary, run
from vtg.video.seeking import file_time, times_shown

__all__ = [
    "AAC",
    "H264",
    "RUN_ON",
    "SOUND_RATE",
    "TOLERANCE",
    "Progress",
    "checked_range",
    "decoding",
    "even",
    "layout",
    "pictures_shown",
    "scaled",
    "sound_of",
    "writable",
    "write",
]

Progress = Callable[[float], None]  # called with the share done, 0…1

CONTAINERS = (".mp4", ".m4v", ".mov", ".mkv")  # what H.264 with AAC can be written to
TOLERANCE = Fraction(1, 1000)  # seconds; Matroska rounds times to this, and people type 3 digits
OVERSHOOT = 1.0  # seconds by which an end may lie beyond the video and still mean "to the end"
RUN_ON = 1.0  # seconds of packets read beyond the times wanted, because they come in decoding order
SOUND_RATE = 48000  # Hz
H264 = {"c:v": "libx264", "preset": "veryfast", "crf": 20, "pix_fmt": "yuv420p"}
AAC = {"c:a": "aac", "b:a": "160k"}


def pictures_shown(track: PictureTrack, start: float, end: float) -> tuple[Fraction, Fraction, Fraction]:
    """When the picture at `start` appears, when the last one before `end` does, and when that one goes; seconds.

    Raises:
        VideoError: there is no picture between the two.
    """
    if track.dated:
        packets = track.packets or list_packets(
            track.info.path, file_time(track, start - RUN_ON), end - start + 3 * RUN_ON
        )
        times = times_shown(track, packets)
    else:
        rate = Fraction(track.info.fps).limit_denominator(1001)
        times = [number / rate for number in range(round(track.duration * rate))]
    before = [time for time in times if time <= Fraction(start) + TOLERANCE]
    wanted = before[-1:] + [time for time in times if Fraction(start) + TOLERANCE < time < Fraction(end) - TOLERANCE]
    if not wanted:
        raise VideoError(track.info.path, f"holds no pictures between {start:.2f} s and {end:.2f} s")
    later = [time for time in times if time > wanted[-1]]
    return wanted[0], wanted[-1], min(Fraction(end), later[0] if later else track.duration)


def sound_of(source: Any, at: Fraction, lasting: Fraction) -> Any:
    """The sound from a time of the file's clock on, exactly as long as asked; silence where there is none."""
    return (
        source["a:0"]
        .filter("asetpts", f"PTS-{float(at):.9f}/TB")
        .filter("aresample", SOUND_RATE, **{"async": 1, "first_pts": 0})
        .filter("aformat", channel_layouts="stereo")
        .filter("apad")
        .filter("atrim", start=0, end=f"{float(lasting):.9f}")
    )


def decoding(jump: Sequence[str]) -> dict[str, str | None]:
    """Options of an input that is decoded from a keyframe on, with times left as they are in the file."""
    options: dict[str, str | None] = {"copyts": None, "reinit_filter": "0"}
    for word in jump:
        if word.startswith("-"):
            options[word[1:]] = None
        else:
            options[next(reversed(options))] = word
    return options


def write(
    output: Any, sources: Sequence[str | os.PathLike[str]], out: Path, seconds: float, progress: Progress | None
) -> None:
    """Runs an ffmpeg-python output node to its end.

    Args:
        output: the node.
        sources: files that it reads; the first is named where it fails.
        out: the file that it writes.
        seconds: how long that will be, for progress.
        progress: called now and then with the share done.

    Raises:
        VideoError: ffmpeg fails.
    """
    command = output.global_args("-hide_banner", "-nostdin", "-nostats", "-v", "error", "-progress", "pipe:1")
    report = None if progress is None else _follow(progress, seconds)
    status, _, said = run(command.overwrite_output().compile(cmd=ffmpeg_binary()), report or (lambda line: None))
    if status or not out.exists():
        raise VideoError(sources[0], explain(said))


def _follow(progress: Progress, seconds: float) -> Callable[[str], None]:
    def on_line(line: str) -> None:
        key, _, value = line.partition("=")
        if key == "out_time_us" and value.isdigit() and seconds > 0:
            progress(min(1.0, int(value) / 1e6 / seconds))
        elif key == "progress" and value == "end":
            progress(1.0)

    return on_line


def scaled(progress: Progress | None, begin: float, end: float) -> Progress | None:
    """Progress of a part of the work, which takes the whole from the share `begin` to the share `end`."""
    # Not beyond the end by a rounding: what comes next begins exactly there.
    return None if progress is None else lambda part: progress(min(end, begin + (end - begin) * part))


def checked_range(track: PictureTrack, start: float, end: float) -> float:
    """The end, at most that of the video.

    Raises:
        VtgError: the times lie outside the video or the wrong way round.
    """
    path, duration = track.info.path, track.info.duration
    if not 0 <= start < end:
        raise VtgError(
            f"{path}: nothing lies between {start:g} s and {end:g} s: give a start of 0 or more, then an end"
        )
    if start >= duration or end > duration + OVERSHOOT:
        raise VtgError(f"{path}: {start:g} s to {end:g} s is not in the video: it is {duration:.2f} s long")
    return min(end, duration)


def writable(out: str | os.PathLike[str], sources: Sequence[str | os.PathLike[str]]) -> Path:
    """The file to write, if it can be.

    Raises:
        VtgError: another kind of file, no such folder, or one of the sources.
    """
    target = Path(out)
    if target.suffix.lower() not in CONTAINERS:
        raise VtgError(f"{target}: clips are written as {', '.join(CONTAINERS)}: choose one of these endings")
    if not target.parent.is_dir():
        raise VtgError(f"{target}: the folder {target.parent} does not exist: make it first")
    if target.is_dir():
        raise VtgError(f"{target}: is a folder: give the name of a file")
    if target.exists() and any(target.samefile(source) for source in sources):
        raise VtgError(f"{target}: would overwrite the video it is made from: choose another name")
    return target


def layout(out: Path) -> dict[str, str]:
    """Options of the container: the index first, so that a browser can start to play before it has all of the file."""
    return {} if out.suffix.lower() == ".mkv" else {"movflags": "+faststart"}


def even(pixels: int) -> int:
    """The side of a picture that H.264 can have: 4:2:0 colour halves both sides."""
    return max(2, pixels // 2 * 2)
