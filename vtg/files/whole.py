"""Files that appear whole or not at all: written in a folder of their own beside their place, then moved there.

`write_whole` gives a path to write to, `working_folder` a whole folder for unfinished files; what a killed process
has left in one is removed by the next that works in the same place. `WholeFileWriter` writes a file piece by piece, if
need be behind a header that is known last.
`fitted_name` and `check_name` keep names within what file systems take.
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

import numpy as np

from vtg.errors import VtgError
from vtg.files.locks import lock_handle

__all__ = [
    "ABANDONED_SECONDS",
    "PART",
    "WholeFileWriter",
    "check_name",
    "fitted_name",
    "remove_abandoned_parts",
    "working_folder",
    "write_whole",
]

LONGEST_NAME = 255  # bytes of UTF-8: the most that common file systems take, most of which count so
LOCK = "lock"  # file in a working folder that its owner keeps locked
PART = ".part"  # ends the name of a file that a `WholeFileWriter` is writing: NAME.TOKEN.part
ABANDONED_SECONDS = 3600.0  # where there are no locks, an unfinished file so old belongs to nobody
MOST_TRIES = 100  # at a new working folder
# Then what is abandoned is removed under its lock: once that is given back, its owner may take it.
CAN_REMOVE_OPEN_FILES = sys.platform != "win32"
WORKING_FOLDER = re.compile(r"\.vtg-[0-9a-f]{12}\.part")


@contextlib.contextmanager
def write_whole(out: str | os.PathLike[str]) -> Iterator[Path]:
    """A path to write to, with the suffix of `out`; it becomes `out` if the block succeeds, else it vanishes.

    Args:
        out: the file; its folder must exist.

    Raises:
        VtgError: nothing can be made in the folder, the block runs out of room there, or `out` cannot be replaced.
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
            raise VtgError(f"{out}: cannot be written ({reason}): make room, or choose another folder") from None
        try:
            beside.replace(out)
        except PermissionError:
            raise VtgError(f"{out}: cannot be replaced: close it elsewhere, or choose another name") from None
        except OSError as error:
            raise VtgError(f"{out}: cannot be written ({error.strerror}): choose another folder") from None


def _is_of_reading(error: OSError, folder: Path) -> bool:
    """Whether an error names another file than those in a working folder, or is none of the system's."""
    name = error.filename
    if isinstance(name, (str, bytes, os.PathLike)):
        return folder not in Path(os.fsdecode(name)).parents
    return error.errno is None


