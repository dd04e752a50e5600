"""What CLIP computes of frames and of a sentence."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

__all__ = ["FrameFeatures", "TextFeatures"]


@dataclass(frozen=True)
class FrameFeatures:
    """What CLIP's image tower says of N frames.

    Attributes:
        layers: [N, K, P, C], the residual stream after each of the last K blocks, before the final norm, earliest
            first. P = class token (first, where the tower has one) + patches in reading order.
        embedding: [N, E], unit length.
    """

    layers: Tensor
    embedding: Tensor


@dataclass(frozen=True)
class TextFeatures:
    """What CLIP's text tower says of one sentence.

    Attributes:
        tokens: [L] int64, the token ids from the start token up to and including the end token.
        layers: [L, K, C], the residual stream after each of the last K blocks, before the final norm, earliest first.
        embedding: [E], unit length.
    """

    tokens: Tensor
    layers: Tensor
    embedding: Tensor
