"""Query-modulated spatial pooling, made quick: how words look at projected tokens, wide ones and whole numbers."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from vtg.r2.block import R2Block

__all__ = ["LookingWords", "Pooling", "TokenPart"]

CHUNK_BYTES = 1 << 20  # of tokens widened at a time, and of what is pooled from them: they stay in the cache


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
class TokenPart:
    """Some frames of one layer.

    Attributes:
        layer: which of the K.
        frames: which of those that are asked together.
        tokens: [F, P, D], the class token first.
        scale: [F, P] what they are multiplied by; None for nothing.
    """

    layer: int
    frames: slice
    tokens: Tensor
    scale: Tensor | None


class Pooling:
    """Pools the tokens of projected windows for queries (Sec. 3, Query-Modulated Spatial Pooling).

    Args:
        block: whose weights are taken as they are now.

    Attributes:
        amounts: [K], of what the strongest word sees, that is added to a class token.
        key_weight: [D, D], words times it and `key_bias` are what a token's similarity to a word is taken with.
        key_bias: [D].
    """

    def __init__(self, block: R2Block) -> None:
        self._pools = block.spatial_pooling
        self.amounts = [0.0] * block.layers
        if self._pools:
            self.amounts = block.scale.detach().tanh().tolist()
            # The bias of the key map adds the same to all of a word's similarities: the softmax does not see it.
            weight, bias = block.query_key.weight.detach(), block.query_key.bias.detach()
            key_map = block.video_key.weight.detach() / math.sqrt(len(weight))
            self.key_weight, self.key_bias = weight.T @ key_map, bias @ key_map

    def look(self, words: Tensor, mask: Tensor | None) -> LookingWords:
        """Makes words ready to look.

        Args:
            words: [K, N, L, D], mapped.
            mask: [N, L], true where a token is real; None if all are.
        """
        if not self._pools:
            return LookingWords(words, words)
        keys = words @ self.key_weight + self.key_bias
        return LookingWords(keys, words if mask is None else words.masked_fill(~mask[:, :, None], -math.inf))

    def __call__(self, part: TokenPart, words: LookingWords, entering: Tensor) -> None:
        """What enters the recurrence: class tokens, and a share of what the strongest word of each query sees.

        Args:
            part: F frames of one layer.
            words: of N queries.
            entering: [N, F, D], which is filled.
        """
        keys, values = words.keys[part.layer], words.values[part.layer]
        tokens, scale = part.tokens, part.scale
        class_tokens = tokens[:, 0].to(values)
        if scale is not None:
            class_tokens *= scale[:, :1]
        if not self._pools:
            entering.copy_(class_tokens)
            return
        count, length, width = keys.shape
        amount = self.amounts[part.layer]
        each = max(1, CHUNK_BYTES // (4 * width * (tokens.shape[1] + count * length)))  # frames
        for first in range(0, len(tokens), each):
            own = slice(first, first + each)
            looked = _look(tokens[own].to(keys), None if scale is None else scale[own].to(keys), keys.flatten(0, 1))
            strongest = looked.add_(values.flatten(0, 1)).view(-1, count, length, width).amax(dim=2)
            torch.add(class_tokens[own], strongest.transpose(0, 1), alpha=amount, out=entering[:, own])


def _look(tokens: Tensor, scale: Tensor | None, keys: Tensor) -> Tensor:
    """What words [R, D] see in each of the frames [F, P, D], with the scales [F, P]: [F, R, D]."""
    similarity = (keys @ tokens.flatten(0, 1).T).unflatten(1, tokens.shape[:2])  # [R, F, P]
    # A token's scale is a factor of its similarity and of its share: its D values need no product.
    if scale is None:
        shares = similarity.softmax(dim=2)
    else:
        shares = similarity.mul_(scale).softmax(dim=2).mul_(scale)
    return torch.bmm(shares.transpose(0, 1), tokens)
