"""From refined frames to moments and saliency, made quick: all pyramid levels and both heads in one product each."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from vtg.r2.head import R2Head
from vtg.r2.pyramid import Downsampling, level_points

__all__ = ["Readout", "halving_steps", "halving_weights"]

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

    Attributes:
        convolution: [heads·D, 3·D] and [heads·D], the prediction heads' first convolutions as one.
        last: [3·outputs, heads·D] their second ones, tap by tap: each head's reads its own share of the first.
    """

    def __init__(self, head: R2Head) -> None:
        self._config = head.config
        self._level_scale = head.level_scale.detach()
        self._width = head.config.hidden_width
        levels = halving_steps(head)
        # The first steps of all levels read the same frames: they are one product.
        firsts = [steps[0] for steps in levels if steps]
        self._first_steps = halving_weights(firsts) if firsts else None
        self._steps = [[(halving_weights([step]), _norm(step)) for step in steps[1:]] for steps in levels]
        self._first_norms = [_norm(steps[0]) if steps else None for steps in levels]
        heads = [head.class_head] if head.coordinate_head is None else [head.coordinate_head, head.class_head]
        convolutions = [[layer for layer in module if isinstance(layer, nn.Conv1d)] for module in heads]
        first = torch.cat([before.weight for before, _ in convolutions])  # [heads·D, D, 3]
        self.convolution = first.transpose(1, 2).flatten(1), torch.cat([_bias(before) for before, _ in convolutions])
        second = [torch.block_diag(*(after.weight[:, :, tap] for _, after in convolutions)) for tap in range(3)]
        self._outputs = len(second[0])
        self.last = torch.cat(second)
        self._last_bias = torch.cat([_bias(after) for _, after in convolutions])
        self._places = lru_cache(maxsize=8)(self._place)

    def moments(self, frames: int) -> int:
        """How many moments a window of T frames gives; 0 for a highlight-only head."""
        if not self._config.moment_retrieval:
            return 0
        points = sum(frames // stride for stride in self._config.strides)
        return min(points, self._config.max_windows)

    def rows(self, frames: int) -> int:
        """Those of all levels of a window of T frames, one after the other, with a zero row after each."""
        return sum(frames // stride + 1 for stride in self._config.strides if stride <= frames)

    def __call__(self, video: Tensor, pooled_query: Tensor, fps: float) -> tuple[Tensor | None, Tensor]:
        """Reads off what N queries find in V windows.

        Args:
            video: [N, V, T, D] rectified.
            pooled_query: [N, D].
            fps: of the frames.

        Returns:
            Windows [N, V, moments, 3], best first, or None; saliency [N, V, T].
        """
        said = self._convolve(video.flatten(0, 1))
        taps = (said.flatten(0, 1) @ self.last.T).view(*video.shape[:2], -1, len(self.last))
        return self.decode(taps, video, pooled_query, fps)

    def decode(self, taps: Tensor, video: Tensor, pooled_query: Tensor, fps: float) -> tuple[Tensor | None, Tensor]:
        """Reads off what the second convolutions say, whose taps are not added up yet.

        Args:
            taps: [N, V, rows, 3·outputs]; changed.
            video: [N, V, T, D] rectified.
            pooled_query: [N, D].
            fps: of the frames.

        Returns:
            As a call gives.
        """
        count, windows, frames, _ = video.shape
        places = self._places(frames)
        batch, rows = count * windows, len(places.real)
        taps = taps.view(batch, rows, -1).mul_(places.real)  # a zero row says nothing
        before, here, after = taps.flatten(0, 1).split(self._outputs, dim=1)
        here[1:] += before[:-1]
        here[:-1] += after[1:]
        predicted = here.view(batch, rows, -1)[:, places.rows] + self._last_bias  # [B, points, outputs], the class last
        score = predicted[..., -1].sigmoid_()
        saliency = score[:, places.stretched].amax(dim=1).view(count, windows, frames)
        if not self._config.moment_retrieval:
            return None, saliency
        saliency = saliency * _similarity(video, pooled_query)
        predicted[..., :2].exp_().mul_(places.reach).add_(places.position).div_(fps)
        best = score.argsort(dim=1, descending=True, stable=True)[:, : self._config.max_windows]
        chosen = predicted.gather(1, best[:, :, None].expand(-1, -1, 3))
        return chosen.unflatten(0, (count, windows)), saliency

    def _convolve(self, video: Tensor) -> Tensor:
        """What the first convolutions say of all levels: rectified frames [B, T, D] → [B, rows, heads·D], rectified."""
        batch, frames, _ = video.shape
        rows = self.rows(frames)
        # A zero row before the first level of all and after the last: the neighbours that a convolution looks for.
        stacked = video.new_zeros(batch * rows + 2, self._width)
        levels = stacked[1:-1].view(batch, rows, self._width)
        for (first, count), level in zip(self._places(frames).levels, self._pyramid(video), strict=False):
            levels[:, first : first + count] = level
        around = torch.cat((stacked[:-2], stacked[1:-1], stacked[2:]), dim=1)
        return F.linear(around, *self.convolution).relu_().view(batch, rows, -1)

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


def halving_steps(head: R2Head) -> list[list[Downsampling]]:
    """Of each level of a head's pyramid: the steps that halve the frames."""
    return [[step for step in level.children() if isinstance(step, Downsampling)] for level in head.pyramid.levels]


def halving_weights(steps: Sequence[Downsampling]) -> tuple[Tensor, Tensor]:
    """The convolutions of several steps that read the same, as one product of two frames: [steps·D, 2·D], [steps·D]."""
    weight = torch.cat([step.convolution.weight.transpose(1, 2).flatten(1) for step in steps])
    return weight, torch.cat([_bias(step.convolution) for step in steps])


def _halve(level: Tensor, product: tuple[Tensor, Tensor]) -> Tensor:
    batch, frames, width = level.shape
    half = frames // 2
    return F.linear(level[:, : 2 * half].reshape(-1, 2 * width), *product).view(batch, half, -1)


def _norm(step: Downsampling) -> tuple[tuple[int, ...], Tensor, Tensor, float]:
    return (len(step.norm.weight),), step.norm.weight, step.norm.bias, step.norm.eps


def _bias(convolution: nn.Conv1d) -> Tensor:
    assert convolution.bias is not None  # a head's have one
    return convolution.bias
