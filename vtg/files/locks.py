"""Locks between processes: on an open file, and on names that many processes may claim."""

from __future__ import annotations

import contextlib
import errno
import hashlib
import os
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

__all__ = ["Claims", "hold_lock", "lock_handle"]

# A claim is a lock on one byte of an empty file, which the system releases when the process ends. Offsets fit in 31
# bits, the limit of Windows' function.
OFFSET_RANGE = 1 << 30
RETRY_SECONDS = 0.05
MAX_WAIT_SECONDS = 10.0
LOCKED_ERRORS = {errno.EACCES, errno.EAGAIN, errno.EDEADLK}


class Claims:
    """Claims of this process on names; no other process with the same file can claim them at the same time.

    Claims exclude other processes, not threads of this one. On file systems without locks every claim succeeds.

    Args:
        path: the lock file; None for no locks.
    """

    def __init__(self, path: Path | None) -> None:
        self._lock = threading.Lock()
        self._handle = -1
        if path is not None:
            path.parent.mkdir(parents=True, exist_ok=True)
            self._handle = os.open(path, os.O_RDWR | os.O_CREAT | getattr(os, "O_BINARY", 0), 0o666)

    @property
    def are_kept(self) -> bool:
        """Whether claims exclude other processes; False once the file system turns out to have no locks."""
        return self._handle >= 0

    def close(self) -> None:
        """Release all claims."""
        if self._handle >= 0:
            os.close(self._handle)
            self._handle = -1

    def take(self, name: str) -> bool:
        """Claim a name; False if another process has claimed it."""
        with self._lock:
            if not self.are_kept:
                return True
            try:
                _lock_byte(self._handle, _offset(name))
            except OSError as error:
                if error.errno in LOCKED_ERRORS:
                    return False
                self.close()  # a network file system without locks
            return True

    def release(self, name: str) -> None:
        """Release a name."""
        with self._lock, contextlib.suppress(OSError):
            if self.are_kept:
                _unlock_byte(self._handle, _offset(name))

    @contextlib.contextmanager
    def held(self, name: str) -> Iterator[None]:
        """Claim a name that is held briefly; the block is entered after `MAX_WAIT_SECONDS` at the latest."""
        until = time.monotonic() + MAX_WAIT_SECONDS
        while not self.take(name) and time.monotonic() < until:
            time.sleep(RETRY_SECONDS)
        try:
            yield
        finally:
            self.release(name)


def lock_handle(handle: int) -> bool | None:
    """Lock an open file exclusively, until the handle is closed or the process ends.

    Args:
        handle: of a file that is open for writing.

    Returns:
        Whether it is locked: False if another handle has the lock, None if the file system has no locks.
    """
    try:
        _lock_file(handle)
    except (BlockingIOError, PermissionError):
        return False
    except OSError:
        return None
    return True


@contextlib.contextmanager
def hold_lock(path: Path) -> Iterator[None]:
    """Hold the lock of a file, which is created if it is missing; waits while another process or thread holds it.

    If the file system has no locks, the block is entered at once.
    """
    handle = os.open(path, os.O_RDWR | os.O_CREAT, 0o666)
    try:
        while lock_handle(handle) is False:
            time.sleep(RETRY_SECONDS)
        yield
    finally:
        os.close(handle)


def _offset(name: str) -> int:
    return int.from_bytes(hashlib.sha256(name.encode("utf-8", "surrogatepass")).digest()[:8], "big") % OFFSET_RANGE


if sys.platform == "win32":
    import msvcrt

    def _lock_file(handle: int) -> None:
        msvcrt.locking(handle, msvcrt.LK_NBLCK, 1)

    def _lock_byte(handle: int, offset: int) -> None:
        os.lseek(handle, offset, os.SEEK_SET)
        msvcrt.locking(handle, msvcrt.LK_NBLCK, 1)

    def _unlock_byte(handle: int, offset: int) -> None:
        os.lseek(handle, offset, os.SEEK_SET)
        msvcrt.locking(handle, msvcrt.LK_UNLCK, 1)

else:
    import fcntl

    def _lock_file(handle: int) -> None:
        # Not lockf, whose locks belong to the process and so do not exclude its other threads.
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)

    def _lock_byte(handle: int, offset: int) -> None:
        fcntl.lockf(handle, fcntl.LOCK_EX | fcntl.LOCK_NB, 1, offset, os.SEEK_SET)

    def _unlock_byte(handle: int, offset: int) -> None:
        fcntl.lockf(handle, fcntl.LOCK_UN, 1, offset, os.SEEK_SET)
