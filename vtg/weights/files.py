"""Open a file of weights, check its shapes and read its tensors."""

from __future__ import annotations

import math
import os
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any, BinaryIO

import torch
from torch import Tensor

from vtg.weights.archives import LegacyFile, TorchArchive, open_container
from vtg.weights.memory import total_memory
from vtg.weights.pickles import ModuleRecord
from vtg.weights.stored import Storage, StoredTensor, WeightsError

__all__ = ["WeightsFile", "check_finite", "open_weights", "read_content"]

MAX_HEADER_BYTES = 8 << 20  # of a safetensors file; that of a ViT-L is 70 kB
MAX_TENSORS = 20_000
MAX_DEPTH = 64  # of nested containers and modules
MAX_ITEMS = 2_000_000  # in all containers, counted at each visit
MAX_SIZE_RATIO = 4  # of all tensors to the file: tied weights share their storage
WRAPPERS = ("state_dict", "model")  # keys of the state dict in a checkpoint
SAFETENSORS_TYPES = {
    "F64": torch.float64, "F32": torch.float32, "F16": torch.float16, "BF16": torch.bfloat16, "I64": torch.int64,
    "I32": torch.int32, "I16": torch.int16, "I8": torch.int8, "U8": torch.uint8, "BOOL": torch.bool,
}  # fmt: skip


class WeightsFile:
    """The tensors of an open file: shapes and types, and on request their values.

    Args:
        shapes: of the tensors by name.
        dtypes: of the tensors by name.
        metadata: of a safetensors file; empty for other formats.
        read: callback that reads all values.
    """

    def __init__(
        self,
        shapes: Mapping[str, torch.Size],
        dtypes: Mapping[str, torch.dtype],
        metadata: Mapping[str, str],
        read: Any,
    ) -> None:
        self.shapes = shapes
        self.dtypes = dtypes
        self.metadata = metadata
        self._read = read

    @property
    def bytes(self) -> int:
        """Size of all tensors in memory, bytes."""
        return sum(math.prod(shape) * self.dtypes[name].itemsize for name, shape in self.shapes.items())

    def read(self) -> dict[str, Tensor]:
        """Read all tensors, on the CPU; those that share a storage share memory.

        Raises:
            WeightsError: the file is damaged, or its tensors are larger than the machine's memory.
        """
        check_memory(self.bytes)
        tensors: dict[str, Tensor] = self._read()
        return tensors


@contextmanager
def open_weights(path: Path) -> Iterator[WeightsFile]:
    """Open a file of weights and read the description of its tensors.

    The prefix ``module.`` of data-parallel training is removed from names. A TorchScript archive gives the tensors of
    all modules by their dotted names, as its ``state_dict()`` would, and also tensors that are plain attributes.

    Args:
        path: safetensors if it has this suffix; otherwise a state dict, possibly under the key "state_dict" or
            "model", or a TorchScript archive.

    Raises:
        WeightsError: damaged, or containing anything but plain tensors; the message does not name the file.
    """
    try:
        if path.suffix == ".safetensors":
            with _open_safetensors(path) as weights:
                yield weights
            return
        with path.open("rb") as file:
            yield _open_torch(file)
    except OSError as error:
        raise WeightsError(f"cannot be read ({error.strerror or error})") from None


def read_content(path: Path) -> Any:
    """Read a file of `torch.save` as plain containers with tensors.

    Raises:
        FileNotFoundError: the file does not exist.
        WeightsError: damaged, or containing other objects.
    """
    with path.open("rb") as file:
        container = open_container(file, os.fstat(file.fileno()).st_size)
        return _Reader(container).with_tensors(container.content)


def check_finite(tensors: Mapping[str, Tensor]) -> None:
    """Check that all weights are finite.

    Raises:
        WeightsError: with the name of the first tensor that contains NaN or infinity.
    """
    for name, tensor in tensors.items():
        if tensor.is_floating_point() and tensor.numel() and not all(map(math.isfinite, torch.aminmax(tensor))):
            raise WeightsError(f"holds NaN or infinite weights, in {name[:60]}")


def check_memory(wanted: int) -> None:
    """Check that tensors of `wanted` bytes fit into the memory, before allocating them.

    Raises:
        WeightsError: they are larger than the memory.
    """
    memory = total_memory()
    if memory is not None and wanted > memory:
        raise WeightsError(
            f"holds {wanted / 1e9:.1f} GB of tensors, more than the memory ({memory / 1e9:.1f} GB)", "large"
        )


