"""Run ffmpeg: which binary, with bounds on memory and on time without progress, and its messages in words.

Every ffmpeg process that vtg starts is started here. It cannot outgrow 1.5 GB, is stopped when it makes no progress,
and ends when this process ends, however that ends (`vtg.video.children`).
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

from vtg.errors import VtgError
from vtg.video import children
from vtg.video.containers import absolute
from vtg.video.limits import MAX_PROCESS_MEMORY

if TYPE_CHECKING:
    from _typeshed import WriteableBuffer

__all__ = ["Pipe", "explain", "feed", "ffmpeg_binary", "ffmpeg_candidates", "run"]

LOWEST_VERSION = (5, 1)  # of ffmpeg; stated in the README
LOWEST_LIBAVUTIL = (57, 28)  # the library of that version, which tells the age of builds without a release's number
VERSION_SECONDS = 10.0  # in which an ffmpeg must tell its version
PROGRESS_SECONDS = 20.0  # without progress until a process is stopped
BLIND_PROGRESS_SECONDS = 60.0  # the same where the system does not tell what a process reads (macOS)
LOOK_SECONDS = 0.5  # between two looks at a process's progress
REACHED = frozenset({"frame", "out_time_us", "total_size"})  # what in ffmpeg's progress reports tells how far it is
READ_BUFFER = 1 << 15  # bytes that ffmpeg reads of a file at a time
MAX_OUTPUT = 64 << 20  # bytes of standard output that `run` gives back
MAX_LINE = 1 << 16  # bytes; a longer line is taken for several
MAX_HEADER = 1 << 20  # characters of standard error kept from its beginning
KEPT_COMPLAINTS = 40  # lines of ffmpeg's standard error kept from its end, to explain a failure

STOPPED = "stopped by vtg: "  # begins the line that tells why a process was stopped; what follows is for people
OUT_OF_MEMORY = (
    f"needs more than {MAX_PROCESS_MEMORY / 1e9:.1f} GB of memory, which is the limit: "
    "it is damaged, or its pictures are too large; make a smaller copy"
)

# What ffmpeg says, in lower case, and what a person should read; the first match wins.
EXPLANATIONS = (
    ("cannot allocate memory", OUT_OF_MEMORY),
    ("out of memory", OUT_OF_MEMORY),
    ("malloc of size", OUT_OF_MEMORY),
    ("bad_alloc", OUT_OF_MEMORY),
    ("get_buffer() failed", OUT_OF_MEMORY),
    ("frame_thread_encoder_init failed", OUT_OF_MEMORY),  # no room for the stacks of its threads
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
    """Path of the ffmpeg to run: the one on PATH if it works and is 5.1 or newer, else imageio-ffmpeg's.

    Raises:
        VtgError: neither is usable.
    """
    faults = []
    for binary, fault in ffmpeg_candidates():
        if not fault:
            return binary
        faults.append(f"{binary} {fault}")
    lowest = ".".join(map(str, LOWEST_VERSION))
    found = f" ({'; '.join(faults)})" if faults else ""
    raise VtgError(f"no usable ffmpeg found{found}: install ffmpeg {lowest} or newer, or `pip install imageio-ffmpeg`")


def ffmpeg_candidates() -> Iterator[tuple[str, str]]:
    """The ffmpeg on PATH and imageio-ffmpeg's, where they are, each with why it cannot be used; "" if it can."""
    for find in (_ffmpeg_on_path, _bundled_ffmpeg):
        binary = find()
        if binary is not None:
            yield binary, _fault(binary) or ""


def _ffmpeg_on_path() -> str | None:
    found = shutil.which("ffmpeg")
    return None if found is None else absolute(found)


def _bundled_ffmpeg() -> str | None:
    import imageio_ffmpeg

    try:
        return str(imageio_ffmpeg.get_ffmpeg_exe())
    except RuntimeError:
        return None


