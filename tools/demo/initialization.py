"""Initialise the demo heads: from CLIP's common space, with attention to neighbouring frames, or from another head."""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from vtg.clip.checkpoints import read_openai_tensors
from vtg.r2 import R2Head
from vtg.training.data import TrainingSet

__all__ = ["init_from_clip", "init_from_one_layer", "init_neighbour_attention"]

DIRECTIONS = 44  # principal directions of the common space that are used: over 90 % of the variance between texts
OUTPUT_GAIN = 0.5  # weight of each direction in the map's second matrix, so that its outputs are about 1
KEY_GAIN = 1.7  # weight of each direction in the pooling's keys: patches that match the sentence get more attention
POOLING_SCALE = 0.5  # before its tanh; with the published 0, attention gets almost no gradient for many steps
MAX_SAMPLES, FRAME_STEP = 300, 5  # samples, and every how many frames, from which the directions are computed
NEIGHBOUR_OFFSETS = (
    -1,
    1,
    -3,
    3,
    0,
    0,
)  # frames to which the first heads of self-attention attend, relative to the query
POSITION_PAIRS = 4  # (sine, cosine) pairs of a position with the highest frequencies, which distinguish neighbours
POSITION_SIMILARITY = 10.0  # attention score of the attended frame; the frames next to it get two thirds of its weight
TYPICAL_FRAMES = 38  # number of frames of a typical scene
POSITION_CHANNEL_GAIN = 0.1  # gain of frame content in the channels used for positions
FIRST_FREE_OUTPUT = 16  # the outputs before it are used for positions
RANDOM_GAIN = 0.3  # factor of the random initial weights of these heads
NEW_LAYER_GATE = -1.0  # before its sigmoid: the added layers start with a weight of about a quarter


@dataclass(frozen=True)
class _Tower:
    """One side of a CLIP after its last block.

    Attributes:
        scale: [C], scale of the last layer norm.
        shift: [C], shift of the last layer norm.
        projection: [C, E], projection into the common space.
    """

    scale: Tensor
    shift: Tensor
    projection: Tensor

    def project(self, tokens: Tensor) -> Tensor:
        """Project tokens of the residual stream, [N, C], into the common space: [N, E]."""
        return F.layer_norm(tokens, self.scale.shape, self.scale, self.shift) @ self.projection


