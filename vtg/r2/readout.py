"""From refined frames to moments and saliency, made quick: all pyramid levels and both heads in one product each."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from vtg.r2.head import R2Head
from vtg.r2.packed import PackedLinear
from vtg.r2.pyramid import Downsampling, level_points

__all__ = ["Readout"]

SMALLEST_LENGTH = 1e-8  # of a feature, below which it is similar to nothing


@dataclass(frozen=True, eq=False)
class _Places:
    """Where the levels of a window of T frames lie when they stand one after the other, a zero row after each.

    Attributes:
        levels: first row and number of rows of each.
        rows: those of the points, level by level.
        real: [rows, 1], 0 for the zero rows, 1 for others.
        position: [points, 1], in frames.
        reach: [points, 2], how many frames to the start and to the end a coordinate of 1 is.
        stretched: [levels, T] which point each frame's score is read from.
    """

    levels: tuple[tuple[int, int], ...]
    rows: Tensor
    real: Tensor
    position: Tensor
    reach: Tensor
    stretched: Tensor


class Readout:
    """The temporal feature pyramid, the prediction heads and the decoding (Sec. 3, Prediction Heads).

    Args:
        head: whose weights are taken as they are now.
        dtype: of its large products; norms and all that leads to scores are in the head's.
    """

    def __init__(self, head: R2Head, dtype: torch.dtype) -> None:
        self._config = head.config
        self._dtype = dtype
        self._level_scale = head.level_scale.detach()
        self._width = head.config.hidden_width
        levels = [
            [step for step in level.children() if isinstance(step, Downsampling)] for level in head.pyramid.levels
        ]
        # The first steps of all levels read the same frames: they are one product.
        firsts = [steps[0] for steps in levels if steps]
        self._first_steps = _halving(firsts, dtype) if firsts else None
        self._steps = [[(_halving([step], dtype), _norm(step)) for step in steps[1:]] for steps in levels]
        self._first_norms = [_norm(steps[0]) if steps else None for steps in levels]
        heads = [head.class_head] if head.coordinate_head is None else [head.coordinate_head, head.class_head]
        convolutions = [[layer for layer in module if isinstance(layer, nn.Conv1d)] for module in heads]
        first = torch.cat([before.weight for before, _ in convolutions])  # [heads·D, D, 3]
        first_bias = torch.cat([_bias(before) for before, _ in convolutions])
        self._first = PackedLinear(first.transpose(1, 2).flatten(1), first_bias, dtype, rectified=True)
        # Each head's second convolution reads its own share of what the first ones gave.
        second = [torch.block_diag(*(after.weight[:, :, tap] for _, after in convolutions)) for tap in range(3)]
        self._outputs = len(second[0])
        self._second = torch.cat(second).T.contiguous()  # [heads·D, 3·outputs]
        self._second_bias = torch.cat([_bias(after) for _, after in convolutions])
        self._places = lru_cache(maxsize=8)(self._place)

    def moments(self, frames: int) -> int:
        """How many moments a window of T frames gives; 0 for a highlight-only head."""
        if not self._config.moment_retrieval:
            return 0
        points = sum(frames // stride for stride in self._config.strides)
        return min(points, self._config.max_windows)

    def __call__(self, video: Tensor, pooled_query: Tensor, fps: float) -> tuple[Tensor | None, Tensor]:
        """Reads off what N queries find in V windows.

        Args:
            video: [N, V, T, D] rectified.
            pooled_query: [N, D].
            fps: of the frames.

        Returns:
            Windows [N, V, moments, 3], best first, or None; saliency [N, V, T].
        """
        count, windows, frames, _ = video.shape
        places = self._places(frames)
        predicted = self._predict(video.flatten(0, 1), places)  # [B, points, outputs]
        score = predicted[..., -1].sigmoid_()
        saliency = score[:, places.stretched].amax(dim=1).view(count, windows, frames)
        if not self._config.moment_retrieval:
            return None, saliency
        saliency = saliency * _similarity(video, pooled_query)
        predicted[..., :2].exp_().mul_(places.reach).add_(places.position).div_(fps)
        best = score.argsort(dim=1, descending=True, stable=True)[:, : self._config.max_windows]
        chosen = predicted.gather(1, best[:, :, None].expand(-1, -1, 3))
        return chosen.unflatten(0, (count, windows)), saliency

    def _predict(self, video: Tensor, places: _Places) -> Tensor:
        """Rectified frames [B, T, D] → [B, points, outputs], the class last."""
        batch, rows = len(video), len(places.real)
        # A zero row before the first level of all and after the last: the neighbours that a convolution looks for.
        stacked = video.new_zeros(batch * rows + 2, self._width, dtype=self._dtype)
        levels = stacked[1:-1].view(batch, rows, self._width)
        for (first, count), level in zip(places.levels, self._pyramid(video.to(self._dtype)), strict=False):
            levels[:, first : first + count] = level
        around = torch.cat((stacked[:-2], stacked[1:-1], stacked[2:]), dim=1)
        taps = (self._first(around).to(self._second) @ self._second).view(batch, rows, -1).mul_(places.real)
        before, here, after = taps.flatten(0, 1).split(self._outputs, dim=1)
        here[1:] += before[:-1]
        here[:-1] += after[1:]
        return here.view(batch, rows, -1)[:, places.rows] + self._second_bias

    def _pyramid(self, video: Tensor) -> Iterator[Tensor]:
        """The levels [B, ⌊T/s⌋, D] of [B, T, D], as many as T has."""
        halved: Iterator[Tensor] = iter(())
        if video.shape[1] > 1 and self._first_steps is not None:
            halved = iter(_halve(video, self._first_steps).split(self._width, dim=-1))
        for stride, norm, steps in zip(self._config.strides, self._first_norms, self._steps, strict=True):
            if stride > video.shape[1]:
                return
            level = video
            if norm is not None:
                level = torch.layer_norm(next(halved), *norm).relu_()
            for step, own_norm in steps:
                level = torch.layer_norm(_halve(level, step), *own_norm).relu_()
            yield level

    def _place(self, frames: int) -> _Places:
        strides = [stride for stride in self._config.strides if stride <= frames]
        device = self._level_scale.device
        levels, rows, scale, stretched = [], [], [], []
        first = points = 0
        for number, stride in enumerate(strides):
            count = frames // stride
            levels.append((first, count))
            rows.append(torch.arange(first, first + count))
            scale.append(self._level_scale[number].expand(count))
            stretched.append(points + (torch.arange(frames) // (frames // count)).clamp(max=count - 1))
            first, points = first + count + 1, points + count
        real = torch.zeros(first, 1)
        real[torch.cat(rows)] = 1
        placed = level_points(frames, self._config.strides, like=self._level_scale)
        reach = torch.cat(scale)[:, None] * placed[:, 3:]
        return _Places(
            tuple(levels),
            torch.cat(rows).to(device),
            real.to(self._level_scale),
            placed[:, :1],
            torch.cat((-reach, reach), dim=1),
            torch.stack(stretched).to(device),
        )


def _similarity(video: Tensor, query: Tensor) -> Tensor:
    """The cosine of frames [N, V, T, D] and queries [N, D]: [N, V, T]."""
    query = F.normalize(query, dim=-1)[:, None, :, None]
    return (video @ query)[..., 0].div_(torch.linalg.vector_norm(video, dim=-1).clamp_(min=SMALLEST_LENGTH))


def _halving(steps: Sequence[Downsampling], dtype: torch.dtype) -> PackedLinear:
    """The convolutions of several steps that read the same, as one product of pairs of frames."""
    weight = torch.cat([step.convolution.weight.transpose(1, 2).flatten(1) for step in steps])  # [steps·D, 2·D]
    return PackedLinear(weight, torch.cat([_bias(step.convolution) for step in steps]), dtype)


def _halve(level: Tensor, product: PackedLinear) -> Tensor:
    batch, frames, width = level.shape
    half = frames // 2
    return product(level[:, : 2 * half].reshape(-1, 2 * width)).view(batch, half, -1)


def _norm(step: Downsampling) -> tuple[tuple[int, ...], Tensor, Tensor, float]:
    return (len(step.norm.weight),), step.norm.weight, step.norm.bias, step.norm.eps


def _bias(convolution: nn.Conv1d) -> Tensor:
    assert convolution.bias is not None  # a head's have one
    return convolution.bias
