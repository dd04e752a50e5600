"""Recurrent temporal refinement, made quick: one product for what shares its input, positions added before."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from vtg.r2.block import temporal_positions
from vtg.r2.head import R2Head
from vtg.r2.packed import PackedLinear

__all__ = ["AttendedWords", "Refinement"]

KEPT_LENGTHS = 32  # of windows, whose positions are kept
SHORT = 256  # frames, up to which a table of all pairs is quicker than doing without one


@dataclass(frozen=True, eq=False)
class AttendedWords:
    """The words of N queries, as frames attend to them: their similarity to a frame is keys · frame + bias.

    Attributes:
        keys: [K, N, L·heads, D], the query map folded in.
        bias: [K, N, L·heads, 1], −∞ for padding.
        values: [K, N, L·heads, D], the output map and its bias folded in.
        length: L.
    """

    keys: Tensor
    bias: Tensor
    values: Tensor
    length: int

    def __getitem__(self, queries: slice) -> AttendedWords:
        return AttendedWords(self.keys[:, queries], self.bias[:, queries], self.values[:, queries], self.length)


class Refinement:
    """`TemporalRefinement` without dropping (Sec. 3, Recurrent Temporal Refinement).

    Args:
        head: whose weights are taken as they are now.
        dtype: of its products; sums and norms are in the head's.
    """

    def __init__(self, head: R2Head, dtype: torch.dtype) -> None:
        layer = head.block.refinement
        cross, own = layer.cross_attention, layer.self_attention
        self._heads = head.config.attention_heads
        self._dtype = dtype
        width = head.config.hidden_width
        even = (width / self._heads) ** -0.5  # what attention divides similarities by goes into its queries
        self._cross_keys = (
            torch.cat((cross.key.weight, cross.value.weight)),
            torch.cat((cross.key.bias, cross.value.bias)),
        )
        # The maps of queries and of what was attended to, head by head: they are folded into the words.
        self._cross_query_bias = cross.query.bias * even
        self._folds = torch.cat((cross.query.weight * even, cross.output.weight.T)).view(2 * self._heads, -1, width)
        share = cross.output.bias / self._heads  # shares of a head sum to 1
        self._fold_biases = torch.stack((torch.zeros_like(share), share))[:, None, None]  # [2, 1, 1, D]
        own_weight = torch.cat((own.query.weight * even, own.key.weight, own.value.weight))
        own_bias = torch.cat((own.query.bias * even, own.key.bias, own.value.bias))
        self._own = PackedLinear(own_weight, torch.zeros_like(own_bias), dtype)
        self._own_placed = own_weight[: 2 * width].T, own_bias
        self._own_output = PackedLinear(own.output.weight, own.output.bias, dtype)
        expand, _, contract = layer.feed_forward
        assert isinstance(expand, nn.Linear) and isinstance(contract, nn.Linear)
        self._expand = PackedLinear(expand.weight, expand.bias, dtype, rectified=True)
        self._contract = PackedLinear(contract.weight, contract.bias, dtype)
        self._norms = [
            ((norm.weight.shape[0],), norm.weight, norm.bias, norm.eps)
            for norm in (layer.cross_norm, layer.self_norm, layer.feed_forward_norm)
        ]
        self._placed = lru_cache(maxsize=KEPT_LENGTHS)(self._place)

    def attended(self, words: Tensor, mask: Tensor | None) -> AttendedWords:
        """What frames attend to.

        Args:
            words: [K, N, L, D], mapped.
            mask: [N, L], true where a token is real; None if all are.
        """
        layers, count, length, width = words.shape
        both = F.linear(words, *self._cross_keys).view(-1, 2 * self._heads, width // self._heads)  # [K·N·L, 2·heads, d]
        folded = torch.bmm(both.transpose(0, 1), self._folds)  # [2·heads, K·N·L, D]
        placed = folded.new_empty(2, layers * count * length, self._heads, width)
        torch.add(folded.view(2, self._heads, -1, width).transpose(1, 2), self._fold_biases, out=placed)
        keys, values = placed.view(2, layers, count, length * self._heads, width).unbind()
        bias = (both[:, : self._heads] * self._cross_query_bias.view(self._heads, -1)).sum(dim=2)  # [K·N·L, heads]
        if mask is not None:
            bias = bias.view(layers, count, length, -1).masked_fill(~mask[:, :, None], -torch.inf)
        return AttendedWords(keys, bias.view(layers, count, -1, 1), values, length)

    def _place(self, frames: int) -> tuple[Tensor, Tensor]:
        """Positions [T, D], and what they and the biases add to queries, keys and values of the self-attention.

        The positions are added before the product, which is linear: what they add can be known before.
        """
        with torch.no_grad():
            weight, bias = self._own_placed
            position = temporal_positions(frames, len(weight), like=weight)
            own = bias.repeat(frames, 1)
            own[:, : weight.shape[1]] += position @ weight
        return position, own

    def __call__(self, video: Tensor, attended: AttendedWords, layer: int) -> Tensor:
        """Refines the frames of V windows for N queries.

        Args:
            video: [N, V, T, D] what enters.
            attended: by N queries' words.
            layer: which of the K.

        Returns:
            [N, V, T, D], the new state.
        """
        count, _, frames, width = video.shape
        position, own_place = self._placed(frames)
        placed = (video + position).flatten(1, 2)
        # Words first and frames last: a softmax along anything but the last dimension needs no sums across the lanes of
        # a register, and an outer dimension no strides.
        similarity = torch.baddbmm(attended.bias[layer], attended.keys[layer], placed.transpose(1, 2))
        shares = similarity.view(count, attended.length, -1).softmax(dim=1).view_as(similarity)
        looked = torch.baddbmm(video.flatten(1, 2), shares.transpose(1, 2), attended.values[layer]).view(-1, width)
        flat = torch.layer_norm(looked, *self._norms[0])
        own = self._own(flat).to(flat).view(-1, frames, 3 * width).add_(own_place)
        looked = self._own_output(self._attend(own)).to(flat).add_(flat)
        flat = torch.layer_norm(looked, *self._norms[1])
        inner = self._contract(self._expand(flat)).to(flat).add_(flat)
        return torch.layer_norm(inner, *self._norms[2]).view(video.shape)

    def _attend(self, own: Tensor) -> Tensor:
        """Queries, keys and values [B, T, 3·D] → [B·T, D]."""
        frames, width = own.shape[1], own.shape[2] // 3
        parts = own.view(-1, frames, 3, self._heads, width // self._heads)
        if frames > SHORT:
            query, key, value = parts.to(self._dtype).transpose(1, 3).unbind(dim=2)  # [B, heads, T, d]
            attended = F.scaled_dot_product_attention(query, key, value, scale=1.0)
        else:
            query, key, value = parts.transpose(1, 3).flatten(0, 1).unbind(dim=1)  # [B·heads, T, d]
            attended = torch.bmm(torch.bmm(query, key.transpose(1, 2)).softmax(dim=2), value)
            attended = attended.view(-1, self._heads, frames, width // self._heads)
        return attended.transpose(1, 2).reshape(-1, width)
