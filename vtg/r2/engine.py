"""Call the compiled engine (`kernels/`), which computes a head's outputs from int8 projections.

It is built for several instruction sets where a compiler is available, and the best one that the processor supports is
used. The environment variable VTG_ENGINE selects another: avx512, avx2, neon, or torch for none.
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

__all__ = ["CompiledEngine", "engine_name"]

ENGINE_VARIABLE = "VTG_ENGINE"
ENGINES = ("avx512", "avx2", "neon")  # best first
VERSION = 2  # of the interface, as in engine.c
MIN_ROWS_PER_THREAD = 16  # frames × queries; fewer threads are used for fewer rows
MAX_SPARE_BYTES = 64 << 20  # of working memory kept for the next batch
CACHED_LENGTHS = 32  # window lengths whose positional encodings are cached


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


class _QueryBatch(Structure):
    _fields_ = (
        *((name, c_int64) for name in ("queries", "length", "windows", "frames", "patches")),
        ("query_features", c_void_p),
        ("lengths", POINTER(c_int64)),
        ("window_list", POINTER(_Window)),
        *((name, c_void_p) for name in ("position", "pooled", "state", "predictions")),
        ("filled_in_by_vtg_begin", c_int64 * 23),
    )


def engine_name() -> str:
    """The engine used for int8 projections: one of `ENGINES`, or "torch".

    Raises:
        VtgError: VTG_ENGINE names an engine that is not available on this machine.
    """
    return _chosen(os.environ.get(ENGINE_VARIABLE, ""))[0]


@lru_cache(maxsize=8)
def _chosen(wanted: str) -> tuple[str, ctypes.CDLL | None]:
    if wanted == "torch":
        return wanted, None
    for name in (wanted,) if wanted else ENGINES:
        if library := _load(name):
            return name, library
    if wanted:
        raise VtgError(f"{ENGINE_VARIABLE}={wanted}: not available on this machine; unset it, or set it to torch")
    return "torch", None


def _load(name: str) -> ctypes.CDLL | None:
    """Load an engine; None if it was not built, or this processor lacks its instructions."""
    built = importlib.util.find_spec(f"vtg.r2._engine_{name}")  # compiled when the package was installed
    if built is None or built.origin is None:
        return None
    try:
        library = ctypes.CDLL(built.origin)
        if not library.vtg_supported():
            return None
        layout = list((c_int64 * 3).in_dll(library, "vtg_layout"))
    except (OSError, AttributeError, ValueError):  # built for another machine, or from other sources
        return None
    if layout != [VERSION, ctypes.sizeof(_Head), ctypes.sizeof(_QueryBatch)]:  # built before the sources changed
        return None
    library.vtg_panels_bytes.argtypes = [c_int64] * 2
    library.vtg_panels_bytes.restype = c_int64
    library.vtg_pack.argtypes = [c_void_p, c_int64, c_int64, c_void_p]
    library.vtg_pack.restype = c_int
    library.vtg_begin.argtypes = [POINTER(_Head), POINTER(_QueryBatch), c_int64, c_void_p]
    library.vtg_begin.restype = c_int64
    library.vtg_answer.argtypes = [POINTER(_Head), POINTER(_QueryBatch)]
    library.vtg_answer.restype = None
    return library


class CompiledEngine:
    """A copy of a head's weights in the layout of the compiled engine.

    Args:
        head: a head that `supports` accepts.
    """

    def __init__(self, head: R2Head) -> None:
        _, library = _chosen(os.environ.get(ENGINE_VARIABLE, ""))
        assert library is not None  # checked by `supports`
        self._library = library
        self._references: list[Any] = []  # keeps the memory alive that the structures point to
        self._spare: list[Tensor] = []
        self._config = head.config
        self._level_scale = head.level_scale.detach().clone()
        with torch.no_grad():
            self._head = self._structure(head)
        self._positions = lru_cache(maxsize=CACHED_LENGTHS)(
            lambda frames: temporal_positions(frames, head.config.hidden_width, like=self._level_scale)
        )

    @staticmethod
    def supports(config: HeadConfig, like: Tensor) -> bool:
        """Whether the compiled engine can compute a head's outputs.

        Args:
            config: of the head.
            like: a tensor with the device and dtype of its weights.
        """
        here = like.device.type == "cpu" and like.dtype == torch.float32
        share = config.hidden_width // config.attention_heads
        # Rows are read in whole registers, and as pairs of bfloat16.
        even = config.hidden_width % 16 == 0 and share % 2 == 0 and config.query_width % 2 == 0
        return here and even and config.spatial_pooling and engine_name() != "torch"

    def answer(self, windows: Sequence[tuple[VideoProjection, int]], queries: Tensor, lengths: list[int]) -> HeadOutput:
        """Compute the outputs for N queries and V windows.

        Args:
            windows: int8 projections, each with the index of one of its windows; all of the same T and P.
            queries: [N, L, K, Cq], padded.
            lengths: tokens of each of the N queries.

        Returns:
            Outputs for B = V·N pairs, those of the first window first.

        Raises:
            ValueError: queries or projections do not have the shapes that this head expects.
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
        predictions = words.new_empty(items, len(points), outputs)
        pooled = words.new_empty(count, config.hidden_width)
        pointers = {id(projection): _WindowPointers(projection) for projection, _ in windows}
        window_list = [pointers[id(projection)].window(window) for projection, window in windows]
        batch = _QueryBatch(
            queries=count,
            length=length,
            windows=len(windows),
            frames=frames,
            patches=patches,
            query_features=words.data_ptr(),
            lengths=(c_int64 * count)(*lengths),
            window_list=(_Window * len(windows))(*window_list),
            position=self._positions(frames).data_ptr(),
            pooled=pooled.data_ptr(),
            state=state.data_ptr(),
            predictions=predictions.data_ptr(),
        )
        self._run(batch, items * frames)
        offsets = None
        sizes = tuple(frames // stride for stride in config.strides if stride <= frames)
        if config.moment_retrieval:
            scale = self._level_scale[: len(sizes)].repeat_interleave(torch.tensor(sizes))
            offsets = predictions[..., :2].exp() * scale[:, None]
        return HeadOutput(state, None, pooled.repeat(len(windows), 1), predictions[..., -1], offsets, points, sizes)

    def _run(self, batch: _QueryBatch, rows: int) -> None:
        """Process a batch in as many threads as PyTorch is configured to use."""
        threads = torch.get_num_threads()
        head, batch_pointer = byref(self._head), byref(batch)
        thread_count = max(1, min(threads, rows // MIN_ROWS_PER_THREAD))
        memory = self._memory(self._library.vtg_begin(head, batch_pointer, thread_count, None))
        self._library.vtg_begin(head, batch_pointer, thread_count, memory.data_ptr())
        futures = []
        try:
            for _ in range(thread_count - 1):
                futures.append(_threads(threads, os.getpid()).submit(self._library.vtg_answer, head, batch_pointer))
            self._library.vtg_answer(head, batch_pointer)
        finally:  # the memory is in use until all running threads return; threads not yet started are cancelled
            for future in futures:
                if not future.cancel():
                    future.result()
        if not self._spare and len(memory) <= MAX_SPARE_BYTES:
            self._spare.append(memory)

    def _memory(self, size: int) -> Tensor:
        """Working memory of `size` bytes: that of the previous batch, if it is large enough and not in use."""
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
        scaling = (width / heads) ** -0.5  # of attention's similarities, folded into its queries
        key_map = block.video_key.weight / width**0.5
        # The cross-attention's query and output projections, folded into its keys and values head by head: each head's
        # attention weights sum to 1, so each value carries an equal part of the output bias.
        maps = torch.cat((cross.query.weight * scaling, cross.output.weight.T)).view(2 * heads, -1, width)
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
            # The bias of the video keys adds a constant to the similarities of a query token: softmax ignores it.
            token_keys=self._linear(key_map.T @ block.query_key.weight, block.query_key.bias @ key_map),
            cross=self._joined(cross.key, cross.value),
            query_bias=self._numbers(cross.query.bias * scaling),
            folds=self._array(_Linear, folds),
            score=self._numbers(head.pooling.score.weight),
            own_queries_keys=self._linear(
                torch.cat((own.query.weight * scaling, own.key.weight)),
                torch.cat((own.query.bias * scaling, own.key.bias)),
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
        """Pack a weight [outputs, inputs] and an optional bias [outputs]."""
        weight = weight.detach().contiguous()
        outputs, inputs = weight.shape
        panels = torch.empty(self._library.vtg_panels_bytes(outputs, inputs), dtype=torch.uint8)
        if not self._library.vtg_pack(weight.data_ptr(), outputs, inputs, panels.data_ptr()):
            raise MemoryError(f"not enough memory for a head of width {self._config.hidden_width}")
        self._references.append(panels)
        return _Linear(panels.data_ptr(), None if bias is None else self._numbers(bias), inputs, outputs)

    def _map(self, linear: Any) -> _Linear:
        return self._linear(linear.weight, linear.bias)

    def _joined(self, *linears: nn.Linear) -> _Linear:
        return self._linear(torch.cat([linear.weight for linear in linears]), _biases(linears))

    def _norm(self, norm: Any) -> _Norm:
        return _Norm(self._numbers(norm.weight), self._numbers(norm.bias), norm.eps)

    def _numbers(self, numbers: Tensor) -> int:
        own = numbers.detach().float().contiguous().clone()
        self._references.append(own)
        return own.data_ptr()

    def _array(self, kind: Any, items: Sequence[Any]) -> Any:
        array = (kind * len(items))(*items)
        self._references.append(array)
        return array


def _flat(convolution: Any) -> Tensor:
    """The weights of a convolution as a linear layer of neighbouring frames: [outputs, kernel·D]."""
    return torch.as_tensor(convolution.weight.transpose(1, 2).flatten(1))


def _biases(layers: Sequence[Any]) -> Tensor:
    return torch.cat([layer.bias for layer in layers])


class _WindowPointers:
    """Memory addresses of the windows of a projection."""

    def __init__(self, projection: VideoProjection) -> None:
        values, scale = projection.values, projection.scale
        assert scale is not None and values.dtype == torch.int8 and scale.dtype == torch.float16
        patches, width = values.shape[3:]
        # The engine reads contiguous layers: others are copied.
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
    """Worker threads of this process; `process` is its id, as a forked process inherits no threads."""
    return ThreadPoolExecutor(count, "vtg-engine")
