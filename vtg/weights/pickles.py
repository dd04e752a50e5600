"""Interpret a pickle of tensors as data, without importing or calling anything that it names.

The standard unpickler imports and calls named objects, and even with restricted names allocates memory as the pickle
requests (a memo index of 2**31 takes gigabytes). Here opcodes only modify plain containers.
"""

from __future__ import annotations

import pickletools
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, BinaryIO

from vtg.files.text import error_line
from vtg.weights.stored import DTYPES, Storage, WeightsError, stored_tensor

__all__ = ["ModuleRecord", "PickledContent", "read_pickle"]

MAX_BYTES = 64 << 20  # of a pickle; that of a ViT-L is below 1 MB
MAX_OPCODES = 2_000_000  # about 5 s; a ViT-L has 30,000
SCRIPT_CLASSES = "__torch__"  # first part of the module names in TorchScript


@dataclass(frozen=True)
class _GlobalName:
    """A global name in a pickle; it is only compared with known names, never imported."""

    module: str
    name: str

    def __str__(self) -> str:
        return f"{self.module}.{self.name}"[:80]


@dataclass(frozen=True)
class _Mark:
    """Marks the start of a container's items on the stack."""


@dataclass
class ModuleRecord:
    """A TorchScript module as plain data.

    Attributes:
        state: its attributes by name; None until they are set.
    """

    state: dict[str, Any] | None = None


@dataclass(frozen=True)
class PickledContent:
    """The content of one pickle.

    Attributes:
        value: dicts, lists, tuples, strings, numbers and None; `StoredTensor` for a tensor, `Storage` for a storage
            alone, `ModuleRecord` for a module of TorchScript. Containers may be recursive.
        storages: all storages named in the pickle, also unused ones.
    """

    value: Any
    storages: list[Storage]


class _BoundedStream:
    """A file object for `pickletools` that limits the length of a pickle."""

    def __init__(self, file: BinaryIO) -> None:
        self._file = file
        self._left = MAX_BYTES

    def read(self, size: int) -> bytes:
        return self._count(self._file.read(min(size, self._left + 1)))

    def readline(self) -> bytes:
        return self._count(self._file.readline(self._left + 1))

    def _count(self, data: bytes) -> bytes:
        self._left -= len(data)
        if self._left < 0:
            raise WeightsError(f"has a pickle of more than {MAX_BYTES >> 20} MB")
        return data


def read_pickle(file: BinaryIO) -> PickledContent:
    """Read one pickle; the file is then positioned after its last byte.

    Args:
        file: open for reading, at the start of the pickle.

    Raises:
        WeightsError: damaged, too long, or containing other objects.
    """
    interpreter = _Interpreter()
    try:
        for count, (opcode, argument, _) in enumerate(pickletools.genops(_BoundedStream(file))):  # type: ignore[arg-type]
            if count > MAX_OPCODES:
                raise WeightsError(f"has a pickle of more than {MAX_OPCODES} steps")
            interpreter.step(opcode.name, argument)
        return PickledContent(interpreter.result(), interpreter.storages)
    except WeightsError:
        raise
    except (ValueError, IndexError, KeyError, TypeError, OverflowError, AttributeError) as error:
        raise WeightsError(f"has a damaged pickle ({error_line(error)})") from None


class _Interpreter:
    """Interpreter of pickle opcodes, with stack and memo."""

    def __init__(self) -> None:
        self._stack: list[Any] = []
        self._memo: dict[int, Any] = {}
        self.storages: list[Storage] = []

    def result(self) -> Any:
        """The content of the pickle, after its last opcode."""
        (content,) = self._stack
        return content

    def step(self, opcode: str, argument: Any) -> None:
        """Execute one opcode."""
        stack = self._stack
        if opcode in _VALUES:
            stack.append(argument)
        elif opcode in _CONSTANTS:
            stack.append(_CONSTANTS[opcode]())
        elif opcode in ("BINPUT", "LONG_BINPUT", "PUT"):
            self._memo[argument] = stack[-1]
        elif opcode == "MEMOIZE":
            self._memo[len(self._memo)] = stack[-1]
        elif opcode in ("BINGET", "LONG_BINGET", "GET"):
            stack.append(self._memo[argument])
        elif opcode in _TUPLES:
            self._push_tuple(_TUPLES[opcode])
        elif opcode in ("APPEND", "APPENDS"):
            items = self._popped_items() if opcode == "APPENDS" else [stack.pop()]
            _typed(stack[-1], list).extend(items)
        elif opcode in ("SETITEM", "SETITEMS"):
            items = self._popped_items() if opcode == "SETITEMS" else [stack.pop(-2), stack.pop()]
            _set_items(_typed(stack[-1], dict), items)
        elif opcode == "GLOBAL":
            module, _, name = argument.partition(" ")
            stack.append(_GlobalName(module, name))
        elif opcode == "STACK_GLOBAL":
            name, module = _typed(stack.pop(), str), _typed(stack.pop(), str)
            stack.append(_GlobalName(module, name))
        elif opcode == "BINPERSID":
            stack.append(_storage(stack.pop()))
            self.storages.append(stack[-1])
        elif opcode == "REDUCE":
            arguments, function = stack.pop(), stack.pop()
            stack.append(_call_result(function, _typed(arguments, tuple)))
        elif opcode == "NEWOBJ":
            arguments, kind = stack.pop(), stack.pop()
            stack.append(_module(kind, arguments))
        elif opcode == "BUILD":
            state = stack.pop()
            _set_state(stack[-1], state)
        elif opcode not in ("PROTO", "FRAME", "STOP"):
            raise WeightsError(f"has a pickle with {opcode}, which no file of weights needs", "unsafe")

    def _popped_items(self) -> list[Any]:
        """Pop the items above the last mark, and the mark, from the stack."""
        place = len(self._stack) - 1
        while not isinstance(self._stack[place], _Mark):
            place -= 1
            if place < 0:
                raise ValueError("items without a beginning")
        items = self._stack[place + 1 :]
        del self._stack[place:]
        return items

    def _push_tuple(self, size: int | None) -> None:
        if size is None:
            items = self._popped_items()
        else:
            items = self._stack[len(self._stack) - size :]
            del self._stack[len(self._stack) - size :]
            if len(items) != size:
                raise ValueError("a tuple with too few items")
        self._stack.append(tuple(items))


