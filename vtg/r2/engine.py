"""The compiled engine (`kernels/`): answers queries from int8 projections; how heads and questions are handed to it.

It is built for several instruction sets where there is a compiler for them, and the best that the processor has is
used. The environment variable VTG_ENGINE names another: avx512, avx2, neon, or torch for none.
"""

from __future__ import annotations

import ctypes
import importlib.util
import os
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from ctypes import POINTER, Structure, byref, c_double, c_int, c_int64, c_void_p
from functools import lru_cache
from typing import Any

import torch
from torch import Tensor, nn

from vtg.errors import VtgError
from vtg.r2.block import temporal_positions
from vtg.r2.config import HeadConfig
from vtg.r2.decoding import HeadOutput
from vtg.r2.head import R2Head
from vtg.r2.projection import VideoProjection
from vtg.r2.pyramid import Downsampling, level_points

__all__ = ["CompiledEngine", "engine_faults", "engine_name"]

VARIABLE = "VTG_ENGINE"
NOT_COMPILED = "was not compiled"
NO_INSTRUCTIONS = "needs instructions that the processor does not have"
ENGINES = ("avx512", "avx2", "neon")  # best first
VERSION = 2  # of what the engine takes and means, as in engine.c
ROWS_PER_THREAD = 16  # frames × queries; a thread that would have fewer is not called
KEPT_BYTES = 64 << 20  # of working memory, from one question to the next
KEPT_LENGTHS = 32  # of windows whose positions are kept


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
        *((name, _Linear) for name in ("first_map", "second_map", "token_keys", "cross")),
        ("query_bias", c_void_p),
        ("folds", POINTER(_Linear)),
        ("score", c_void_p),
        *((name, _Linear) for name in ("own_queries_keys", "own_values", "own_output", "expand", "contract")),
        ("norms", _Norm * 3),
        ("levels", c_int64),
        ("strides", POINTER(c_int64)),
        ("halvings", POINTER(_Halving)),
        ("convolution", _Linear),
        *((name, c_void_p) for name in ("last", "last_bias")),
        ("outputs", c_int64),
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
        ("window_list", POINTER(_Window)),
        *((name, c_void_p) for name in ("position", "pooled", "state", "said")),
        ("filled_in_by_vtg_begin", c_int64 * 23),
    )


def engine_name() -> str:
    """Which engine answers from int8 projections here: one of `ENGINES`, or "torch".

    Raises:
        VtgError: VTG_ENGINE names an engine that this machine does not have.
    """
    return _chosen(os.environ.get(VARIABLE, ""))[0]


@lru_cache(maxsize=8)
def _chosen(wanted: str) -> tuple[str, ctypes.CDLL | None]:
    if wanted == "torch":
        return wanted, None
    for name in (wanted,) if wanted else ENGINES:
        if library := _load(name):
            return name, library
    if wanted:
        raise VtgError(f"{VARIABLE}={wanted}: no such engine on this machine; leave it out, or set it to torch")
    return "torch", None


def engine_faults() -> dict[str, str]:
    """Why each compiled engine cannot be used on this machine; "" for one that can."""
    return {name: _open(name)[1] for name in ENGINES}


def _load(name: str) -> ctypes.CDLL | None:
    """An engine, if it was built and this processor has the instructions that it is made of."""
    library, _ = _open(name)
    if library is None:
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


def _open(name: str) -> tuple[ctypes.CDLL | None, str]:
    """The shared library of an engine, or why it cannot be used."""
    built = importlib.util.find_spec(f"vtg.r2._engine_{name}")  # compiled when the package was installed
    if built is None or built.origin is None:
        return None, NOT_COMPILED
    try:
        library = ctypes.CDLL(built.origin)
        if not library.vtg_supported():
            return None, NO_INSTRUCTIONS
        layout = list((c_int64 * 3).in_dll(library, "vtg_layout"))
    except (OSError, AttributeError, ValueError):
        return None, "was compiled for another machine, or from other sources"
    if layout != [VERSION, ctypes.sizeof(_Head), ctypes.sizeof(_Question)]:
        return None, "was compiled before its sources changed"
    return library, ""


