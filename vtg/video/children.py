"""Starts child processes with limited memory that end when this process ends, however it ends.

On Linux and macOS a small supervisor process stands between (see `vtg.video._supervisor`), on Windows a job object.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

from vtg.errors import VtgError
from vtg.video.limits import MAX_PROCESS_MEMORY

__all__ = ["bytes_read", "kill", "start"]

CODE_MEMORY = 100_000_000  # bytes of a process that the limit on its data does not count: program and libraries
DATA_MEMORY = MAX_PROCESS_MEMORY - CODE_MEMORY
SUPERVISOR = Path(__file__).with_name("_supervisor.py")


def start(command: Sequence[str], is_fed: bool = False) -> subprocess.Popen[bytes]:
    """Starts a command; its output, its complaints and, if asked, its input are unbuffered pipes.

    Args:
        command: the whole command line.
        is_fed: its standard input is a pipe, too, instead of nothing.

    Raises:
        VtgError: it cannot be started.
    """
    stdin = subprocess.PIPE if is_fed else subprocess.DEVNULL
    try:
        if sys.platform == "win32":
            from vtg.video import _windows

            process = subprocess.Popen(
                command,
                stdin=stdin,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                bufsize=0,
                creationflags=subprocess.CREATE_NO_WINDOW,
            )
            _windows.adopt(process, DATA_MEMORY)
            return process
        supervisor = [_python(), "-I", "-S", str(SUPERVISOR), str(os.getpid()), str(DATA_MEMORY)]
        return subprocess.Popen(
            [*supervisor, *command],
            stdin=stdin,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            bufsize=0,
            start_new_session=True,  # its own process group, which `kill` ends as a whole
        )
    except OSError as error:
        raise VtgError(f"{command[0]}: cannot be started: {error.strerror or error}") from None


def kill(process: subprocess.Popen[bytes]) -> None:
    """Ends a process and what it has started, at once; nothing happens if it has ended already."""
    if process.poll() is not None:
        return
    if sys.platform == "win32":
        process.kill()
    else:
        # It may end at this very moment; of a group that has just ended, macOS says that it is not ours.
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(process.pid, signal.SIGKILL)


def bytes_read(process: subprocess.Popen[bytes]) -> int | None:
    """Bytes that those processes have read which a child has become or started and that still run.

    Args:
        process: what `start` gave.

    Returns:
        The sum, what is read from pipes included; None where it cannot be told.
    """
    if sys.platform == "win32":
        from vtg.video import _windows

        return _windows.bytes_read(process)
    if not sys.platform.startswith("linux"):
        return None
    try:
        return sum(_read_by(pid) for pid in _descendants(process.pid))
    except (OSError, ValueError, IndexError):
        return None


def _read_by(pid: int) -> int:
    # By threads, because what a process has read includes what its ended children have.
    files = [thread / "io" for thread in Path(f"/proc/{pid}/task").iterdir()]
    return sum(int(file.read_text().split(maxsplit=2)[1]) for file in files)  # "rchar: 123…"


def _descendants(pid: int) -> list[int]:
    """Children of a process and theirs; not the process itself."""
    children = [int(word) for word in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]
    return [process for child in children for process in (child, *_descendants(child))]


def _python() -> str:
    # Where Python is embedded in another program, there is no executable, or not one that runs Python.
    python = sys.executable or shutil.which("python3")
    if not python:
        raise VtgError("no Python found to watch over ffmpeg: put python3 on the PATH")
    return python
