"""Write files atomically to a local folder or an object store."""

from __future__ import annotations

import contextlib
import os
import posixpath
import secrets
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Protocol

from vtg.errors import VtgError
from vtg.extraction.remote import READING_ERRORS, file_system, is_url, local_path
from vtg.files.locks import Claims
from vtg.files.whole import ABANDONED_SECONDS, PART_SUFFIX, WholeFileWriter

__all__ = ["LocalPlace", "Place", "RemotePlace", "open_place"]

# In these a file appears when its upload is complete, and renaming copies it.
OBJECT_STORES = frozenset({"s3", "s3a", "gs", "gcs", "az", "abfs", "abfss"})


class Place(Protocol):
    """A folder that features are written to; names in it are paths with slashes."""

    name: str
    claims: Claims

    def check(self) -> None:
        """Check that it can be written to, without creating it; raises a VtgError if not."""

    def make(self) -> None:
        """Create it, if it does not exist."""

    def sizes(self, folder: str = "") -> dict[str, int]:
        """The names and sizes in bytes of all files below one of its folders."""

    def size(self, name: str) -> int | None:
        """Size of a file in bytes; None if it does not exist."""

    def read(self, names: list[str]) -> dict[str, bytes]:
        """The contents of small files, without those that do not exist."""

    def write(self, name: str, data: bytes) -> None:
        """Write a small file atomically."""

    def remove(self, name: str) -> None:
        """Remove a file, if it exists."""

    def path(self, name: str) -> Path:
        """The local path to write a large file to before it is published."""

    def publish(self, name: str) -> None:
        """Move a file that was written to `path` to its name."""

    def as_file(self, name: str) -> contextlib.AbstractContextManager[Path]:
        """Yield a local path to a file, valid during the block."""

    def is_abandoned(self, name: str) -> bool:
        """Whether an unfinished file is older than `ABANDONED_SECONDS`."""


def open_place(out: str) -> Place:
    """The place of a path or URL; nothing is created.

    Raises:
        VtgError: fsspec does not know the URL.
    """
    out = local_path(out)
    return RemotePlace(out) if is_url(out) else LocalPlace(Path(out).expanduser())


class LocalPlace:
    """A folder of the local file system.

    Args:
        root: the folder.
    """

    def __init__(self, root: Path) -> None:
        self._root = root
        self.name = str(root)
        self.claims = Claims(None)

    def check(self) -> None:
        """Check that it, or the nearest existing folder above it, can be written to.

        Raises:
            VtgError: it cannot.
        """
        existing = next(folder for folder in (self._root.absolute(), *self._root.absolute().parents) if folder.exists())
        try:
            with tempfile.TemporaryFile(dir=existing):
                pass
        except OSError as error:
            raise VtgError(f"{self._root}: cannot be written to ({error.strerror}); choose another OUT") from None

    def make(self) -> None:
        """Create the folder, and open its lock file."""
        self._root.mkdir(parents=True, exist_ok=True)
        self.claims = Claims(self._root / "extraction" / "claims")

    def sizes(self, folder: str = "") -> dict[str, int]:
        """See `Place`."""
        return dict(_sizes(self._root / folder, f"{folder}/" if folder else ""))

    def size(self, name: str) -> int | None:
        """See `Place`."""
        try:
            return (self._root / name).stat().st_size
        except OSError:
            return None

    def read(self, names: list[str]) -> dict[str, bytes]:
        """See `Place`."""
        found = {}
        for name in names:
            with contextlib.suppress(FileNotFoundError):
                found[name] = (self._root / name).read_bytes()
        return found

    def write(self, name: str, data: bytes) -> None:
        """See `Place`."""
        with WholeFileWriter(self._root / name) as file:
            file.write(data)
            file.complete()

    def remove(self, name: str) -> None:
        """See `Place`."""
        (self._root / name).unlink(missing_ok=True)

    def path(self, name: str) -> Path:
        """The final path: its writers are atomic themselves."""
        return self._root / name

    def publish(self, name: str) -> None:
        """Do nothing: the file was written to its final path."""

    @contextlib.contextmanager
    def as_file(self, name: str) -> Iterator[Path]:
        """See `Place`."""
        yield self._root / name

    def is_abandoned(self, name: str) -> bool:
        """See `Place`."""
        try:
            return (self._root / name).stat().st_mtime < time.time() - ABANDONED_SECONDS
        except OSError:
            return False


