"""The R² block: query-modulated spatial pooling and temporal refinement, recurrent over CLIP layers from the last."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from vtg.r2.config import HeadConfig
from vtg.r2.patches import FrameTokens
from vtg.r2.projection import LayerTokens
from vtg.r2.token_map import TokenMap

__all__ = ["BlockOutput", "R2Block", "temporal_extent", "temporal_positions"]

MAX_PROJECTED_TOKENS = 1024  # at a time, so that activations stay in the processor's cache
MAX_POOLED_VALUES = 4 << 20  # floats of tokens and pooled tokens at a time, in inference


@dataclass(frozen=True, eq=False)
class BlockOutput:
    """Output of the block.

    Attributes:
        video: [B, T, D] the final state, one spatio-temporal feature per frame.
        query: [B, L, D] the projected query tokens of the earliest layer.
        class_tokens: K × [B, T, D], last layer first, before pooling.
        queries: K × [B, L, D], last layer first.
    """

    video: Tensor
    query: Tensor
    class_tokens: tuple[Tensor, ...]
    queries: tuple[Tensor, ...]


def temporal_extent(frames: int, like: Tensor) -> Tensor:
    """The relative interval of each frame in the video, (t/T, (t+1)/T).

    Returns:
        [T, 2] of `like`'s device and dtype.
    """
    start = torch.arange(frames, device=like.device, dtype=torch.float32) / frames
    return torch.stack((start, start + 1 / frames), dim=1).to(like.dtype)


def temporal_positions(frames: int, width: int, like: Tensor) -> Tensor:
    """Sinusoidal positional encoding of a sequence whose length is one period.

    The angle of frame i is 2π (i+1)/(T + 1e-6), divided by 10000^(2⌊d/2⌋/D) in dimension d; sine at even d, cosine
    at odd.

    Returns:
        [T, D] of `like`'s device and dtype.
    """
    angle = 2 * math.pi * torch.arange(1, frames + 1, device=like.device, dtype=torch.float32) / (frames + 1e-6)
    rate = 10000 ** (torch.arange(0, width, 2, device=like.device, dtype=torch.float32) / width)
    angles = angle[:, None] / rate  # [T, D/2]
    return torch.stack((angles.sin(), angles.cos()), dim=2).flatten(1).to(like.dtype)


class Attention(nn.Module):
    """Multi-head attention; queries, keys and values are given separately, as only the first two carry positions."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.query = nn.Linear(width, width)
        self.key = nn.Linear(width, width)
        self.value = nn.Linear(width, width)
        self.output = nn.Linear(width, width)
        for linear in (self.query, self.key, self.value, self.output):
            nn.init.xavier_uniform_(linear.weight)
            nn.init.zeros_(linear.bias)

    def forward(self, query: Tensor, key: Tensor, value: Tensor, key_mask: Tensor | None) -> Tensor:
        """Compute attention from queries to keys.

        Args:
            query: [B, T, D].
            key: [B, S, D].
            value: [B, S, D].
            key_mask: [B, S], true for valid keys; None if all are valid.

        Returns:
            [B, T, D].
        """
        query, key, value = (
            linear(tokens).unflatten(-1, (self.heads, -1)).transpose(1, 2)  # [B, heads, T or S, D / heads]
            for linear, tokens in ((self.query, query), (self.key, key), (self.value, value))
        )
        mask = None if key_mask is None else key_mask[:, None, None, :]
        attended = F.scaled_dot_product_attention(query, key, value, attn_mask=mask)
        mixed: Tensor = self.output(attended.transpose(1, 2).flatten(2))
        return mixed


class DropPath(nn.Module):
    """Skip a residual branch for random samples, in training (stochastic depth)."""

    def __init__(self, probability: float) -> None:
        super().__init__()
        self.probability = probability

    def forward(self, branch: Tensor) -> Tensor:
        """Drop samples of [B, …] and scale the others to keep the expected value."""
        if not self.training or self.probability == 0:
            return branch
        kept = 1 - self.probability
        sample = torch.empty(branch.shape[0], *[1] * (branch.dim() - 1), device=branch.device, dtype=branch.dtype)
        return branch * sample.bernoulli_(kept) / kept