class CompiledEngine:
    """A head as the compiled engine wants it, with its weights as they are now.

    Args:
        head: one that `fits`.
    """

    def __init__(self, head: R2Head) -> None:
        _, library = _chosen(os.environ.get(VARIABLE, ""))
        assert library is not None  # as `fits` says
        self._library = library
        self._held: list[Any] = []  # what the structures point at
        self._spare: list[Tensor] = []
        self._config = head.config
        self._level_scale = head.level_scale.detach().clone()
        with torch.no_grad():
            self._head = self._structure(head)
        self._positions = lru_cache(maxsize=KEPT_LENGTHS)(
            lambda frames: temporal_positions(frames, head.config.hidden_width, like=self._level_scale)
        )

    @staticmethod
    def fits(config: HeadConfig, like: Tensor) -> bool:
        """Whether queries to a head can be answered by the compiled engine.

        Args:
            config: of the head.
            like: gives the device and dtype of its weights.
        """
        here = like.device.type == "cpu" and like.dtype == torch.float32
        share = config.hidden_width // config.attention_heads
        # Rows are read in whole registers, and in pairs of numbers.
        even = config.hidden_width % 16 == 0 and share % 2 == 0 and config.query_width % 2 == 0
        return here and even and config.spatial_pooling and engine_name() != "torch"

    def answer(self, windows: Sequence[tuple[VideoProjection, int]], queries: Tensor, lengths: list[int]) -> HeadOutput:
        """Asks N queries of V windows.

        Args:
            windows: int8 projections and which of their windows; all have as many frames and tokens.
            queries: [N, L, K, Cq], padded.
            lengths: N numbers of tokens.

        Returns:
            For B = V·N windows and queries, those of the first window first.

        Raises:
            ValueError: queries or tokens have shapes that this head does not read.
        """
        config, (frames, patches) = self._config, windows[0][0].values.shape[2:4]
        words = queries.to("cpu", torch.float32).contiguous()
        count, length = words.shape[:2]
        if words.shape[2:] != (config.layers, config.query_width) or not 0 < min(lengths) <= max(lengths) <= length:
            raise ValueError(f"queries must be [N, L, {config.layers}, {config.query_width}]")
        shape = (config.layers, frames, patches, config.hidden_width)
        for projection, _ in windows:
            if (
                projection.values.shape[1:] != shape
                or projection.scale is None
                or projection.scale.shape[1:] != shape[:3]
            ):
                raise ValueError(f"windows must all be {list(shape)}, with a scale for each token")
        items = len(windows) * count
        points = level_points(frames, config.strides, like=words)
        outputs = self._head.outputs
        state = words.new_empty(items, frames, config.hidden_width)
        said = words.new_empty(items, len(points), outputs)
        pooled = words.new_empty(count, config.hidden_width)
        places = {id(projection): _Places(projection) for projection, _ in windows}
        window_list = [places[id(projection)].window(window) for projection, window in windows]
        question = _Question(
            queries=count,
            length=length,
            windows=len(windows),
            frames=frames,
            patches=patches,
            words_in=words.data_ptr(),
            lengths=(c_int64 * count)(*lengths),
            window_list=(_Window * len(windows))(*window_list),
            position=self._positions(frames).data_ptr(),
            pooled=pooled.data_ptr(),
            state=state.data_ptr(),
            said=said.data_ptr(),
        )
        self._run(question, items * frames)
        offsets = None
        sizes = tuple(frames // stride for stride in config.strides if stride <= frames)
        if config.moment_retrieval:
            scale = self._level_scale[: len(sizes)].repeat_interleave(torch.tensor(sizes))
            offsets = said[..., :2].exp() * scale[:, None]
        return HeadOutput(state, None, pooled.repeat(len(windows), 1), said[..., -1], offsets, points, sizes)

    def _run(self, question: _Question, rows: int) -> None:
        """Answers a question in as many threads as PyTorch would use."""
        threads = torch.get_num_threads()
        head, asked = byref(self._head), byref(question)
        members = max(1, min(threads, rows // ROWS_PER_THREAD))
        memory = self._memory(self._library.vtg_begin(head, asked, members, None))
        self._library.vtg_begin(head, asked, members, memory.data_ptr())
        helpers = []
        try:
            for _ in range(members - 1):
                helpers.append(_threads(threads, os.getpid()).submit(self._library.vtg_answer, head, asked))
            self._library.vtg_answer(head, asked)
        finally:  # the memory stays until nobody works in it; helpers that are busy elsewhere are not waited for
            for helper in helpers:
                if not helper.cancel():
                    helper.result()
        if not self._spare and len(memory) <= KEPT_BYTES:
            self._spare.append(memory)

    def _memory(self, size: int) -> Tensor:
        """Bytes to work in: those of the question before, if they are enough and nobody else works in them now."""
        try:
            spare = self._spare.pop()
        except IndexError:
            spare = None
        return spare if spare is not None and size <= len(spare) else torch.empty(size, dtype=torch.uint8)

    def _structure(self, head: R2Head) -> _Head:
        config, block = head.config, head.block
        width, heads = config.hidden_width, config.attention_heads
        input_norm, _, first_map, _, inner_norm, _, second_map = block.query_map
        layer = block.refinement
        cross, own = layer.cross_attention, layer.self_attention
        expand, _, contract = layer.feed_forward
        even = (width / heads) ** -0.5  # what attention divides similarities by goes into its queries
        key_map = block.video_key.weight / width**0.5
        # The cross-attention's maps of queries and of its output, head by head; the shares of a head sum to 1.
        maps = torch.cat((cross.query.weight * even, cross.output.weight.T)).view(2 * heads, -1, width)
        share = cross.output.bias / heads
        folds = [self._linear(fold.T, None if number < heads else share) for number, fold in enumerate(maps)]
        steps = [step for level in head.pyramid.levels for step in level.children() if isinstance(step, Downsampling)]
        halvings = [
            _Halving(self._linear(_flat(step.convolution), step.convolution.bias), self._norm(step.norm))
            for step in steps
        ]
        modules: list[Any] = [module for module in (head.coordinate_head, head.class_head) if module is not None]
        firsts, lasts = [module[0] for module in modules], [module[2] for module in modules]
        taps = torch.cat([torch.block_diag(*(last.weight[:, :, tap] for last in lasts)) for tap in range(3)])
        gate = [] if block.gate is None else block.gate.sigmoid().tolist()
        norms = layer.cross_norm, layer.self_norm, layer.feed_forward_norm
        return _Head(
            width=width,
            heads=heads,
            layers=config.layers,
            query_width=config.query_width,
            amounts=self._numbers(block.scale.tanh()),
            gates=self._numbers(torch.tensor([*gate, 1.0])),
            input_norm=self._norm(input_norm),
            inner_norm=self._norm(inner_norm),
            first_map=self._map(first_map),
            second_map=self._map(second_map),
            # The bias of the tokens' keys adds the same to all similarities of a word: the softmax does not see it.
            token_keys=self._linear(key_map.T @ block.query_key.weight, block.query_key.bias @ key_map),
            cross=self._joined(cross.key, cross.value),
            query_bias=self._numbers(cross.query.bias * even),
            folds=self._array(_Linear, folds),
            score=self._numbers(head.pooling.score.weight),
            own_queries_keys=self._linear(
                torch.cat((own.query.weight * even, own.key.weight)), torch.cat((own.query.bias * even, own.key.bias))
            ),
            own_values=self._map(own.value),
            own_output=self._map(own.output),
            expand=self._map(expand),
            contract=self._map(contract),
            norms=(_Norm * 3)(*map(self._norm, norms)),
            levels=len(config.strides),
            strides=self._array(c_int64, config.strides),
            halvings=self._array(_Halving, halvings),
            convolution=self._linear(torch.cat([_flat(first) for first in firsts]), _biases(firsts)),
            last=self._numbers(taps),
            last_bias=self._numbers(_biases(lasts)),
            outputs=len(taps) // 3,
        )

    def _linear(self, weight: Tensor, bias: Tensor | None) -> _Linear:
        """A product with [outputs, inputs], and what is added, [outputs]."""
        weight = weight.detach().contiguous()
        outputs, inputs = weight.shape
        panels = torch.empty(self._library.vtg_panels_bytes(outputs, inputs), dtype=torch.uint8)
        if not self._library.vtg_pack(weight.data_ptr(), outputs, inputs, panels.data_ptr()):
            raise MemoryError(f"not enough memory for a head of width {self._config.hidden_width}")
        self._held.append(panels)
        return _Linear(panels.data_ptr(), None if bias is None else self._numbers(bias), inputs, outputs)

    def _map(self, linear: Any) -> _Linear:
        return self._linear(linear.weight, linear.bias)

    def _joined(self, *linears: nn.Linear) -> _Linear:
        return self._linear(torch.cat([linear.weight for linear in linears]), _biases(linears))

    def _norm(self, norm: Any) -> _Norm:
        return _Norm(self._numbers(norm.weight), self._numbers(norm.bias), norm.eps)

    def _numbers(self, numbers: Tensor) -> int:
        own = numbers.detach().float().contiguous().clone()
        self._held.append(own)
        return own.data_ptr()

    def _array(self, kind: Any, items: Sequence[Any]) -> Any:
        array = (kind * len(items))(*items)
        self._held.append(array)
        return array


def _flat(convolution: Any) -> Tensor:
    """The weights of a convolution as those of a linear layer of neighbouring frames: [outputs, kernel·D]."""
    return torch.as_tensor(convolution.weight.transpose(1, 2).flatten(1))


def _biases(layers: Sequence[Any]) -> Tensor:
    return torch.cat([layer.bias for layer in layers])


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


@lru_cache(maxsize=1)
def _threads(count: int, process: int) -> ThreadPoolExecutor:
    """Threads of this process; a fork has none of its parent's."""
    return ThreadPoolExecutor(count, "vtg-engine")
