"""The R² block: query-modulated spatial pooling and temporal refinement, recurrent from the last CLIP layer back."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from vtg.r2.config import HeadConfig
from vtg.r2.token_map import TokenMap

__all__ = ["BlockOutput", "R2Block", "temporal_extent", "temporal_positions"]

SHORT = 256  # keys, up to which a table of all pairs goes backward on a CPU in a fraction of the fused operator's time


@dataclass(frozen=True, eq=False)
class BlockOutput:
    """What the block hands to the prediction heads.

    Attributes:
        video: [B, T, D] the last state, one spatio-temporal feature a frame.
        query: [B, L, D] the query tokens of the earliest layer, in the block's space.
        class_tokens: K × [B, T, D], last layer first, before pooling; empty unless kept.
        queries: K × [B, L, D], last layer first; empty unless kept.
    """

    video: Tensor
    query: Tensor
    class_tokens: tuple[Tensor, ...]
    queries: tuple[Tensor, ...]


def temporal_extent(frames: int, like: Tensor) -> Tensor:
    """The share of the video that each frame stands for, (t/T, (t+1)/T).

    Returns:
        [T, 2] of `like`'s device and dtype.
    """
    start = torch.arange(frames, device=like.device, dtype=torch.float32) / frames
    return torch.stack((start, start + 1 / frames), dim=1).to(like.dtype)


def temporal_positions(frames: int, width: int, like: Tensor) -> Tensor:
    """Sinusoidal positions of a sequence whose whole length is one period.

    The angle of frame i is 2π (i+1)/(T + 1e-6), divided by 10000^(2⌊d/2⌋/D) in dimension d; sine at even d, cosine
    at odd.

    Returns:
        [T, D] of `like`'s device and dtype.
    """
    angle = 2 * math.pi * torch.arange(1, frames + 1, device=like.device, dtype=torch.float32) / (frames + 1e-6)
    rate = 10000 ** (torch.arange(0, width, 2, device=like.device, dtype=torch.float32) / width)
    angles = angle[:, None] / rate  # [T, D/2]
    return torch.stack((angles.sin(), angles.cos()), dim=2).flatten(1).to(like.dtype)


def for_each_query(video: Tensor, queries: int) -> Tensor:
    """What belongs to V videos, [V, …], as what belongs to their queries, [queries, …]: V divides the queries."""
    return video if len(video) == queries else video.repeat_interleave(queries // len(video), dim=0)


def patch_weights(video: Tensor, keys: Tensor, bias: Tensor) -> Tensor:
    """The softmax over a frame's tokens of their similarity to N keys.

    Args:
        video: [V, T, P, D].
        keys: [V, N, D].
        bias: [V, N].

    Returns:
        [V, T, P, N], float32 at least.
    """
    similarity = video.flatten(1, 2) @ keys.to(video).transpose(1, 2) + bias[:, None]  # [V, T·P, N]
    wide = similarity.dtype if similarity.dtype == torch.float64 else torch.float32
    return similarity.unflatten(1, video.shape[1:3]).softmax(dim=2, dtype=wide)


class PoolPatches(torch.autograd.Function):
    """Sums each frame's tokens by `patch_weights`, and picks its class token out.

    All three gradients that meet in the tokens, by far the largest tensor of a training step, are added in one place.
    """

    @staticmethod
    def forward(ctx: Any, video: Tensor, keys: Tensor, bias: Tensor) -> tuple[Tensor, Tensor]:
        """[V, T, P, D], [V, N, D], [V, N] → [V, T, N, D] and [V, T, D]."""
        weights = patch_weights(video, keys, bias).to(video.dtype)
        ctx.save_for_backward(video, keys, weights)
        return weights.transpose(2, 3) @ video, video[:, :, 0].clone()

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """The gradients of video, keys and bias."""
        video, keys, weights = ctx.saved_tensors
        pooled, class_token = (gradient.to(video.dtype) for gradient in gradients)
        similarity = video @ pooled.transpose(2, 3)  # [V, T, P, N], first the gradient of the weights
        similarity = weights * (similarity - (weights * similarity).sum(dim=2, keepdim=True))
        tokens, similarity = video.flatten(1, 2), similarity.flatten(1, 2)
        of_video = weights @ pooled
        of_video.flatten(1, 2).baddbmm_(similarity, keys.to(video.dtype))
        of_video[:, :, 0] += class_token
        of_keys = similarity.transpose(1, 2) @ tokens
        return of_video, of_keys.to(keys.dtype), similarity.float().sum(dim=1).to(keys.dtype)


def attend_by_table(query: Tensor, key: Tensor, value: Tensor, mask: Tensor | None) -> Tensor:
    """Attention with a table of all pairs, whose similarities are float32 at least, whatever autocast says.

    Args:
        query: [B, heads, T, d].
        key: [B, heads, S, d].
        value: [B, heads, S, d].
        mask: broadcast to [B, heads, T, S], true where a key is real; None if all are.

    Returns:
        [B, heads, T, d].
    """
    wide = torch.promote_types(query.dtype, torch.float32)
    with torch.autocast(query.device.type, enabled=False):
        similarity = (query.to(wide) / math.sqrt(query.shape[-1])) @ key.to(wide).transpose(2, 3)
        if mask is not None:
            similarity = similarity.masked_fill(~mask, -math.inf)
        return similarity.softmax(dim=3).to(value.dtype) @ value


class Attention(nn.Module):
    """Multi-head attention whose queries and keys may carry positions that its values do not."""

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
        """Attends from queries to keys.

        Args:
            query: [B, T, D].
            key: [B, S, D].
            value: [B, S, D].
            key_mask: [B, S], true where a key is real; None if all are.

        Returns:
            [B, T, D].
        """
        query, key, value = (
            linear(tokens).unflatten(-1, (self.heads, -1)).transpose(1, 2)  # [B, heads, T or S, D / heads]
            for linear, tokens in ((self.query, query), (self.key, key), (self.value, value))
        )
        mask = None if key_mask is None else key_mask[:, None, None, :]
        if torch.is_grad_enabled() and query.device.type == "cpu" and key.shape[2] <= SHORT:
            attended = attend_by_table(query, key, value, mask)
        else:
            attended = F.scaled_dot_product_attention(query, key, value, attn_mask=mask)
        mixed: Tensor = self.output(attended.transpose(1, 2).flatten(2))
        return mixed


class DropPath(nn.Module):
    """Leaves a residual branch out for a random share of the samples, in training."""

    def __init__(self, probability: float) -> None:
        super().__init__()
        self.probability = probability

    def forward(self, branch: Tensor) -> Tensor:
        """Scales the kept samples of [B, …] so that the expected value stays."""
        if not self.training or self.probability == 0:
            return branch
        kept = 1 - self.probability
        sample = torch.empty(branch.shape[0], *[1] * (branch.dim() - 1), device=branch.device, dtype=branch.dtype)
        return branch * sample.bernoulli_(kept) / kept


class TemporalRefinement(nn.Module):
    """One step of recurrent temporal refinement: a post-norm decoder layer (Sec. 3, Recurrent Temporal Refinement).

    Cross-attention of frames to the query, self-attention among frames, feed-forward; each added and normalised.
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

    def forward(self, video: Tensor, query: Tensor, video_mask: Tensor | None, query_mask: Tensor | None) -> Tensor:
        """Refines the frames, given the query.

        Args:
            video: [B, T, D].
            query: [B, L, D].
            video_mask: [B, T], true where a frame is real; None if all are.
            query_mask: [B, L], true where a token is real; None if all are.

        Returns:
            [B, T, D], the new state.
        """
        position = temporal_positions(video.shape[1], video.shape[2], like=video)  # [T, D]
        attended = self.cross_attention(video + position, query, query, query_mask)
        video = self.cross_norm(video + self.drop_path(attended))
        placed = video + position
        video = self.self_norm(video + self.drop_path(self.self_attention(placed, placed, video, video_mask)))
        refined: Tensor = self.feed_forward_norm(video + self.drop_path(self.feed_forward(video)))
        return refined