class TemporalRefinement(nn.Module):
    """One step of recurrent temporal refinement: a post-norm decoder layer (Sec. 3, Recurrent Temporal Refinement).

    Cross-attention of frames to the query, self-attention among frames, feed-forward; each with residual connection and
    layer norm.
    """

    def __init__(self, config: HeadConfig) -> None:
        super().__init__()
        width, inner = config.hidden_width, config.hidden_width * config.feed_forward_ratio
        self.cross_attention = Attention(width, config.attention_heads)
        self.cross_norm = nn.LayerNorm(width)
        self.self_attention = Attention(width, config.attention_heads)
        self.self_norm = nn.LayerNorm(width)
        expand, contract = nn.Linear(width, inner), nn.Linear(inner, width)
        self.feed_forward = nn.Sequential(expand, nn.ReLU(), contract)
        self.feed_forward_norm = nn.LayerNorm(width)
        self.drop_path = DropPath(config.drop_path)
        for linear in (expand, contract):
            nn.init.kaiming_normal_(linear.weight, mode="fan_out", nonlinearity="relu")
            nn.init.zeros_(linear.bias)

    def forward(
        self, video: Tensor, query: Tensor, position: Tensor, video_mask: Tensor | None, query_mask: Tensor | None
    ) -> Tensor:
        """Refine the frame features, given the query.

        Args:
            video: [B, T, D].
            query: [B, L, D].
            position: [T, D], of `temporal_positions`.
            video_mask: [B, T], true for valid frames; None if all are valid.
            query_mask: [B, L], true for valid tokens; None if all are valid.

        Returns:
            [B, T, D], the new state.
        """
        attended = self.cross_attention(video + position, query, query, query_mask)
        video = self.cross_norm(video + self.drop_path(attended))
        placed = video + position
        video = self.self_norm(video + self.drop_path(self.self_attention(placed, placed, video, video_mask)))
        refined: Tensor = self.feed_forward_norm(video + self.drop_path(self.feed_forward(video)))
        return refined


