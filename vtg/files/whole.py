"""Write files atomically: under a temporary name beside the final one, then renamed.

`write_whole` yields a path to write to, and `working_folder` a temporary folder; what a killed process has left there
is removed by the next one that works in the same folder. `WholeFileWriter` writes a file in pieces, optionally after a
header that is written last. `fitted_name` and `check_name` limit the length of file names.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import re
import secrets
import shutil
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING

from vtg.errors import VtgError
from vtg.files.locks import lock_handle

if TYPE_CHECKING:
    import numpy as np

__all__ = [
    "ABANDONED_SECONDS",
    "PART_SUFFIX",
    "WholeFileWriter",
    "check_name",
    "fitted_name",
    "remove_abandoned_parts",
    "working_folder",
    "write_whole",
]

MAX_NAME_BYTES = 255  # in UTF-8, the limit of common file systems
LOCK_NAME = "lock"  # file in a working folder that its owner keeps locked
PART_SUFFIX = ".part"  # of a file that a `WholeFileWriter` is writing: NAME.TOKEN.part
ABANDONED_SECONDS = 3600.0  # age from which unfinished files count as abandoned on file systems without locks
MAX_ATTEMPTS = 100  # to create a new working folder or file
# If so, abandoned files are removed while they are locked, so that no other process can claim them in between.
CAN_REMOVE_OPEN_FILES = sys.platform != "win32"
WORKING_FOLDER = re.compile(r"\.vtg-[0-9a-f]{12}\.part")


@contextlib.contextmanager
def write_whole(out: str | os.PathLike[str]) -> Iterator[Path]:
    """Yield a path to write to, with the suffix of `out`; it is renamed to `out` if the block succeeds, else removed.

    Args:
        out: the file; its folder must exist.

    Raises:
        VtgError: the folder cannot be written to, the disk is full, or `out` cannot be replaced.
    """
    out = Path(out)
    check_name(out)
    with working_folder(out.parent) as folder:
        beside = folder / f"whole{out.suffix}"
        try:
            yield beside
        except OSError as error:
            if _is_of_reading(error, folder):
                raise
            reason = error.strerror or error
            raise VtgError(
                f"{out}: cannot be written ({reason}): free some disk space, or choose another folder"
            ) from None
        try:
            beside.replace(out)
        except PermissionError:
            raise VtgError(f"{out}: cannot be replaced: close it elsewhere, or choose another name") from None
        except OSError as error:
            raise VtgError(f"{out}: cannot be written ({error.strerror}): choose another folder") from None


def _is_of_reading(error: OSError, folder: Path) -> bool:
    """Whether an error is about a file outside a working folder, or not an error of the operating system."""
    name = error.filename
    if isinstance(name, (str, bytes, os.PathLike)):
        return folder not in Path(os.fsdecode(name)).parents
    return error.errno is None


@contextlib.contextmanager
def working_folder(place: str | os.PathLike[str]) -> Iterator[Path]:
    """Yield a new hidden folder for unfinished files, which is removed at the end.

    A file in it is locked while it is in use. After a process was killed the system releases the lock, and the next
    call for the same parent folder removes the working folder. Folders that are in use, that have another name or no
    lock file, or that are on file systems without locks are never removed.

    Args:
        place: the parent folder.

    Raises:
        VtgError: it cannot be created there.
    """
    place = Path(place)
    _remove_abandoned(place)
    folder, lock = _claimed_folder(place)
    try:
        yield folder
    finally:
        os.close(lock)  # first: Windows removes no open file
        shutil.rmtree(folder, ignore_errors=True)


def _claimed_folder(place: Path) -> tuple[Path, int]:
    """Create a working folder; return it and the handle of its locked file."""
    for _ in range(MAX_ATTEMPTS):
        folder = place / f".vtg-{secrets.token_hex(6)}.part"
        try:
            folder.mkdir()
            with contextlib.suppress(FileNotFoundError):
                lock = os.open(folder / LOCK_NAME, os.O_RDWR | os.O_CREAT, 0o600)
                if lock_handle(lock) is not False and _is_still(folder / LOCK_NAME, lock):
                    return folder, lock
                os.close(lock)
        except OSError as error:
            shutil.rmtree(folder, ignore_errors=True)
            raise VtgError(f"{place}: cannot be written to ({error.strerror}): choose another folder") from None
        # Another process removed it as abandoned before it was locked.
    raise VtgError(f"{place}: what is made in it is removed at once by other programs: choose another folder")


def _remove_abandoned(place: Path) -> None:
    """Remove the abandoned working folders in a folder."""
    with contextlib.suppress(OSError), os.scandir(place) as entries:
        for entry in entries:
            if WORKING_FOLDER.fullmatch(entry.name) and entry.is_dir(follow_symlinks=False):
                _remove_if_abandoned(Path(entry.path))


def _remove_if_abandoned(folder: Path) -> None:
    with contextlib.suppress(OSError):
        lock = os.open(folder / LOCK_NAME, os.O_RDWR | os.O_CREAT, 0o600)
        try:
            # Another process may be removing this folder, and may have removed the locked file.
            if not lock_handle(lock) or not _is_still(folder / LOCK_NAME, lock):
                return
            for path in folder.iterdir():
                if path.is_dir() and not path.is_symlink():
                    shutil.rmtree(path)
                elif path.name != LOCK_NAME:
                    path.unlink()
            if CAN_REMOVE_OPEN_FILES:
                _remove_empty(folder)
        finally:
            os.close(lock)
        if not CAN_REMOVE_OPEN_FILES:
            _remove_empty(folder)


def _remove_empty(folder: Path) -> None:
    """Remove a working folder that contains nothing but its lock, unless another process is claiming it."""
    (folder / LOCK_NAME).unlink(missing_ok=True)  # fails on Windows if that process has it open
    folder.rmdir()  # fails if that process has created a new lock file


def _is_still(path: Path, handle: int) -> bool:
    """Whether a path still leads to the file that was opened there, which may have been replaced."""
    try:
        return os.path.samestat(path.stat(), os.fstat(handle))
    except FileNotFoundError:
        return False


def fitted_name(before: str, stem: str, after: str = "") -> str:
    """A file name of three parts, the middle one shortened if the name is too long.

    Args:
        before: the beginning.
        stem: the part that may be shortened, with an ellipsis at its end.
        after: the end.

    Returns:
        At most `MAX_NAME_BYTES` in UTF-8.
    """
    name = f"{before}{stem}{after}"
    while stem and len(os.fsencode(name)) > MAX_NAME_BYTES:
        stem = stem[:-1]
        name = f"{before}{stem.rstrip()}…{after}"
    return name


def check_name(path: str | os.PathLike[str]) -> None:
    """Check the length of a file name.

    Raises:
        VtgError: it is too long.
    """
    path = Path(path)
    if len(os.fsencode(path.name)) > MAX_NAME_BYTES:
        raise VtgError(f"{path}: a name of more than {MAX_NAME_BYTES} bytes cannot be written: choose a shorter one")


def remove_abandoned_parts(folder: Path) -> None:
    """Remove unfinished files of `WholeFileWriter`s whose processes were killed.

    On Windows and on file systems without locks, only files not modified for `ABANDONED_SECONDS` are removed.
    """
    for part in folder.glob(f"*{PART_SUFFIX}"):
        with contextlib.suppress(OSError):  # another process has just finished or removed it
            handle = os.open(part, os.O_RDWR)
            try:
                locked = lock_handle(handle)
                is_old = os.fstat(handle).st_mtime < time.time() - ABANDONED_SECONDS
                # On Windows the writer has to unlock a file before renaming it.
                is_abandoned = locked is not False and (is_old or (locked is True and CAN_REMOVE_OPEN_FILES))
                if is_abandoned and CAN_REMOVE_OPEN_FILES:
                    part.unlink()
            finally:
                os.close(handle)
            if is_abandoned and not CAN_REMOVE_OPEN_FILES:
                part.unlink()  # fails if its writer has it open


class WholeFileWriter:
    """Writer of one file in pieces; use it in a ``with`` statement.

    The content is written to a file beside the final one, which `complete` renames, and which is removed if the
    ``with`` statement exits without that. The writer is independent of file formats: `complete` takes the header.

    Args:
        path: the final name; its folder is created.
        header_bytes: size of the header, which is written last.
    """

    def __init__(self, path: Path, header_bytes: int = 0) -> None:
        self._path = path
        self._header_bytes = header_bytes
        self._digest = hashlib.sha256()

    @property
    def sha256(self) -> str:
        """SHA-256 of what was written so far, without the header, in 64 hex digits."""
        return self._digest.hexdigest()

    def __enter__(self) -> WholeFileWriter:
        """Open the temporary file beside the final one."""
        self._path.parent.mkdir(parents=True, exist_ok=True)
        for _ in range(MAX_ATTEMPTS):
            self._part = self._path.with_name(f"{self._path.name}.{secrets.token_hex(4)}{PART_SUFFIX}")
            self._file = self._part.open("wb")
            # Locked as long as it is open, so that `remove_abandoned_parts` leaves it.
            if lock_handle(self._file.fileno()) is not False and _is_still(self._part, self._file.fileno()):
                break
            self._file.close()  # another process removed it as abandoned before it was locked
        self._file.write(bytes(self._header_bytes))
        return self

    def write(self, content: bytes | np.ndarray) -> None:
        """Append bytes, or the values of a C-contiguous, little-endian array."""
        data = content if isinstance(content, bytes) else content.reshape(-1).view("uint8").data
        self._digest.update(data)
        with self._naming_errors():
            self._file.write(data)

    def complete(self, header: bytes = b"", check: Callable[[Path], object] = lambda path: None) -> None:
        """Write the header and rename the file to its final name.

        Args:
            header: of `header_bytes` bytes.
            check: called with the path before renaming; raises if the file is not valid.

        Raises:
            ValueError: the header has another size.
        """
        if len(header) != self._header_bytes:
            raise ValueError(f"{self._path}: a header of {len(header)} bytes, not {self._header_bytes}")
        with self._naming_errors():
            self._file.seek(0)
            self._file.write(header)
            self._file.flush()
            os.fsync(self._file.fileno())
            if not CAN_REMOVE_OPEN_FILES:  # an open file cannot be renamed either
                self._file.close()
        # Still locked otherwise, so that no other process removes it as abandoned.
        check(self._part)
        self._part.replace(self._path)

    @contextlib.contextmanager
    def _naming_errors(self) -> Iterator[None]:
        """Add the file name to errors of the operating system on an open file, which lack it."""
        try:
            yield
        except OSError as error:
            error.filename = error.filename or str(self._path)
            raise

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            with self._naming_errors():
                self._file.close()  # flushes the buffer, which fails again if the disk is full
        finally:
            self._part.unlink(missing_ok=True)
