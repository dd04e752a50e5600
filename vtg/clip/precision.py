"""Compute CLIP's image tower in bfloat16 on CPUs where it is faster and accurate enough."""

from __future__ import annotations

import contextlib
import hashlib
import json
import platform
import statistics
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, Protocol

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from vtg.clip.outputs import FrameFeatures
from vtg.errors import VtgError
from vtg.files.text import read_json
from vtg.files.whole import write_whole

__all__ = ["ENCODINGS", "use_bfloat16_products", "uses_bfloat16"]

ENCODINGS = ("float32", "bfloat16", "auto")
MIN_SPEEDUP = 1.2  # in frames per second, relative to float32
MIN_COSINE = 0.995  # between the embeddings of a frame in both precisions
MIN_PARAMETERS = 20_000_000  # smaller towers gain little, and the trial would delay the start
TRIAL_FRAMES, TRIAL_ROUNDS = 8, 3  # of the speed measurement
PRODUCT_ROWS, PRODUCT_WIDTH = 64, 768  # of the single product that is tried first


class FrameEncoder(Protocol):
    """The part of `vtg.clip.ClipEncoder` that is needed here."""

    @property
    def device(self) -> torch.device: ...

    @property
    def dtype(self) -> torch.dtype: ...

    @property
    def visual(self) -> nn.Module: ...

    @property
    def image_size(self) -> int: ...

    @property
    def fingerprint(self) -> str: ...

    def encode_frames(self, frames: Tensor) -> FrameFeatures: ...


def uses_bfloat16(encoder: FrameEncoder, encoding: str) -> bool:
    """Whether an encoder should compute the matrix products of its image tower in bfloat16.

    With "auto", frames are encoded in both precisions: bfloat16 must be faster by `MIN_SPEEDUP` and the embeddings must
    agree to `MIN_COSINE`. This takes one to two seconds; the result is cached for this machine, torch and encoder.

    Args:
        encoder: in float32.
        encoding: one of `ENCODINGS`.

    Raises:
        VtgError: unknown `encoding`.
    """
    if encoding not in ENCODINGS:
        raise VtgError(f"{encoding}: unknown encoding; choose {', '.join(ENCODINGS)}")
    possible = encoder.device.type == "cpu" and encoder.dtype == torch.float32
    if encoding == "float32" or not possible:
        return False
    if encoding == "bfloat16":
        return True
    if sum(parameter.numel() for parameter in encoder.visual.parameters()) < MIN_PARAMETERS:
        return False
    path, machine = _cache_path(), _machine_key(encoder)
    known = _read_cache(path)
    if machine not in known:
        known[machine] = _is_bfloat16_better(encoder)
        _write_cache(path, known)
    return bool(known[machine])


def use_bfloat16_products(tower: nn.Module) -> Callable[[], None]:
    """Replace the linear and attention layers of an image tower by bfloat16 ones; sums and norms stay float32.

    Args:
        tower: a ViT of open_clip or timm.

    Returns:
        A function that restores float32.
    """
    replaced: list[tuple[nn.Module, str, nn.Module]] = []
    for module in list(tower.modules()):
        for name, child in list(module.named_children()):
            half: nn.Module
            if isinstance(child, nn.MultiheadAttention) and child.in_proj_weight is not None and child.batch_first:
                half = _BFloat16Attention(child)
            elif type(child) is nn.Linear:
                half = _BFloat16Linear(child)
            else:
                continue
            setattr(module, name, half)
            replaced.append((module, name, child))

    def restore() -> None:
        for module, name, child in replaced:
            setattr(module, name, child)

    return restore


class _BFloat16Linear(nn.Module):
    """A linear layer with bfloat16 output, which becomes float32 when added to the residual stream."""

    def __init__(self, linear: nn.Linear) -> None:
        super().__init__()
        self.register_buffer("weight", linear.weight.detach().bfloat16())
        self.register_buffer("bias", None if linear.bias is None else linear.bias.detach().bfloat16())

    def forward(self, inputs: Tensor) -> Tensor:
        return F.linear(inputs.bfloat16(), self.weight, self.bias)  # type: ignore[arg-type]


