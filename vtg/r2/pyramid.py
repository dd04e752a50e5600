"""What follows the R² block: the temporal feature pyramid, its points, and the modules that read predictions off."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn

__all__ = ["FeaturePyramid", "QueryPooling", "level_points", "level_validity", "prediction_head"]


class Downsampling(nn.Module):
    """Halves a sequence: a convolution of kernel and stride 2, normalised and rectified."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.convolution = nn.Conv1d(width, width, kernel_size=2, stride=2)
        self.norm = nn.LayerNorm(width)

    def forward(self, sequence: Tensor) -> Tensor:
        """[B, T, D] → [B, ⌊T/2⌋, D]."""
        halved: Tensor = self.norm(self.convolution(sequence.transpose(1, 2)).transpose(1, 2)).relu()
        return halved


class FeaturePyramid(nn.Module):
    """The temporal feature pyramid (Sec. 3, Prediction Heads): the level of stride 2^p halves the frames p times."""

    def __init__(self, width: int, strides: Sequence[int]) -> None:
        super().__init__()
        self.strides = tuple(strides)
        self.levels = nn.ModuleList(
            nn.Sequential(*(Downsampling(width) for _ in range(int(math.log2(stride))))) for stride in self.strides
        )

    def forward(self, video: Tensor) -> list[Tensor]:
        """Builds the levels.

        Args:
            video: [B, T, D], rectified: the first level.

        Returns:
            [B, ⌊T/s⌋, D] for each stride s; levels whose stride exceeds T are left out.
        """
        return [
            level(video) for stride, level in zip(self.strides, self.levels, strict=True) if stride <= video.shape[1]
        ]


class QueryPooling(nn.Module):
    """Pools the tokens of a query into one feature by a learnt attention (Sec. 3, Prediction Heads)."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.score = nn.Linear(width, 1, bias=False)

    def forward(self, query: Tensor, mask: Tensor | None) -> Tensor:
        """[B, L, D] and its mask [B, L] (true where a token is real, None if all are) → [B, D]."""
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
    """The points of the pyramid: where each prediction stands, and which windows it is responsible for in training.

    Args:
        frames: T.
        strides: of all levels, ascending; those above T have no points.
        like: gives the device.

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
    """Which points of a padded batch are real: those with any real frame among their s.

    Args:
        video_mask: [B, T], true where a frame is real.
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
