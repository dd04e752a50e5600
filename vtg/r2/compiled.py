"""The compiled kernels (`kernels/`): whether this machine has them, and how heads and questions are handed to them."""

from __future__ import annotations

import ctypes
import importlib.util
from collections.abc import Sequence
from ctypes import POINTER, Structure, byref, c_double, c_int, c_int64, c_void_p
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import torch
from torch import Tensor, nn

from vtg.r2.config import HeadConfig
from vtg.r2.head import R2Head
from vtg.r2.pooling import Pooling
from vtg.r2.projection import VideoProjection
from vtg.r2.readout import Readout, halving_steps, halving_weights
from vtg.r2.refinement import Refinement
from vtg.r2.threads import run_together

__all__ = ["CompiledHead", "Refined", "is_compiled_for"]

VERSION = 1  # of what the kernels take and mean: who changes that changes it in answer.c, too
WHOLE_ROWS = 32  # the head's width is a multiple of it: rows are read without remainders
ROWS_EACH = 16  # frames times queries; a thread that would have fewer is not called
KEPT_BYTES = 64 << 20  # of memory to work in, from one question to the next


class _Linear(Structure):
    _fields_ = (("panels", c_void_p), ("bias", c_void_p), ("inputs", c_int64), ("outputs", c_int64))


class _Norm(Structure):
    _fields_ = (("scale", c_void_p), ("shift", c_void_p), ("epsilon", c_double))


class _Halving(Structure):
    _fields_ = (("product", _Linear), ("norm", _Norm))


class _Head(Structure):
    _fields_ = (
        *((name, c_int64) for name in ("width", "heads", "layers", "query_width")),
        *((name, c_void_p) for name in ("amounts", "gates")),
        *((name, _Norm) for name in ("input_norm", "inner_norm")),
        *((name, _Linear) for name in ("first_map", "second_map", "look", "attend")),
        ("query_bias", c_void_p),
        ("folds", POINTER(_Linear)),
        ("score", c_void_p),
        *((name, _Linear) for name in ("own", "own_output", "expand", "contract")),
        ("norms", _Norm * 3),
        ("levels", c_int64),
        ("strides", POINTER(c_int64)),
        ("halvings", POINTER(_Halving)),
        ("convolution", _Linear),
        ("last", c_void_p),
        ("taps", c_int64),
    )


class _Window(Structure):
    _fields_ = (
        *((name, c_void_p) for name in ("tokens", "scales")),
        *((name, c_int64) for name in ("token_stride", "scale_stride")),
    )


class _Question(Structure):
    _fields_ = (
        *((name, c_int64) for name in ("queries", "length", "windows", "frames", "patches")),
        ("words_in", c_void_p),
        ("lengths", POINTER(c_int64)),
        ("looked_at", POINTER(_Window)),
        *((name, c_void_p) for name in ("position", "own_place", "pooled", "state", "taps")),
        # What follows is filled in by `vtg_begin`.
        *((name, c_int64) for name in ("joined", "together", "groups", "stride", "padded")),
        *((name, c_int64) for name in ("block", "blocks", "own_block", "own_blocks")),
        *((name, c_int64) for name in ("rows", "row_block", "row_blocks")),
        *((name, c_void_p) for name in ("progress", "words", "looking", "key_panels", "value_columns", "key_bias")),
        *((name, c_void_p) for name in ("own", "own_keys", "own_values", "stacked", "privately")),
        ("private_bytes", c_int64),
    )


@lru_cache(maxsize=1)
def _library() -> ctypes.CDLL | None:
    """The kernels, if they were built and this processor has the instructions that they are made of."""
    built = importlib.util.find_spec("vtg.r2._kernels")  # compiled when the package was installed, where that worked
    if built is None or built.origin is None:
        return None
    try:
        library = ctypes.CDLL(built.origin)
        if not library.vtg_supported():
            return None
        layout = list((c_int64 * 3).in_dll(library, "vtg_layout"))
    except (OSError, AttributeError, ValueError):  # built for another machine, or from other sources
        return None
    if layout != [VERSION, ctypes.sizeof(_Head), ctypes.sizeof(_Question)]:  # built before the sources changed
        return None
    library.vtg_panels_bytes.argtypes = [c_int64] * 2
    library.vtg_panels_bytes.restype = c_int64
    library.vtg_pack.argtypes = [c_void_p, c_int64, c_int64, c_void_p]
    library.vtg_pack.restype = c_int
    library.vtg_begin.argtypes = [POINTER(_Head), POINTER(_Question), c_int64, c_void_p]
    library.vtg_begin.restype = c_int64
    library.vtg_answer.argtypes = [POINTER(_Head), POINTER(_Question)]
    library.vtg_answer.restype = None
    return library


