"""Reduce the attention weights of query-modulated spatial pooling to one map per frame."""

from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt

__all__ = ["attention_map"]


def attention_map(
    attention: npt.NDArray[np.float32], layer: int | None = None, word: int | None = None
) -> npt.NDArray[np.float32]:
    """Reduce the weights from `R2Head.attention` over layers and query tokens.

    Args:
        attention: [K, T, L, patches], earliest layer first; the first of the L tokens is the start token, the last the
            end token.
        layer: index of one of the K layers, 0 is the earliest; None averages them.
        word: index of one of the L − 2 tokens between start and end; None takes the maximum over them at each patch.

    Returns:
        [T, h, w] float32 in 0…1: attention weight of each patch.

    Raises:
        ValueError: the patches are not a square grid, or the layer or word does not exist.
    """
    layers, _, length, patches = attention.shape
    side = math.isqrt(patches)
    if side * side != patches:
        raise ValueError(f"{patches} patches are not a square grid")
    if layer is not None and not 0 <= layer < layers:
        raise ValueError(f"layer {layer} is not one of 0…{layers - 1}")
    if word is not None and not 0 <= word < length - 2:
        raise ValueError(f"word {word} is not one of the query's {max(length - 2, 0)}")
    # The empty query has only start and end tokens.
    words = attention[:, :, 1:-1] if length > 2 else attention
    by_patch = words.max(axis=2) if word is None else words[:, :, word]  # [K, T, patches]
    reduced = by_patch.mean(axis=0) if layer is None else by_patch[layer]
    return reduced.reshape(-1, side, side).astype(np.float32)
