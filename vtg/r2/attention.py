"""Patch attention as pictures: from the head's weights by layer, word and patch to one map a frame."""

from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt

__all__ = ["attention_map"]


def attention_map(
    attention: npt.NDArray[np.float32], layer: int | None = None, word: int | None = None
) -> npt.NDArray[np.float32]:
    """Folds the weights of `R2Head.attention` into one map a frame.

    Args:
        attention: [K, T, L, patches], earliest layer first; the first token of L is the start token, the last the end.
        layer: one of the K layers, 0 the earliest; None takes their mean.
        word: one of the L − 2 words, 0 the first after the start token; None takes the strongest word at each patch.

    Returns:
        [T, h, w] float32 in 0…1: the share of attention that falls on each patch.

    Raises:
        ValueError: the patches are not a square grid, or there is no such layer or word.
    """
    layers, _, length, patches = attention.shape
    side = math.isqrt(patches)
    if side * side != patches:
        raise ValueError(f"{patches} patches are not a square grid")
    if layer is not None and not 0 <= layer < layers:
        raise ValueError(f"layer {layer} is not one of 0…{layers - 1}")
    if word is not None and not 0 <= word < length - 2:
        raise ValueError(f"word {word} is not one of the query's {max(length - 2, 0)}")
    # A query without a word (the empty text) has only its start and end to show.
    words = attention[:, :, 1:-1] if length > 2 else attention
    by_patch = words.max(axis=2) if word is None else words[:, :, word]  # [K, T, patches]
    folded = by_patch.mean(axis=0) if layer is None else by_patch[layer]
    return folded.reshape(-1, side, side).astype(np.float32)
