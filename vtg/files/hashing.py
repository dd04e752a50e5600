"""Hash the content of files."""

from __future__ import annotations

import hashlib
import os
from pathlib import Path

__all__ = ["file_fingerprint", "file_sha256"]

READ_BYTES = 1 << 22
SAMPLE_BYTES = 1 << 16  # at the beginning, in the middle and at the end of a file


def file_sha256(path: str | os.PathLike[str], offset: int = 0) -> str:
    """The SHA-256 of a file's content in 64 hex digits.

    Args:
        path: the file, which is read completely.
        offset: number of bytes at its beginning to leave out.

    Raises:
        OSError: it cannot be read.
    """
    digest = hashlib.sha256()
    with Path(path).open("rb", buffering=0) as file:
        file.seek(offset)
        while block := file.read(READ_BYTES):
            digest.update(block)
    return digest.hexdigest()


def file_fingerprint(path: str | os.PathLike[str]) -> str:
    """A fast fingerprint of a file, from its size, modification time and samples of its content, in 32 hex digits.

    Args:
        path: the file, of which `SAMPLE_BYTES` are read at three places.

    Raises:
        OSError: it cannot be read.
    """
    with Path(path).open("rb", buffering=0) as file:
        status = os.fstat(file.fileno())
        digest = hashlib.sha256(f"{status.st_size} {status.st_mtime_ns}".encode())
        for offset in (0, status.st_size // 2, max(0, status.st_size - SAMPLE_BYTES)):
            file.seek(offset)
            digest.update(file.read(SAMPLE_BYTES))
    return digest.hexdigest()[:32]