def _fault(binary: str) -> str | None:
    """Why an ffmpeg cannot be used; None if it can."""
    try:
        status, output, _ = run([binary, "-version"], patience=VERSION_SECONDS)
    except VtgError:
        return "cannot be started"
    text = output.decode("utf-8", "replace")
    if status or not text.startswith("ffmpeg version "):
        return "does not work"
    # "6.0", "n7.1-3-gabc", "5.1.9-0+deb12u1"; builds between releases have a date or a number of commits instead.
    release = re.match(r"ffmpeg version n?(\d{1,2})\.(\d+)", text)
    library = re.search(r"^\s*libavutil\s+(\d+)\.\s*(\d+)\.", text, re.M)
    if release:
        is_new = (int(release[1]), int(release[2])) >= LOWEST_VERSION
    elif library:
        is_new = (int(library[1]), int(library[2])) >= LOWEST_LIBAVUTIL
    else:
        return "does not tell its version"
    version = text.split()[2]
    return None if is_new else f"is version {version}, which is too old"


def explain(complaints: str) -> str:
    """One line in words for what ffmpeg wrote on its standard error."""
    lines = [line.strip() for line in complaints.splitlines() if line.strip()]
    if lines and lines[-1].startswith(STOPPED):
        return lines[-1].removeprefix(STOPPED)
    lowered = complaints.lower()
    for said, meaning in EXPLANATIONS:
        if said in lowered:
            return meaning
    return f"cannot be read (ffmpeg: {lines[-1][:200]})" if lines else "cannot be read (ffmpeg gave no reason)"


def run(
    command: Sequence[str], on_line: Callable[[str], None] | None = None, patience: float | None = None
) -> tuple[int, bytes, str]:
    """Runs a command to its end; nothing it writes reaches the terminal.

    Args:
        command: the whole command line.
        on_line: called with each line of standard output as it comes, for progress.
        patience: seconds without progress after which the command is stopped; see `Pipe`.

    Returns:
        Exit status, standard output (empty if `on_line` took it) and standard error. A command that was stopped
        because it made no progress, or gave more than 64 MiB of output, has a status other than 0, and `explain` tells
        why from its standard error.

    Raises:
        VtgError: it cannot be started.
    """
    with Pipe(command, patience) as pipe:
        if on_line is not None:
            while line := pipe.output.readline(MAX_LINE):
                text = line.decode("utf-8", "replace").strip()
                pipe.note_report(text)
                on_line(text)
            return pipe.finish(), b"", pipe.complaints()
        output = pipe.output.read(MAX_OUTPUT)
        if pipe.output.read(1):
            pipe.stop(f"cannot be read: ffmpeg finds more than {MAX_OUTPUT >> 20} MiB to tell of it; it is damaged")
        return pipe.finish(), output, pipe.complaints(whole=True)


def feed(command: Sequence[str], chunks: Iterable[bytes]) -> tuple[int, str]:
    """Runs a command to its end that reads what it is given on its standard input.

    Args:
        command: the whole command line.
        chunks: what it gets; the rest is not asked for once it has stopped to read.

    Returns:
        Exit status and the last lines of standard error.

    Raises:
        VtgError: it cannot be started.
    """
    with Pipe(command, is_fed=True) as pipe:
        for chunk in chunks:
            if not pipe.write(chunk):
                break
        return pipe.finish(), pipe.complaints()