def is_compiled_for(config: HeadConfig, like: Tensor) -> bool:
    """Whether questions to a head can be answered by the kernels.

    Args:
        config: of the head.
        like: gives the device and dtype of its weights.
    """
    here = like.device.type == "cpu" and like.dtype == torch.float32
    width, share = config.hidden_width, config.hidden_width // config.attention_heads
    fits = width % WHOLE_ROWS == 0 and share % 2 == 0 and config.query_width % 2 == 0
    return here and fits and config.spatial_pooling and _library() is not None


@dataclass(frozen=True, eq=False)
class Refined:
    """What the kernels make of N queries and V windows, before it is decoded.

    Attributes:
        state: [N, V, T, D], rectified.
        taps: [N, V, rows, taps] what `Readout.decode` wants.
        pooled: [N, D] the queries.
    """

    state: Tensor
    taps: Tensor
    pooled: Tensor


class CompiledHead:
    """A head as the kernels want it: the same function as the parts that it is made from, with products of bfloat16.

    Args:
        head: one that `is_compiled_for`; its weights are taken as they are now.
        pool: its pooling.
        refine: its refinement.
        read: its readout.
    """

    def __init__(self, head: R2Head, pool: Pooling, refine: Refinement, read: Readout) -> None:
        library = _library()
        assert library is not None  # `is_compiled_for` was asked before
        self._library = library
        self._held: list[Any] = []  # what the structures point at
        self._spare: list[Tensor] = []
        self._config = head.config
        self._place = refine.placed
        self._rows, self._taps = read.rows, len(read.last)
        block, config = head.block, head.config
        input_norm, _, first_map, _, inner_norm, _, second_map = block.query_map
        refinement = block.refinement
        expand, _, contract = refinement.feed_forward
        norms = refinement.cross_norm, refinement.self_norm, refinement.feed_forward_norm
        steps = [step for level in halving_steps(head) for step in level]
        halvings = [_Halving(self._linear(*halving_weights([step])), self._norm(step.norm)) for step in steps]
        gate = [] if block.gate is None else block.gate.detach().sigmoid().tolist()
        self._head = _Head(
            width=config.hidden_width,
            heads=config.attention_heads,
            layers=config.layers,
            query_width=config.query_width,
            amounts=self._numbers(torch.tensor(pool.amounts)),
            gates=self._numbers(torch.tensor([*gate, 1.0])),
            input_norm=self._norm(input_norm),
            inner_norm=self._norm(inner_norm),
            first_map=self._map(first_map),
            second_map=self._map(second_map),
            look=self._linear(pool.key_weight.T, pool.key_bias),
            attend=self._linear(*refine.word_maps),
            query_bias=self._numbers(refine.query_bias),
            folds=self._array(_Linear, [self._linear(fold.T, bias) for fold, bias in refine.folds]),
            score=self._numbers(head.pooling.score.weight),
            own=self._linear(refine.own, None),
            own_output=self._linear(*refine.own_output),
            expand=self._map(expand),
            contract=self._map(contract),
            norms=(_Norm * 3)(*map(self._norm, norms)),
            levels=len(config.strides),
            strides=self._array(c_int64, config.strides),
            halvings=self._array(_Halving, halvings),
            convolution=self._linear(*read.convolution),
            last=self._numbers(read.last),
            taps=self._taps,
        )

    def __call__(
        self, windows: Sequence[tuple[VideoProjection, int]], queries: Sequence[Tensor], threads: int
    ) -> Refined:
        """Asks N queries of V windows.

        Args:
            windows: int8 projections and which of their windows; all have as many frames and tokens.
            queries: [L, K, Cq] each.
            threads: at most, this one with them; as `run_in_threads` has.

        Raises:
            ValueError: queries or tokens have shapes that this head does not read: nothing would stop at their ends.
        """
        config, (frames, patches) = self._config, windows[0][0].values.shape[2:4]
        words = nn.utils.rnn.pad_sequence(list(queries), batch_first=True).to("cpu", torch.float32)
        count, length = words.shape[:2]
        if min(map(len, queries)) < 1 or words.shape[2:] != (config.layers, config.query_width):
            raise ValueError(f"queries must be [L, {config.layers}, {config.query_width}], L at least 1")
        shape = (config.layers, frames, patches, config.hidden_width)
        for projection, _ in windows:
            if projection.values.shape[1:] != shape or projection.scale.shape[1:] != shape[:3]:  # type: ignore[union-attr]
                raise ValueError(f"windows must all be {list(shape)}, with a scale for each token")
        state = words.new_empty(count, len(windows), frames, config.hidden_width)
        taps = words.new_empty(count, len(windows), self._rows(frames), self._taps)
        pooled = words.new_empty(count, config.hidden_width)
        position, own_place = self._place(frames)
        found = {id(projection): _Places(projection) for projection, _ in windows}
        looked_at = [found[id(projection)].window(window) for projection, window in windows]
        question = _Question(
            queries=count,
            length=length,
            windows=len(windows),
            frames=frames,
            patches=patches,
            words_in=words.data_ptr(),
            lengths=(c_int64 * count)(*map(len, queries)),
            looked_at=(_Window * len(windows))(*looked_at),
            position=position.data_ptr(),
            own_place=own_place.data_ptr(),
            pooled=pooled.data_ptr(),
            state=state.data_ptr(),
            taps=taps.data_ptr(),
        )
        head, asked = byref(self._head), byref(question)
        members = max(1, min(threads, count * len(windows) * frames // ROWS_EACH))
        memory = self._memory(self._library.vtg_begin(head, asked, members, None))
        self._library.vtg_begin(head, asked, members, memory.data_ptr())
        run_together(lambda: self._library.vtg_answer(head, asked), members - 1, threads)
        if not self._spare and len(memory) <= KEPT_BYTES:
            self._spare.append(memory)
        return Refined(state, taps, pooled)

    def _memory(self, size: int) -> Tensor:
        """Bytes to work in: those of the question before, if they are enough and nobody else works in them now."""
        try:
            spare = self._spare.pop()
        except IndexError:
            spare = None
        return spare if spare is not None and size <= len(spare) else torch.empty(size, dtype=torch.uint8)

    def _linear(self, weight: Tensor, bias: Tensor | None) -> _Linear:
        """A product with [outputs, inputs], and what is added, [outputs]."""
        weight = weight.detach().contiguous()
        outputs, inputs = weight.shape
        panels = torch.empty(self._library.vtg_panels_bytes(outputs, inputs), dtype=torch.uint8)
        if not self._library.vtg_pack(weight.data_ptr(), outputs, inputs, panels.data_ptr()):
            raise MemoryError(f"not enough memory for a head of width {self._config.hidden_width}")
        self._held.append(panels)
        return _Linear(panels.data_ptr(), None if bias is None else self._numbers(bias), inputs, outputs)

    def _map(self, linear: nn.Module) -> _Linear:
        assert isinstance(linear, nn.Linear)
        return self._linear(linear.weight, linear.bias)

    def _norm(self, norm: nn.Module) -> _Norm:
        assert isinstance(norm, nn.LayerNorm)
        return _Norm(self._numbers(norm.weight), self._numbers(norm.bias), norm.eps)

    def _numbers(self, numbers: Tensor) -> int:
        own = numbers.detach().float().contiguous()
        self._held.append(own)
        return own.data_ptr()

    def _array(self, kind: Any, items: Sequence[Any]) -> Any:
        array = (kind * len(items))(*items)
        self._held.append(array)
        return array


class _Places:
    """Where the windows of a projection lie in memory."""

    def __init__(self, projection: VideoProjection) -> None:
        values, scale = projection.values, projection.scale
        assert scale is not None and values.dtype == torch.int8 and scale.dtype == torch.float16
        patches, width = values.shape[3:]
        # Each layer of a window is read as it lies there: without gaps, or it is copied.
        if values.stride()[2:] != (patches * width, width, 1):
            values = values.contiguous()
        if scale.stride()[2:] != (patches, 1):
            scale = scale.contiguous()
        self._values, self._scale = values, scale
        self._tokens, self._scales = values.data_ptr(), scale.data_ptr()

    def window(self, number: int) -> _Window:
        tokens = self._tokens + number * self._values.stride(0)
        scales = self._scales + number * self._scale.stride(0) * torch.float16.itemsize
        return _Window(tokens, scales, self._values.stride(1), self._scale.stride(1))