@torch.no_grad()
def init_from_clip(head: R2Head, clip: Path, training_set: TrainingSet, first: int = 0) -> None:
    """Initialise the maps of a new head with the final projections of its CLIP's towers.

    The principal directions of frames, patches and sentences in CLIP's common space become outputs of both maps; the
    ReLU between their matrices is passed by positive and negative parts separately. In these outputs, frames, patches
    and sentences are initially as similar as in CLIP. Other weights stay random, and all weights are trained.

    Args:
        head: a new head on the CPU, with a hidden width of at least twice `DIRECTIONS`.
        clip: the checkpoint of its CLIP.
        training_set: the features from which the principal directions are computed.
        first: index of the first of these outputs.
    """
    tensors = read_openai_tensors(clip)
    vision, text = (
        _Tower(*(tensors[name].float() for name in names))
        for names in (
            ("visual.ln_post.weight", "visual.ln_post.bias", "visual.proj"),
            ("ln_final.weight", "ln_final.bias", "text_projection"),
        )
    )
    frames, sentences = _sample_features(training_set)
    class_tokens, patches = vision.project(frames[:, 0]), vision.project(frames[:, 1:].flatten(0, 1))
    texts = text.project(sentences)
    spread = sum(_covariance(each) / _covariance(each).trace() for each in (class_tokens, patches, texts))
    directions = torch.linalg.eigh(cast(Tensor, spread))[1].flip(1)[:, :DIRECTIONS]
    # As many patches as class tokens; otherwise the background patches would dominate mean and scale.
    seen = torch.cat([class_tokens, patches[:: len(patches) // len(class_tokens)]])
    own = slice(first, first + DIRECTIONS)
    _start_map(head.block.video_map, vision, directions, seen, own)
    _start_map(head.block.query_map, text, directions, texts, own)
    if head.config.spatial_pooling:
        for keys in (head.block.video_key, head.block.query_key):
            keys.weight[own, own] += KEY_GAIN * torch.eye(DIRECTIONS)
        head.block.scale.fill_(POOLING_SCALE)


@torch.no_grad()
def init_neighbour_attention(head: R2Head) -> int:
    """Initialise some heads of the self-attention to attend to neighbouring frames.

    The position encoding has one period in a whole video, so attention with random weights hardly distinguishes
    neighbouring frames. Moving things are recognised by comparing a frame with those before and after it.

    Args:
        head: a new head with any number of layers.

    Returns:
        Index of the first output of the maps that is not used for positions; see `init_from_clip`.
    """
    refinement, width = head.block.refinement, head.config.hidden_width
    attention = refinement.self_attention
    each = width // attention.heads
    gain = math.sqrt(POSITION_SIMILARITY * math.sqrt(each))
    refinement.cross_norm.weight[: 2 * POSITION_PAIRS] = POSITION_CHANNEL_GAIN
    for number, frames in enumerate(NEIGHBOUR_OFFSETS):
        query, key = torch.zeros(each, width), torch.zeros(each, width)
        for pair in range(POSITION_PAIRS):
            sine, cosine = 2 * pair, 2 * pair + 1
            angle = 2 * math.pi / TYPICAL_FRAMES * 10000 ** (-2 * pair / width) * frames
            # Rotate the sine and cosine of the query's position by the offset.
            query[sine, sine] = query[cosine, cosine] = math.cos(angle)
            query[sine, cosine], query[cosine, sine] = math.sin(angle), -math.sin(angle)
            key[sine, sine] = key[cosine, cosine] = 1.0
        rows = slice(number * each, (number + 1) * each)
        for linear, placed in ((attention.query, query), (attention.key, key)):
            linear.weight[rows] = RANDOM_GAIN * linear.weight[rows] + gain * placed
    return FIRST_FREE_OUTPUT


@torch.no_grad()
def init_from_one_layer(head: R2Head, trained: R2Head) -> None:
    """Initialise a head of several layers from one trained on the last layer.

    Args:
        head: a new head with the same sizes, except for the number of layers.
        trained: a head with one layer.
    """
    assert head.block.gate is not None  # it has several layers
    state = trained.state_dict()
    if head.config.spatial_pooling:
        state["block.scale"] = trained.block.scale.expand(head.config.layers).clone()
    state["block.gate"] = torch.full_like(head.block.gate, NEW_LAYER_GATE)
    head.load_state_dict(state)


def _sample_features(training_set: TrainingSet) -> tuple[Tensor, Tensor]:
    """The last layer of some frames, [N, P, Cv], and of the end tokens of some sentences, [M, Cq]."""
    samples = training_set.samples[:: max(1, len(training_set.samples) // MAX_SAMPLES)]
    videos = list({sample.sample.video_id: None for sample in samples})[: MAX_SAMPLES // FRAME_STEP]
    frames = [np.array(training_set.files.video(video)[::FRAME_STEP, -1], np.float32) for video in videos]
    texts = [np.array(training_set.files.query(sample.sample)[-1, -1], np.float32) for sample in samples]
    return torch.from_numpy(np.concatenate(frames)), torch.from_numpy(np.stack(texts))


def _covariance(points: Tensor) -> Tensor:
    return torch.cov(points.t())


def _start_map(layers: nn.Sequential, tower: _Tower, directions: Tensor, points: Tensor, own: slice) -> None:
    """Initialise outputs `own` of a map (norm, dropout, matrix, ReLU, norm, dropout, matrix) from a tower."""
    norm, first, second = (cast(Any, layers[place]) for place in (0, 2, 6))
    width, count = len(tower.scale), directions.shape[1]
    middle = points.mean(dim=0)
    size = ((points - middle) @ directions).square().mean().sqrt()
    into = (tower.projection @ directions).t() / size
    norm.weight[:width], norm.bias[:width] = tower.scale, tower.shift
    for rows, sign in ((slice(count), 1), (slice(count, 2 * count), -1)):
        first.weight[rows] = 0  # including the columns of the temporal extent
        first.weight[rows, :width] = sign * into
        first.bias[rows] = -sign * (middle @ directions) / size
    second.weight[own] = 0
    second.weight[own, :count] = OUTPUT_GAIN * torch.eye(count)
    second.weight[own, count : 2 * count] = -OUTPUT_GAIN * torch.eye(count)
    second.bias[own] = 0
