"""Safetensors files of arrays with a checksum: create and check headers, map arrays, verify files.

Files are written by a `WholeFileWriter` with room for `HEADER_BYTES`: first the arrays, then the header.
"""

from __future__ import annotations

import json
import mmap
import stat
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from vtg.errors import VtgError
from vtg.files.hashing import file_sha256
from vtg.files.text import read_json

__all__ = ["HEADER_BYTES", "arrays_header", "map_arrays", "read_header", "verify"]

HEADER_BYTES = 4096  # fixed size of the header, which is written last, when the number of frames is known
KINDS = {"F32": "<f4", "F16": "<f2", "I8": "|i1", "U8": "|u1"}  # data types of safetensors → of NumPy


def arrays_header(metadata: Mapping[str, str], arrays: Mapping[str, tuple[str, tuple[int, ...]]], sha256: str) -> bytes:
    """The header of a safetensors file.

    Args:
        metadata: stored beside the arrays.
        arrays: type ("<f4", "<f2", "|i1" or "|u1") and shape of each, in the order in which they were written.
        sha256: of all values, in hex digits.

    Returns:
        `HEADER_BYTES` bytes.
    """
    header: dict[str, Any] = {"__metadata__": {**metadata, "sha256": sha256}}
    names = {kind: name for name, kind in KINDS.items()}
    begin = 0
    for name, (kind, shape) in arrays.items():
        end = begin + int(np.prod(shape)) * np.dtype(kind).itemsize
        header[name] = {"dtype": names[kind], "shape": list(shape), "data_offsets": [begin, end]}
        begin = end
    length = (HEADER_BYTES - 8).to_bytes(8, "little")
    return length + json.dumps(header).encode().ljust(HEADER_BYTES - 8)


def read_header(path: Path) -> dict[str, Any]:
    """Read and check the header of a file: its arrays by name, and "__metadata__".

    Raises:
        VtgError: the file does not exist, is not a regular file, or is damaged.
    """
    try:
        if not stat.S_ISREG(path.stat().st_mode):  # reading a pipe or device might never end
            raise VtgError(f"{path}: is no file; remove it and index its video again")
        with path.open("rb") as file:
            head = file.read(HEADER_BYTES)
        header = read_json(head[8:])
        end = _check_entries(header)
        whole = int.from_bytes(head[:8], "little") == HEADER_BYTES - 8 and HEADER_BYTES + end == path.stat().st_size
    except (FileNotFoundError, NotADirectoryError):
        raise VtgError(f"{path}: these features are not there; index the video again") from None
    except PermissionError as error:
        raise VtgError(f"{path}: cannot be read ({error.strerror}); check the permissions of its folder") from None
    except (ValueError, KeyError, TypeError, AttributeError, OSError):
        whole = False
    if not whole:
        raise VtgError(f"{path}: damaged (its size or header is wrong); remove it and index its video again")
    return dict(header)


def _check_entries(header: Mapping[str, Any]) -> int:
    """The end of the last array, in bytes after the header.

    Raises:
        ValueError: arrays overlap, have gaps, or do not have the length of their shape, or metadata is not text.
        KeyError, TypeError, AttributeError: an entry is missing or of another type.
    """
    metadata = header["__metadata__"]
    if not all(isinstance(value, str) for value in metadata.values()):
        raise ValueError("metadata of another kind")
    entries = [entry for name, entry in header.items() if name != "__metadata__"]
    end = 0
    for entry in sorted(entries, key=lambda entry: entry["data_offsets"][0]):
        begin, past = entry["data_offsets"]
        size = np.dtype(KINDS[entry["dtype"]]).itemsize
        for length in entry["shape"]:
            if type(length) is not int or length < 0:
                raise ValueError("no shape")
            size *= length
        if type(begin) is not int or type(past) is not int or begin != end or past != begin + size:
            raise ValueError("arrays that do not follow each other")
        end = past
    return end


def map_arrays(path: Path, header: Mapping[str, Any], names: Iterable[str]) -> list[np.ndarray | None]:
    """Map arrays of a file; None for those that it does not have.

    The mapping is private (copy on write): the file is never changed.
    """
    with path.open("rb") as file:
        # Not ACCESS_READ, as torch requires writable memory; pages that are not written to are not copied.
        mapped = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_COPY)
    entries = (header.get(name) for name in names)
    return [
        None
        if entry is None
        else np.ndarray(entry["shape"], KINDS[entry["dtype"]], mapped, HEADER_BYTES + entry["data_offsets"][0])
        for entry in entries
    ]


def verify(path: Path) -> None:
    """Read a file completely and compare it with its checksum.

    Raises:
        VtgError: it is missing or damaged.
    """
    expected = read_header(path)["__metadata__"].get("sha256")
    if file_sha256(path, HEADER_BYTES) != expected:
        raise VtgError(f"{path}: does not match its checksum; remove it and index its video again")
