"""Open, create and write the LanceDB tables of a library, with one writer at a time and clear errors.

LanceDB tells of everything that goes wrong by a RuntimeError, OSError or ValueError with a text, and by no class or
field of its own. Here each becomes a `VtgError` that names the table's folder and what to do.
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
from vtg.text import to_utf8

if TYPE_CHECKING:
    from vtg.files.locks import Claims

__all__ = ["Database", "delete_rows", "one_of"]

MAX_ATTEMPTS = 8  # at a write that another process's commit came before
PAUSE_SECONDS = 0.05  # before the second attempt, twice as long before each later one
LONGEST_REASON = 200  # characters of what LanceDB says
FAILURES = (RuntimeError, OSError, ValueError, KeyError, TypeError, ArithmeticError)
PANIC = "PanicException"  # of Rust's code; derives from BaseException, and is of no module that can be imported
WAYS_OUT = {
    "videos": "restore the library from a copy, or delete its folder and index again",
    "frames": "delete it and give 'vtg index' again, which fills it from the stored features",
    "said": "delete it and give 'vtg index' again, which reads the subtitles again",
    "folders": "delete it, and index the folders again",
}
NO_ROOM = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}
NO_RIGHTS = {errno.EACCES, errno.EPERM, errno.EROFS}
RUST_PLACE = re.compile(r",? /\S+\.rs:\d+:\d+.*", re.DOTALL)  # where in its code an error came up
SYSTEM_ERROR = re.compile(r"\(os error (\d+)\)")  # how Rust writes an error of the operating system


class Database:
    """Tables in one folder. Any number of processes may read and write: a write is one at a time.

    Args:
        folder: where they are; they are made when they are first written to.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._open: dict[str, Any] = {}
        self._threads = threading.RLock()  # one of them writes at a time

    @cached_property
    def claims(self) -> Claims:
        """What this process is at work on; others have claims of their own."""
        from vtg.files.locks import Claims

        path = self._folder / ".locks"
        try:
            return Claims(path)
        except OSError as error:
            reason = error.strerror or error
            raise VtgError(f"{path}: cannot be written to ({reason}); mind its rights, or remove it") from None

    @cached_property
    def _database(self) -> Any:
        import lancedb

        return lancedb.connect(str(self._folder), read_consistency_interval=timedelta(0))

    def place(self, name: str) -> Path:
        """The folder of a table."""
        return self._folder / f"{name}.lance"

    def _table(self, name: str) -> Any | None:
        """A table as it is now; None where it was never written to.

        Raises:
            VtgError: it is damaged.
        """
        if name not in self._open:
            place = self.place(name)
            # A process that was killed as it made a table leaves a folder without a version and without rows.
            if not os.path.lexists(place) or (place.is_dir() and not _has_files(place, "_versions", "data")):
                return None
            with self._named(name):
                self._open[name] = self._database.open_table(name)
        return self._open[name]

    def _made(self, name: str, schema: Any) -> Any:
        """A table, made if it is not there; only inside `_write`."""
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
        """Change a table in steps of at most one commit each, again where another process has committed meanwhile.

        Where the table is not there it is made with the schema; without one nothing is done.

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
                        # LanceDB has no error of its own for conflicts. A step that fails has committed nothing: where
                        # the version is another one all the same, another process's commit came before it.
                        if attempt == MAX_ATTEMPTS or table.version == before:
                            raise
                        time.sleep(PAUSE_SECONDS * 2**attempt)

    @contextmanager
    def _named(self, name: str) -> Iterator[None]:
        """Tell by a VtgError what LanceDB cannot do with a table."""
        try:
            yield
        except FAILURES as error:
            raise VtgError(_why(self.place(name), WAYS_OUT[name], error)) from None
        except BaseException as error:
            if type(error).__name__ != PANIC:
                raise
            raise VtgError(_why(self.place(name), WAYS_OUT[name], error)) from None


def _has_files(place: Path, *folders: str) -> bool:
    return any(next((place / folder).glob("*"), None) is not None for folder in folders)


def delete_rows(table: Any, condition: str) -> None:
    """Delete the rows for which a condition holds, in one commit; none where there are no such rows."""
    # First a look: a deletion makes a version of the table even where it deletes nothing.
    if table.count_rows(condition):
        table.delete(condition)


def _why(place: Path, way_out: str, error: BaseException) -> str:
    """One line on a table that cannot be read or written."""
    found = SYSTEM_ERROR.search(str(error))
    code = int(found[1]) if found else error.errno if isinstance(error, OSError) else None
    if code in NO_ROOM:
        return f"{place}: cannot be written to ({os.strerror(code)}); make room, and give the same command again"
    if code in NO_RIGHTS:
        return f"{place}: cannot be used ({os.strerror(code)}); mind its rights"
    reason = " ".join(RUST_PLACE.sub("", str(error)).split())[:LONGEST_REASON] or type(error).__name__
    return f"{place}: damaged ({reason}); {way_out}"


def one_of(column: str, values: Iterable[str]) -> str:
    """A condition on rows: a column has one of some texts."""
    quoted = ", ".join("'" + to_utf8(value).replace("'", "''") + "'" for value in values)
    return f"{column} IN ({quoted})"