# Opcodes that push their argument: numbers, strings and bytes.
_VALUES = frozenset(
    {"INT", "BININT", "BININT1", "BININT2", "LONG", "LONG1", "LONG4", "FLOAT", "BINFLOAT"}
    | {"UNICODE", "BINUNICODE", "SHORT_BINUNICODE", "BINUNICODE8", "STRING", "BINSTRING", "SHORT_BINSTRING"}
    | {"BINBYTES", "SHORT_BINBYTES", "BINBYTES8"}
)
_CONSTANTS: dict[str, Callable[[], Any]] = {
    "NONE": lambda: None,
    "NEWTRUE": lambda: True,
    "NEWFALSE": lambda: False,
    "EMPTY_LIST": list,
    "EMPTY_DICT": dict,
    "EMPTY_TUPLE": tuple,
    "MARK": _Mark,
}
_TUPLES = {"TUPLE": None, "TUPLE1": 1, "TUPLE2": 2, "TUPLE3": 3}


def _set_items(target: dict[Any, Any], items: list[Any]) -> None:
    if len(items) % 2:
        raise ValueError("a key without a value")
    for key, value in zip(items[::2], items[1::2], strict=True):
        # Restricted, as the hash of a tuple nested a million times would overflow the interpreter's stack.
        if not isinstance(key, str | int | float | bool | None):
            raise TypeError(f"a key that is {type(key).__name__}")
        target[key] = value


def _storage(name: object) -> Storage:
    """Parse ``('storage', class, key, device, length)``; a sixth item, in old files, must be None (no view)."""
    parts = _typed(name, tuple)
    if len(parts) not in (5, 6) or parts[0] != "storage" or parts[5:] not in ((), (None,)):
        raise WeightsError("names a storage of unknown kind")
    kind, key, length = parts[1], _typed(parts[2], str), parts[4]
    dtype = DTYPES.get(kind.name) if isinstance(kind, _GlobalName) and kind.module == "torch" else None
    if dtype is None:
        raise WeightsError(
            f"has tensors of unknown type ({kind})" if isinstance(kind, _GlobalName) else "names no storage"
        )
    if not isinstance(length, int) or isinstance(length, bool) or not 0 <= length < 2**62:
        raise WeightsError("names a storage of impossible length")
    return Storage(key, dtype, length)


def _call_result(function: object, arguments: tuple[Any, ...]) -> Any:
    """The result of a call, for the functions that occur in files of weights; all others are refused."""
    named = str(_typed(function, _GlobalName))
    if named in ("torch._utils._rebuild_tensor_v2", "torch._utils._rebuild_tensor"):
        return stored_tensor(*arguments[:4])
    if named == "torch._utils._rebuild_parameter":
        return arguments[0]
    if named == "collections.OrderedDict":
        content: dict[Any, Any] = {}
        for pair in _typed(arguments[0], list) if arguments else []:
            _set_items(content, list(pair))
        return content
    if named == "torch.Size":
        return _typed(arguments[0], tuple)
    if named == "torch.device":
        return ":".join(str(part) for part in arguments if isinstance(part, str | int))
    if named.startswith("torch.jit._pickle.build_"):
        return _typed(arguments[0], list)
    if named == "torch.jit._pickle.restore_type_tag":
        return arguments[0]
    raise WeightsError(f"asks for {named} to be called", "unsafe")


def _module(kind: object, arguments: object) -> ModuleRecord:
    named = _typed(kind, _GlobalName)
    if named.module.split(".")[0] != SCRIPT_CLASSES or arguments != ():
        raise WeightsError(f"asks for an object of {named}", "unsafe")
    return ModuleRecord()


def _set_state(target: object, state: object) -> None:
    if isinstance(target, dict) and isinstance(state, dict):
        return  # attributes of a state dict, with the versions of its modules
    if not isinstance(target, ModuleRecord):
        raise WeightsError("sets the attributes of something other than a module", "unsafe")
    if not isinstance(state, dict):
        raise WeightsError("has a module that restores itself by its own code", "unsafe")
    target.state = state


def _typed(value: Any, kind: type) -> Any:
    if not isinstance(value, kind):
        raise TypeError(f"{type(value).__name__} in place of {kind.__name__.strip('_').lower()}")
    return value
