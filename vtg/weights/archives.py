"""Read PyTorch's containers: zip archives (state dicts and TorchScript) and the format before version 1.6."""

from __future__ import annotations

import io
import struct
import zipfile
import zlib
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, BinaryIO

import torch
from torch import Tensor

from vtg.weights.pickles import read_pickle
from vtg.weights.stored import Storage, WeightsError

__all__ = ["LegacyFile", "TorchArchive", "open_container"]

MAX_DIRECTORY_BYTES = 4 << 20  # of a zip file's directory: about 40,000 entries
MAX_PICKLE_BYTES = 64 << 20
LOCAL_HEADER = struct.Struct("<4sHHHHHIIIHH")  # before each entry's data in a zip file
ENCRYPTED = 1  # bit of an entry's flags
LEGACY_MAGIC, LEGACY_PROTOCOL = 0x1950A86A20F9469CFC6C, 1001
READ_BYTES = 1 << 24  # per read, so that the checksum is computed from the cache


@dataclass(frozen=True)
class _Piece:
    """Position and size of a storage in the file, and its checksum, if any."""

    offset: int
    size: int
    checksum: int | None


def open_container(file: BinaryIO, size: int) -> TorchArchive | LegacyFile:
    """Detect the format of a file of `torch.save` or `torch.jit.save`, and read its pickle as data.

    Args:
        file: open for reading, unbuffered or buffered; must stay open while tensors are read.
        size: of the file, bytes.

    Raises:
        WeightsError: unknown format, damaged, or containing anything but plain tensors.
    """
    start = file.read(4)
    if start.startswith(b"PK"):
        return TorchArchive(file, size)
    if start.startswith(b"\x80"):
        file.seek(0)
        return LegacyFile(file, size)
    raise WeightsError("neither a PyTorch nor a safetensors file", "foreign")


class _Container:
    """Base class of both formats: `content` with stored tensors, and access to their storages."""

    content: Any

    def __init__(self, file: BinaryIO, size: int) -> None:
        self._file = file
        self._size = size

    def _check(self, storages: Iterable[Storage]) -> None:
        """Compare the sizes of storages declared by the pickle with the file, before allocating memory."""
        for storage in set(storages):
            piece = self._piece(storage)
            if storage.bytes > piece.size:
                raise WeightsError(f"claims {storage.bytes} bytes for storage {storage.key[:20]!r} of {piece.size}")

    def read(self, storage: Storage) -> Tensor:
        """Read a storage as a tensor [length].

        Raises:
            WeightsError: its checksum is wrong, or the file is truncated.
        """
        piece = self._piece(storage)
        content = torch.empty(storage.bytes, dtype=torch.uint8)
        view = memoryview(content.numpy().data)
        self._file.seek(piece.offset)
        found, done = 0, 0
        while done < len(view):
            count = self._file.readinto(view[done : done + READ_BYTES])  # type: ignore[attr-defined]
            if not count:
                raise WeightsError("ends within its tensors")
            if piece.checksum is not None:
                found = zlib.crc32(view[done : done + count], found)
            done += count
        if piece.checksum is not None and storage.bytes == piece.size and found != piece.checksum:
            raise WeightsError(f"has a wrong checksum for storage {storage.key[:20]!r}")
        return content.view(storage.dtype)

    def _piece(self, storage: Storage) -> _Piece:
        raise NotImplementedError