class Pipe:
    """A running command whose standard output is read bit by bit; leaving the `with` block ends it in any case.

    While somebody waits for it, it has to make progress: to read, to give output, or to write the file that is the last
    word of its command line. Time in which nobody waits does not count.

    Args:
        command: the whole command line.
        patience: seconds without progress after which it is stopped; None: 20, or 60 where the system does not tell
            what it reads.
        is_fed: it gets its standard input by `write`; nothing is to be read from it.

    Attributes:
        output: its standard output.

    Raises:
        VtgError: it cannot be started.
    """

    def __init__(self, command: Sequence[str], patience: float | None = None, is_fed: bool = False) -> None:
        self._process = children.start(command, is_fed)
        assert self._process.stdout is not None and self._process.stderr is not None
        self._patience = patience
        # Progress reports go on coming from an ffmpeg that is stuck: what they say counts, not that they come.
        self._reports = "-progress" in command
        self._reached: dict[str, str] = {}
        self._out = Path(command[-1])
        self._received = 0
        self._most_read = 0
        self._is_waited_for = False
        self._ended = threading.Event()
        self._why_stopped: str | None = None
        self.output = io.BufferedReader(_Waiting(self, self._process.stdout), 1 << 16)
        self._header: list[str] = []
        self._header_room = MAX_HEADER
        self._complaints: deque[str] = deque(maxlen=KEPT_COMPLAINTS)
        # Someone must drain standard error all the time, or a chatty ffmpeg blocks on a full pipe.
        self._listener = threading.Thread(target=self._listen, name="ffmpeg-stderr", daemon=True)
        self._watchdog = threading.Thread(target=self._watch, name="ffmpeg-progress", daemon=True)
        self._listener.start()
        self._watchdog.start()

    def __enter__(self) -> Pipe:
        return self

    def __exit__(self, *_: object) -> None:
        children.kill(self._process)
        self.finish()
        for stream in (self._process.stdin, self._process.stdout, self._process.stderr):
            if stream is not None:
                stream.close()

    def note_report(self, line: str) -> None:
        """Learns from a line of ffmpeg's progress reports how far it is."""
        key, _, value = line.partition("=")
        if key in REACHED:
            self._reached[key] = value

    def write(self, chunk: bytes) -> bool:
        """Gives the command input; False if it does not read any more."""
        assert self._process.stdin is not None
        rest = memoryview(chunk)
        try:
            with self._waiting():
                while rest:
                    written = self._process.stdin.write(rest)
                    self._received += written
                    rest = rest[written:]
        except OSError:  # a broken pipe, which Windows calls an invalid argument
            return False
        return True

    def finish(self) -> int:
        """Waits for the end after the output was read; gives the exit status."""
        if self._process.stdin is not None:
            with contextlib.suppress(OSError):
                self._process.stdin.close()
        with self._waiting():
            status = self._process.wait()
        self._ended.set()
        self._watchdog.join()
        self._listener.join()
        return 1 if self._why_stopped and not status else status

    def stop(self, why: str) -> None:
        """Ends the command, which then counts as failed.

        Args:
            why: in words that follow "path: ".
        """
        self._why_stopped = why
        children.kill(self._process)

    def complaints(self, whole: bool = False) -> str:
        """What the command wrote on its standard error: the last lines; or its beginning, too, up to 1 MiB."""
        said = "".join([*(self._header if whole else ()), *self._complaints])
        return said if self._why_stopped is None else f"{said}\n{STOPPED}{self._why_stopped}\n"

    @contextlib.contextmanager
    def _waiting(self) -> Iterator[None]:
        self._is_waited_for = True
        try:
            yield
        finally:
            self._is_waited_for = False

    def _listen(self) -> None:
        lines = io.BufferedReader(cast(io.FileIO, self._process.stderr))
        while line := lines.readline(MAX_LINE):
            if len(self._complaints) == KEPT_COMPLAINTS and self._header_room > 0:
                self._header.append(self._complaints[0])
                self._header_room -= len(self._complaints[0])
            self._complaints.append(line.decode("utf-8", "replace"))

    def _watch(self) -> None:
        """Stops the command when it makes no progress."""
        before, since = None, time.monotonic()
        while not self._ended.wait(LOOK_SECONDS):
            reached = self._progress() if self._is_waited_for else None
            if reached is None or reached != before:
                before, since = reached, time.monotonic()
                continue
            patience = self._patience or (BLIND_PROGRESS_SECONDS if reached[0] is None else PROGRESS_SECONDS)
            if time.monotonic() - since > patience:
                self.stop(
                    f"ffmpeg made no progress for {patience:.0f} s and was stopped: "
                    "the file is damaged, or a disk does not respond"
                )
                return

    def _progress(self) -> tuple[object, ...]:
        """Grows or changes while the command gets on."""
        try:
            written = self._out.stat()
            out = (written.st_size, written.st_mtime_ns)
        except (OSError, ValueError):  # "pipe:1"; or not yet there
            out = None
        given = tuple(self._reached.values()) if self._reports else self._received
        read = children.bytes_read(self._process)
        # By whole buffers of ffmpeg: a script that waits in a loop starts programs that read a little, too.
        if read is not None and read >= self._most_read + READ_BUFFER:
            self._most_read = read
        return None if read is None else self._most_read, given, out


class _Waiting(io.RawIOBase):
    """The standard output of a command; somebody waits for it while it is read."""

    def __init__(self, pipe: Pipe, output: IO[bytes]) -> None:
        assert isinstance(output, io.FileIO)
        self._pipe, self._raw = pipe, output

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: WriteableBuffer) -> int:
        with self._pipe._waiting():
            count = self._raw.readinto(buffer)
        self._pipe._received += count
        return count
