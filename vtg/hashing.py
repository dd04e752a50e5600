"""Names for contents: knows how a file is hashed."""

from __future__ import annotations

import hashlib
import os
from pathlib import Path

__all__ = ["file_sha256"]

READ_BYTES = 1 << 22


def file_sha256(path: str | os.PathLike[str], offset: int = 0) -> str:
    """The SHA-256 of a file, all of which is read, in 64 hex digits.

    Args:
        path: the file.
        offset: so many bytes at its beginning do not count.

    Raises:
        OSError: it cannot be read.
    """
    digest = hashlib.sha256()
    with Path(path).open("rb", buffering=0) as file:
        file.seek(offset)
        while block := file.read(READ_BYTES):
            digest.update(block)
    return digest.hexdigest()