class _BFloat16Attention(nn.Module):
    """Self-attention with the call signature that open_clip uses for `nn.MultiheadAttention`."""

    def __init__(self, attention: nn.MultiheadAttention) -> None:
        super().__init__()
        self.heads = attention.num_heads
        self.inputs = nn.Linear(attention.embed_dim, 3 * attention.embed_dim, device="meta")
        self.inputs.weight, self.inputs.bias = attention.in_proj_weight, attention.in_proj_bias
        self.inputs = _BFloat16Linear(self.inputs)  # type: ignore[assignment]
        self.output = _BFloat16Linear(attention.out_proj)

    def forward(self, query: Tensor, *_: Any, attn_mask: Tensor | None = None, **__: Any) -> tuple[Tensor, None]:
        batch, length, width = query.shape
        shares = self.inputs(query).view(batch, length, 3, self.heads, width // self.heads).permute(2, 0, 3, 1, 4)
        queries, keys, values = shares.unbind(0)
        attended = F.scaled_dot_product_attention(queries, keys, values, attn_mask=attn_mask)
        return self.output(attended.transpose(1, 2).reshape(batch, length, width)), None


def _multiplies_bfloat16() -> bool:
    """Whether a single matrix product is quicker in bfloat16; where it is not, a whole tower can take minutes."""
    quick: list[float] = []
    slow: list[float] = []
    exact = torch.ones(PRODUCT_ROWS, PRODUCT_WIDTH), torch.ones(PRODUCT_WIDTH, PRODUCT_WIDTH)
    halved = exact[0].bfloat16(), exact[1].bfloat16()
    for _ in range(TRIAL_ROUNDS + 1):
        for (rows, weights), seconds in ((halved, quick), (exact, slow)):
            begin = time.perf_counter()
            F.linear(rows, weights)
            seconds.append(time.perf_counter() - begin)
    return statistics.median(quick[1:]) < statistics.median(slow[1:])


def _is_bfloat16_better(encoder: FrameEncoder) -> bool:
    if not _multiplies_bfloat16():
        return False
    frames = _trial_frames(encoder.image_size)
    exact = encoder.encode_frames(frames).embedding
    restore = use_bfloat16_products(encoder.visual)
    try:
        close = encoder.encode_frames(frames).embedding
        if float((exact * close).sum(dim=1).min()) < MIN_COSINE:
            return False
        gains = []
        for _ in range(TRIAL_ROUNDS):
            quick = _seconds(encoder, frames)
            restore()
            slow = _seconds(encoder, frames)
            restore = use_bfloat16_products(encoder.visual)
            gains.append(slow / quick)
        return statistics.median(gains) >= MIN_SPEEDUP
    finally:
        restore()


def _trial_frames(size: int) -> Tensor:
    """Test frames, uint8 [N, size, size, 3]: smooth and noisy, light and dark."""
    generator = torch.Generator().manual_seed(0)
    coarse = torch.rand(TRIAL_FRAMES, 3, 8, 8, generator=generator)
    smooth = F.interpolate(coarse, size=(size, size), mode="bicubic", align_corners=False)
    noise = torch.randn(TRIAL_FRAMES, 3, size, size, generator=generator) * torch.linspace(0, 0.3, TRIAL_FRAMES).view(
        -1, 1, 1, 1
    )
    return ((smooth + noise).clamp(0, 1) * 255).to(torch.uint8).permute(0, 2, 3, 1).contiguous()


def _seconds(encoder: FrameEncoder, frames: Tensor) -> float:
    begin = time.perf_counter()
    encoder.encode_frames(frames)
    return time.perf_counter() - begin


def _cache_path() -> Path:
    from vtg.files.paths import cache_folder

    return cache_folder() / "encoding.json"


def _machine_key(encoder: FrameEncoder) -> str:
    facts = (
        platform.node(),
        platform.machine(),
        torch.backends.cpu.get_cpu_capability(),
        torch.get_num_threads(),
        torch.__version__,
        encoder.fingerprint,
    )
    return hashlib.sha256(repr(facts).encode()).hexdigest()[:16]


def _read_cache(path: Path) -> dict[str, bool]:
    try:
        known = read_json(path.read_text("utf-8"))
    except (OSError, ValueError):
        return {}
    return known if isinstance(known, dict) else {}


def _write_cache(path: Path, known: dict[str, bool]) -> None:
    with contextlib.suppress(OSError, VtgError):  # without a cache, the trial is repeated next time
        path.parent.mkdir(parents=True, exist_ok=True)
        with write_whole(path) as beside:
            beside.write_text(json.dumps(known, indent=1), "utf-8")
