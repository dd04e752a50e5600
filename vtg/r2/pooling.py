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
        whole: [K, N, 2, L, D] int8, keys as two whole numbers, of which the second is `FINER` times as fine; None where
            they are not multiplied as such.
        unit: [K, N, L], what the first of them is multiplied by.
    """

    keys: Tensor
    values: Tensor
    whole: Tensor | None
    unit: Tensor | None

    def __getitem__(self, queries: slice) -> LookingWords:
        return LookingWords(
            self.keys[:, queries],
            self.values[:, queries],
            None if self.whole is None else self.whole[:, queries],
            None if self.unit is None else self.unit[:, queries],
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
            return LookingWords(words, words, None, None)
        keys = words @ self._key_weight + self._key_bias
        if mask is not None:
            words = words.masked_fill(~mask[:, :, None], -math.inf)
        if not self._compact:
            return LookingWords(keys, words, None, None)
        unit = keys.abs().amax(dim=-1).clamp_(min=torch.finfo(keys.dtype).tiny) / LARGEST
        steps = keys / unit[..., None]
        first = steps.round()
        second = ((steps - first) * FINER).round_().clamp_(-LARGEST, LARGEST)
        return LookingWords(keys, words, torch.stack((first, second), dim=2).to(torch.int8), unit)

    def __call__(self, tokens: Tensor, scale: Tensor | None, words: LookingWords, layer: int, out: Tensor) -> None:
        """Pools frames of one layer.

        Args:
            tokens: [F, P, D] projected, the class token first.
            scale: [F, P], what int8 tokens are multiplied by; None for others.
            words: of N queries.
            layer: which of the K.
            out: [N, F, D] to write what enters the recurrence to.
        """
        scale = None if scale is None else scale.to(out)
        class_tokens = tokens[:, 0].to(out)
        if scale is not None:
            class_tokens *= scale[:, :1]
        if not self._pools:
            out.copy_(class_tokens.expand_as(out))
            return
        for first in range(0, len(tokens), each := self._chunk_frames(tokens, words)):
            part = slice(first, first + each)
            own = None if scale is None else scale[part]
            pooled = self._pool(tokens[part], own, words, layer, like=out)  # [F, N, D]
            torch.add(class_tokens[part], pooled.transpose(0, 1), alpha=self._scale[layer], out=out[:, part])

    def _chunk_frames(self, tokens: Tensor, words: LookingWords) -> int:
        """How many frames at a time are pooled quickest."""
        count, width = tokens.shape[1:]
        rows = words.keys[0, ..., 0].numel()
        if self._reads_whole(tokens, words):
            return max(1, WHOLE_CHUNK_BYTES // (width * (2 * count + 6 * rows)))
        return max(1, CHUNK_BYTES // (4 * width * (count + rows)))

    @staticmethod
    def _reads_whole(tokens: Tensor, words: LookingWords) -> bool:
        return words.whole is not None and tokens.dtype == torch.int8

    def _pool(self, tokens: Tensor, scale: Tensor | None, words: LookingWords, layer: int, like: Tensor) -> Tensor:
        """The strongest word's look at each of F frames [F, P, D], with the scales [F, P]: [F, N, D]."""
        count, length, width = words.keys.shape[1:]
        flat = words.values[layer].flatten(0, 1)  # [N·L, D]
        if scale is not None and self._reads_whole(tokens, words):
            weights = _whole_similarity(tokens, words, layer).mul_(scale).softmax(dim=2).mul_(scale)
            looked = torch.bmm(weights.transpose(0, 1).bfloat16(), tokens.bfloat16())
            looked = looked.to(flat.dtype).add_(flat)
        else:
            wide = tokens.to(like)
            similarity = (words.keys[layer].flatten(0, 1) @ wide.flatten(0, 1).T).view(-1, *wide.shape[:2])
            # A token's scale is a factor of its similarity and of its share: its D values need no product.
            weights = similarity.softmax(dim=2) if scale is None else similarity.mul_(scale).softmax(dim=2).mul_(scale)
            looked = torch.baddbmm(flat[None], weights.transpose(0, 1), wide)  # [F, N·L, D]
        return looked.view(-1, count, length, width).amax(dim=2)


def _whole_similarity(tokens: Tensor, words: LookingWords, layer: int) -> Tensor:
    """[N·L, F, P], of int8 tokens without their scales: products of whole numbers, which are exact."""
    assert words.whole is not None and words.unit is not None
    count, length, width = words.keys.shape[1:]
    product = torch._int_mm(words.whole[layer].reshape(-1, width), tokens.flatten(0, 1).T)
    first, second = product.view(count, 2, length, -1).to(words.unit).unbind(dim=1)
    similarity = torch.add(first, second, alpha=1 / FINER).mul_(words.unit[layer][..., None])
    return similarity.view(count * length, *tokens.shape[:2])
