"""Files that appear whole or not at all: knows how one is written beside its name and takes it in the end."""

from __future__ import annotations

import hashlib
import os
import secrets
from collections.abc import Callable
from pathlib import Path
from types import TracebackType

import numpy as np

__all__ = ["WholeFileWriter"]


class WholeFileWriter:
    """Writes values behind a header that is known last; what makes a file of one kind derives from it.

    Whatever happens, the final name only ever holds a whole file: the values go to a file beside it, which is renamed
    by `complete`, or removed when the ``with`` statement is left without that.

    Args:
        path: the final name; its folder is made.
        header_bytes: room for the header.
    """

    def __init__(self, path: Path, header_bytes: int) -> None:
        self._path = path
        self._part = path.with_name(f"{path.name}.{secrets.token_hex(4)}.part")
        self._header_bytes = header_bytes
        self._digest = hashlib.sha256()

    @property
    def sha256(self) -> str:
        """Of the values written so far, without the header, in 64 hex digits."""
        return self._digest.hexdigest()

    def open(self) -> None:
        """Begin the file beside the final one."""
        self._path.parent.mkdir(parents=True, exist_ok=True)
        self._file = self._part.open("wb")
        self._file.write(bytes(self._header_bytes))

    def write(self, array: np.ndarray) -> None:
        """Append the values of an array, which is C-contiguous and little-endian."""
        data = array.reshape(-1).view(np.uint8).data
        self._digest.update(data)
        self._file.write(data)

    def complete(self, header: bytes, check: Callable[[Path], object] = lambda path: None) -> None:
        """Give the file its header and its name.

        Args:
            header: of just the bytes that were left for it.
            check: looks at the file before it gets its name, and raises where something is wrong.

        Raises:
            ValueError: the header is longer or shorter.
        """
        if len(header) != self._header_bytes:
            raise ValueError(f"{self._path}: a header of {len(header)} bytes, not {self._header_bytes}")
        self._file.seek(0)
        self._file.write(header)
        self._file.flush()
        os.fsync(self._file.fileno())
        self._file.close()
        check(self._part)
        self._part.replace(self._path)

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            self._file.close()  # which writes what is still in memory, and fails again where the disk is full
        finally:
            self._part.unlink(missing_ok=True)
