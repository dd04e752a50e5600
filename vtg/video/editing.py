"""Writes clips: cuts one out of a video, joins several; what is written is whole and in sync, or not there at all."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Any

from vtg.errors import VideoError, VtgError
from vtg.video.probing import PictureTrack, list_packets, survey
from vtg.video.process import absolute, explain, ffmpeg_binary, run, written_whole
from vtg.video.seeking import file_time, jump_before, times_shown

__all__ = ["Cut", "Progress", "concat", "cut"]

Progress = Callable[[float], None]  # called with the share done, 0…1

CONTAINERS = (".mp4", ".m4v", ".mov", ".mkv")  # what H.264 with AAC can be written to
TOLERANCE = Fraction(1, 1000)  # seconds; Matroska rounds times to this, and people type 3 digits
KEYFRAME_JUMPS = (0.0, 0.15, 0.3)  # seconds after the time wanted
OVERSHOOT = 1.0  # seconds by which an end may lie beyond the video and still mean "to the end"
RUN_ON = 1.0  # seconds of packets read beyond the times wanted, because they come in decoding order
FASTEST_JOINED = 60  # pictures a second
SOUND_RATE = 48000  # Hz
H264 = {"c:v": "libx264", "preset": "veryfast", "crf": 20, "pix_fmt": "yuv420p"}
AAC = {"c:a": "aac", "b:a": "160k"}


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
    target = _writable(out, [path])
    end = _checked_range(track, start, end)
    write = _copy_part if copy else _encode_part
    with written_whole(target) as beside:
        first, last = write(track, start, end, beside, progress)
    return Cut(target, first, last)


def concat(
    paths: Sequence[str | os.PathLike[str]], out: str | os.PathLike[str], progress: Progress | None = None
) -> Path:
    """Joins videos one after the other into one file (H.264, and AAC if any has sound).

    All get the size of the largest (black bars where the shape differs) and the highest picture rate, at most 60;
    silence stands in for missing sound.

    Args:
        paths: the videos, in order.
        out: file to write: .mp4, .m4v, .mov or .mkv.
        progress: called now and then with the share done.

    Returns:
        The file written.

    Raises:
        VtgError: no videos, or `out` cannot be written.
        VideoError: one of them cannot be read.
    """
    if not paths:
        raise VtgError("there are no clips to join: give at least one")
    tracks = [survey(path) for path in paths]
    target = _writable(out, paths)
    largest = max((track.info for track in tracks), key=lambda info: info.width * info.height)
    size = _even(largest.width), _even(largest.height)
    rate = min(max(Fraction(track.info.fps).limit_denominator(1001) for track in tracks), Fraction(FASTEST_JOINED))
    sound = any(track.info.audio for track in tracks)
    total = float(sum(track.duration for track in tracks))
    with (
        written_whole(target) as beside,
        # One clip is decoded at a time, and sound stays uncompressed until the end: joined AAC has gaps at the seams.
        tempfile.TemporaryDirectory(prefix=f".{target.stem}.", dir=target.parent) as folder,
    ):
        parts: list[tuple[Path, Fraction]] = []
        done = 0.0
        for number, track in enumerate(tracks):
            part = Path(folder) / f"{number:05d}.nut"
            share = float(track.duration) / total
            report = None if progress is None else _scaled(progress, done, share * 0.95)
            parts.append((part, _encode_joinable(track, size, rate, sound, part, report)))
            done += share * 0.95
        _join(parts, sound, beside)
    if progress is not None:
        progress(1.0)
    return target


def _encode_part(
    track: PictureTrack, start: float, end: float, beside: Path, progress: Progress | None
) -> tuple[float, float]:
    import ffmpeg

    begin, last, finish = _pictures_shown(track, start, end)
    source = ffmpeg.input(absolute(track.info.path), **_decoding(jump_before(track, begin + TOLERANCE)))
    first_tick, last_tick = (track.first + round(time / track.clock) for time in (begin, last))
    picture = (
        # In ticks: in seconds the edges would be rounded, and a picture more or less would get in.
        source["V:0"]
        .filter("trim", start_pts=first_tick, end_pts=last_tick + 1)
        .filter("setpts", f"PTS-{first_tick}")
        .filter("scale", _even(track.info.width), _even(track.info.height), flags="bicubic")
        .filter("setsar", 1)
    )
    streams = [picture]
    # A clock as fine as the source's keeps a variable picture rate as it is.
    options: dict[str, Any] = {**H264, "enc_time_base": f"{track.clock.numerator}/{track.clock.denominator}"}
    if track.info.audio:
        streams.append(_sound(source, track.first * track.clock + begin, finish - begin))
        options |= AAC
    output = ffmpeg.output(*streams, str(beside), **options, **_layout(beside))
    _write(output, [track.info.path], beside, float(finish - begin), progress)
    return float(begin), float(finish)


def _pictures_shown(track: PictureTrack, start: float, end: float) -> tuple[Fraction, Fraction, Fraction]:
    """When the picture at `start` appears, when the last one before `end` does, and when that one goes; seconds."""
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
    output = ffmpeg.output(*streams, str(beside), c="copy", avoid_negative_ts="make_zero", **_layout(beside))
    _write(output, [track.info.path], beside, end - float(begin), progress)
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


def _encode_joinable(
    track: PictureTrack, size: tuple[int, int], rate: Fraction, sound: bool, part: Path, progress: Progress | None
) -> Fraction:
    """Writes one clip in the form that all share; gives its length in seconds."""
    import ffmpeg

    width, height = size
    source = ffmpeg.input(absolute(track.info.path), **_decoding([]))
    shrink = min(Fraction(width, track.info.width), Fraction(height, track.info.height))
    inner = _even(int(track.info.width * shrink)), _even(int(track.info.height * shrink))
    picture = (
        source["V:0"]
        .filter("setpts", f"PTS-{track.first}" if track.dated else "PTS-STARTPTS")
        .filter("fps", f"{rate.numerator}/{rate.denominator}")
        .filter("scale", *inner, flags="bicubic")
        .filter("pad", width, height, "(ow-iw)/2", "(oh-ih)/2")
        .filter("setsar", 1)
    )
    streams = [picture]
    frames = max(1, round(track.duration * rate))
    options: dict[str, Any] = {**H264, "frames:v": frames}
    lasting = frames / rate
    if sound:
        if track.info.audio:
            heard = _sound(source, track.first * track.clock, lasting)
        else:
            heard = ffmpeg.input(f"anullsrc=r={SOUND_RATE}:cl=stereo", f="lavfi").filter("atrim", end=float(lasting))
        streams.append(heard)
        options |= {"c:a": "pcm_s16le"}
    _write(ffmpeg.output(*streams, str(part), **options), [track.info.path], part, float(lasting), progress)
    return lasting


def _join(parts: Sequence[tuple[Path, Fraction]], sound: bool, beside: Path) -> None:
    import ffmpeg

    listing = parts[0][0].with_name("list.txt")
    # Stated lengths, because those found in the parts are rounded and would leave gaps between the pictures.
    lines = [f"file {part.name}\nduration {float(lasting):.6f}\n" for part, lasting in parts]
    listing.write_text("".join(lines), encoding="utf-8")
    source = ffmpeg.input(str(listing), f="concat", safe=0)
    streams = [source["v:0"], *([source["a:0"]] if sound else [])]
    output = ffmpeg.output(*streams, str(beside), **{"c:v": "copy", **(AAC if sound else {})}, **_layout(beside))
    _write(output, [listing], beside, 0.0, None)


def _sound(source: Any, at: Fraction, lasting: Fraction) -> Any:
    """The sound from a time of the file's clock on, exactly as long as asked; silence where there is none."""
    return (
        source["a:0"]
        .filter("asetpts", f"PTS-{float(at):.9f}/TB")
        .filter("aresample", SOUND_RATE, **{"async": 1, "first_pts": 0})
        .filter("aformat", channel_layouts="stereo")
        .filter("apad")
        .filter("atrim", start=0, end=f"{float(lasting):.9f}")
    )


