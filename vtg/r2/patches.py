"""The tokens of a frame that the block reads: one for the whole frame, then the patches, at most `max_patches`."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

from vtg.r2.config import HeadConfig

__all__ = ["FrameTokens"]


class FrameTokens:
    """Puts the mean of the patches in the place of a missing class token, and pools large grids of patches.

    It has no weights: heads with and without it have the same tensors.

    Args:
        config: of the head.
    """

    def __init__(self, config: HeadConfig) -> None:
        self._config = config

    def __call__(self, tokens: Tensor) -> Tensor:
        """Prepare the tokens of one CLIP layer.

        Args:
            tokens: [V, T, P, Cv], float32 unless nothing has to be done.

        Returns:
            [V, T, 1 + patches, Cv]; `tokens` itself for a tower with a class token and few patches. Without spatial
            pooling, the first token alone.
        """
        config = self._config
        first, patches = (tokens[:, :, :1], tokens[:, :, 1:]) if config.class_token else (None, tokens)
        if first is None:
            first = tokens.mean(dim=2, keepdim=True)
        if not config.spatial_pooling:
            return first
        side = config.pooled_side(patches.shape[2])
        if side is None:
            return tokens if config.class_token else torch.cat((first, patches), dim=2)
        return torch.cat((first, _pool_grid(patches, side)), dim=2)


def _pool_grid(patches: Tensor, side: int) -> Tensor:
    """Average a square grid of patches, [V, T, n·n, C] in row-major order, to [V, T, side·side, C]."""
    videos, frames, count, _ = patches.shape
    grid = patches.flatten(0, 1).unflatten(1, (round(count**0.5), -1)).permute(0, 3, 1, 2)  # [V·T, C, n, n]
    pooled = F.adaptive_avg_pool2d(grid, side)
    return pooled.flatten(2).transpose(1, 2).unflatten(0, (videos, frames))
