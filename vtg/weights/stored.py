"""Descriptions of tensors and storages in a file of weights, before they are read."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch

__all__ = ["DTYPES", "Storage", "StoredTensor", "WeightsError", "stored_tensor"]

MAX_DIMENSIONS = 8

DTYPES = {  # supported types, by storage class in a pickle
    "FloatStorage": torch.float32,
    "DoubleStorage": torch.float64,
    "HalfStorage": torch.float16,
    "BFloat16Storage": torch.bfloat16,
    "ByteStorage": torch.uint8,
    "CharStorage": torch.int8,
    "ShortStorage": torch.int16,
    "IntStorage": torch.int32,
    "LongStorage": torch.int64,
    "BoolStorage": torch.bool,
}


class WeightsError(ValueError):
    """A file of weights is invalid; the message does not contain the file's name.

    Attributes:
        kind: "damaged"; "unsafe": it requests a call; "foreign": another file format; or "large": it exceeds the
            machine's memory.
    """

    def __init__(self, reason: str, kind: str = "damaged") -> None:
        super().__init__(reason)
        self.kind = kind


@dataclass(frozen=True)
class Storage:
    """A section of a file with the elements of one or several tensors.

    Attributes:
        key: its name in the file.
        dtype: of its elements.
        length: number of elements.
    """

    key: str
    dtype: torch.dtype
    length: int

    @property
    def bytes(self) -> int:
        """Size in bytes."""
        return self.length * self.dtype.itemsize


@dataclass(frozen=True)
class StoredTensor:
    """A tensor that has not been read; offset and strides are in elements of its storage."""

    storage: Storage
    offset: int
    shape: tuple[int, ...]
    stride: tuple[int, ...]

    @property
    def dtype(self) -> torch.dtype:
        """Type of its elements."""
        return self.storage.dtype

    @property
    def bytes(self) -> int:
        """Size of a copy in bytes."""
        return math.prod(self.shape) * self.dtype.itemsize


def stored_tensor(storage: object, offset: object, shape: object, stride: object) -> StoredTensor:
    """Validate the description of a tensor in a pickle.

    Raises:
        WeightsError: invalid, or larger than its storage (also by a stride of 0).
    """
    if not isinstance(storage, Storage) or not _is_size(offset):
        raise WeightsError("describes a tensor without a storage")
    if not isinstance(shape, tuple | list) or not isinstance(stride, tuple | list) or len(shape) != len(stride):
        raise WeightsError("describes a tensor without a shape")
    if len(shape) > MAX_DIMENSIONS or not all(map(_is_size, (*shape, *stride))):
        raise WeightsError("describes a tensor of impossible shape")
    assert isinstance(offset, int)
    elements = math.prod(shape)
    last = offset + sum((size - 1) * step for size, step in zip(shape, stride, strict=True))
    if elements and (elements > storage.length or last >= storage.length):
        raise WeightsError(f"describes a tensor {list(shape)} that is larger than its data")
    return StoredTensor(storage, offset, tuple(shape), tuple(stride))


def _is_size(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and 0 <= value < 2**62
