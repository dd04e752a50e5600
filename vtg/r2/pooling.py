"""Query-modulated spatial pooling, made quick: how words look at projected tokens, wide ones and whole numbers."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from vtg.compact import LARGEST
from vtg.r2.block import R2Block

__all__ = ["LookingWords", "Pooling"]

CHUNK_BYTES = 1 << 20  # of tokens widened at a time, and of what is pooled from them: they stay in the cache
WHOLE_CHUNK_BYTES = 5 << 20  # of int8 tokens as bfloat16: every product of a chunk has its own cost
FINER = 254  # how many times as fine as a key's first whole number its second is


@dataclass(frozen=True, eq=False)
class LookingWords:
    """The words of N queries, as they look at the tokens of a frame.

    Attributes:
        keys: [K, N, L, D] what a token's similarity to a word is taken with (the key map is folded into it).
        values: [K, N, L, D] what is added to what a word has pooled; −∞ for padding, which takes no part.
        whole: [K, N, 2·L, D] int8, keys as two whole numbers, of which the second is `FINER` times as fine; None where
            they are not multiplied as such.
        units: [K, N, L, 2·L], what joins the products with both to similarities.
    """

    keys: Tensor
    values: Tensor
    whole: Tensor | None
    units: Tensor | None

    def __getitem__(self, queries: slice) -> LookingWords:
        return LookingWords(
            self.keys[:, queries],
            self.values[:, queries],
            None if self.whole is None else self.whole[:, queries],
            None if self.units is None else self.units[:, queries],
        )


class Pooling:
    """Pools the tokens of projected windows for queries (Sec. 3, Query-Modulated Spatial Pooling).

    Args:
        block: whose weights are taken as they are now.
        compact: whether int8 tokens are multiplied as they are, and summed in bfloat16, which rounds less than they are
            rounded already; only quick where the processor has tiles for such matrices.
    """

    def __init__(self, block: R2Block, compact: bool) -> None:
        self._compact = compact
        self._pools = block.spatial_pooling
        if self._pools:
            self._scale = block.scale.detach().tanh()[:, None, None, None]
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
            return LookingWords(words, words, None, None)
        keys = words @ self._key_weight + self._key_bias
        if mask is not None:
            words = words.masked_fill(~mask[:, :, None], -math.inf)
        if not self._compact:
            return LookingWords(keys, words, None, None)
        unit = keys.abs().amax(dim=-1, keepdim=True).clamp_(min=torch.finfo(keys.dtype).tiny) / LARGEST
        steps = keys / unit
        first = steps.round()
        second = ((steps - first) * FINER).round_().clamp_(-LARGEST, LARGEST)
        units = torch.diag_embed(unit[..., 0])
        return LookingWords(
            keys, words, torch.cat((first, second), dim=2).to(torch.int8), torch.cat((units, units / FINER), dim=3)
        )

    def __call__(self, tokens: Tensor, scale: Tensor | None, words: LookingWords, layers: slice, out: Tensor) -> None:
        """Pools frames of some layers.

        Args:
            tokens: [K, F, P, D] projected, the class token first.
            scale: [K, F, P], what int8 tokens are multiplied by; None for others.
            words: of N queries.
            layers: which.
            out: [K, N, F, D] to write what enters the recurrence to.
        """
        scale = None if scale is None else scale.to(out)
        class_tokens = tokens[:, :, 0].to(out)
        if scale is not None:
            class_tokens *= scale[:, :, :1]
        if not self._pools:
            out.copy_(class_tokens[:, None].expand_as(out))
            return
        frames = tokens.shape[1]
        for first in range(0, frames, each := self._chunk_frames(tokens, words)):
            part = slice(first, first + each)
            if each >= frames:
                pooled = self._pool(tokens, scale, words, layers, like=out)
            else:
                pooled = self._pool(tokens[:, part], None if scale is None else scale[:, part], words, layers, like=out)
            own, into = class_tokens[:, None, part], out[:, :, part]
            torch.addcmul(own, self._scale[layers], pooled.transpose(1, 2), out=into)

    def _chunk_frames(self, tokens: Tensor, words: LookingWords) -> int:
        """How many frames at a time are pooled quickest."""
        layers, _, count, width = tokens.shape
        rows = words.keys[0, ..., 0].numel()
        if self._reads_whole(tokens, words):
            return max(1, WHOLE_CHUNK_BYTES // (layers * width * (2 * count + 6 * rows)))
        return max(1, CHUNK_BYTES // (layers * 4 * width * (count + rows)))

    @staticmethod
    def _reads_whole(tokens: Tensor, words: LookingWords) -> bool:
        return words.whole is not None and tokens.dtype == torch.int8

    def _pool(
        self, tokens: Tensor, scale: Tensor | None, words: LookingWords, layers: slice, like: Tensor
    ) -> Tensor:
        """The strongest word's look at each of F frames [K, F, P, D], with the scales [K, F, P]: [K, F, N, D]."""
        count, length, width = words.keys.shape[1:]
        flat = words.values[layers].flatten(1, 2)  # [K, N·L, D]
        whole = scale is not None and self._reads_whole(tokens, words)
        if whole:
            similarity = _whole_similarity(tokens, words, layers)
        else:
            tokens = tokens.to(like)
            similarity = words.keys[layers].flatten(1, 2) @ tokens.flatten(1, 2).transpose(1, 2)
        shares = similarity.view(len(tokens), -1, *tokens.shape[1:3])  # [K, N·L, F, P]
        # A token's scale is a factor of its similarity and of its share: its D values need no product.
        if scale is None:
            shares = shares.softmax(dim=3)
        else:
            shares = shares.mul_(scale[:, None]).softmax(dim=3).mul_(scale[:, None])
        shares = shares.transpose(1, 2)
        if whole:
            shares = shares.to(torch.bfloat16, memory_format=torch.contiguous_format)
            looked = shares @ tokens.bfloat16()
            looked = looked.to(flat.dtype).add_(flat[:, None])
        else:
            looked = torch.matmul(shares, tokens).add_(flat[:, None])  # [K, F, N·L, D]
        return looked.view(*tokens.shape[:2], count, length, width).amax(dim=3)


def _whole_similarity(tokens: Tensor, words: LookingWords, layers: slice) -> Tensor:
    """[K, N·L, F·P], of int8 tokens without their scales: products of whole numbers, which are exact."""
    assert words.whole is not None and words.units is not None
    count, length, width = words.keys.shape[1:]
    keys = words.whole[layers].flatten(1, 2)
    products = keys.new_empty(*keys.shape[:2], tokens[0, ..., 0].numel(), dtype=torch.int32)
    for own, seen, product in zip(keys, tokens.flatten(1, 2), products, strict=True):
        torch._int_mm(own, seen.T, out=product)
    wide = products.to(words.units).view(-1, 2 * length, products.shape[2])
    return torch.bmm(words.units[layers].flatten(0, 1), wide).view(len(tokens), count * length, -1)
