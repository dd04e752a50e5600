"""Runs the ffmpeg binary: where it is, how a command ends, and what its complaints mean in words."""

from __future__ import annotations

import contextlib
import functools
import io
import os
import shutil
import subprocess
import threading
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from vtg.errors import VideoError, VtgError

__all__ = ["Pipe", "absolute", "check_readable", "explain", "ffmpeg_binary", "run"]

KEPT_COMPLAINTS = 40  # lines of ffmpeg's standard error kept to explain a failure

# What ffmpeg says, in lower case, and what a person should read; the first match wins.
EXPLANATIONS = (
    ("misdetection possible", "is not a video that can be read: it is damaged or another kind of file"),
    ("moov atom not found", "is cut short (its index is missing): copy or download it again"),
    ("partial file", "is cut short (its data ends early): copy or download it again"),
    ("no space left", "cannot be written: the disk is full"),
    ("permission denied", "cannot be opened: permission denied"),
    ("invalid data found", "is not a video that can be read: it is damaged or another kind of file"),
    ("ebml header parsing failed", "is not a video that can be read: it is damaged or another kind of file"),
    ("unknown decoder", "uses a codec that this ffmpeg cannot decode: install a full build of ffmpeg"),
    ("decoder not found", "uses a codec that this ffmpeg cannot decode: install a full build of ffmpeg"),
    ("no decoder found", "uses a codec that this ffmpeg cannot decode: install a full build of ffmpeg"),
)


@functools.lru_cache(maxsize=1)
def ffmpeg_binary() -> str:
    """Path of the ffmpeg to run: the one on PATH, else the one that imageio-ffmpeg brings.

    Raises:
        VtgError: there is none.
    """
    on_path = shutil.which("ffmpeg")
    if on_path:
        return on_path
    import imageio_ffmpeg

    try:
        return str(imageio_ffmpeg.get_ffmpeg_exe())
    except RuntimeError:
        raise VtgError("no ffmpeg found: install ffmpeg, or `pip install imageio-ffmpeg`") from None


def absolute(path: str | os.PathLike[str]) -> str:
    """The path as ffmpeg must get it: `-x.mp4` or `take:2.mp4` would be read as an option or a protocol."""
    return str(Path(path).absolute())


def check_readable(path: str | os.PathLike[str]) -> None:
    """Makes sure that there is a file with something in it that may be read.

    Raises:
        VideoError: missing, a folder, empty, or not readable by this user.
    """
    file = Path(path)
    try:
        if file.is_dir():
            raise VideoError(path, "is a folder, not a video: name a file in it")
        with file.open("rb") as handle:
            if not handle.read(1):
                raise VideoError(path, "is an empty file: copy or download it again")
    except FileNotFoundError:
        raise VideoError(path, "no such file") from None
    except PermissionError:
        raise VideoError(path, "cannot be opened: permission denied") from None
    except OSError as error:
        raise VideoError(path, f"cannot be opened: {error.strerror or error}") from None


def explain(complaints: str) -> str:
    """One line in words for what ffmpeg wrote on its standard error."""
    lowered = complaints.lower()
    for said, meaning in EXPLANATIONS:
        if said in lowered:
            return meaning
    lines = [line.strip() for line in complaints.splitlines() if line.strip()]
    return f"cannot be read (ffmpeg: {lines[-1][:200]})" if lines else "cannot be read (ffmpeg gave no reason)"


def run(command: Sequence[str], on_line: Callable[[str], None] | None = None) -> tuple[int, bytes, str]:
    """Runs a command to its end; nothing it writes reaches the terminal.

    Args:
        command: the whole command line.
        on_line: called with each line of standard output as it comes, for progress.

    Returns:
        Exit status, standard output (empty if `on_line` took it) and standard error.
    """
    if on_line is None:
        done = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, check=False)
        return done.returncode, done.stdout, done.stderr.decode("utf-8", "replace")
    with Pipe(command) as pipe:
        for line in pipe.output:
            on_line(line.decode("utf-8", "replace").strip())
        return pipe.finish(), b"", pipe.complaints()


class Pipe:
    """A running ffmpeg whose standard output is read bit by bit; leaving the `with` block ends it in any case."""

    def __init__(self, command: Sequence[str]) -> None:
        self._process = subprocess.Popen(
            command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE, bufsize=1 << 16
        )
        assert isinstance(self._process.stdout, io.BufferedReader)
        self.output = self._process.stdout
        self._complaints: deque[str] = deque(maxlen=KEPT_COMPLAINTS)
        # Someone must drain standard error all the time, or a chatty ffmpeg blocks on a full pipe.
        self._listener = threading.Thread(target=self._listen, name="ffmpeg-stderr", daemon=True)
        self._listener.start()

    def _listen(self) -> None:
        assert self._process.stderr is not None
        for line in self._process.stderr:
            self._complaints.append(line.decode("utf-8", "replace"))

    def __enter__(self) -> Pipe:
        return self

    def __exit__(self, *_: object) -> None:
        if self._process.poll() is None:
            self._process.kill()
        self._process.wait()
        self._listener.join()
        for stream in (self._process.stdout, self._process.stderr):
            if stream is not None:
                stream.close()

    def finish(self) -> int:
        """Waits for the end after the output was read; gives the exit status."""
        status = self._process.wait()
        self._listener.join()
        return status

    def complaints(self) -> str:
        """The last lines that ffmpeg wrote on its standard error."""
        return "".join(self._complaints)


@contextlib.contextmanager
def written_whole(out: Path) -> Iterator[Path]:
    """A name beside `out` to write to; it becomes `out` if the block succeeds and vanishes if it does not."""
    beside = out.with_name(f".{out.stem}.{os.getpid()}-{threading.get_ident()}.part{out.suffix}")
    try:
        yield beside
        beside.replace(out)
    finally:
        beside.unlink(missing_ok=True)
