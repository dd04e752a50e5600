"""List and read remote files with fsspec; open the video of a job wherever it lies."""

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

MOST_READ = 1 << 30  # bytes of a file that is read into memory
MOST_UNANNOUNCED = 1 << 40  # bytes of a copy whose size its server does not say
READING_ERRORS = (OSError, ValueError, RuntimeError, NotImplementedError)  # what file systems raise beside their own


def is_url(path: str) -> bool:
    """Whether a path names something that is not simply on this machine's disk."""
    return "://" in path


def local_path(path: str) -> str:
    """A ``file://`` URL as the path that it means; anything else as it is."""
    for prefix in ("file://", "local://"):
        if path.startswith(prefix):
            from fsspec.core import url_to_fs

            return str(url_to_fs(path)[1])
    return path


def file_system(url: str) -> tuple[Any, str]:
    """The file system that a URL names, and the path in it.

    Raises:
        VtgError: fsspec does not know it, or what it needs for it is not installed or not set up.
    """
    import fsspec

    try:
        system, path = fsspec.core.url_to_fs(url)
    except ImportError as error:
        raise VtgError(f"{url}: {error}") from None
    except READING_ERRORS as error:
        raise VtgError(f"{url}: cannot be reached ({_line(error)})") from None
    return system, path.rstrip("/")


def read_remote(url: str) -> bytes:
    """All of a small file.

    Raises:
        VtgError: it cannot be read, or is larger than 1 GB.
    """
    system, path = file_system(url)
    size = remote_size(url)
    try:
        if size is not None and 0 <= size <= MOST_READ:
            return bytes(system.cat_file(path))
        with system.open(path, "rb") as file:
            content = bytes(file.read(MOST_READ + 1))
    except READING_ERRORS as error:
        raise VtgError(f"{url}: cannot be read ({_line(error)})") from None
    if len(content) > MOST_READ:
        raise VtgError(f"{url}: larger than {MOST_READ >> 30} GB; name a smaller file")
    return content


def remote_size(url: str) -> int | None:
    """Bytes of a file; -1 where its server does not say, None where it is not there."""
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
        raise VtgError(f"{url}: cannot be listed ({_line(error)})") from None
    videos = [name for name in found if posixpath.splitext(name)[1].lower() in VIDEO_SUFFIXES]
    return [str(system.unstrip_protocol(name)) for name in videos]


def matching_urls(pattern: str) -> list[str]:
    """The URLs that a pattern with ``*`` fits, sorted.

    Raises:
        VtgError: its file system cannot be searched.
    """
    system, path = file_system(pattern)
    try:
        return [str(system.unstrip_protocol(name)) for name in sorted(system.glob(path))]
    except READING_ERRORS as error:
        raise VtgError(f"{pattern}: cannot be searched ({_line(error)})") from None


@contextlib.contextmanager
def open_job(job: VideoJob, size: int, with_content: bool, threads: int = 1) -> Iterator[OpenedVideo]:
    """Open the video of a job as `open_video` does, fetching its file first where it lies elsewhere.

    Args:
        job: the job.
        size: side of a frame, pixels.
        with_content: whether its content key is wanted, for which all of it is read.
        threads: that decode; one where other videos are decoded at the same time. The frames do not depend on it.

    Raises:
        VtgError: the file cannot be had or read, here or while its chunks are taken.
    """
    try:
        with (
            fetched(job.source) as path,
            open_video(path, size, job.rate, job.start, job.end, threads, with_content) as video,
        ):
            yield video
    except VideoError as error:
        # The reader of the message knows the URL, not the copy.
        raise VideoError(job.source, error.reason) from None


@contextlib.contextmanager
def fetched(source: str) -> Iterator[Path]:
    """A local file itself; a copy of a remote one for as long as the block lasts.

    Raises:
        VideoError: it cannot be had, or its server sends more or less than it announced.
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
            raise VideoError(source, f"cannot be fetched ({_line(error)})") from None
        yield copy


def _announcement() -> Any:
    """Follow a copy, and end it where it gets longer than its server announced."""
    from fsspec.callbacks import Callback

    class Announcement(Callback):
        def call(self, *arguments: object, **named: object) -> None:
            most = MOST_UNANNOUNCED if self.size is None else self.size
            if self.value > most:
                raise ConnectionError(f"the server sends more than the {most} bytes of the file")

    return Announcement()


def _line(error: Exception) -> str:
    return " ".join(str(error).split())[:160] or type(error).__name__
