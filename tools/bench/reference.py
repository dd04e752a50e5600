"""The published R² algorithm without optimisations: each query projects all layers and tokens of the video again."""

from __future__ import annotations

import math

import torch
from torch import Tensor
from torch.nn import functional as F

from vtg.r2 import R2Head
from vtg.r2.block import Attention, TemporalRefinement, temporal_positions
from vtg.r2.pyramid import level_points

__all__ = ["ground_plainly"]


@torch.no_grad()
def ground_plainly(head: R2Head, video: Tensor, query: Tensor, fps: float) -> tuple[Tensor, Tensor]:
    """Ground one query in one video, step by step as in the paper (Sec. 3), in float32 and without caching.

    Args:
        head: a head that predicts moments.
        video: [T, K, P, Cv], any float dtype.
        query: [L, K, Cq], any float dtype.
        fps: frames a second of the features.

    Returns:
        The best windows, [N, 3] (start s, end s, score), and the saliency, [T].
    """
    config, block = head.config, head.block
    video, query = video.float(), query.float()
    frames, layers = len(video), config.layers
    begin = torch.arange(frames) / frames
    extent = torch.stack((begin, begin + 1 / frames), dim=1)[:, None].expand(-1, video.shape[2], -1)
    state = words = None
    for layer in reversed(range(layers)):
        tokens = video[:, layer]
        if config.temporal_extent:
            tokens = torch.cat((tokens, extent), dim=2)
        tokens = _in_sequence(block.video_map, tokens)  # [T, P, D]
        words = _in_sequence(block.query_map, query[:, layer])  # [L, D]
        similarity = block.query_key(words) @ block.video_key(tokens).transpose(1, 2)  # [T, L, P]
        pooled = (similarity / math.sqrt(config.hidden_width)).softmax(dim=2) @ tokens + words  # [T, L, D]
        seen = tokens[:, 0] + block.scale[layer].tanh() * pooled.amax(dim=1)
        if state is not None:
            assert block.gate is not None  # more than one layer
            gate = block.gate[layer].sigmoid()
            seen = gate * seen + (1 - gate) * state
        state = _refine(block.refinement, seen[None], words[None])[0]
    assert state is not None and words is not None  # there is at least one layer
    return _read_off(head, state.relu(), words, fps)


def _in_sequence(modules: torch.nn.Sequential, inputs: Tensor) -> Tensor:
    for module in modules:
        inputs = module(inputs)
    return inputs


def _refine(layer: TemporalRefinement, video: Tensor, query: Tensor) -> Tensor:
    position = temporal_positions(video.shape[1], video.shape[2], like=video)
    video = layer.cross_norm(video + _attend(layer.cross_attention, video + position, query, query))
    video = layer.self_norm(video + _attend(layer.self_attention, video + position, video + position, video))
    refined: Tensor = layer.feed_forward_norm(video + layer.feed_forward(video))
    return refined


def _attend(attention: Attention, query: Tensor, key: Tensor, value: Tensor) -> Tensor:
    query, key, value = (
        linear(tokens).unflatten(-1, (attention.heads, -1)).transpose(1, 2)
        for linear, tokens in ((attention.query, query), (attention.key, key), (attention.value, value))
    )
    weights = (query @ key.transpose(2, 3) / math.sqrt(query.shape[-1])).softmax(dim=3)
    mixed: Tensor = attention.output((weights @ value).transpose(1, 2).flatten(2))
    return mixed


def _read_off(head: R2Head, frames: Tensor, words: Tensor, fps: float) -> tuple[Tensor, Tensor]:
    config, count = head.config, len(frames)
    assert head.coordinate_head is not None  # the head predicts moments
    levels = head.pyramid(frames[None])
    logits = [head.class_head(level.transpose(1, 2))[0, 0] for level in levels]
    offsets = [
        head.coordinate_head(level.transpose(1, 2))[0].T.exp() * scale
        for level, scale in zip(levels, head.level_scale, strict=False)
    ]
    points = level_points(count, config.strides, like=frames)
    score, distance = torch.cat(logits).sigmoid(), torch.cat(offsets)
    start = (points[:, 0] - points[:, 3] * distance[:, 0]) / fps
    end = (points[:, 0] + points[:, 3] * distance[:, 1]) / fps
    best = score.argsort(descending=True)[: config.max_windows]
    attention = head.pooling.score(words).softmax(dim=0)
    pooled = (attention * words).sum(dim=0)
    curves = []
    for level in logits:
        repeated = level.sigmoid().repeat_interleave(count // len(level))
        curves.append(torch.cat((repeated, repeated[-1:].expand(count - len(repeated)))))
    saliency = torch.stack(curves).amax(dim=0) * F.cosine_similarity(frames, pooled[None], dim=1)
    return torch.stack((start, end, score), dim=1)[best], saliency
