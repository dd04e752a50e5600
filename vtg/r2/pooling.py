"""Query-modulated spatial pooling, made quick: how words look at projected tokens, wide ones and whole numbers."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

from vtg.r2.block import R2Block

__all__ = ["LookingWords", "Pooling"]

CHUNK_BYTES = 1 << 20  # of tokens widened at a time, and of what is pooled from them: they stay in the cache
COMPACT_CHUNK_BYTES = 5 << 20  # of what is pooled from bfloat16 tokens at a time: every operator has its own cost


@dataclass(frozen=True, eq=False)
class LookingWords:
    """The words of N queries, as they look at the tokens of a frame.

    Attributes:
        keys: [K, N, L, D] what a token's similarity to a word is taken with (the key map is folded into it).
        values: [K, N, L, D] what is added to what a word has pooled; −∞ for padding, which takes no part.
    """

    keys: Tensor
    values: Tensor

    def __getitem__(self, queries: slice) -> LookingWords:
        return LookingWords(self.keys[:, queries], self.values[:, queries])


@dataclass(frozen=True, eq=False)
class ReadyTokens:
    """The tokens of F frames of one layer, ready to be looked at.

    Attributes:
        values: [F, P, D] of any type; of bfloat16 the scale is a factor already.
        scale: [F, P], what other int8 values are multiplied by; None for none.
        class_tokens: [F, D].
    """

    values: Tensor
    scale: Tensor | None
    class_tokens: Tensor


class Pooling:
    """Pools the tokens of projected windows for queries (Sec. 3, Query-Modulated Spatial Pooling).

    Args:
        block: whose weights are taken as they are now.
        compact: whether int8 tokens are looked at as bfloat16, which rounds less than they are rounded already; only
            quick where the processor has tiles for such matrices.
    """

    def __init__(self, block: R2Block, compact: bool) -> None:
        self._compact = compact
        self._like = block.scale.detach() if block.spatial_pooling else next(block.parameters()).detach()
        self._pools = block.spatial_pooling
        if self._pools:
            self._scale = block.scale.detach().tanh().tolist()
            # The bias of the key map adds the same to all of a word's similarities: the softmax does not see it.
            weight, bias = block.query_key.weight.detach(), block.query_key.bias.detach()
            key_map = block.video_key.weight.detach() / math.sqrt(len(weight))
            self._key_weight, self._key_bias = weight.T @ key_map, bias @ key_map

    def look(self, words: Tensor, mask: Tensor | None) -> LookingWords:
        """Makes words ready to look.

        Args:
            words: [K, N, L, D], mapped.
            mask: [N, L], true where a token is real; None if all are.
        """
        if not self._pools:
            return LookingWords(words, words)
        keys = words @ self._key_weight + self._key_bias
        return LookingWords(keys, words if mask is None else words.masked_fill(~mask[:, :, None], -math.inf))

    def ready(self, tokens: Tensor, scale: Tensor | None) -> ReadyTokens:
        """Makes tokens ready, as far as no query is needed.

        Args:
            tokens: [F, P, D] projected, the class token first.
            scale: [F, P], what int8 tokens are multiplied by; None for others.
        """
        class_tokens = tokens[:, 0].to(self._like)
        if scale is None:
            return ReadyTokens(tokens, None, class_tokens)
        class_tokens *= scale[:, :1]
        if self._compact and self._pools:
            return ReadyTokens(tokens.bfloat16().mul_(scale.bfloat16()[..., None]), None, class_tokens)
        return ReadyTokens(tokens, scale.to(self._like), class_tokens)

    def __call__(self, tokens: ReadyTokens, words: LookingWords, layer: int, out: Tensor) -> None:
        """Pools frames of one layer.

        Args:
            tokens: of F frames.
            words: of N queries.
            layer: which of the K.
            out: [N, F, D] to write what enters the recurrence to.
        """
        if not self._pools:
            out.copy_(tokens.class_tokens.expand_as(out))
            return
        values = tokens.values
        keys, words_seen = words.keys[layer].flatten(0, 1), words.values[layer].flatten(0, 1)  # [N·L, D]
        compact = values.dtype == torch.bfloat16
        each = _chunk_frames(values, len(keys), compact)
        for first in range(0, len(values), each):
            part = slice(first, first + each)
            if compact:
                looked = _look_compact(values[part], keys)
            else:
                looked = _look(values[part], None if tokens.scale is None else tokens.scale[part], keys)
            strongest = looked.add_(words_seen).unflatten(1, words.keys.shape[1:3]).amax(dim=2)  # [F, N, D]
            class_tokens = tokens.class_tokens[part]
            torch.add(class_tokens, strongest.transpose(0, 1), alpha=self._scale[layer], out=out[:, part])


def _chunk_frames(tokens: Tensor, rows: int, compact: bool) -> int:
    """How many frames at a time are pooled quickest by so many words."""
    count, width = tokens.shape[1:]
    if compact:
        return max(1, COMPACT_CHUNK_BYTES // (6 * width * rows))
    return max(1, CHUNK_BYTES // (4 * width * (count + rows)))


def _look(tokens: Tensor, scale: Tensor | None, keys: Tensor) -> Tensor:
    """What words [R, D] see in each of the frames [F, P, D], with the scales [F, P]: [F, R, D]."""
    tokens = tokens.to(keys)
    similarity = (keys @ tokens.flatten(0, 1).T).unflatten(1, tokens.shape[:2])  # [R, F, P]
    # A token's scale is a factor of its similarity and of its share: its D values need no product.
    shares = similarity.softmax(dim=2) if scale is None else similarity.mul_(scale).softmax(dim=2).mul_(scale)
    return torch.bmm(shares.transpose(0, 1), tokens)


def _look_compact(tokens: Tensor, keys: Tensor) -> Tensor:
    """The same of bfloat16 tokens, in one long operator, which other threads can work beside."""
    asking = keys.bfloat16().expand(1, len(tokens), -1, -1)
    return F.scaled_dot_product_attention(asking, tokens[None], tokens[None], scale=1.0)[0].to(keys.dtype)
