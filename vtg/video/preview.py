"""Write posters, short previews, and browser-playable copies of videos."""

from __future__ import annotations

import contextlib
import os
from pathlib import Path

import numpy as np

from vtg.errors import VtgError
from vtg.files.whole import write_whole
from vtg.progress import Reporter, silent
from vtg.video.chapters import read_chapters
from vtg.video.colour import resize_for_encoding
from vtg.video.containers import absolute, input_options
from vtg.video.editing import cut, encode_range
from vtg.video.filters import Filter, filter_chain
from vtg.video.limits import child_threads
from vtg.video.near_frames import frame_near
from vtg.video.probing import VideoInfo, VideoTrack, survey
from vtg.video.process import ffmpeg_binary, run
from vtg.video.samples import DecodingError
from vtg.video.seeking import time_in_file
from vtg.video.writing import chapter_options, check_output, even, frame_range, own_times, progress_reader

__all__ = ["browsers_play", "write_poster", "write_preview", "write_proxy"]

JPEG_QUALITY = 88
POSTER_SIDE_PIXELS = 480  # pixels, the longer side of a poster
PREVIEW_SIDE_PIXELS = 640  # pixels, the longer side of a preview
PROXY_SIDE_PIXELS = 960  # pixels, the longer side of a proxy
KEYFRAME_INTERVAL_SECONDS = 2  # of a proxy: a seek decodes at most this much
MP4_AUDIO_CODECS = {"aac", "mp3", "opus", "flac"}  # audio that browsers play in MP4
WEBM_AUDIO_CODECS = {"vorbis", "opus"}
SEEKABLE_CONTAINERS = (
    "mov",
    "matroska",
    "flv",
)  # demuxers that seek to the keyframe before a time, and have a timestamp for each frame
H264_OPTIONS = ["-c:v", "libx264", "-pix_fmt", "yuv420p"]
AUDIO_OPTIONS = ["-c:a", "aac", "-b:a", "96k", "-ac", "2"]


def browsers_play(path: str | os.PathLike[str]) -> bool:
    """Whether current browsers play a file as it is, by its container and codecs.

    A browser may still refuse a pixel format that the codec's name does not show (10-bit H.264).

    Args:
        path: the video.

    Raises:
        VideoError: it cannot be read.
    """
    track = survey(path)
    info = track.info
    if track.container.startswith("mov"):
        return info.codec in {"h264", "av1", "vp9"} and (info.audio is None or info.audio in MP4_AUDIO_CODECS)
    if track.container.startswith("matroska") and Path(path).suffix.lower() == ".webm":
        return info.codec in {"vp8", "vp9", "av1"} and (info.audio is None or info.audio in WEBM_AUDIO_CODECS)
    return False


def write_poster(
    path: str | os.PathLike[str], time: float, out: str | os.PathLike[str], side: int = POSTER_SIDE_PIXELS
) -> Path:
    """Write the frame shown at about a time as a JPEG.

    Faster than `vtg.video.thumbnail`, which is exact: times count from the start of the file, which in some files is
    slightly before the first frame.

    Args:
        path: the video.
        time: seconds.
        out: file to write.
        side: maximum of the longer side, pixels.

    Returns:
        The file written.

    Raises:
        VtgError: the time lies after the end.
        VideoError: `path` cannot be read.
    """
    target = Path(out)
    with contextlib.suppress(DecodingError):
        frame = frame_near(path, max(0.0, time), side)
        with write_whole(target) as partial:
            _write_jpeg(frame, partial)
        return target
    # For files that cannot be sought in this way, and for times beyond the last frame.
    from vtg.video.sampling import thumbnail

    track = survey(path)
    moment = time + track.file_start - float(track.first * track.clock)
    longest = max(track.info.width, track.info.height)
    frame = thumbnail(path, max(0.0, moment), min(side, longest))
    with write_whole(target) as partial:
        _write_jpeg(frame, partial)
    return target


def _write_jpeg(frame: np.ndarray, out: Path) -> None:
    from PIL import Image

    Image.fromarray(frame).save(out, format="jpeg", quality=JPEG_QUALITY)


