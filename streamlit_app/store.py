"""Small files made from videos for looking at: posters, previews, clips and playable copies, kept up to a size."""

from __future__ import annotations

import contextlib
import hashlib
import os
import threading
from collections.abc import Callable
from pathlib import Path

from vtg.errors import VtgError

__all__ = ["MadeFiles"]

LIMIT_BYTES = 4 << 30  # of all made files together; those not looked at for longest go first


class MadeFiles:
    """A folder of files that can be made again; whoever asks for one that is being made waits for it.

    Args:
        folder: where they are; made when first needed, inside a library that exists.
        limit: bytes of all files together.
    """

    def __init__(self, folder: Path, limit: int = LIMIT_BYTES) -> None:
        self.folder = folder
        self._limit = limit
        self._guard = threading.Lock()
        self._making: dict[str, threading.Lock] = {}

    def find(self, suffix: str, *what: object) -> Path | None:
        """The file if it has been made already.

        Args:
            suffix: of its name.
            what: it is made from; the same parts are the same file.
        """
        path = self._path(suffix, what)
        with contextlib.suppress(OSError):
            os.utime(path)  # being asked for keeps it
            return path
        return None

    def get(self, suffix: str, *what: object, make: Callable[[Path], object]) -> Path:
        """The file, made first where it is not there.

        Args:
            suffix: of its name.
            what: it is made from; the same parts are the same file.
            make: writes it to the path that it is given.

        Raises:
            VtgError: whatever `make` raises, or the library is gone.
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
                    raise VtgError(f"{self.folder.parent}: the library is not there any more")
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
        """Drop what was not asked for longest; several threads may do it at once."""
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
                with contextlib.suppress(OSError):  # one that is being sent cannot be deleted on Windows: next time
                    path.unlink()
                    total -= size