def _decoding(jump: Sequence[str]) -> dict[str, str | None]:
    """Options of an input that is decoded from a keyframe on, with times left as they are in the file."""
    options: dict[str, str | None] = {"copyts": None, "reinit_filter": "0"}
    for word in jump:
        if word.startswith("-"):
            options[word[1:]] = None
        else:
            options[next(reversed(options))] = word
    return options


def _write(
    output: Any, sources: Sequence[str | os.PathLike[str]], out: Path, seconds: float, progress: Progress | None
) -> None:
    """Runs an ffmpeg-python output node to its end."""
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


def _scaled(progress: Progress, done: float, share: float) -> Progress:
    return lambda part: progress(done + share * part)


def _checked_range(track: PictureTrack, start: float, end: float) -> float:
    """The end, at most that of the video."""
    path, duration = track.info.path, track.info.duration
    if not 0 <= start < end:
        raise VtgError(
            f"{path}: nothing lies between {start:g} s and {end:g} s: give a start of 0 or more, then an end"
        )
    if start >= duration or end > duration + OVERSHOOT:
        raise VtgError(f"{path}: {start:g} s to {end:g} s is not in the video: it is {duration:.2f} s long")
    return min(end, duration)


def _writable(out: str | os.PathLike[str], sources: Sequence[str | os.PathLike[str]]) -> Path:
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


def _layout(out: Path) -> dict[str, str]:
    # The index first, so that a browser can start to play before it has all of the file.
    return {} if out.suffix.lower() == ".mkv" else {"movflags": "+faststart"}


def _even(pixels: int) -> int:
    # 4:2:0 colour halves both sides.
    return max(2, pixels // 2 * 2)