class R2Block(nn.Module):
    """The R² block, one set of weights for all K layers (Sec. 3, Reversed Recurrent Tuning).

    Only two gates are per layer: `scale[k]` weights the query-modulated pooling that is added to the class token, and
    `gate[k]` weights layer k in the state.
    """

    def __init__(self, config: HeadConfig) -> None:
        super().__init__()
        width = config.hidden_width
        self.frame_tokens = FrameTokens(config)
        self.temporal_extent = config.temporal_extent
        self.video_map = TokenMap(config.frame_width, width, config.dropout)
        self.query_map = TokenMap(config.query_width, width, config.dropout)
        self.layers = config.layers
        self.spatial_pooling = config.spatial_pooling
        if self.spatial_pooling:
            self.video_key = nn.Linear(width, width)
            self.query_key = nn.Linear(width, width)
            self.scale = nn.Parameter(torch.zeros(config.layers))
        self.gate = nn.Parameter(torch.zeros(config.layers - 1)) if config.layers > 1 else None
        self.refinement = TemporalRefinement(config)

    def map_video(self, layer: Tensor, extent: Tensor, mask: Tensor | None) -> Tensor:
        """Project one CLIP layer of the frames to D channels; independent of the query.

        Args:
            layer: [V, T, P, Cv], any float dtype.
            extent: [T, 2], the frames' `temporal_extent`.
            mask: [V, T], true for valid frames; the others become zeros, with their extent. None if all are valid.

        Returns:
            [V, T, P', D], the class token (or what stands in its place) first, then the patches after `FrameTokens`.
        """
        frames = max(1, MAX_PROJECTED_TOKENS // (layer.shape[0] * layer.shape[2]))
        chunks = []
        for first in range(0, layer.shape[1], frames):
            chunk = slice(first, first + frames)
            tokens = self.frame_tokens(layer[:, chunk].to(extent))
            if mask is not None:
                tokens = tokens.masked_fill(~mask[:, chunk, None, None], 0)
            if self.temporal_extent:
                tokens = torch.cat((tokens, extent[chunk, None].expand(*tokens.shape[:3], 2)), dim=3)
            chunks.append(self.video_map(tokens))
        return torch.cat(chunks, dim=1)

    def attention(self, tokens: Tensor, words: Tensor, scale: Tensor | None) -> Tensor:
        """Attention of query tokens to the tokens of each frame (Sec. 3, Query-Modulated Spatial Pooling).

        Args:
            tokens: [V, T, P, D], of the frames.
            words: [V, N, D], of the queries.
            scale: [V, T, P], by which the tokens are to be multiplied; None for 1.

        Returns:
            [V, T, N, P], a softmax over the tokens of each frame.
        """
        # q·(W x + b) is computed as (qᵀW)·x + q·b: a query has far fewer tokens than a video.
        query = self.query_key(words) / math.sqrt(words.shape[-1])
        keys, bias = query @ self.video_key.weight, query @ self.video_key.bias
        similarity = keys @ tokens.flatten(1, 2).transpose(1, 2)  # [V, N, T·P]
        if scale is not None:  # applied here, as a query has far fewer tokens than a token has channels
            similarity = similarity * scale.flatten(1)[:, None]
        similarity = similarity + bias[:, :, None]
        return similarity.unflatten(2, tokens.shape[1:3]).softmax(dim=3).transpose(1, 2)

    def pool(self, layer: LayerTokens, query: Tensor, word_mask: Tensor | None) -> Tensor:
        """Query-modulated spatial pooling of one layer (Sec. 3, Query-Modulated Spatial Pooling).

        Args:
            layer: tokens of V videos, each of which belongs to B / V consecutive queries.
            query: [B, L, D].
            word_mask: [B, L], true for tokens that take part in the maximum over tokens; None if all do.

        Returns:
            [B, T, D].
        """
        videos, (batch, length, width) = len(layer.values), query.shape
        words = query.reshape(videos, -1, width)  # [V, B / V · L, D]: the queries of one video as one long query
        _, frames, patches, _ = layer.values.shape
        if not torch.is_grad_enabled():
            frames = max(1, min(frames, MAX_POOLED_VALUES // (videos * width * (patches + words.shape[1]))))
        chunks = []
        for tokens, scale in layer.chunks(frames, query.dtype):
            weights = self.attention(tokens, words, scale).to(tokens.dtype)
            if scale is not None:
                weights = weights * scale[:, :, None]
            pooled = weights @ tokens + words[:, None]  # [V, F, B / V · L, D]
            pooled = pooled.unflatten(2, (batch // videos, length))
            if word_mask is not None:
                pooled = pooled.masked_fill(~word_mask.reshape(videos, 1, -1, length, 1), -math.inf)
            chunks.append(pooled.amax(dim=3))  # [V, F, B / V, D]
        return torch.cat(chunks, dim=1).transpose(1, 2).flatten(0, 1)

    def forward(
        self,
        layers: Sequence[LayerTokens],
        queries: Sequence[Tensor],
        video_mask: Tensor | None,
        query_mask: Tensor | None,
        word_mask: Tensor | None,
    ) -> BlockOutput:
        """Run the recurrence from the last layer to the earliest (Sec. 3, R² Block).

        Args:
            layers: K, earliest first: projected tokens of V videos, each of which belongs to B / V consecutive queries.
            queries: K × [B, L, D], earliest first, projected.
            video_mask: [B, T], true for valid frames; None if all are valid.
            query_mask: [B, L], true for valid tokens; None if all are valid.
            word_mask: [B, L], true for tokens that take part in the pooling's maximum; None if all do.
        """
        state: Tensor | None = None
        class_tokens = []
        position = temporal_positions(layers[0].values.shape[1], queries[0].shape[2], like=queries[0])
        for k in reversed(range(self.layers)):
            query = queries[k]
            class_token = layers[k].class_tokens(query.dtype)
            class_token = class_token.repeat_interleave(len(query) // len(class_token), dim=0)  # [B, T, D]
            class_tokens.append(class_token)
            frames = class_token
            if self.spatial_pooling:
                frames = class_token + self.scale[k].tanh() * self.pool(layers[k], query, word_mask)
            if state is not None and self.gate is not None:
                gate = self.gate[k].sigmoid()
                frames = gate * frames + (1 - gate) * state
            state = self.refinement(frames, query, position, video_mask, query_mask)
        assert state is not None  # there is at least one layer
        return BlockOutput(state, queries[0], tuple(class_tokens), tuple(reversed(queries)))
