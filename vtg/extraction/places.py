"""Write whole files to a folder of this machine or to an object store."""

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
from vtg.files.whole import ABANDONED_SECONDS, PART, WholeFileWriter

__all__ = ["LocalPlace", "Place", "RemotePlace", "open_place"]

# In these a file is there when it has been sent, and a rename is a copy.
OBJECT_STORES = frozenset({"s3", "s3a", "gs", "gcs", "az", "abfs", "abfss"})


class Place(Protocol):
    """A folder that features are written to; names in it have slashes between their parts."""

    name: str
    claims: Claims

    def check(self) -> None:
        """Try whether it can be written to, without making it; VtgError where it cannot."""

    def make(self) -> None:
        """Make it, if it is not there."""

    def sizes(self, folder: str = "") -> dict[str, int]:
        """The names of all files below one of its folders, with their bytes."""

    def size(self, name: str) -> int | None:
        """Bytes of a file; None where it is not there."""

    def read(self, names: list[str]) -> dict[str, bytes]:
        """The contents of small files, without those that are not there."""

    def write(self, name: str, data: bytes) -> None:
        """Write a small file, which appears whole."""

    def remove(self, name: str) -> None:
        """Remove a file, if it is there."""

    def path(self, name: str) -> Path:
        """Where a large file is to be written whole before it is published."""

    def publish(self, name: str) -> None:
        """Let a file that was written to `path` appear under its name."""

    def as_file(self, name: str) -> contextlib.AbstractContextManager[Path]:
        """A file of it as one on this machine's disk, for as long as the block lasts."""

    def is_abandoned(self, name: str) -> bool:
        """Whether an unfinished file is so old that nobody can be writing to it."""


def open_place(out: str) -> Place:
    """The place that a path or a URL names; nothing is made yet.

    Raises:
        VtgError: fsspec does not know the URL.
    """
    out = local_path(out)
    return RemotePlace(out) if is_url(out) else LocalPlace(Path(out).expanduser())


class LocalPlace:
    """A folder on this machine's disk, or one that looks like it.

    Args:
        root: the folder.
    """

    def __init__(self, root: Path) -> None:
        self._root = root
        self.name = str(root)
        self.claims = Claims(None)

    def check(self) -> None:
        """Write to it, or to the nearest folder above it that is there.

        Raises:
            VtgError: that fails.
        """
        there = next(folder for folder in (self._root.absolute(), *self._root.absolute().parents) if folder.exists())
        try:
            with tempfile.TemporaryFile(dir=there):
                pass
        except OSError as error:
            raise VtgError(f"{self._root}: cannot be written to ({error.strerror}); choose another OUT") from None

    def make(self) -> None:
        """Make the folder, and open its locks."""
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
        """The final one: who writes there makes files appear whole."""
        return self._root / name

    def publish(self, name: str) -> None:
        """Nothing is left to do."""

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
            with contextlib.suppress(OSError):  # it has just been renamed
                yield f"{prefix}{entry.name}", entry.stat().st_size


class RemotePlace:
    """A folder that fsspec reaches; there are no locks in it.

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
        """Write to it, and leave it as it was.

        Raises:
            VtgError: that fails.
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
        """Nothing: a folder elsewhere comes with its first file."""

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
        """A folder that goes with this process."""
        return Path(self._staging.name, *name.split("/"))

    def publish(self, name: str) -> None:
        """Send it; where files grow while they are sent, under another name first."""
        staged, final = self.path(name), f"{self._root}/{name}"
        self._system.makedirs(posixpath.dirname(final), exist_ok=True)
        if self._names & OBJECT_STORES:
            self._system.put_file(str(staged), final)
        else:
            part = f"{final}.{secrets.token_hex(4)}{PART}"
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