class R2Block(nn.Module):
    """The R² block, one set of weights for all K layers (Sec. 3, Reversed Recurrent Tuning).

    Only the two gates of a layer are its own: `scale[k]`, how much of the query-modulated pooling is added to the class
    token, and `gate[k]`, how much of layer k enters the state.
    """

    def __init__(self, config: HeadConfig) -> None:
        super().__init__()
        width = config.hidden_width
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
        """Maps one CLIP layer of the frames into the block's space; independent of any query.

        Args:
            layer: [V, T, P, Cv], any float dtype.
            extent: [T, 2], the frames' `temporal_extent`.
            mask: [V, T], true where a frame is real; others enter as zeros, with their extent. None if all are.

        Returns:
            [V, T, P, D], the class token first.
        """
        extents = extent.repeat(len(layer), 1) if self.temporal_extent else None
        real = None if mask is None else mask.flatten()
        return self.video_map.frames(layer.flatten(0, 1), extents, real).unflatten(0, layer.shape[:2])

    def attention(self, video: Tensor, query: Tensor) -> Tensor:
        """Where each word looks in each frame (Sec. 3, Query-Modulated Spatial Pooling).

        Args:
            video: [V, T, P, D].
            query: [V, L, D].

        Returns:
            [V, T, L, P], each row a distribution over the frame's tokens.
        """
        return patch_weights(video, *self._keys(query)).transpose(2, 3)

    def pool(self, video: Tensor, query: Tensor, word_mask: Tensor | None) -> tuple[Tensor, Tensor]:
        """Query-modulated spatial pooling of one layer's frames (Sec. 3, Query-Modulated Spatial Pooling).

        Args:
            video: [V, T, P, D]: each of V videos for the next B / V queries.
            query: [B, L, D].
            word_mask: [B, L], true where a word takes part in the maximum; None if all do.

        Returns:
            The class tokens [V, T, D], and what was pooled [B, T, D].
        """
        groups, (batch, length, width) = len(video), query.shape
        words = query.reshape(groups, -1, width)  # the queries of one video are one long one
        looked, class_token = PoolPatches.apply(video, *self._keys(words))
        pooled = (looked + words[:, None]).unflatten(2, (batch // groups, length))  # [V, T, B / V, L, D]
        if word_mask is not None:
            pooled = pooled.masked_fill(~word_mask.reshape(groups, 1, -1, length, 1), -math.inf)
        return class_token, pooled.amax(dim=3).transpose(1, 2).flatten(0, 1)

    def _keys(self, query: Tensor) -> tuple[Tensor, Tensor]:
        """What a frame's tokens v are compared with: [V, L, D] and [V, L], so that the similarity is v · key + bias."""
        # q·(W v + b) is computed as (qᵀW)·v + q·b: the L words of a query are far fewer than the T·P tokens of a video.
        words = self.query_key(query) / math.sqrt(query.shape[-1])
        return words @ self.video_key.weight, words @ self.video_key.bias

    def forward(
        self,
        layers: Iterable[tuple[Tensor, Tensor]],
        video_mask: Tensor | None,
        query_mask: Tensor | None,
        *,
        word_mask: Tensor | None,
        keep: bool,
    ) -> BlockOutput:
        """Runs the recurrence from the last layer to the earliest (Sec. 3, R² Block).

        Args:
            layers: K pairs, last layer first, both mapped: frames [V, T, P, D], each video for the next B / V queries,
                and query [B, L, D].
            video_mask: [B, T], true where a frame is real; None if all are.
            query_mask: [B, L], true where a token is real; None if all are.
            word_mask: [B, L], true where a token takes part in the pooling's maximum; None if all do.
            keep: whether the calibration losses will want each layer's class tokens and query.
        """
        class_tokens, queries = [], []
        state = query = None
        for layer, (video, query) in zip(reversed(range(self.layers)), layers, strict=True):
            if self.spatial_pooling:
                class_token, pooled = self.pool(video, query, word_mask)
                class_token = for_each_query(class_token, len(query))
                seen = class_token + self.scale[layer].tanh() * pooled
            else:
                seen = class_token = for_each_query(video[:, :, 0], len(query))
            if keep:
                class_tokens.append(class_token)
                queries.append(query)
            if state is not None and self.gate is not None:
                gate = self.gate[layer].sigmoid()
                seen = gate * seen + (1 - gate) * state
            state = self.refinement(seen, query, video_mask, query_mask)
        assert state is not None and query is not None  # there is at least one layer
        return BlockOutput(state, query, tuple(class_tokens), tuple(queries))
