"""Compute CLIP's image tower in bfloat16 on CPUs where that is faster and close enough."""

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
from vtg.files.whole import write_whole
from vtg.text import read_json

__all__ = ["ENCODINGS", "halve_products", "uses_bfloat16"]

ENCODINGS = ("float32", "bfloat16", "auto")
LEAST_GAIN = 1.2  # times as many frames a second: what is less is not worth a rounding
LEAST_COSINE = 0.995  # between the embeddings of a frame
FEWEST_WEIGHTS = 20_000_000  # a smaller tower gains little, and trying it out would be noticed at the start
FRAMES, ROUNDS = 8, 3  # of the trial


class FrameEncoder(Protocol):
    """What a trial needs of a `vtg.clip.ClipEncoder`."""

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
    """Whether an encoder is to compute the products of its image tower in bfloat16.

    Where it is to be found out, frames are encoded in both ways: bfloat16 has to be quicker and the embeddings have to
    be close. That takes a second or two; what came out is remembered for this machine, torch and encoder.

    Args:
        encoder: in float32, as it is loaded.
        encoding: one of `ENCODINGS`.

    Raises:
        VtgError: another `encoding`.
    """
    if encoding not in ENCODINGS:
        raise VtgError(f"{encoding}: nothing to encode in; choose {', '.join(ENCODINGS)}")
    possible = encoder.device.type == "cpu" and encoder.dtype == torch.float32
    if encoding == "float32" or not possible:
        return False
    if encoding == "bfloat16":
        return True
    if sum(parameter.numel() for parameter in encoder.visual.parameters()) < FEWEST_WEIGHTS:
        return False
    path, machine = _memory(), _machine(encoder)
    known = _read(path)
    if machine not in known:
        known[machine] = _is_better(encoder)
        _write(path, known)
    return bool(known[machine])


def halve_products(tower: nn.Module) -> Callable[[], None]:
    """Let the linear layers and attentions of an image tower compute in bfloat16; sums and norms stay float32.

    Args:
        tower: of open_clip, a ViT of its own or of timm.

    Returns:
        What makes it float32 again.
    """
    replaced: list[tuple[nn.Module, str, nn.Module]] = []
    for module in list(tower.modules()):
        for name, child in list(module.named_children()):
            half: nn.Module
            if isinstance(child, nn.MultiheadAttention) and child.in_proj_weight is not None and child.batch_first:
                half = _HalfAttention(child)
            elif type(child) is nn.Linear:
                half = _HalfLinear(child)
            else:
                continue
            setattr(module, name, half)
            replaced.append((module, name, child))

    def restore() -> None:
        for module, name, child in replaced:
            setattr(module, name, child)

    return restore


class _HalfLinear(nn.Module):
    """A linear layer whose result stays bfloat16: added to the float32 residual stream it becomes float32 again."""

    def __init__(self, linear: nn.Linear) -> None:
        super().__init__()
        self.register_buffer("weight", linear.weight.detach().bfloat16())
        self.register_buffer("bias", None if linear.bias is None else linear.bias.detach().bfloat16())

    def forward(self, inputs: Tensor) -> Tensor:
        return F.linear(inputs.bfloat16(), self.weight, self.bias)  # type: ignore[arg-type]


class _HalfAttention(nn.Module):
    """Self-attention as `nn.MultiheadAttention` is called by open_clip."""

    def __init__(self, attention: nn.MultiheadAttention) -> None:
        super().__init__()
        self.heads = attention.num_heads
        self.inputs = nn.Linear(attention.embed_dim, 3 * attention.embed_dim, device="meta")
        self.inputs.weight, self.inputs.bias = attention.in_proj_weight, attention.in_proj_bias
        self.inputs = _HalfLinear(self.inputs)  # type: ignore[assignment]
        self.output = _HalfLinear(attention.out_proj)

    def forward(self, query: Tensor, *_: Any, attn_mask: Tensor | None = None, **__: Any) -> tuple[Tensor, None]:
        batch, length, width = query.shape
        shares = self.inputs(query).view(batch, length, 3, self.heads, width // self.heads).permute(2, 0, 3, 1, 4)
        queries, keys, values = shares.unbind(0)
        attended = F.scaled_dot_product_attention(queries, keys, values, attn_mask=attn_mask)
        return self.output(attended.transpose(1, 2).reshape(batch, length, width)), None


def _is_better(encoder: FrameEncoder) -> bool:
    frames = _trial_frames(encoder.image_size)
    exact = encoder.encode_frames(frames).embedding
    restore = halve_products(encoder.visual)
    try:
        close = encoder.encode_frames(frames).embedding
        if float((exact * close).sum(dim=1).min()) < LEAST_COSINE:
            return False
        gains = []
        for _ in range(ROUNDS):
            quick = _seconds(encoder, frames)
            restore()
            slow = _seconds(encoder, frames)
            restore = halve_products(encoder.visual)
            gains.append(slow / quick)
        return statistics.median(gains) >= LEAST_GAIN
    finally:
        restore()


def _trial_frames(size: int) -> Tensor:
    """uint8 [N, size, size, 3]: smooth and noisy pictures, light and dark ones."""
    generator = torch.Generator().manual_seed(0)
    coarse = torch.rand(FRAMES, 3, 8, 8, generator=generator)
    smooth = F.interpolate(coarse, size=(size, size), mode="bicubic", align_corners=False)
    noise = torch.randn(FRAMES, 3, size, size, generator=generator) * torch.linspace(0, 0.3, FRAMES).view(-1, 1, 1, 1)
    return ((smooth + noise).clamp(0, 1) * 255).to(torch.uint8).permute(0, 2, 3, 1).contiguous()


def _seconds(encoder: FrameEncoder, frames: Tensor) -> float:
    begin = time.perf_counter()
    encoder.encode_frames(frames)
    return time.perf_counter() - begin


def _memory() -> Path:
    from vtg.files.paths import cache_folder

    return cache_folder() / "encoding.json"


def _machine(encoder: FrameEncoder) -> str:
    facts = (
        platform.node(),
        platform.machine(),
        torch.backends.cpu.get_cpu_capability(),
        torch.get_num_threads(),
        torch.__version__,
        encoder.fingerprint,
    )
    return hashlib.sha256(repr(facts).encode()).hexdigest()[:16]


def _read(path: Path) -> dict[str, bool]:
    try:
        known = read_json(path.read_text("utf-8"))
    except (OSError, ValueError):
        return {}
    return known if isinstance(known, dict) else {}


def _write(path: Path, known: dict[str, bool]) -> None:
    with contextlib.suppress(OSError, VtgError):  # it can be tried out again the next time
        path.parent.mkdir(parents=True, exist_ok=True)
        with write_whole(path) as beside:
            beside.write_text(json.dumps(known, indent=1), "utf-8")