def write_preview(
    path: str | os.PathLike[str], start: float, end: float, out: str | os.PathLike[str], side: int = PREVIEW_SIDE_PIXELS
) -> Path:
    """Write the part of a video between two times as a small MP4 (H.264, AAC): quick to make and to load.

    For files without exact seeking (transport streams) it has the size of the video.

    Args:
        path: the video.
        start: seconds from the first frame.
        end: seconds from the first frame; beyond the end of the video means the end.
        out: file to write.
        side: maximum of the longer side, pixels.

    Returns:
        The file written.

    Raises:
        VtgError: nothing lies between the times.
        VideoError: `path` cannot be read.
    """
    track = survey(path)
    start, end = max(0.0, start), min(end, track.info.duration)
    if start >= end:
        raise VtgError(
            f"{path}: nothing lies between {start:g} s and {end:g} s; it is {track.info.duration:.2f} s long"
        )
    if not _seeks_exactly(track):
        return cut(path, start, end, out).path
    target = Path(out)
    span = frame_range(track, start, end)
    video_options = {"c:v": "libx264", "pix_fmt": "yuv420p", "preset": "veryfast", "crf": 26}
    sound = {"c:a": "aac", "b:a": "96k", "ac": 2}
    with write_whole(target) as partial:
        encode_range(track, span, partial, _resize_filters(track, side), video_options, sound)
    return target


def write_proxy(
    path: str | os.PathLike[str],
    out: str | os.PathLike[str],
    progress: Reporter = silent,
    reencode: bool = False,
) -> Path:
    """Write a copy of a whole video that every browser plays and seeks in: H.264 and AAC in MP4.

    Its time 0 is the first frame. H.264 is remuxed, which takes as long as reading the file; other codecs are
    re-encoded at a small size.

    Args:
        path: the video.
        out: file to write.
        progress: called as the output is written; an exception that it raises ends the work.
        reencode: re-encode H.264 as well, for files that a browser refused.

    Returns:
        The file written.

    Raises:
        VideoError: `path` cannot be read.
    """
    track = survey(path)
    start_time = time_in_file(track, 0)
    jump = ["-ss", f"{start_time:.6f}"] if start_time > 0 and _seeks_exactly(track) else []
    is_mapped = track.colours.is_mapped
    if track.info.codec == "h264" and not reencode and not is_mapped and _seeks_exactly(track):
        video_options = ["-c:v", "copy"]
    else:
        often = ["-force_key_frames", f"expr:gte(t,n_forced*{KEYFRAME_INTERVAL_SECONDS})"]
        times = [word for name, value in own_times(track, Path(out)).items() for word in (f"-{name}", value)]
        resizing = ["-vf", f"{filter_chain(_resize_filters(track, PROXY_SIDE_PIXELS))},setsar=1", *times]
        video_options = [*resizing, *H264_OPTIONS, "-preset", "veryfast", "-crf", "28", *often]
    _write(track, jump, [*video_options, *_audio_options(track)], Path(out), track.info.duration, progress)
    return Path(out)


def _seeks_exactly(track: VideoTrack) -> bool:
    return track.seekable and track.container.startswith(SEEKABLE_CONTAINERS)


def _resize_filters(track: VideoTrack, side: int) -> list[Filter]:
    """Filters that resize frames to fit into a square."""
    width, height = (even(pixels) for pixels in _fitted_size(track.info, side))
    return resize_for_encoding(track.colours, width, height, flags="bilinear")


def _fitted_size(info: VideoInfo, side: int) -> tuple[int, int]:
    """The size in pixels, with the longer side at most `side`."""
    shrink = min(1.0, side / max(info.width, info.height))
    return max(1, round(info.width * shrink)), max(1, round(info.height * shrink))


def _audio_options(track: VideoTrack) -> list[str]:
    return ["-map", "0:a:0", *AUDIO_OPTIONS] if track.info.audio else ["-an"]


def _write(
    track: VideoTrack,
    reading: list[str],
    writing: list[str],
    out: Path,
    seconds: float,
    progress: Reporter,
) -> None:
    command = [ffmpeg_binary(), "-hide_banner", "-nostdin", "-nostats", "-v", "error", "-progress", "pipe:1", "-y"]
    with write_whole(out) as partial:
        listing, chapters = chapter_options(read_chapters(track), partial)
        threads = child_threads(track.coded_width, track.coded_height, track.pixel_bits)
        command += ["-threads", str(threads), *reading, *input_options(), "-i", absolute(track.info.path), *listing]
        command += ["-map", "0:V:0", *writing, *chapters]
        command += ["-sn", "-dn", "-map_metadata:g", "-1", "-movflags", "+faststart", "-f", "mp4", absolute(partial)]
        status, _, stderr = run(command, progress_reader(progress, seconds))
        check_output(partial, track.info.path, status, stderr)
