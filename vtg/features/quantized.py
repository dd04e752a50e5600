"""Quantise tokens to int8 with one scale a token."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import Tensor

__all__ = ["LARGEST", "compact_tokens"]

LARGEST = 127  # of an int8, on both sides of zero
ROUNDED_UP = 1 + 2**-10  # a float16 is off by half of this at most: a scale that is rounded is never too small


def compact_tokens(tokens: Tensor) -> tuple[Tensor, Tensor]:
    """Keep each token as whole numbers to ±127 and a scale of its own.

    Args:
        tokens: [..., C], any float dtype.

    Returns:
        int8 [..., C], and float16 [...]: their product is the tokens, off by at most half a scale.
    """
    import torch

    wide = tokens.float()
    # The scale is rounded first: what is divided by is what will be multiplied with.
    scale = (wide.abs().amax(dim=-1) * (ROUNDED_UP / LARGEST)).half().clamp(min=torch.finfo(torch.half).tiny)
    values = (wide / scale.float()[..., None]).round_().clamp_(-LARGEST, LARGEST)
    return values.to(torch.int8), scale
