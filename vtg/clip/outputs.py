"""Features of frames and sentences computed by CLIP."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

__all__ = ["FrameFeatures", "TextFeatures"]


@dataclass(frozen=True)
class FrameFeatures:
    """Features of N frames from CLIP's image tower.

    Attributes:
        layers: [N, K, P, C], the residual stream after each of the last K blocks, before the final norm, earliest
            first; [N, 0, 0, 0] if K = 0. P = class token (first, if the tower has one) + patches in row-major order,
            without register tokens.
        embedding: [N, E], unit length.
    """

    layers: Tensor
    embedding: Tensor


@dataclass(frozen=True)
class TextFeatures:
    """Features of one sentence from CLIP's text tower.

    Attributes:
        tokens: [L] int64, the token ids from the start token up to and including the end token.
        layers: [L, K, C], the residual stream after each of the last K blocks, before the final norm, earliest first.
        embedding: [E], unit length.
    """

    tokens: Tensor
    layers: Tensor
    embedding: Tensor
