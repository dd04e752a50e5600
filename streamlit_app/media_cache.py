"""A cache of files made from videos (posters, previews, clips, playable copies) with a size limit."""

from __future__ import annotations

import contextlib
import hashlib
import os
import threading
from collections.abc import Callable
from pathlib import Path

from vtg.errors import VtgError

__all__ = ["MediaCache"]

MAX_CACHE_BYTES = 4 << 30  # total size of the files; the least recently used are deleted first


class MediaCache:
    """A folder of files that can be made again; a second request for a file waits while it is being made.

    Args:
        folder: of the files; created on first use, inside an existing library.
        limit: of all files together, bytes.
    """

    def __init__(self, folder: Path, limit: int = MAX_CACHE_BYTES) -> None:
        self.folder = folder
        self._limit = limit
        self._guard = threading.Lock()
        self._making: dict[str, threading.Lock] = {}

    def find(self, suffix: str, *what: object) -> Path | None:
        """The file, if it exists.

        Args:
            suffix: of its name.
            what: cache key: equal parts are the same file.
        """
        path = self._path(suffix, what)
        with contextlib.suppress(OSError):
            os.utime(path)  # marks it as recently used
            return path
        return None

    def get(self, suffix: str, *what: object, make: Callable[[Path], object]) -> Path:
        """The file, made first if it does not exist.

        Args:
            suffix: of its name.
            what: cache key: equal parts are the same file.
            make: writes the file to the given path.

        Raises:
            VtgError: from `make`, or the library does not exist any more.
        """
        path = self._path(suffix, what)
        if found := self.find(suffix, *what):
            return found
        with self._guard:
            lock = self._making.setdefault(path.name, threading.Lock())
        try:
            with lock:
                if found := self.find(suffix, *what):
                    return found
                if not self.folder.parent.is_dir():
                    raise VtgError(f"{self.folder.parent}: the library does not exist any more")
                self.folder.mkdir(exist_ok=True)
                make(path)
                self._trim(path)
        finally:
            with self._guard:
                self._making.pop(path.name, None)
        return path

    def _path(self, suffix: str, what: tuple[object, ...]) -> Path:
        digest = hashlib.sha256("\0".join(map(str, what)).encode()).hexdigest()[:32]
        return self.folder / f"{digest}{suffix}"

    def _trim(self, newest: Path) -> None:
        """Delete the least recently used files beyond the limit; safe in several threads at once."""
        files = []
        with contextlib.suppress(OSError):
            for file in os.scandir(self.folder):
                with contextlib.suppress(OSError):
                    status = file.stat()
                    files.append((status.st_mtime, status.st_size, Path(file.path)))
        total = sum(size for _, size, _ in files)
        for _, size, path in sorted(files):
            if total <= self._limit:
                return
            if path != newest and not path.name.startswith("."):
                with contextlib.suppress(
                    OSError
                ):  # Windows cannot delete a file that is being sent: the next call does
                    path.unlink()
                    total -= size
