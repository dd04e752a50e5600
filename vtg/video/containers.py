"""Open video files with one whitelist of container formats and protocols for all decoders; no other file is read."""

from __future__ import annotations

import functools
import os
from fractions import Fraction
from pathlib import Path
from typing import TYPE_CHECKING, Any

from vtg.errors import VideoError
from vtg.video.limits import MAX_PIXELS_AT_OPENING

if TYPE_CHECKING:
    from numbers import Rational

    from av.container import InputContainer

__all__ = [
    "CONTAINER_FORMATS",
    "absolute",
    "check_readable",
    "input_options",
    "open_container",
    "rational",
    "reading_errors",
    "tag_text",
]

# Names of FFmpeg's demuxers. Others are refused: playlists and manifests (hls, dash, concat, sdp, imf, image2 with its
# name patterns) refer to other files, and devices and protocols are not files.
CONTAINER_FORMATS = (
    *("mov", "matroska", "avi", "mpegts", "mpeg", "mpegvideo", "flv", "live_flv", "asf", "ogg", "rm", "mxf", "dv"),
    *("h264", "hevc", "vvc", "m4v", "h263", "av1", "obu", "ivf", "vc1", "vc1test", "mjpeg", "dirac", "cavsvideo"),
    *("nut", "wtv", "gxf", "lxf", "nsv", "nuv", "pva", "ty", "kux", "dhav", "amv", "film_cpk", "yuv4mpegpipe"),
    *("gif", "apng", "webp", "jpegxl_anim", "smk", "bink", "roq", "flic", "ifv", "mjpeg_2000", "smjpeg", "vivo"),
    *(
        "mp3",
        "aac",
        "wav",
        "w64",
        "flac",
        "ac3",
        "aiff",
        "caf",
        "amr",
        "ape",
        "wv",
        "tta",
    ),  # audio only: opened to say so
)
PROTOCOLS = "file"
HEAD_BYTES = 4096  # read of a file that cannot be opened, to say what it is
MAX_BOXES = 1000  # of an MP4 file, searched for its index
PLAYLIST_MARKS = (
    b"#extm3u",
    b"ffconcat",
    b"<mpd",
    b"<assetmap",
    b"<compositionplaylist",
    b"<smil",
    b"[playlist]",
    b"<asx",
)
DAMAGED = "is not a video that can be read: it is damaged or another kind of file"


def absolute(path: str | os.PathLike[str]) -> str:
    """An absolute path for FFmpeg, which would read `-x.mp4` as an option and `take:2.mp4` as a protocol."""
    return str(Path(path).absolute())


def input_options() -> list[str]:
    """Options that apply the same whitelist in the ffmpeg binary; they go before the `-i` of each video."""
    return ["-format_whitelist", _format_names(), "-protocol_whitelist", PROTOCOLS]


def check_readable(path: str | os.PathLike[str]) -> None:
    """Check that a path is a readable file that is not empty.

    Raises:
        VideoError: missing, a folder, a device or pipe, empty, or not readable by this user.
    """
    file = Path(path)
    try:
        if file.is_dir():
            raise VideoError(path, "is a folder, not a video: name a file in it")
        if file.exists() and not file.is_file():  # opening a pipe would block until something is written to it
            raise VideoError(path, "is a device, pipe or socket, not a file: copy the video to a file first")
        with file.open("rb") as handle:
            if not handle.read(1):
                raise VideoError(path, "is an empty file: copy or download it again")
    except FileNotFoundError:
        raise VideoError(path, "no such file") from None
    except PermissionError:
        raise VideoError(path, "cannot be opened: permission denied") from None
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) else None
        raise VideoError(path, f"cannot be opened: {reason or error}") from None


def open_container(path: str | os.PathLike[str]) -> InputContainer:
    """Open a video file with PyAV; use it as a context manager.

    Args:
        path: the file. Other files that it refers to are not opened.

    Returns:
        The container.

    Raises:
        VideoError: missing, not readable, not a video, or a playlist or manifest that names other files.
    """
    import av

    check_readable(path)
    options = {
        "format_whitelist": _format_names(),
        "protocol_whitelist": PROTOCOLS,
        "max_pixels": str(MAX_PIXELS_AT_OPENING),
    }
    try:
        return av.open(absolute(path), options=options, **_metadata_errors())
    except reading_errors() as error:
        raise VideoError(path, _why_not_opened(Path(path), error)) from None


def _metadata_errors() -> dict[str, Any]:
    """Options of `av.open` that accept tags which are not UTF-8; from PyAV 19 on this is always so."""
    import av

    return {"metadata_errors": "surrogateescape"} if int(av.__version__.partition(".")[0]) < 19 else {}


def rational(value: Rational | None) -> Fraction | None:
    """Convert a rational number of PyAV (a type of its own from PyAV 19 on) to a fraction; None where it is unset."""
    return Fraction(int(value.numerator), int(value.denominator)) if value else None


def tag_text(value: str) -> str:
    """The text of a metadata tag, without bytes that are not UTF-8."""
    return value.encode("utf-8", "ignore").decode("utf-8")


def reading_errors() -> tuple[type[Exception], ...]:
    """The exceptions that PyAV raises for damaged files: its own, and those for impossible streams and values."""
    import av

    return (av.FFmpegError, OSError, ValueError, IndexError, OverflowError, MemoryError)


@functools.lru_cache(maxsize=1)
def _format_names() -> str:
    return ",".join(CONTAINER_FORMATS)


def _why_not_opened(path: Path, error: Exception) -> str:
    with path.open("rb") as file:
        beginning = file.read(HEAD_BYTES)
    text = beginning.replace(b"\0", b"").lower().lstrip(b"\xef\xbb\xbf\xff\xfe \t\r\n")
    if text.startswith(PLAYLIST_MARKS) or (text.startswith(b"<?xml") and any(mark in text for mark in PLAYLIST_MARKS)):
        return "is a playlist or manifest, which refers to other files: name the video file itself"
    if text.startswith(b"v=0") and b"\nm=" in text:
        return "is a session description, which refers to a stream: name a video file"
    if _is_still_picture(path):
        return "is an image or text, not a video: name a video file"
    if isinstance(error, MemoryError):
        return "needs more memory than the limit allows: the file is damaged; copy or download it again"
    if b"ftyp" in beginning[:64] and not _has_movie_index(path):
        return "is cut short (its index is missing): copy or download it again"
    return DAMAGED


def _is_still_picture(path: Path) -> bool:
    from vtg.video.pictures import PictureError, open_picture

    try:
        with open_picture(path):
            return True
    except (PictureError, FileNotFoundError):
        return False


def _has_movie_index(path: Path) -> bool:
    """Whether an MP4 or QuickTime file has an index (a `moov` or `moof` box at the top level)."""
    with path.open("rb") as file:
        position = 0
        for _ in range(MAX_BOXES):
            file.seek(position)
            header = file.read(16)
            size, kind = int.from_bytes(header[:4], "big"), header[4:8]
            if kind in (b"moov", b"moof"):
                return True
            if size == 1:
                size = int.from_bytes(header[8:16], "big")
            if size < 8:
                break
            position += size
    return False
