"""What is seen of a case's processes from outside: memory, time, what inotify and strace tell, what is left behind."""

from __future__ import annotations

import contextlib
import ctypes
import os
import re
import shutil
import signal
import struct
import subprocess
import time
from pathlib import Path

from .child import CASE_VARIABLE

__all__ = ["Canary", "Tracer", "adopt_orphans", "descendants", "end_orphans", "largest"]

IN_ACCESS, IN_MODIFY, IN_OPEN, IN_CREATE, IN_DELETE = 0x1, 0x2, 0x20, 0x100, 0x200
IN_MOVED = 0xC0
EVENT = struct.Struct("iIII")
SET_CHILD_SUBREAPER = 36
ORPHAN_SECONDS = 1.0  # in which processes end whose parent has
PAGE = os.sysconf("SC_PAGE_SIZE")
ATTACH_SECONDS = 10.0
CONTACT = re.compile(r"(connect|sendto|sendmsg|bind)\(\d+, .*?sa_family=AF_(INET6?)")
OPENED = re.compile(r'\b(?:openat|open|creat|openat2)\((?:AT_FDCWD(?:<[^>]*>)?, )?"((?:[^"\\]|\\.)*)", ?([^)]*)\) = \d')
HARMLESS = ("/dev/", "/proc/", "/sys/")

_libc = ctypes.CDLL(None, use_errno=True)


class Canary:
    """Files that nobody may touch, watched by the kernel.

    Args:
        folder: that holds them.
    """

    def __init__(self, folder: Path) -> None:
        self._handle = _libc.inotify_init1(os.O_NONBLOCK | os.O_CLOEXEC)
        mask = IN_ACCESS | IN_MODIFY | IN_OPEN | IN_CREATE | IN_DELETE | IN_MOVED
        if self._handle < 0 or _libc.inotify_add_watch(self._handle, os.fsencode(folder), mask) < 0:
            raise OSError(ctypes.get_errno(), "inotify", str(folder))

    def touched(self) -> list[str]:
        """The names of those that were, in order; closes the watch."""
        names = []
        with contextlib.suppress(BlockingIOError):
            while data := os.read(self._handle, 1 << 16):
                place = 0
                while place < len(data):
                    _, _, _, length = EVENT.unpack_from(data, place)
                    place += EVENT.size
                    # Looking into the folder is no harm: a search for subtitles and moved files does.
                    if length:
                        names.append(data[place : place + length].rstrip(b"\0").decode())
                    place += length
        os.close(self._handle)
        return list(dict.fromkeys(names))


class Tracer:
    """strace on one process and all that it starts; nothing where there is none.

    Args:
        pid: the process, which waits until this is there.
        log: the file that strace writes.
    """

    def __init__(self, pid: int, log: Path) -> None:
        self._log = log
        words = ["strace", "-f", "-qq", "-s", "4096", "-e", "trace=%network,%file", "-o", str(log), "-p", str(pid)]
        self._process = subprocess.Popen(words, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        deadline = time.monotonic() + ATTACH_SECONDS
        while time.monotonic() < deadline and self._process.poll() is None:
            with contextlib.suppress(OSError):
                if not re.search(r"TracerPid:\s+0\n", Path(f"/proc/{pid}/status").read_text()):
                    return

    @staticmethod
    def exists() -> bool:
        """Whether it can be used here."""
        return shutil.which("strace") is not None

    def findings(self, folder: Path, beside: Path) -> list[str]:
        """What it saw that should not have been.

        Args:
            folder: of the case, where it may write.
            beside: files that it may not open.
        """
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._process.wait(ATTACH_SECONDS)
        if self._process.poll() is None:
            self._process.kill()
            self._process.wait()
        seen: dict[str, None] = {}
        text = self._log.read_text(errors="replace") if self._log.exists() else ""
        for line in text.splitlines():
            if found := CONTACT.search(line):
                seen[f"contacts the network: {found[1]} {found[2]}"] = None
            if found := OPENED.search(line):
                name, flags = found[1], found[2]
                if name.startswith("/") and not name.startswith((f"{folder}/", *HARMLESS)):
                    if re.search(r"O_WRONLY|O_RDWR|O_CREAT", flags):
                        seen[f"writes elsewhere: {name}"] = None
                elif f"{beside}/" in name and "O_DIRECTORY" not in flags:
                    seen[f"opens another file: {name}"] = None
        return list(seen)[:5]


def adopt_orphans() -> None:
    """Become the parent of what is left behind by processes that this one has started."""
    _libc.prctl(SET_CHILD_SUBREAPER, 1, 0, 0, 0)


def descendants(pid: int) -> list[int]:
    """A process's children and theirs."""
    found: list[int] = []
    with contextlib.suppress(OSError, ValueError):
        for child in map(int, Path(f"/proc/{pid}/task/{pid}/children").read_text().split()):
            found += [child, *descendants(child)]
    return found


def largest(pid: int) -> int:
    """Bytes resident of the largest of a process and its descendants."""
    most = 0
    for each in (pid, *descendants(pid)):
        with contextlib.suppress(OSError, ValueError, IndexError):
            most = max(most, int(Path(f"/proc/{each}/statm").read_bytes().split()[1]) * PAGE)
    return most


def end_orphans(folder: Path) -> list[str]:
    """End the processes that a case has left behind; those that are still there after a second are named."""
    mark = f"{CASE_VARIABLE}={folder}".encode()

    def left() -> dict[int, str]:
        found = {}
        for pid in descendants(os.getpid()):
            with contextlib.suppress(OSError):
                place = Path(f"/proc/{pid}")
                if mark in (place / "environ").read_bytes().split(b"\0") and "Z" not in _state(place):
                    found[pid] = (place / "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
        return found

    deadline = time.monotonic() + ORPHAN_SECONDS
    while (there := left()) and time.monotonic() < deadline:
        time.sleep(0.05)
    for pid in there:
        with contextlib.suppress(OSError):
            os.kill(pid, signal.SIGKILL)
    return [f"leaves a process behind: {words[:150]}" for words in there.values()]


def _state(place: Path) -> str:
    return (place / "stat").read_text().rpartition(")")[2].split()[0]
