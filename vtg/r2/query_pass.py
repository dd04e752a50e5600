"""The half of the R² head that depends on the query, made quick: many queries on many projected windows at once."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from vtg.r2.block import temporal_positions
from vtg.r2.head import R2Head
from vtg.r2.projection import VideoProjection
from vtg.r2.readout import Readout
from vtg.r2.threads import run_in_threads

__all__ = ["Answers", "MappedQueries", "QueryPass"]

CHUNK_BYTES = 1 << 20  # of tokens widened at a time, and of what is pooled from them: they stay in the cache
ROWS = (
    768  # frames times queries refined together by one thread: enough for quick products, little enough for its cache
)


@dataclass(frozen=True, eq=False)
class Answers:
    """What N queries find in V windows, before post-processing.

    Attributes:
        windows: [V, N, moments, 3] float32: start s, end s (from the beginning of the window), score 0…1; best first;
            None for a highlight-only head.
        saliency: [V, N, T] float32.
    """

    windows: Tensor | None
    saliency: Tensor


@dataclass(frozen=True, eq=False)
class MappedQueries:
    """N queries in the block's space: all of the work on them that no video changes.

    Attributes:
        keys: [K, N, L, D] what a token's similarity to a word is taken with (the key map is folded into it).
        words: [K, N, L, D] what is added to what a word has pooled; −∞ for padding, which takes no part.
        attended: [K, N, L, 2, D] keys and values of the cross-attention.
        mask: [N, L], true where a token is real; None if all are.
        pooled: [N, D] the query as one feature.
    """

    keys: Tensor
    words: Tensor
    attended: Tensor
    mask: Tensor | None
    pooled: Tensor

    def __len__(self) -> int:
        return len(self.pooled)

    def __getitem__(self, queries: slice) -> MappedQueries:
        return MappedQueries(
            self.keys[:, queries],
            self.words[:, queries],
            self.attended[:, queries],
            None if self.mask is None else self.mask[queries],
            self.pooled[queries],
        )


class QueryPass:
    """Asks queries of projected windows with the weights of a head as they are now.

    The same function as `R2Head.predict`, in fewer and larger products: keys folded into the query's side, one product
    for what shares an input, positions and biases added once. Differences are those of rounding; where the processor
    multiplies matrices of bfloat16, the refinement of int8 projections uses that: it rounds less than they did.

    Args:
        head: in eval mode, on any device.
    """

    def __init__(self, head: R2Head) -> None:
        self._config = head.config
        self._like = head.level_scale.detach()
        self._block = head.block
        self._pooling = head.pooling
        with torch.no_grad():
            block = head.block
            self._pools = block.spatial_pooling
            self._scale = block.scale.tanh().tolist() if self._pools else []
            self._gate = [] if block.gate is None else block.gate.sigmoid().tolist()
            self._refine = self._refine_compact = _Refinement(head, self._like.dtype)
            if self._like.device.type == "cpu" and self._like.dtype == torch.float32 and _multiplies_bfloat16():
                self._refine_compact = _Refinement(head, torch.bfloat16)
            self._readout = Readout(head)

    @torch.no_grad()
    def map_queries(self, queries: Sequence[Tensor]) -> MappedQueries:
        """Brings queries into the block's space.

        Args:
            queries: N × [L, K, Cq], of any lengths; at least one.
        """
        lengths = torch.tensor([len(query) for query in queries])
        padded = nn.utils.rnn.pad_sequence(list(queries), batch_first=True).to(self._like)
        present = (torch.arange(padded.shape[1]) < lengths[:, None]).to(self._like.device)
        mask = None if present.all() else present
        words: Tensor = self._block.query_map(padded.permute(2, 0, 1, 3))  # [K, N, L, D]
        keys = words
        if self._pools:
            keys = self._block.query_key(words) / math.sqrt(words.shape[-1]) @ self._block.video_key.weight
        pooled = self._pooling(words[0], mask)
        attended = self._refine.attended(words)
        if mask is not None:
            words = words.masked_fill(~mask[:, :, None], -math.inf)
        return MappedQueries(keys.contiguous(), words.contiguous(), attended, mask, pooled)

    @torch.no_grad()
    def answer(self, projection: VideoProjection, queries: MappedQueries, fps: float) -> Answers:
        """Asks every query of every window.

        Args:
            projection: V windows of this head's.
            queries: N of them.
            fps: of the windows' frames.
        """
        windows, count, frames = len(projection), len(queries), projection.frames
        threads = torch.get_num_threads() if projection.values.device.type == self._like.device.type == "cpu" else 1
        if windows * count < threads:
            return self._answer(projection, queries, fps, threads)  # the operators split the rest of the work

        def run(part: tuple[slice, slice]) -> None:
            of_windows, of_queries = part
            found = self._answer(projection[of_windows], queries[of_queries], fps, threads=1)
            saliency[part] = found.saliency
            if moments is not None and found.windows is not None:
                moments[part] = found.windows

        saliency = self._like.new_empty(windows, count, frames)
        kept = self._readout.moments(frames)
        moments = self._like.new_empty(windows, count, kept, 3) if kept else None
        run_in_threads(run, _parts(windows, count, frames, threads), threads)
        return Answers(moments, saliency)

    def _answer(self, projection: VideoProjection, queries: MappedQueries, fps: float, threads: int) -> Answers:
        seen = self._pool(projection, queries, threads)
        refine = self._refine if projection.scale is None else self._refine_compact
        state: Tensor | None = None
        for layer in reversed(range(self._config.layers)):
            entering = seen[layer]  # [N, V, T, D]
            if state is not None and self._gate:
                entering = torch.lerp(state, entering, self._gate[layer])
            state = refine(entering, queries, layer)
        assert state is not None  # there is at least one layer
        windows, saliency = self._readout(state.relu_(), queries.pooled, fps)
        return Answers(None if windows is None else windows.transpose(0, 1), saliency.transpose(0, 1))

    def _pool(self, projection: VideoProjection, queries: MappedQueries, threads: int) -> Tensor:
        """What enters the recurrence, [K, N, V, T, D]: here no layer waits for another, and no frame for the next."""
        windows, layers, frames, tokens, width = projection.values.shape
        count, length = queries.keys.shape[1:3]
        seen = self._like.new_empty(layers, count, windows, frames, width)
        if not self._pools:
            class_tokens = projection.values[:, :, :, 0].to(self._like)  # [V, K, T, D]
            if projection.scale is not None:
                class_tokens = class_tokens * projection.scale[:, :, :, 0, None].to(self._like)
            return seen.copy_(class_tokens.transpose(0, 1)[:, None])
        each = max(1, CHUNK_BYTES // (4 * width * (tokens + count * length)))

        def run(chunks: list[tuple[int, int, slice]]) -> None:
            widened = self._like.new_empty(min(each, frames), tokens, width)
            for window, layer, part in chunks:
                chunk = projection.values[window, layer, part]
                scale = None if projection.scale is None else projection.scale[window, layer, part].to(self._like)
                if chunk.dtype != widened.dtype or chunk.device != widened.device:
                    chunk = widened[: len(chunk)].copy_(chunk)
                seen[layer, :, window, part] = self._pool_chunk(chunk, scale, queries, layer).transpose(0, 1)

        chunks = [
            (window, layer, slice(start, start + each))
            for window in range(windows)
            for layer in range(layers)
            for start in range(0, frames, each)
        ]
        run_in_threads(run, [chunks[first::threads] for first in range(threads)], threads)
        return seen

    def _pool_chunk(self, chunk: Tensor, scale: Tensor | None, queries: MappedQueries, layer: int) -> Tensor:
        """Query-modulated spatial pooling (Sec. 3) of some frames [F, P, D], with the scales [F, P]: [F, N, D]."""
        count, length, width = queries.keys.shape[1:]
        keys, words = queries.keys[layer].flatten(0, 1), queries.words[layer].flatten(0, 1)  # [N·L, D]
        similarity = (keys @ chunk.flatten(0, 1).T).view(len(keys), *chunk.shape[:2])
        class_tokens = chunk[:, 0]
        if scale is None:
            weights = similarity.softmax(dim=2)
        else:
            # A token's scale is a factor of its similarity and of its share: its D values need no product.
            weights = similarity.mul_(scale).softmax(dim=2).mul_(scale)
            class_tokens = class_tokens * scale[:, :1]
        looked = torch.baddbmm(words[None], weights.transpose(0, 1), chunk)  # [F, N·L, D]
        pooled = looked.view(-1, count, length, width).amax(dim=2)
        return torch.add(class_tokens[:, None], pooled, alpha=self._scale[layer])


class _Refinement:
    """`TemporalRefinement` without dropping: one product for what shares its input.

    Args:
        head: whose weights are taken.
        dtype: of its products; sums and norms are in the head's.
    """

    def __init__(self, head: R2Head, dtype: torch.dtype) -> None:
        layer = head.block.refinement
        cross, own = layer.cross_attention, layer.self_attention
        self._heads = head.config.attention_heads
        self._cross_query = cross.query.weight.T.contiguous()
        self._cross_query_bias = cross.query.bias
        self._cross_keys = (
            torch.cat((cross.key.weight, cross.value.weight)),
            torch.cat((cross.key.bias, cross.value.bias)),
        )
        self._cross_output = _taken(cross.output, dtype)
        self._own_query_key = torch.cat((own.query.weight, own.key.weight)).T.contiguous()
        self._own = torch.cat((own.query.weight, own.key.weight, own.value.weight)).T.contiguous()
        self._own_bias = torch.cat((own.query.bias, own.key.bias, own.value.bias))
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
        self._placed = lru_cache(maxsize=8)(self._place)

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
            own[:, : 2 * width] += position @ self._own_query_key
        return cross, own

    def __call__(self, video: Tensor, queries: MappedQueries, layer: int) -> Tensor:
        """[N, V, T, D] → [N, V, T, D], the new state."""
        shape = video.shape
        count, _, frames, width = shape
        cross_place, own_place = self._placed(frames)
        flat = video.reshape(-1, width)
        asked = _product(flat, self._product_weights[0]).view(-1, frames, width).add(cross_place).view(count, -1, width)
        keys, values = queries.attended[layer].unbind(dim=2)
        mask = None if queries.mask is None else queries.mask[:, None, None]
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
        """[B, T, D] → [B·T, D]."""
        query, key, value = (part.unflatten(-1, (self._heads, -1)).transpose(1, 2) for part in (query, key, value))
        attended = F.scaled_dot_product_attention(query, key, value, attn_mask=mask)
        return attended.transpose(1, 2).reshape(-1, query.shape[1] * query.shape[3])


def _taken(linear: nn.Linear, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
    return linear.bias.to(dtype), linear.weight.T.contiguous().to(dtype)  # transposed: small products read it quicker


def _linear(inputs: Tensor, weights: tuple[Tensor, Tensor]) -> Tensor:
    return torch.addmm(weights[0], inputs.to(weights[1].dtype), weights[1])


def _product(inputs: Tensor, weights: Tensor) -> Tensor:
    return inputs.to(weights.dtype) @ weights


def _multiplies_bfloat16() -> bool:
    """Whether the processor has tiles for matrices of bfloat16; without, they are no quicker than float32."""
    supported = getattr(torch.cpu, "_is_amx_tile_supported", None)  # torch has no public way to ask
    return bool(supported and supported())


def _parts(windows: int, queries: int, frames: int, threads: int) -> list[tuple[slice, slice]]:
    """Pieces of V windows × N queries of about `ROWS` rows each, and enough of them for every thread."""
    pairs = min(max(1, ROWS // frames), -(-windows * queries // threads))
    of_queries = min(queries, pairs)
    of_windows = max(1, pairs // of_queries)
    return [
        (slice(first, min(first + of_windows, windows)), slice(begin, min(begin + of_queries, queries)))
        for first in range(0, windows, of_windows)
        for begin in range(0, queries, of_queries)
    ]
