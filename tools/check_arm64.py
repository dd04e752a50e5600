"""Check the compiled engine on arm64 by emulation: its outputs must equal those of this machine.

    apt-get install gcc-aarch64-linux-gnu libc6-dev-arm64-cross qemu-user
    python -m tools.check_arm64

Compiles `arm64_driver.c` with the engine for arm64, runs it under qemu on one batch of queries with a head of the
published size, and compares the outputs.
"""

from __future__ import annotations

import ctypes
import os
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from tools.bench.query import make_head
from vtg.r2 import VideoProjection
from vtg.r2.block import temporal_positions
from vtg.r2.engine import ENGINE_VARIABLE, CompiledEngine

DRIVER = Path(__file__).with_name("arm64_driver.c")
FLAGS = ("-O3", "-fno-math-errno", "-fno-strict-aliasing", "-ffp-contract=fast", "-static")
TOLERANCE = 1e-4  # maximum absolute difference
FRAMES = 75
QUERY_TOKENS = (12, 7)  # tokens of each query


def head_arrays(engine: CompiledEngine) -> Iterator[bytes]:
    """The weights of a head in the order of `vtg_head`, packed as for AVX2; the layout for arm64 is the same."""
    head = engine._head
    width = head.width

    def counts(*numbers: int) -> bytes:
        return np.array(numbers, np.int64).tobytes()

    def floats(pointer: int, count: int) -> bytes:
        return ctypes.string_at(pointer, 4 * count)

    def linear(weights: Any) -> bytes:
        size = engine._library.vtg_panels_bytes(weights.outputs, weights.inputs)
        bias = floats(weights.bias, weights.outputs) if weights.bias else b""
        shape = counts(weights.outputs, weights.inputs, bool(bias))
        return shape + ctypes.string_at(weights.panels, size) + bias

    def norm(weights: Any, size: int) -> bytes:
        return floats(weights.scale, size) + floats(weights.shift, size)

    yield counts(width, head.heads, head.layers, head.query_width)
    yield floats(head.amounts, head.layers) + floats(head.gates, head.layers)
    yield norm(head.input_norm, head.query_width) + norm(head.inner_norm, width)
    yield from map(linear, (head.first_map, head.second_map, head.token_keys, head.cross))
    yield floats(head.query_bias, width)
    yield from (linear(head.folds[number]) for number in range(2 * head.heads))
    yield floats(head.score, width)
    yield from map(linear, (head.own_queries_keys, head.own_values, head.own_output, head.expand, head.contract))
    yield from (norm(own, width) for own in head.norms)
    strides = [head.strides[number] for number in range(head.levels)]
    halvings = sum(stride.bit_length() - 1 for stride in strides)
    yield counts(head.levels, *strides, halvings)
    for number in range(halvings):
        yield linear(head.halvings[number].product) + norm(head.halvings[number].norm, width)
    yield linear(head.convolution)
    yield counts(head.outputs)
    yield floats(head.last, 3 * head.outputs * head.convolution.outputs) + floats(head.last_bias, head.outputs)


def batch_arrays(projection: VideoProjection, queries: Tensor, lengths: tuple[int, ...]) -> Iterator[bytes]:
    """The arrays of a batch of queries on one window, in the order in which the driver reads them."""
    _, _, frames, patches, width = projection.values.shape
    assert projection.scale is not None
    yield np.array([*queries.shape[:2], frames, patches, *lengths], np.int64).tobytes()
    yield queries.contiguous().numpy().tobytes()
    yield temporal_positions(frames, width, like=queries).numpy().tobytes()
    yield projection.values.numpy().tobytes()
    yield projection.scale.numpy().tobytes()


def main() -> None:
    """Run from a shell."""
    os.environ[ENGINE_VARIABLE] = "avx2"
    head = make_head(2.0 * FRAMES)
    config, generator = head.config, torch.Generator().manual_seed(0)
    shape = (1, FRAMES, config.layers, config.tokens or 50, config.video_width)
    with torch.no_grad():
        projection = head.project(torch.randn(shape, generator=generator)).quantized()
    queries = torch.randn(len(QUERY_TOKENS), max(QUERY_TOKENS), config.layers, config.query_width, generator=generator)
    engine = CompiledEngine(head)
    expected = engine.answer([(projection, 0)], queries, list(QUERY_TOKENS))
    saved_batch = b"".join((*head_arrays(engine), *batch_arrays(projection, queries, QUERY_TOKENS)))
    with tempfile.TemporaryDirectory() as folder:
        program = str(Path(folder) / "driver")
        subprocess.run(["aarch64-linux-gnu-gcc", *FLAGS, str(DRIVER), "-o", program], check=True)
        driver_output = subprocess.run(
            ["qemu-aarch64", program], input=saved_batch, stdout=subprocess.PIPE, check=True
        ).stdout
    found = np.frombuffer(driver_output, np.float32)
    state = found[: expected.video.numel()]
    logits = found[expected.video.numel() :].reshape(len(QUERY_TOKENS), -1, engine._head.outputs)[..., -1]
    differences = {
        "frames": float(np.abs(state - expected.video.flatten().numpy()).max()),
        "logits": float(np.abs(logits - expected.class_logits.numpy()).max()),
    }
    print(", ".join(f"{name}: maximum difference {value:.1e}" for name, value in differences.items()))
    if not max(differences.values()) <= TOLERANCE:
        raise SystemExit(f"the outputs on arm64 differ by more than {TOLERANCE:g}")


if __name__ == "__main__":
    main()
