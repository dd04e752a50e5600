"""The temporal feature pyramid after the R² block, its points, query pooling, and prediction heads."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn

__all__ = ["FeaturePyramid", "QueryPooling", "level_points", "level_validity", "prediction_head"]


class Downsampling(nn.Module):
    """Downsample a sequence by 2: convolution with kernel and stride 2, layer norm, ReLU."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.convolution = nn.Conv1d(width, width, kernel_size=2, stride=2)
        self.norm = nn.LayerNorm(width)

    def forward(self, sequence: Tensor) -> Tensor:
        """[B, T, D] → [B, ⌊T/2⌋, D]."""
        halved: Tensor = self.norm(self.convolution(sequence.transpose(1, 2)).transpose(1, 2)).relu()
        return halved


class FeaturePyramid(nn.Module):
    """The temporal feature pyramid (Sec. 3, Prediction Heads): the level of stride 2^p is downsampled p times."""

    def __init__(self, width: int, strides: Sequence[int]) -> None:
        super().__init__()
        self.strides = tuple(strides)
        self.levels = nn.ModuleList(
            nn.Sequential(*(Downsampling(width) for _ in range(int(math.log2(stride))))) for stride in self.strides
        )

    def forward(self, video: Tensor) -> list[Tensor]:
        """Compute the levels.

        Args:
            video: [B, T, D], after ReLU: the first level.

        Returns:
            [B, ⌊T/s⌋, D] for each stride s; levels whose stride exceeds T are omitted.
        """
        return [
            level(video) for stride, level in zip(self.strides, self.levels, strict=True) if stride <= video.shape[1]
        ]


class QueryPooling(nn.Module):
    """Pool the tokens of a query to one feature by learnt attention (Sec. 3, Prediction Heads)."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.score = nn.Linear(width, 1, bias=False)

    def forward(self, query: Tensor, mask: Tensor | None) -> Tensor:
        """[B, L, D] and its mask [B, L] (true for valid tokens, None if all are valid) → [B, D]."""
        score = self.score(query)  # [B, L, 1]
        if mask is not None:
            score = score.masked_fill(~mask[..., None], -math.inf)
        return (score.softmax(dim=1) * query).sum(dim=1)


def prediction_head(width: int, outputs: int) -> nn.Sequential:
    """A head shared by all levels: two convolutions of kernel 3 over [B, D, T] (Sec. 3, Prediction Heads)."""
    return nn.Sequential(
        nn.Conv1d(width, width, kernel_size=3, padding=1),
        nn.ReLU(),
        nn.Conv1d(width, outputs, kernel_size=3, padding=1),
    )


def level_points(frames: int, strides: Sequence[int], like: Tensor) -> Tensor:
    """The points of the pyramid: position of each prediction, and the range of offsets assigned to it in training.

    Args:
        frames: T.
        strides: of all levels, ascending; those above T have no points.
        like: a tensor on the device to use.

    Returns:
        [points, 4] float32, level by level: position, lower and upper end of the regression range, stride; in frames.
    """
    levels = []
    for level, stride in enumerate(strides):
        if stride > frames:
            continue
        low = 0 if level == 0 else stride
        high = math.inf if level == len(strides) - 1 else 2 * stride
        position = torch.arange(frames // stride, device=like.device, dtype=torch.float32) * stride
        rest = torch.tensor([low, high, stride], device=like.device, dtype=torch.float32)
        levels.append(torch.cat((position[:, None], rest.expand(len(position), -1)), dim=1))
    return torch.cat(levels)


def level_validity(video_mask: Tensor, strides: Sequence[int]) -> Tensor:
    """Which points of a padded batch are valid: those with at least one valid frame among their s.

    Args:
        video_mask: [B, T], true for valid frames.
        strides: of all levels, ascending; those above T have no points.

    Returns:
        [B, points] bool.
    """
    frames = video_mask.shape[1]
    return torch.cat(
        [
            video_mask[:, : frames // stride * stride].unflatten(1, (-1, stride)).any(dim=2)
            for stride in strides
            if stride <= frames
        ],
        dim=1,
    )