def _sizes(folder: Path, prefix: str) -> Iterator[tuple[str, int]]:
    try:
        entries = list(os.scandir(folder))
    except OSError:
        return
    for entry in entries:
        if entry.is_dir():
            yield from _sizes(Path(entry.path), f"{prefix}{entry.name}/")
        else:
            with contextlib.suppress(OSError):  # renamed in the meantime
                yield f"{prefix}{entry.name}", entry.stat().st_size


class RemotePlace:
    """A folder of a file system of fsspec, without locks.

    Args:
        url: the folder.

    Raises:
        VtgError: fsspec does not know the URL.
    """

    def __init__(self, url: str) -> None:
        self.name = url
        self.claims = Claims(None)
        self._system, self._root = file_system(url)
        protocols = self._system.protocol
        self._names = {protocols} if isinstance(protocols, str) else set(protocols)
        self._staging: Any = tempfile.TemporaryDirectory(prefix="vtg-")

    def check(self) -> None:
        """Check that it can be written to, by writing and removing a file.

        Raises:
            VtgError: it cannot.
        """
        probe = f"{self._root}/.vtg-{secrets.token_hex(4)}"
        try:
            is_new = not (self._names & OBJECT_STORES or self._system.exists(self._root))
            self._system.makedirs(self._root, exist_ok=True)
            self._system.pipe_file(probe, b"")
            self._system.rm_file(probe)
            if is_new:
                self._system.rmdir(self._root)
        except READING_ERRORS as error:
            raise VtgError(f"{self.name}: cannot be written to ({error}); choose another OUT") from None

    def make(self) -> None:
        """Do nothing: the folder is created with its first file."""

    def sizes(self, folder: str = "") -> dict[str, int]:
        """See `Place`."""
        self._system.invalidate_cache()
        try:
            found = self._system.find(posixpath.join(self._root, folder), detail=True)
        except FileNotFoundError:
            return {}
        return {self._inside(name): int(info.get("size") or 0) for name, info in found.items()}

    def _inside(self, path: str) -> str:
        return path.removeprefix(self._root).lstrip("/")

    def size(self, name: str) -> int | None:
        """See `Place`."""
        try:
            return int(self._system.info(f"{self._root}/{name}").get("size") or 0)
        except FileNotFoundError:
            return None

    def read(self, names: list[str]) -> dict[str, bytes]:
        """See `Place`."""
        if not names:
            return {}
        contents = self._system.cat([f"{self._root}/{name}" for name in names], on_error="omit")
        return {self._inside(path): bytes(content) for path, content in contents.items()}

    def write(self, name: str, data: bytes) -> None:
        """See `Place`."""
        staged = self.path(name)
        staged.parent.mkdir(parents=True, exist_ok=True)
        staged.write_bytes(data)
        self.publish(name)

    def remove(self, name: str) -> None:
        """See `Place`."""
        with contextlib.suppress(FileNotFoundError):
            self._system.rm_file(f"{self._root}/{name}")

    def path(self, name: str) -> Path:
        """A path in a temporary folder of this process."""
        return Path(self._staging.name, *name.split("/"))

    def publish(self, name: str) -> None:
        """Upload it; if incomplete uploads are visible, under another name first."""
        staged, final = self.path(name), f"{self._root}/{name}"
        self._system.makedirs(posixpath.dirname(final), exist_ok=True)
        if self._names & OBJECT_STORES:
            self._system.put_file(str(staged), final)
        else:
            part = f"{final}.{secrets.token_hex(4)}{PART_SUFFIX}"
            self._system.put_file(str(staged), part)
            self._system.mv(part, final)
        staged.unlink()

    @contextlib.contextmanager
    def as_file(self, name: str) -> Iterator[Path]:
        """See `Place`."""
        with tempfile.TemporaryDirectory(prefix="vtg-") as folder:
            copy = Path(folder, posixpath.basename(name))
            self._system.get_file(f"{self._root}/{name}", str(copy))
            yield copy

    def is_abandoned(self, name: str) -> bool:
        """See `Place`."""
        try:
            return bool(self._system.modified(f"{self._root}/{name}").timestamp() < time.time() - ABANDONED_SECONDS)
        except READING_ERRORS:
            return False