class TorchArchive(_Container):
    """A zip archive of `torch.save` or `torch.jit.save`; code in it is ignored.

    Args:
        file: open for reading.
        size: of the file, bytes.

    Raises:
        WeightsError: as `open_container`.
    """

    def __init__(self, file: BinaryIO, size: int) -> None:
        super().__init__(file, size)
        self._entries = _entries(file)
        pickles = [name for name in self._entries if name.count("/") == 1 and name.endswith("/data.pkl")]
        if len(pickles) != 1:
            raise WeightsError("a zip file, but not one that PyTorch wrote", "foreign")
        self._root = pickles[0].removesuffix("data.pkl")
        if self._small("byteorder", b"little").strip() != b"little":
            raise WeightsError("written on a machine of another byte order")
        pickled = read_pickle(io.BytesIO(self._small("data.pkl", b"")))
        self.content = pickled.value
        self._check(pickled.storages)

    def _small(self, name: str, otherwise: bytes) -> bytes:
        if self._root + name not in self._entries:
            return otherwise
        piece = self._data(self._root + name)
        if piece.size > MAX_PICKLE_BYTES:
            raise WeightsError(f"has an entry {name} of more than {MAX_PICKLE_BYTES >> 20} MB")
        self._file.seek(piece.offset)
        content = self._file.read(piece.size)
        if len(content) != piece.size or zlib.crc32(content) != piece.checksum:
            raise WeightsError(f"has a damaged entry {name}")
        return content

    def _piece(self, storage: Storage) -> _Piece:
        return self._data(f"{self._root}data/{storage.key}")

    def _data(self, name: str) -> _Piece:
        """Position of an entry's data, from its local header."""
        entry = self._entries.get(name)
        if entry is None:
            raise WeightsError(f"lacks its entry {name[:60]!r}")
        if entry.compress_type != zipfile.ZIP_STORED or entry.flag_bits & ENCRYPTED:
            raise WeightsError("has compressed or encrypted entries, which PyTorch does not write")
        self._file.seek(entry.header_offset)
        header = self._file.read(LOCAL_HEADER.size)
        if len(header) != LOCAL_HEADER.size or not header.startswith(b"PK\3\4"):
            raise WeightsError("has a damaged list of entries")
        *_, name_length, extra_length = LOCAL_HEADER.unpack(header)
        offset = entry.header_offset + LOCAL_HEADER.size + name_length + extra_length
        if entry.file_size != entry.compress_size or offset + entry.file_size > self._size:
            raise WeightsError("has entries that are larger than the file")
        return _Piece(offset, entry.file_size, entry.CRC)


class _DirectoryReader(io.RawIOBase):
    """A file that limits the size of the zip directory that `zipfile` reads."""

    def __init__(self, file: BinaryIO) -> None:
        self._file = file

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def seek(self, offset: int, whence: int = 0) -> int:
        return self._file.seek(offset, whence)

    def tell(self) -> int:
        return self._file.tell()

    def read(self, size: int | None = -1) -> bytes:
        wanted = MAX_DIRECTORY_BYTES + 1 if size is None or size < 0 else size
        if wanted > MAX_DIRECTORY_BYTES + 1:
            raise WeightsError("lists more entries than any file of weights has")
        return self._file.read(wanted)


def _entries(file: BinaryIO) -> dict[str, zipfile.ZipInfo]:
    try:
        with zipfile.ZipFile(_DirectoryReader(file)) as archive:
            entries = archive.infolist()
    except WeightsError:
        raise
    # The last four are raised for damaged records, which the module does not check.
    except (zipfile.BadZipFile, NotImplementedError, OSError, ValueError, struct.error, OverflowError) as error:
        raise WeightsError(f"not a whole zip file ({' '.join(str(error).split())[:80]})") from None
    by_name = {entry.filename: entry for entry in entries}
    if len(by_name) != len(entries):
        raise WeightsError("has two entries of the same name")
    return by_name


class LegacyFile(_Container):
    """The format of `torch.save` before version 1.6: five pickles, then the storages in the order of the last.

    Args:
        file: open for reading, buffered.
        size: of the file, bytes.

    Raises:
        WeightsError: as `open_container`.
    """

    def __init__(self, file: BinaryIO, size: int) -> None:
        super().__init__(file, size)
        magic = read_pickle(file).value
        if magic != LEGACY_MAGIC or read_pickle(file).value != LEGACY_PROTOCOL:
            raise WeightsError("a pickle, but not one that PyTorch wrote", "foreign")
        system = read_pickle(file).value
        if not isinstance(system, dict) or system.get("little_endian") is not True:
            raise WeightsError("written on a machine of another byte order")
        pickled = read_pickle(file)
        self.content = pickled.value
        self._pieces = self._places(pickled.storages, read_pickle(file).value)
        self._check(pickled.storages)

    def _places(self, storages: list[Storage], keys: object) -> dict[str, _Piece]:
        """Position of each storage: preceded by its length, followed by the next one."""
        by_key = {storage.key: storage for storage in storages}
        if not isinstance(keys, list) or len(keys) != len(by_key):
            raise WeightsError("has a damaged list of storages")
        pieces = {}
        place = self._file.tell()
        for key in keys:
            storage = by_key.get(key) if isinstance(key, str) else None
            self._file.seek(place)
            length = int.from_bytes(self._file.read(8), "little")
            if storage is None or length != storage.length or place + 8 + storage.bytes > self._size:
                raise WeightsError("claims storages that are not in the file")
            pieces[storage.key] = _Piece(place + 8, storage.bytes, None)
            place += 8 + storage.bytes
        return pieces

    def _piece(self, storage: Storage) -> _Piece:
        if storage.key not in self._pieces:
            raise WeightsError("claims storages that are not in the file")
        return self._pieces[storage.key]
