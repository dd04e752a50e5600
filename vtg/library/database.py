"""Open, create and write the LanceDB tables of a library, with one writer at a time and clear errors.

LanceDB raises RuntimeError, OSError or ValueError with a message, without classes or fields of its own. They are
converted to a `VtgError` that names the table's folder and what to do.
"""

from __future__ import annotations

import errno
import itertools
import os
import re
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from datetime import timedelta
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from vtg.errors import VtgError
from vtg.files.text import to_utf8

if TYPE_CHECKING:
    from vtg.files.locks import Claims

__all__ = ["Database", "delete_rows", "one_of"]

MAX_ATTEMPTS = 8  # of a write that conflicts with another process's commit
PAUSE_SECONDS = 0.05  # before the second attempt; doubled before each later one
MAX_REASON_CHARACTERS = 200  # of LanceDB's message
LANCEDB_ERRORS = (RuntimeError, OSError, ValueError, KeyError, TypeError, ArithmeticError)
PANIC_CLASS_NAME = "PanicException"  # raised by Rust code; derives from BaseException and cannot be imported
REMEDIES = {
    "videos": "restore the library from a copy, or delete its folder and index again",
    "frames": "delete it and give 'vtg index' again, which fills it from the stored features",
    "said": "delete it and give 'vtg index' again, which reads the subtitles again",
    "folders": "delete it, and index the folders again",
}
NO_SPACE_ERRORS = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}
PERMISSION_ERRORS = {errno.EACCES, errno.EPERM, errno.EROFS}
RUST_LOCATION = re.compile(r",? /\S+\.rs:\d+:\d+.*", re.DOTALL)  # source location in an error message
SYSTEM_ERROR = re.compile(r"\(os error (\d+)\)")  # error number of the operating system in a Rust message


class Database:
    """Tables in one folder, which any number of processes may read and write; writes are serialised.

    Args:
        folder: of the tables, which are created on the first write.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._open: dict[str, Any] = {}
        self._threads = threading.RLock()  # serialises writes of this process's threads

    @cached_property
    def claims(self) -> Claims:
        """Locks of this process on content keys and tables; see `vtg.files.locks.Claims`."""
        from vtg.files.locks import Claims

        path = self._folder / ".locks"
        try:
            return Claims(path)
        except OSError as error:
            reason = error.strerror or error
            raise VtgError(f"{path}: cannot be written to ({reason}); check its permissions, or delete it") from None

    @cached_property
    def _database(self) -> Any:
        import lancedb

        return lancedb.connect(str(self._folder), read_consistency_interval=timedelta(0))

    def place(self, name: str) -> Path:
        """The folder of a table."""
        return self._folder / f"{name}.lance"

    def _table(self, name: str) -> Any | None:
        """Open a table at its latest version; None if it does not exist.

        Raises:
            VtgError: it is damaged.
        """
        if name not in self._open:
            place = self.place(name)
            # A process that was killed while it created a table leaves a folder without versions and rows.
            if not os.path.lexists(place) or (place.is_dir() and not _has_files(place, "_versions", "data")):
                return None
            with self._named(name):
                self._open[name] = self._database.open_table(name)
        return self._open[name]

    def _made(self, name: str, schema: Any) -> Any:
        """Open a table, creating it if it does not exist; only inside `_write`."""
        table = self._table(name)
        if table is None:
            self._database.create_table(name, schema=schema, exist_ok=True)
            table = self._table(name)
        return table

    def _delete(self, name: str, column: str, values: Iterable[str]) -> None:
        values = list(values)
        if values:
            self._write(name, None, lambda table: delete_rows(table, one_of(column, values)))

    def _write(self, name: str, schema: Any | None, *steps: Callable[[Any], None]) -> None:
        """Change a table in steps of at most one commit each; a step is repeated after a conflicting commit.

        A missing table is created with the schema; without a schema nothing is done.

        Raises:
            VtgError: it cannot be written to, or is damaged.
        """
        with self._named(name), self._threads, self.claims.held("write"):
            table = self._table(name) if schema is None else self._made(name, schema)
            if table is None:
                return
            for step in steps:
                for attempt in itertools.count():
                    before = table.version
                    try:
                        step(table)
                        break
                    except (RuntimeError, OSError, ValueError):
                        # LanceDB has no error class for conflicts. A step that fails has committed nothing: if the
                        # version has changed all the same, another process has committed.
                        if attempt == MAX_ATTEMPTS or table.version == before:
                            raise
                        time.sleep(PAUSE_SECONDS * 2**attempt)

    @contextmanager
    def _named(self, name: str) -> Iterator[None]:
        """Convert LanceDB's errors on a table to a `VtgError`."""
        try:
            yield
        except LANCEDB_ERRORS as error:
            raise VtgError(_explain(self.place(name), REMEDIES[name], error)) from None
        except BaseException as error:
            if type(error).__name__ != PANIC_CLASS_NAME:
                raise
            raise VtgError(_explain(self.place(name), REMEDIES[name], error)) from None


def _has_files(place: Path, *folders: str) -> bool:
    return any(next((place / folder).glob("*"), None) is not None for folder in folders)


def delete_rows(table: Any, condition: str) -> None:
    """Delete the rows that meet a condition, in one commit; no commit if there are none."""
    # LanceDB creates a version of the table even if a deletion deletes nothing.
    if table.count_rows(condition):
        table.delete(condition)


def _explain(place: Path, remedy: str, error: BaseException) -> str:
    """The error message for a table that cannot be read or written."""
    found = SYSTEM_ERROR.search(str(error))
    code = int(found[1]) if found else error.errno if isinstance(error, OSError) else None
    if code in NO_SPACE_ERRORS:
        return f"{place}: cannot be written to ({os.strerror(code)}); free some disk space and run the command again"
    if code in PERMISSION_ERRORS:
        return f"{place}: cannot be used ({os.strerror(code)}); check its permissions"
    reason = " ".join(RUST_LOCATION.sub("", str(error)).split())[:MAX_REASON_CHARACTERS] or type(error).__name__
    return f"{place}: damaged ({reason}); {remedy}"


def one_of(column: str, values: Iterable[str]) -> str:
    """The SQL condition that a text column has one of some values."""
    quoted = ", ".join("'" + to_utf8(value).replace("'", "''") + "'" for value in values)
    return f"{column} IN ({quoted})"
