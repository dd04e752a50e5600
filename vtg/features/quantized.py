"""Quantise tokens to int8 with one scale a token."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import Tensor

__all__ = ["INT8_MAX", "quantize_tokens"]

INT8_MAX = 127  # the range is symmetric
SCALE_MARGIN = 1 + 2**-10  # more than the rounding error of float16: a rounded scale is never too small


def quantize_tokens(tokens: Tensor) -> tuple[Tensor, Tensor]:
    """Quantise each token to int8 values in ±127 with its own scale.

    Args:
        tokens: [..., C], any float dtype.

    Returns:
        int8 [..., C], and float16 [...]: their product equals the tokens to within half a scale.
    """
    import torch

    wide = tokens.float()
    # Round the scale before dividing by it, so that dequantisation multiplies by the same number.
    scale = (wide.abs().amax(dim=-1) * (SCALE_MARGIN / INT8_MAX)).half().clamp(min=torch.finfo(torch.half).tiny)
    values = (wide / scale.float()[..., None]).round_().clamp_(-INT8_MAX, INT8_MAX)
    return values.to(torch.int8), scale
