"""Start child processes with limited memory that end when this process ends, also when it is killed.

On Linux and macOS a small supervisor process does this (`vtg.video._supervisor`), on Windows a job object.
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

CODE_MEMORY_BYTES = 100_000_000  # program and libraries, which the limit on data memory does not include
DATA_MEMORY_BYTES = MAX_PROCESS_MEMORY - CODE_MEMORY_BYTES
SUPERVISOR = Path(__file__).with_name("_supervisor.py")


def start(command: Sequence[str], is_fed: bool = False) -> subprocess.Popen[bytes]:
    """Start a command whose standard output and standard error are unbuffered pipes.

    Args:
        command: the whole command line.
        is_fed: standard input is a pipe as well; otherwise it is empty.

    Raises:
        VtgError: it cannot be started.
    """
    stdin = subprocess.PIPE if is_fed else subprocess.DEVNULL
    try:
        if sys.platform == "win32":
            import vtg.video._windows as _windows

            process = subprocess.Popen(
                command,
                stdin=stdin,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                bufsize=0,
                creationflags=subprocess.CREATE_NO_WINDOW,
            )
            _windows.adopt(process, DATA_MEMORY_BYTES)
            return process
        supervisor = [_python(), "-I", "-S", str(SUPERVISOR), str(os.getpid()), str(DATA_MEMORY_BYTES)]
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
    """Kill a process and everything it has started; does nothing if it has ended already."""
    if process.poll() is not None:
        return
    if sys.platform == "win32":
        process.kill()
    else:
        # The process may end at this moment; macOS reports a group that has just ended as a permission error.
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(process.pid, signal.SIGKILL)


def bytes_read(process: subprocess.Popen[bytes]) -> int | None:
    """Bytes read so far by the running processes that a child process has started, including itself.

    Args:
        process: from `start`.

    Returns:
        The sum, including bytes read from pipes; None where unknown.
    """
    if sys.platform == "win32":
        import vtg.video._windows as _windows

        return _windows.bytes_read(process)
    if not sys.platform.startswith("linux"):
        return None
    try:
        return sum(_read_by(pid) for pid in _descendants(process.pid))
    except (OSError, ValueError, IndexError):
        return None


def _read_by(pid: int) -> int:
    # Summed over threads, because the count of a process includes its children that have ended.
    files = [thread / "io" for thread in Path(f"/proc/{pid}/task").iterdir()]
    return sum(int(file.read_text().split(maxsplit=2)[1]) for file in files)  # "rchar: 123…"


def _descendants(pid: int) -> list[int]:
    """Process ids of all descendants of a process, without the process itself."""
    children = [int(word) for word in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]
    return [process for child in children for process in (child, *_descendants(child))]


def _python() -> str:
    # Where Python is embedded in another program, `sys.executable` is unset or is not Python.
    python = sys.executable or shutil.which("python3")
    if not python:
        raise VtgError("no Python interpreter found to supervise ffmpeg: put python3 on the PATH")
    return python
