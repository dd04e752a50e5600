"""Query-modulated spatial pooling, made quick: how words look at projected tokens, wide ones and whole numbers."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

from vtg.r2.block import R2Block
from vtg.r2.projection import VideoProjection

__all__ = ["LayerWords", "LookingWords", "Pooling", "TokenPart"]

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
class LayerWords:
    """The words of N queries, as they look at the tokens of one layer.

    Attributes:
        keys: [N·L, D], bfloat16 where tokens are looked at as such.
        values: [N·L, D].
        shape: N, L, D.
    """

    keys: Tensor
    values: Tensor
    shape: tuple[int, ...]


@dataclass(frozen=True, eq=False)
class TokenPart:
    """Some frames of one layer.

    Attributes:
        layer: which of the K.
        tokens: [1, F, P, D], the class token first.
        scale: [1, F, P, 1] what they are multiplied by; None for nothing.
    """

    layer: int
    tokens: Tensor
    scale: Tensor | None


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
        self._scale = [0.0] * block.layers
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

    def scales(self, projection: VideoProjection) -> Tensor | None:
        """[V, K, T, P, 1], what `ready` wants beside the tokens of a projection."""
        if projection.scale is None:
            return None
        return projection.scale.to(torch.bfloat16 if self._compact else self._like.dtype)[..., None]

    def class_tokens(self, projection: VideoProjection) -> Tensor:
        """[K, V·T, D], of all windows."""
        tokens = projection.values[:, :, :, 0].to(self._like)
        if projection.scale is not None:
            tokens *= projection.scale[:, :, :, :1]
        return tokens.transpose(0, 1).flatten(1, 2)

    def ready_bytes(self, projection: VideoProjection) -> int:
        """What all tokens of a projection take when they are ready; 0 if these are the ones that are there already."""
        changes = self._compact and self._pools and projection.scale is not None
        return projection.values.numel() * torch.bfloat16.itemsize if changes else 0

    def ready(self, part: TokenPart) -> TokenPart:
        """Makes tokens ready to be looked at, as far as no query is needed."""
        if part.scale is None or not self._compact or not self._pools:
            return part
        return TokenPart(part.layer, part.tokens.bfloat16().mul_(part.scale), None)

    def of_layer(self, words: LookingWords, layer: int, compact: bool) -> LayerWords:
        """The words as they look at one layer, at int8 tokens or at others."""
        keys = words.keys[layer].flatten(0, 1)
        if compact and self._compact:
            keys = keys.bfloat16()
        return LayerWords(keys, words.values[layer].flatten(0, 1), words.keys.shape[1:])

    def __call__(self, part: TokenPart, words: LayerWords) -> Tensor:
        """What the strongest word of each of N queries sees in each of F frames, which are ready: [F, N, D]."""
        tokens, scale = part.tokens, part.scale
        frames, (count, _, width) = tokens.shape[1], words.shape
        if not self._pools:
            return words.values.new_zeros(()).expand(frames, count, width)
        each = _chunk_frames(tokens, len(words.keys))
        if each >= frames:
            return _strongest(tokens, scale, words)
        chunks = (slice(first, first + each) for first in range(0, frames, each))
        return torch.cat(
            [_strongest(tokens[:, own], None if scale is None else scale[:, own], words) for own in chunks]
        )

    def entering(self, class_tokens: Tensor, strongest: list[Tensor], layer: int) -> Tensor:
        """What enters the recurrence.

        Args:
            class_tokens: [F, D] of one layer.
            strongest: parts of [F, N, D], what `Pooling` gave.
            layer: which of the K.

        Returns:
            [N, F, D].
        """
        looked = (strongest[0] if len(strongest) == 1 else torch.cat(strongest)).transpose(0, 1)
        return torch.add(class_tokens, looked, alpha=self._scale[layer])


def _chunk_frames(tokens: Tensor, rows: int) -> int:
    """How many frames at a time are pooled quickest by so many words."""
    count, width = tokens.shape[2:]
    if tokens.dtype == torch.bfloat16:
        return max(1, COMPACT_CHUNK_BYTES // (6 * width * rows))
    return max(1, CHUNK_BYTES // (4 * width * (count + rows)))


def _strongest(tokens: Tensor, scale: Tensor | None, words: LayerWords) -> Tensor:
    """[F, N, D], of [1, F, P, D] and [1, F, P, 1]."""
    if tokens.dtype == torch.bfloat16:
        # One long operator: other threads, which call many small ones, do not have to wait for this one in between.
        asking = words.keys.expand(1, tokens.shape[1], -1, -1)
        looked = F.scaled_dot_product_attention(asking, tokens, tokens, scale=1.0).to(words.values.dtype)
    else:
        looked = _look(tokens[0].to(words.keys), scale, words.keys)
    return looked.add_(words.values).view(-1, *words.shape).amax(dim=2)


def _look(tokens: Tensor, scale: Tensor | None, keys: Tensor) -> Tensor:
    """What words [R, D] see in each of the frames [F, P, D], with the scales [1, F, P, 1]: [F, R, D]."""
    similarity = (keys @ tokens.flatten(0, 1).T).unflatten(1, tokens.shape[:2])  # [R, F, P]
    # A token's scale is a factor of its similarity and of its share: its D values need no product.
    if scale is None:
        shares = similarity.softmax(dim=2)
    else:
        shares = similarity.mul_(scale[..., 0]).softmax(dim=2).mul_(scale[..., 0])
    return torch.bmm(shares.transpose(0, 1), tokens)
