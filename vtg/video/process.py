"""Find and run the ffmpeg binary with limits on memory and on time without progress, and explain its errors.

Every ffmpeg process that vtg starts is started here. It is limited to 1.5 GB of memory, is stopped when it makes no
progress, and ends when this process ends, also when that is killed (`vtg.video.child_processes`).
"""

from __future__ import annotations

import contextlib
import functools
import io
import re
import shutil
import threading
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import IO, TYPE_CHECKING, cast

import vtg.video.child_processes as child_processes
from vtg.errors import VtgError
from vtg.video.containers import absolute
from vtg.video.limits import MAX_PROCESS_MEMORY

if TYPE_CHECKING:
    from _typeshed import WriteableBuffer

__all__ = ["Pipe", "explain", "feed", "ffmpeg_binary", "ffmpeg_candidates", "run"]

MIN_VERSION = (5, 1)  # of ffmpeg; stated in the README
MIN_LIBAVUTIL = (57, 28)  # the library version of that release, for builds without a release number
VERSION_TIMEOUT_SECONDS = 10.0  # of `ffmpeg -version`
STALL_SECONDS = 20.0  # without progress, after which a process is stopped
STALL_SECONDS_WITHOUT_IO_COUNTS = 60.0  # the same where the system does not count what a process reads (macOS)
POLL_SECONDS = 0.5  # between two checks of a process's progress
PROGRESS_KEYS = frozenset({"frame", "out_time_us", "total_size"})  # of ffmpeg's progress reports that are compared
READ_BUFFER_BYTES = 1 << 15  # that ffmpeg reads of a file at a time
MAX_OUTPUT_BYTES = 64 << 20  # of standard output that `run` returns
MAX_LINE_BYTES = 1 << 16  # a longer line is split
MAX_HEADER_CHARACTERS = 1 << 20  # of the beginning of standard error
MAX_STDERR_LINES = 40  # of the end of standard error, to explain a failure

STOP_PREFIX = "stopped by vtg: "  # of the line that says why a process was stopped; the rest is for users
OUT_OF_MEMORY = (
    f"needs more than {MAX_PROCESS_MEMORY / 1e9:.1f} GB of memory, which is the limit: "
    "the file is damaged, or its frames are too large; make a smaller copy"
)

