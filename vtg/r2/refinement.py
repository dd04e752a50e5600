"""Recurrent temporal refinement, made quick: one product for what shares its input, positions added before."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from vtg.r2.block import temporal_positions
from vtg.r2.head import R2Head

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

    Attributes:
        word_maps: [2·D, D] and [2·D], the cross-attention's maps of keys and values.
        query_bias: [D], of the cross-attention's queries; like all queries' maps divided by the root of a head's width.
        own: [3·D, D] the self-attention's maps of queries, keys and values.
        own_output: [D, D] and [D], its output map.
    """

    def __init__(self, head: R2Head) -> None:
        layer = head.block.refinement
        cross, own = layer.cross_attention, layer.self_attention
        self._heads = head.config.attention_heads
        width = head.config.hidden_width
        even = (width / self._heads) ** -0.5  # what attention divides similarities by goes into its queries
        both = cross.key, cross.value
        self.word_maps = torch.cat([one.weight for one in both]), torch.cat([one.bias for one in both])
        # The maps of queries and of what was attended to, head by head: they are folded into the words.
        self.query_bias = cross.query.bias * even
        self._folds = torch.cat((cross.query.weight * even, cross.output.weight.T)).view(2 * self._heads, -1, width)
        share = cross.output.bias / self._heads  # shares of a head sum to 1
        self._fold_biases = torch.stack((torch.zeros_like(share), share))[:, None, None]  # [2, 1, 1, D]
        self.own = torch.cat((own.query.weight * even, own.key.weight, own.value.weight))
        self._own_bias = torch.cat((own.query.bias * even, own.key.bias, own.value.bias))
        self.own_output = own.output.weight, own.output.bias
        expand, _, contract = layer.feed_forward
        assert isinstance(expand, nn.Linear) and isinstance(contract, nn.Linear)
        self._expand, self._contract = (expand.weight, expand.bias), (contract.weight, contract.bias)
        self._norms = [
            ((width,), norm.weight, norm.bias, norm.eps)
            for norm in (layer.cross_norm, layer.self_norm, layer.feed_forward_norm)
        ]
        self.placed = lru_cache(maxsize=KEPT_LENGTHS)(self._place)

    @property
    def folds(self) -> list[tuple[Tensor, Tensor]]:
        """2·heads × [D / heads, D] and [D]: what makes of a word the keys, then values, that frames attend to."""
        biases = self._fold_biases.flatten(0, 2).repeat_interleave(self._heads, dim=0)
        return list(zip(self._folds, biases, strict=True))

    def attended(self, words: Tensor, mask: Tensor | None) -> AttendedWords:
        """What frames attend to.

        Args:
            words: [K, N, L, D], mapped.
            mask: [N, L], true where a token is real; None if all are.
        """
        layers, count, length, width = words.shape
        both = F.linear(words, *self.word_maps).view(-1, 2 * self._heads, width // self._heads)  # [K·N·L, 2·heads, d]
        folded = torch.bmm(both.transpose(0, 1), self._folds)  # [2·heads, K·N·L, D]
        placed = folded.new_empty(2, layers * count * length, self._heads, width)
        torch.add(folded.view(2, self._heads, -1, width).transpose(1, 2), self._fold_biases, out=placed)
        keys, values = placed.view(2, layers, count, length * self._heads, width).unbind()
        bias = (both[:, : self._heads] * self.query_bias.view(self._heads, -1)).sum(dim=2)  # [K·N·L, heads]
        if mask is not None:
            bias = bias.view(layers, count, length, -1).masked_fill(~mask[:, :, None], -torch.inf)
        return AttendedWords(keys, bias.view(layers, count, -1, 1), values, length)

    def _place(self, frames: int) -> tuple[Tensor, Tensor]:
        """Positions [T, D], and what they and the biases add to queries, keys and values of the self-attention.

        The positions are added before the product, which is linear: what they add can be known before.
        """
        with torch.no_grad():
            width = self.own.shape[1]
            position = temporal_positions(frames, width, like=self.own)
            own = self._own_bias.repeat(frames, 1)
            own[:, : 2 * width] += position @ self.own[: 2 * width].T
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
        position, own_place = self.placed(frames)
        placed = (video + position).flatten(1, 2)
        # Words first and frames last: a softmax along anything but the last dimension needs no sums across the lanes of
        # a register, and an outer dimension no strides.
        similarity = torch.baddbmm(attended.bias[layer], attended.keys[layer], placed.transpose(1, 2))
        shares = similarity.view(count, attended.length, -1).softmax(dim=1).view_as(similarity)
        looked = torch.baddbmm(video.flatten(1, 2), shares.transpose(1, 2), attended.values[layer]).view(-1, width)
        flat = torch.layer_norm(looked, *self._norms[0])
        own = F.linear(flat, self.own).view(-1, frames, 3 * width).add_(own_place)
        looked = F.linear(self._attend(own), *self.own_output).add_(flat)
        flat = torch.layer_norm(looked, *self._norms[1])
        inner = F.linear(F.linear(flat, *self._expand).relu_(), *self._contract).add_(flat)
        return torch.layer_norm(inner, *self._norms[2]).view(video.shape)

    def _attend(self, own: Tensor) -> Tensor:
        """Queries, keys and values [B, T, 3·D] → [B·T, D]."""
        frames, width = own.shape[1], own.shape[2] // 3
        parts = own.view(-1, frames, 3, self._heads, width // self._heads).transpose(1, 3)
        if frames > SHORT:
            query, key, value = parts.unbind(dim=2)  # [B, heads, T, d]
            attended = F.scaled_dot_product_attention(query, key, value, scale=1.0)
        else:
            query, key, value = parts.flatten(0, 1).unbind(dim=1)  # [B·heads, T, d]
            attended = torch.bmm(torch.bmm(query, key.transpose(1, 2)).softmax(dim=2), value)
            attended = attended.view(-1, self._heads, frames, width // self._heads)
        return attended.transpose(1, 2).reshape(-1, width)
