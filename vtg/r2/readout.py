"""From refined frames to moments and saliency, made quick: all pyramid levels and both heads in one product each."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from vtg.r2.head import R2Head
from vtg.r2.pyramid import Downsampling, level_points

__all__ = ["Readout"]


@dataclass(frozen=True, eq=False)
class _Places:
    """Where the levels of a window of T frames lie when they stand one after the other, a zero row around each.

    Attributes:
        levels: first row and number of rows of each.
        gaps: the zero rows.
        rows: those of the points, level by level.
        points: [points, 4], of `level_points`.
        scale: [points, 1] each level's.
        stretched: [levels, T] which point each frame's score is read from.
    """

    levels: tuple[tuple[int, int], ...]
    gaps: Tensor
    rows: Tensor
    points: Tensor
    scale: Tensor
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
        self._pyramid = [
            [
                (
                    step.convolution.weight.permute(2, 1, 0).flatten(0, 1).contiguous().to(dtype),  # [2·D, D]
                    _bias(step.convolution).to(dtype),
                    (step.norm.weight, step.norm.bias, step.norm.eps),
                )
                for step in level.children()
                if isinstance(step, Downsampling)
            ]
            for level in head.pyramid.levels
        ]
        heads = [head.class_head] if head.coordinate_head is None else [head.class_head, head.coordinate_head]
        convolutions = [[layer for layer in module if isinstance(layer, nn.Conv1d)] for module in heads]
        first = torch.cat([before.weight for before, _ in convolutions])  # [heads·D, D, 3]
        self._first = first.permute(2, 1, 0).flatten(0, 1).contiguous().to(dtype)  # [3·D, heads·D]
        self._first_bias = torch.cat([_bias(before) for before, _ in convolutions]).to(dtype)
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
        score = predicted[..., 0].sigmoid()
        saliency = score[:, places.stretched].amax(dim=1).view(count, windows, frames)
        if not self._config.moment_retrieval:
            return None, saliency
        saliency = saliency * F.cosine_similarity(video, pooled_query[:, None, None], dim=-1)
        distance = predicted[..., 1:].exp() * places.scale * places.points[:, 3:]  # in frames
        position = places.points[:, 0]
        found = torch.stack(((position - distance[..., 0]) / fps, (position + distance[..., 1]) / fps, score), dim=2)
        best = score.argsort(dim=1, descending=True, stable=True)[:, : self._config.max_windows]
        chosen = found.gather(1, best[:, :, None].expand(-1, -1, 3))
        return chosen.unflatten(0, (count, windows)), saliency

    def _predict(self, video: Tensor, places: _Places) -> Tensor:
        batch, _, width = video.shape
        rows = len(places.rows) + len(places.gaps)
        # One zero row before the first level of all: the neighbour that a convolution looks for.
        video = video.to(self._dtype)
        stacked = video.new_empty(batch * rows + 1, width)
        stacked[0] = 0
        levels = stacked[1:].view(batch, rows, width)
        levels[:, places.gaps] = 0
        for (first, count), steps in zip(places.levels, self._pyramid, strict=False):
            level = video
            for weight, bias, norm in steps:
                half = level.shape[1] // 2
                pairs = level[:, : 2 * half].reshape(-1, 2 * width)
                wide = torch.addmm(bias, pairs, weight).to(self._level_scale)
                level = F.layer_norm(wide, (width,), *norm).relu_().to(video).view(batch, half, width)
            levels[:, first : first + count] = level
        # The last row is a gap: nobody asks for what lies around it.
        around = torch.cat((stacked[:-2], stacked[1:-1], stacked[2:]), dim=1)
        inner = torch.addmm(self._first_bias, around, self._first).relu_().to(self._level_scale)
        whole = F.pad(inner, (0, 0, 0, 1)).view(batch, rows, -1)
        whole[:, places.gaps] = 0
        taps = (whole.view(batch * rows, -1) @ self._second).view(batch, rows, 3, self._outputs)
        at = places.rows
        before = F.pad(taps[:, :, 0], (0, 0, 1, 0))[:, :-1]  # a level's row before its first is a gap, or nothing
        after = taps[:, at + 1, 2]
        return before[:, at] + taps[:, at, 1] + after + self._second_bias

    def _place(self, frames: int) -> _Places:
        strides = [stride for stride in self._config.strides if stride <= frames]
        device = self._level_scale.device
        levels, gaps, rows, scale, stretched = [], [], [], [], []
        first = points = 0
        for number, stride in enumerate(strides):
            count = frames // stride
            levels.append((first, count))
            rows.append(torch.arange(first, first + count))
            gaps.append(first + count)
            scale.append(self._level_scale[number].expand(count))
            stretched.append(points + (torch.arange(frames) // (frames // count)).clamp(max=count - 1))
            first, points = first + count + 1, points + count
        return _Places(
            tuple(levels),
            torch.tensor(gaps, device=device),
            torch.cat(rows).to(device),
            level_points(frames, self._config.strides, like=self._level_scale),
            torch.cat(scale)[:, None],
            torch.stack(stretched).to(device),
        )


def _bias(convolution: nn.Conv1d) -> Tensor:
    assert convolution.bias is not None  # a head's have one
    return convolution.bias
