"""List and read remote files with fsspec; open the video of a job from a path or URL."""

from __future__ import annotations

import contextlib
import posixpath
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from vtg.errors import VideoError, VtgError
from vtg.extraction.jobs import VideoJob
from vtg.features.decoding import OpenedVideo, open_video
from vtg.files.text import error_line
from vtg.video.framing import Framing
from vtg.video.sources import VIDEO_SUFFIXES

__all__ = [
    "READING_ERRORS",
    "fetched",
    "file_system",
    "is_url",
    "local_path",
    "matching_urls",
    "open_job",
    "read_remote",
    "remote_size",
    "videos_below",
]

MAX_READ_BYTES = 1 << 30  # of a file that is read into memory
MAX_UNANNOUNCED_BYTES = 1 << 40  # of a download whose size the server does not announce
READING_ERRORS = (OSError, ValueError, RuntimeError, NotImplementedError)  # raised by file systems besides their own


def is_url(path: str) -> bool:
    """Whether a path is a URL."""
    return "://" in path


def local_path(path: str) -> str:
    """The path of a ``file://`` URL; other paths and URLs unchanged."""
    for prefix in ("file://", "local://"):
        if path.startswith(prefix):
            from fsspec.core import url_to_fs

            return str(url_to_fs(path)[1])
    return path


def file_system(url: str) -> tuple[Any, str]:
    """The file system of a URL, and the path in it.

    Raises:
        VtgError: fsspec does not support it, or a package for it is missing or not configured.
    """
    import fsspec

    try:
        system, path = fsspec.core.url_to_fs(url)
    except ImportError as error:
        raise VtgError(f"{url}: {error}") from None
    except READING_ERRORS as error:
        raise VtgError(f"{url}: cannot be reached ({error_line(error)})") from None
    return system, path.rstrip("/")


def read_remote(url: str) -> bytes:
    """Read a small file.

    Raises:
        VtgError: it cannot be read, or is larger than 1 GB.
    """
    system, path = file_system(url)
    size = remote_size(url)
    try:
        if size is not None and 0 <= size <= MAX_READ_BYTES:
            return bytes(system.cat_file(path))
        with system.open(path, "rb") as file:
            content = bytes(file.read(MAX_READ_BYTES + 1))
    except READING_ERRORS as error:
        raise VtgError(f"{url}: cannot be read ({error_line(error)})") from None
    if len(content) > MAX_READ_BYTES:
        raise VtgError(f"{url}: larger than {MAX_READ_BYTES >> 30} GB; name a smaller file")
    return content


def remote_size(url: str) -> int | None:
    """Size of a file in bytes; -1 if the server does not report it, None if the file does not exist."""
    system, path = file_system(url)
    try:
        size = system.info(path).get("size")
    except FileNotFoundError:
        return None
    except READING_ERRORS:
        return -1
    return -1 if size is None else int(size)


def videos_below(url: str) -> list[str]:
    """The URLs of all videos below a folder, sorted.

    Raises:
        VtgError: it cannot be listed.
    """
    system, path = file_system(url)
    try:
        found = sorted(system.find(path))
    except READING_ERRORS as error:
        raise VtgError(f"{url}: cannot be listed ({error_line(error)})") from None
    videos = [name for name in found if posixpath.splitext(name)[1].lower() in VIDEO_SUFFIXES]
    return [str(system.unstrip_protocol(name)) for name in videos]


def matching_urls(pattern: str) -> list[str]:
    """The URLs that match a pattern with ``*``, sorted.

    Raises:
        VtgError: its file system cannot be searched.
    """
    system, path = file_system(pattern)
    try:
        return [str(system.unstrip_protocol(name)) for name in sorted(system.glob(path))]
    except READING_ERRORS as error:
        raise VtgError(f"{pattern}: cannot be searched ({error_line(error)})") from None


@contextlib.contextmanager
def open_job(job: VideoJob, framing: Framing, with_content: bool, threads: int = 1) -> Iterator[OpenedVideo]:
    """Open the video of a job with `open_video`, downloading its file first if it is remote.

    Args:
        job: the job.
        framing: how its frames become squares.
        with_content: whether to compute its content key, which reads the whole file.
        threads: decoding threads; the frames do not depend on their number.

    Raises:
        VtgError: the file cannot be fetched or read, here or while iterating over its chunks.
    """
    try:
        with (
            fetched(job.source) as path,
            open_video(path, framing, job.rate, job.start, job.end, threads, with_content) as video,
        ):
            yield video
    except VideoError as error:
        # Name the URL, not the temporary copy.
        raise VideoError(job.source, error.reason) from None


@contextlib.contextmanager
def fetched(source: str) -> Iterator[Path]:
    """Yield the path of a local file, or of a temporary copy of a remote one, valid during the block.

    Raises:
        VideoError: it cannot be downloaded, or its server sends more or less than it announced.
    """
    if not is_url(source):
        yield Path(source)
        return
    system, path = file_system(source)
    announced = _announcement()
    with tempfile.TemporaryDirectory(prefix="vtg-") as folder:
        copy = Path(folder) / f"video{posixpath.splitext(path)[1]}"
        try:
            system.get_file(path, str(copy), callback=announced)
            if announced.size is not None and copy.stat().st_size < announced.size:
                raise ConnectionError(f"the connection closed after {copy.stat().st_size} of {announced.size} bytes")
        except FileNotFoundError:
            raise VideoError(source, "no such file") from None
        except READING_ERRORS as error:
            raise VideoError(source, f"cannot be fetched ({error_line(error)})") from None
        yield copy


def _announcement() -> Any:
    """A callback that stops a download when it gets longer than its server announced."""
    from fsspec.callbacks import Callback

    class Announcement(Callback):
        def call(self, *arguments: object, **named: object) -> None:
            most = MAX_UNANNOUNCED_BYTES if self.size is None else self.size
            if self.value > most:
                raise ConnectionError(f"the server sends more than the {most} bytes of the file")

    return Announcement()
