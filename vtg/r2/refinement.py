"""Recurrent temporal refinement, made quick: one product for what shares its input, positions added before."""

from __future__ import annotations

from functools import lru_cache

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from vtg.r2.block import temporal_positions
from vtg.r2.head import R2Head

__all__ = ["Refinement"]

KEPT_LENGTHS = 32  # of windows, whose positions are kept
SHORT = 256  # frames, up to which a table of all pairs is quicker than doing without one


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
        self._cross_query = (cross.query.weight.T * even).contiguous()
        self._cross_query_bias = cross.query.bias * even
        self._cross_keys = (
            torch.cat((cross.key.weight, cross.value.weight)),
            torch.cat((cross.key.bias, cross.value.bias)),
        )
        self._cross_output = _taken(cross.output, dtype)
        self._own = torch.cat((own.query.weight * even, own.key.weight, own.value.weight)).T.contiguous()
        self._own_bias = torch.cat((own.query.bias * even, own.key.bias, own.value.bias))
        self._own_output = _taken(own.output, dtype)
        expand, _, contract = layer.feed_forward
        assert isinstance(expand, nn.Linear) and isinstance(contract, nn.Linear)
        self._expand = _taken(expand, dtype)
        self._contract = _taken(contract, dtype)
        self._norms = [
            ((norm.weight.shape[0],), norm.weight, norm.bias, norm.eps)
            for norm in (layer.cross_norm, layer.self_norm, layer.feed_forward_norm)
        ]
        self._product_weights = self._cross_query.to(dtype), self._own.to(dtype)
        self._placed = lru_cache(maxsize=KEPT_LENGTHS)(self._place)

    def attended(self, words: Tensor) -> Tensor:
        """Keys and values of the cross-attention, [K, N, L, 2, D], of mapped words [K, N, L, D]."""
        return F.linear(words, *self._cross_keys).unflatten(-1, (2, -1))

    def _place(self, frames: int) -> tuple[Tensor, Tensor]:
        """What a frame's position and the biases add to the queries of the first attention, and to all of the second.

        The positions are added before the products, and the products are linear: what they add can be known before.
        """
        with torch.no_grad():
            width = len(self._cross_query)
            position = temporal_positions(frames, width, like=self._cross_query)
            cross = torch.addmm(self._cross_query_bias, position, self._cross_query)
            own = self._own_bias.repeat(frames, 1)
            own[:, : 2 * width] += position @ self._own[:, : 2 * width]
        return cross, own

    def __call__(self, video: Tensor, attended: Tensor, mask: Tensor | None) -> Tensor:
        """Refines the frames of V windows for N queries.

        Args:
            video: [N, V, T, D] what enters.
            attended: [N, L, 2, D], one layer of what `attended` gave.
            mask: [N, L], true where a token is real; None if all are.

        Returns:
            [N, V, T, D], the new state.
        """
        shape = video.shape
        count, _, frames, width = shape
        cross_place, own_place = self._placed(frames)
        flat = video.reshape(-1, width)
        asked = _product(flat, self._product_weights[0]).view(-1, frames, width).add(cross_place).view(count, -1, width)
        keys, values = attended.unbind(dim=2)
        looked = self._attend(asked, keys, values, mask)
        flat = F.layer_norm(_linear(looked, self._cross_output).add(flat), *self._norms[0])
        own = _product(flat, self._product_weights[1]).view(-1, frames, 3 * width).add(own_place)
        asked, keys, values = own.split(width, dim=2)
        looked = self._attend(asked, keys, values, None)
        flat = F.layer_norm(_linear(looked, self._own_output).add(flat), *self._norms[1])
        inner = _linear(flat, self._expand).relu_()
        flat = F.layer_norm(_linear(inner, self._contract).add(flat), *self._norms[2])
        return flat.view(shape)

    def _attend(self, query: Tensor, key: Tensor, value: Tensor, mask: Tensor | None) -> Tensor:
        """[B, T, D], [B, S, D], [B, S, D], [B, S] → [B·T, D]."""
        frames, width = query.shape[1:]
        query, key, value = (part.unflatten(-1, (self._heads, -1)).transpose(1, 2) for part in (query, key, value))
        if max(frames, key.shape[2]) > SHORT:
            shown = None if mask is None else mask[:, None, None]
            query, key, value = (part.to(self._dtype) for part in (query, key, value))
            attended = F.scaled_dot_product_attention(query, key, value, attn_mask=shown, scale=1.0)
            return attended.transpose(1, 2).reshape(-1, width)
        # The other way round, with the frames last: a softmax along anything but the last dimension needs no
        # sums across the lanes of a register.
        similarity = key @ query.transpose(2, 3)  # [B, heads, S, T]
        if mask is not None:
            similarity.masked_fill_(~mask[:, None, :, None], -torch.inf)
        attended = similarity.softmax(dim=2).transpose(2, 3) @ value
        return attended.transpose(1, 2).reshape(-1, width)


def _taken(linear: nn.Linear, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
    return linear.bias.to(dtype), linear.weight.T.contiguous().to(dtype)  # transposed: small products read it quicker


def _linear(inputs: Tensor, weights: tuple[Tensor, Tensor]) -> Tensor:
    return torch.addmm(weights[0], inputs.to(weights[1].dtype), weights[1])


def _product(inputs: Tensor, weights: Tensor) -> Tensor:
    return inputs.to(weights.dtype) @ weights