# Text in ffmpeg's messages, in lower case, and the message for the user; the first match counts.
EXPLANATIONS = (
    ("cannot allocate memory", OUT_OF_MEMORY),
    ("out of memory", OUT_OF_MEMORY),
    ("malloc of size", OUT_OF_MEMORY),
    ("bad_alloc", OUT_OF_MEMORY),
    ("get_buffer() failed", OUT_OF_MEMORY),
    ("frame_thread_encoder_init failed", OUT_OF_MEMORY),  # no memory for the stacks of its threads
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
    """Path of the ffmpeg binary: the one on PATH if it works and is 5.1 or newer, else that of imageio-ffmpeg.

    Raises:
        VtgError: neither is usable.
    """
    faults = []
    for binary, fault in ffmpeg_candidates():
        if not fault:
            return binary
        faults.append(f"{binary} {fault}")
    lowest = ".".join(map(str, MIN_VERSION))
    found = f" ({'; '.join(faults)})" if faults else ""
    raise VtgError(f"no usable ffmpeg found{found}: install ffmpeg {lowest} or newer, or `pip install imageio-ffmpeg`")


def ffmpeg_candidates() -> Iterator[tuple[str, str]]:
    """The ffmpeg on PATH and imageio-ffmpeg's, where they are, each with why it cannot be used; "" if it can."""
    for find in (_ffmpeg_on_path, _bundled_ffmpeg):
        binary = find()
        if binary is not None:
            yield binary, _find_fault(binary) or ""


def _ffmpeg_on_path() -> str | None:
    found = shutil.which("ffmpeg")
    return None if found is None else absolute(found)


def _bundled_ffmpeg() -> str | None:
    import imageio_ffmpeg

    try:
        return str(imageio_ffmpeg.get_ffmpeg_exe())
    except RuntimeError:
        return None


def _find_fault(binary: str) -> str | None:
    """The reason why an ffmpeg binary cannot be used; None if it can."""
    try:
        status, output, _ = run([binary, "-version"], stall_seconds=VERSION_TIMEOUT_SECONDS)
    except VtgError:
        return "cannot be started"
    text = output.decode("utf-8", "replace")
    if status or not text.startswith("ffmpeg version "):
        return "does not work"
    # "6.0", "n7.1-3-gabc", "5.1.9-0+deb12u1"; builds between releases have a date or a number of commits instead.
    release = re.match(r"ffmpeg version n?(\d{1,2})\.(\d+)", text)
    library = re.search(r"^\s*libavutil\s+(\d+)\.\s*(\d+)\.", text, re.M)
    if release:
        is_new = (int(release[1]), int(release[2])) >= MIN_VERSION
    elif library:
        is_new = (int(library[1]), int(library[2])) >= MIN_LIBAVUTIL
    else:
        return "reports no version"
    version = text.split()[2]
    return None if is_new else f"is version {version}, which is too old"


def explain(error_output: str) -> str:
    """Explain ffmpeg's standard error in one line, which follows "path: "."""
    lines = [line.strip() for line in error_output.splitlines() if line.strip()]
    if lines and lines[-1].startswith(STOP_PREFIX):
        return lines[-1].removeprefix(STOP_PREFIX)
    lowered = error_output.lower()
    for stderr, meaning in EXPLANATIONS:
        if stderr in lowered:
            return meaning
    return f"cannot be read (ffmpeg: {lines[-1][:200]})" if lines else "cannot be read (ffmpeg gave no reason)"


def run(
    command: Sequence[str], on_line: Callable[[str], None] | None = None, stall_seconds: float | None = None
) -> tuple[int, bytes, str]:
    """Run a command to its end; nothing it writes reaches the terminal.

    Args:
        command: the whole command line.
        on_line: called with each line of standard output, for progress.
        stall_seconds: seconds without progress after which the command is stopped; see `Pipe`.

    Returns:
        Exit status, standard output (empty with `on_line`) and standard error. A command that was stopped because it
        made no progress, or wrote more than 64 MiB of output, has a status other than 0, and `explain` gives the
        reason from its standard error.

    Raises:
        VtgError: it cannot be started.
    """
    with Pipe(command, stall_seconds) as pipe:
        if on_line is not None:
            while line := pipe.output.readline(MAX_LINE_BYTES):
                text = line.decode("utf-8", "replace").strip()
                pipe.record_progress(text)
                on_line(text)
            return pipe.finish(), b"", pipe.error_output()
        output = pipe.output.read(MAX_OUTPUT_BYTES)
        if pipe.output.read(1):
            pipe.stop(f"is damaged: ffmpeg wrote more than {MAX_OUTPUT_BYTES >> 20} MiB about it; copy it again")
        return pipe.finish(), output, pipe.error_output(whole=True)


def feed(command: Sequence[str], chunks: Iterable[bytes]) -> tuple[int, str]:
    """Run a command to its end, writing to its standard input.

    Args:
        command: the whole command line.
        chunks: the input; iteration stops when the command stops reading.

    Returns:
        Exit status and the last lines of standard error.

    Raises:
        VtgError: it cannot be started.
    """
    with Pipe(command, is_fed=True) as pipe:
        for chunk in chunks:
            if not pipe.write(chunk):
                break
        return pipe.finish(), pipe.error_output()


class Pipe:
    """A running command whose standard output is read incrementally; leaving the `with` block ends the command.

    While the caller waits for it, the command has to make progress: read, write output, or write the file that is the
    last word of its command line. Time in which the caller does not wait is not counted.

    Args:
        command: the whole command line.
        stall_seconds: seconds without progress after which it is stopped; None: 20, or 60 where the system does not
            count what it reads.
        is_fed: its standard input is written with `write`; its output is not read.

    Attributes:
        output: its standard output.

    Raises:
        VtgError: it cannot be started.
    """

    def __init__(self, command: Sequence[str], stall_seconds: float | None = None, is_fed: bool = False) -> None:
        self._process = child_processes.start(command, is_fed)
        assert self._process.stdout is not None and self._process.stderr is not None
        self._stall_seconds = stall_seconds
        # An ffmpeg that is stuck goes on sending progress reports: their values count, not their arrival.
        self._reports = "-progress" in command
        self._progress_values: dict[str, str] = {}
        self._out = Path(command[-1])
        self._received = 0
        self._bytes_read = 0
        self._is_waiting = False
        self._ended = threading.Event()
        self._stop_reason: str | None = None
        self.output = io.BufferedReader(_MonitoredOutput(self, self._process.stdout), 1 << 16)
        self._header: list[str] = []
        self._header_left = MAX_HEADER_CHARACTERS
        self._stderr_lines: deque[str] = deque(maxlen=MAX_STDERR_LINES)
        # Standard error is read all the time: ffmpeg would block on a full pipe.
        self._stderr_reader = threading.Thread(target=self._read_stderr, name="ffmpeg-stderr", daemon=True)
        self._watchdog = threading.Thread(target=self._stop_when_stalled, name="ffmpeg-progress", daemon=True)
        self._stderr_reader.start()
        self._watchdog.start()

    def __enter__(self) -> Pipe:
        return self

    def __exit__(self, *_: object) -> None:
        child_processes.kill(self._process)
        self.finish()
        for stream in (self._process.stdin, self._process.stdout, self._process.stderr):
            if stream is not None:
                stream.close()

    def record_progress(self, line: str) -> None:
        """Record a line of ffmpeg's progress reports."""
        key, _, value = line.partition("=")
        if key in PROGRESS_KEYS:
            self._progress_values[key] = value

    def write(self, chunk: bytes) -> bool:
        """Write to the command's standard input; returns False if it no longer reads."""
        assert self._process.stdin is not None
        rest = memoryview(chunk)
        try:
            with self._count_as_waiting():
                while rest:
                    written = self._process.stdin.write(rest)
                    self._received += written
                    rest = rest[written:]
        except OSError:  # a broken pipe, which Windows calls an invalid argument
            return False
        return True

    def finish(self) -> int:
        """Wait for the end of the command, after its output was read; return the exit status."""
        if self._process.stdin is not None:
            with contextlib.suppress(OSError):
                self._process.stdin.close()
        with self._count_as_waiting():
            status = self._process.wait()
        self._ended.set()
        self._watchdog.join()
        self._stderr_reader.join()
        return 1 if self._stop_reason and not status else status

    def stop(self, reason: str) -> None:
        """Kill the command, which then counts as failed.

        Args:
            reason: for the user; follows "path: ".
        """
        self._stop_reason = reason
        child_processes.kill(self._process)

    def error_output(self, whole: bool = False) -> str:
        """The last lines of the command's standard error; with `whole` also its beginning, up to 1 MiB."""
        stderr = "".join([*(self._header if whole else ()), *self._stderr_lines])
        return stderr if self._stop_reason is None else f"{stderr}\n{STOP_PREFIX}{self._stop_reason}\n"

    @contextlib.contextmanager
    def _count_as_waiting(self) -> Iterator[None]:
        self._is_waiting = True
        try:
            yield
        finally:
            self._is_waiting = False

    def _read_stderr(self) -> None:
        lines = io.BufferedReader(cast(io.FileIO, self._process.stderr))
        while line := lines.readline(MAX_LINE_BYTES):
            if len(self._stderr_lines) == MAX_STDERR_LINES and self._header_left > 0:
                self._header.append(self._stderr_lines[0])
                self._header_left -= len(self._stderr_lines[0])
            self._stderr_lines.append(line.decode("utf-8", "replace"))

    def _stop_when_stalled(self) -> None:
        """Stop the command when it makes no progress."""
        before, since = None, time.monotonic()
        while not self._ended.wait(POLL_SECONDS):
            reached = self._progress() if self._is_waiting else None
            if reached is None or reached != before:
                before, since = reached, time.monotonic()
                continue
            stall_seconds = self._stall_seconds or (
                STALL_SECONDS_WITHOUT_IO_COUNTS if reached[0] is None else STALL_SECONDS
            )
            if time.monotonic() - since > stall_seconds:
                self.stop(
                    f"ffmpeg made no progress for {stall_seconds:.0f} s and was stopped: "
                    "the file is damaged, or a disk does not respond; try again"
                )
                return

    def _progress(self) -> tuple[object, ...]:
        """A value that changes while the command makes progress."""
        try:
            written = self._out.stat()
            out = (written.st_size, written.st_mtime_ns)
        except (OSError, ValueError):  # "pipe:1"; or not yet there
            out = None
        given = tuple(self._progress_values.values()) if self._reports else self._received
        read = child_processes.bytes_read(self._process)
        # Counted in whole buffers of ffmpeg, because a wrapper script that loops also reads a little.
        if read is not None and read >= self._bytes_read + READ_BUFFER_BYTES:
            self._bytes_read = read
        return None if read is None else self._bytes_read, given, out


class _MonitoredOutput(io.RawIOBase):
    """The standard output of a command; a read counts as waiting for progress."""

    def __init__(self, pipe: Pipe, output: IO[bytes]) -> None:
        assert isinstance(output, io.FileIO)
        self._pipe, self._raw = pipe, output

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: WriteableBuffer) -> int:
        with self._pipe._count_as_waiting():
            count = self._raw.readinto(buffer)
        self._pipe._received += count
        return count