@contextlib.contextmanager
def working_folder(place: str | os.PathLike[str]) -> Iterator[Path]:
    """A new hidden folder for unfinished files, removed at the end.

    Its owner keeps a file in it locked, so that others can tell: where a process was killed, the system gives its lock
    back, and the next call for the same place removes the folder. One whose owner lives is never touched, nor is
    any that has another name or no lock, or that lies on a network drive without locks.

    Args:
        place: the folder to make it in.

    Raises:
        VtgError: it cannot be made there.
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
    """A new folder and the handle of its locked file."""
    for _ in range(MOST_TRIES):
        folder = place / f".vtg-{secrets.token_hex(6)}.part"
        try:
            folder.mkdir()
            with contextlib.suppress(FileNotFoundError):
                lock = os.open(folder / LOCK, os.O_RDWR | os.O_CREAT, 0o600)
                if lock_handle(lock) is not False and _is_still(folder / LOCK, lock):
                    return folder, lock
                os.close(lock)
        except OSError as error:
            shutil.rmtree(folder, ignore_errors=True)
            raise VtgError(f"{place}: cannot be written to ({error.strerror}): choose another folder") from None
        # Before it was locked, another process took it for abandoned.
    raise VtgError(f"{place}: what is made in it is removed at once by other programs: choose another folder")


def _remove_abandoned(place: Path) -> None:
    """Removes the working folders in a folder whose owners have ended."""
    with contextlib.suppress(OSError), os.scandir(place) as entries:
        for entry in entries:
            if WORKING_FOLDER.fullmatch(entry.name) and entry.is_dir(follow_symlinks=False):
                _remove_if_abandoned(Path(entry.path))


def _remove_if_abandoned(folder: Path) -> None:
    with contextlib.suppress(OSError):
        lock = os.open(folder / LOCK, os.O_RDWR | os.O_CREAT, 0o600)
        try:
            # What was locked may be of another that removes this folder, and gone by now.
            if not lock_handle(lock) or not _is_still(folder / LOCK, lock):
                return
            for path in folder.iterdir():
                if path.is_dir() and not path.is_symlink():
                    shutil.rmtree(path)
                elif path.name != LOCK:
                    path.unlink()
            if CAN_REMOVE_OPEN_FILES:
                _remove_empty(folder)
        finally:
            os.close(lock)
        if not CAN_REMOVE_OPEN_FILES:
            _remove_empty(folder)


def _remove_empty(folder: Path) -> None:
    """Remove a working folder that holds its lock alone, unless another process has claimed it this moment."""
    (folder / LOCK).unlink(missing_ok=True)  # fails where that process has it open, and the system protects open files
    folder.rmdir()  # fails where that process has made a lock of its own


def _is_still(path: Path, handle: int) -> bool:
    """Whether a path leads to the file that was opened there, which may be removed since, and made anew."""
    try:
        return os.path.samestat(path.stat(), os.fstat(handle))
    except FileNotFoundError:
        return False


def fitted_name(before: str, stem: str, after: str = "") -> str:
    """A file name made of three parts, of which the middle one is shortened where all together are too long.

    Args:
        before: what it begins with.
        stem: what may be shortened, usually from the name of another file; the end of it gives way to an ellipsis.
        after: what it ends with.

    Returns:
        At most 255 bytes of UTF-8, as file systems take.
    """
    name = f"{before}{stem}{after}"
    while stem and len(os.fsencode(name)) > LONGEST_NAME:
        stem = stem[:-1]
        name = f"{before}{stem.rstrip()}…{after}"
    return name


def check_name(path: str | os.PathLike[str]) -> None:
    """Makes sure that a file can have this name.

    Raises:
        VtgError: it is too long.
    """
    path = Path(path)
    if len(os.fsencode(path.name)) > LONGEST_NAME:
        raise VtgError(f"{path}: a name of more than {LONGEST_NAME} bytes cannot be written: choose a shorter one")


def remove_abandoned_parts(folder: Path) -> None:
    """Removes the files in a folder that a `WholeFileWriter` was at when its process was killed.

    Where the file system has no locks, and on Windows, those that have not grown for an hour.
    """
    for part in folder.glob(f"*{PART}"):
        with contextlib.suppress(OSError):  # another process has just finished or removed it
            handle = os.open(part, os.O_RDWR)
            try:
                locked = lock_handle(handle)
                is_old = os.fstat(handle).st_mtime < time.time() - ABANDONED_SECONDS
                # Where an open file cannot get its name, it is not locked in the moment before that.
                is_abandoned = locked is not False and (is_old or (locked is True and CAN_REMOVE_OPEN_FILES))
                if is_abandoned and CAN_REMOVE_OPEN_FILES:
                    part.unlink()
            finally:
                os.close(handle)
            if is_abandoned and not CAN_REMOVE_OPEN_FILES:
                part.unlink()  # fails where its owner has it open


class WholeFileWriter:
    """Writes one file piece by piece; use it in a ``with`` statement.

    The final name only ever holds a whole file: the content goes to a file beside it, which `complete` renames, and
    which is removed where the ``with`` statement is left without that. A format is not the writer's concern: whoever
    owns one hands `complete` the header.

    Args:
        path: the final name; its folder is made.
        header_bytes: room for the header, which is written last.
    """

    def __init__(self, path: Path, header_bytes: int = 0) -> None:
        self._path = path
        self._header_bytes = header_bytes
        self._digest = hashlib.sha256()

    @property
    def sha256(self) -> str:
        """Of what was written so far, without the header, in 64 hex digits."""
        return self._digest.hexdigest()

    def __enter__(self) -> WholeFileWriter:
        """Begin the file beside the final one."""
        self._path.parent.mkdir(parents=True, exist_ok=True)
        for _ in range(MOST_TRIES):
            self._part = self._path.with_name(f"{self._path.name}.{secrets.token_hex(4)}{PART}")
            self._file = self._part.open("wb")
            # As long as it is open: tells `remove_abandoned_parts` that somebody is at work.
            if lock_handle(self._file.fileno()) is not False and _is_still(self._part, self._file.fileno()):
                break
            self._file.close()  # before it was locked, another process took it for abandoned
        self._file.write(bytes(self._header_bytes))
        return self

    def write(self, content: bytes | np.ndarray) -> None:
        """Append bytes, or the values of an array, which is C-contiguous and little-endian."""
        data = content if isinstance(content, bytes) else content.reshape(-1).view(np.uint8).data
        self._digest.update(data)
        with self._naming_errors():
            self._file.write(data)

    def complete(self, header: bytes = b"", check: Callable[[Path], object] = lambda path: None) -> None:
        """Give the file its header and its name.

        Args:
            header: of just the bytes that were left for it.
            check: looks at the file before it gets its name, and raises where something is wrong.

        Raises:
            ValueError: the header is longer or shorter.
        """
        if len(header) != self._header_bytes:
            raise ValueError(f"{self._path}: a header of {len(header)} bytes, not {self._header_bytes}")
        with self._naming_errors():
            self._file.seek(0)
            self._file.write(header)
            self._file.flush()
            os.fsync(self._file.fileno())
            if not CAN_REMOVE_OPEN_FILES:  # nor rename them
                self._file.close()
        # Still locked: as soon as it is not, another process may take it for abandoned.
        check(self._part)
        self._part.replace(self._path)

    @contextlib.contextmanager
    def _naming_errors(self) -> Iterator[None]:
        """What the system says of an open file does not name it."""
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
                self._file.close()  # which writes what is still in memory, and fails again where the disk is full
        finally:
            self._part.unlink(missing_ok=True)