@contextmanager
def _open_safetensors(path: Path) -> Iterator[WeightsFile]:
    from safetensors import SafetensorError, safe_open

    with path.open("rb") as start:
        length = int.from_bytes(start.read(8), "little")
    if length > MAX_HEADER_BYTES:
        raise WeightsError(f"claims a header of {length} bytes")
    with ExitStack() as stack:
        try:
            file = stack.enter_context(safe_open(path, framework="pt"))
            names = list(file.keys())
            if len(names) > MAX_TENSORS:
                raise WeightsError(f"has {len(names)} tensors, more than any model")
            shapes, dtypes = {}, {}
            for name in names:
                part = file.get_slice(name)
                shapes[name], dtypes[name] = torch.Size(part.get_shape()), _safetensors_type(part.get_dtype())
            metadata = file.metadata() or {}
        except (SafetensorError, OverflowError, RuntimeError, TypeError) as error:
            raise WeightsError(f"not a whole safetensors file: {' '.join(str(error).split())[:100]}") from None

        def read() -> dict[str, Tensor]:
            try:
                return {name.removeprefix("module."): file.get_tensor(name) for name in names}
            except (SafetensorError, RuntimeError) as error:
                raise WeightsError(f"cannot be read: {' '.join(str(error).split())[:100]}") from None

        plain = {name.removeprefix("module."): shape for name, shape in shapes.items()}
        yield WeightsFile(plain, {name.removeprefix("module."): dtypes[name] for name in names}, metadata, read)


def _safetensors_type(name: str) -> torch.dtype:
    if name not in SAFETENSORS_TYPES:
        raise WeightsError(f"has tensors of unknown type ({name[:20]})")
    return SAFETENSORS_TYPES[name]


def _open_torch(file: BinaryIO) -> WeightsFile:
    size = os.fstat(file.fileno()).st_size
    container = open_container(file, size)
    content = container.content
    for wrapper in WRAPPERS:
        if isinstance(content, dict) and isinstance(content.get(wrapper), dict | ModuleRecord):
            content = content[wrapper]
    if isinstance(content, ModuleRecord):
        found = _module_tensors(content)
    elif isinstance(content, dict) and content:
        found = content
    else:
        raise WeightsError("holds no state_dict of tensors", "foreign")
    tensors: dict[str, StoredTensor] = {}
    for name, value in found.items():
        if not isinstance(name, str) or not isinstance(value, StoredTensor):
            raise WeightsError(f"not plain tensors: {str(name)[:60]!r} is {type(value).__name__}", "foreign")
        tensors[name.removeprefix("module.")] = value
    if len(tensors) > MAX_TENSORS:
        raise WeightsError(f"has {len(tensors)} tensors, more than any model")
    if sum(stored.bytes for stored in tensors.values()) > MAX_SIZE_RATIO * size:
        raise WeightsError("claims tensors of more bytes than the file has")
    reader = _Reader(container)
    return WeightsFile(
        {name: torch.Size(stored.shape) for name, stored in tensors.items()},
        {name: stored.dtype for name, stored in tensors.items()},
        {},
        lambda: {name: reader.tensor(stored) for name, stored in tensors.items()},
    )


def _module_tensors(module: ModuleRecord) -> dict[str, StoredTensor]:
    """The tensors of a TorchScript module and its submodules, by their dotted names."""
    tensors: dict[str, StoredTensor] = {}
    pending: list[tuple[str, ModuleRecord, int]] = [("", module, 0)]
    visited = 0
    while pending:
        prefix, record, depth = pending.pop()
        visited += 1
        if depth > MAX_DEPTH or visited > MAX_TENSORS:
            raise WeightsError("has modules in one another without end")
        for name, value in (record.state or {}).items():
            if isinstance(value, ModuleRecord):
                pending.append((f"{prefix}{name}.", value, depth + 1))
            elif isinstance(value, StoredTensor):
                tensors[f"{prefix}{name}"] = value
    return tensors


class _Reader:
    """Reads stored tensors; each storage is read once."""

    def __init__(self, container: TorchArchive | LegacyFile) -> None:
        self._container = container
        self._storages: dict[Storage, Tensor] = {}
        self._items = 0

    def tensor(self, stored: StoredTensor) -> Tensor:
        """Read a tensor."""
        if stored.storage not in self._storages:
            self._storages[stored.storage] = self._container.read(stored.storage)
        return self._storages[stored.storage].as_strided(stored.shape, stored.stride, stored.offset)

    def with_tensors(self, value: Any, depth: int = 0) -> Any:
        """A copy of containers in which stored tensors are replaced by tensors."""
        self._items += 1
        if depth > MAX_DEPTH or self._items > MAX_ITEMS:
            raise WeightsError("has containers in one another without end")
        if isinstance(value, StoredTensor):
            return self.tensor(value)
        if isinstance(value, dict):
            return {key: self.with_tensors(item, depth + 1) for key, item in value.items()}
        if isinstance(value, list | tuple):
            return type(value)(self.with_tensors(item, depth + 1) for item in value)
        if isinstance(value, str | bytes | int | float | None):
            return value
        raise WeightsError(f"holds {type(value).__name__} besides tensors")
