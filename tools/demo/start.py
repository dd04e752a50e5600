"""Initialise the demo heads from their CLIP's common space, with attention to neighbouring frames."""

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

__all__ = ["start_from_clip", "start_from_neighbours", "start_from_one_layer"]

DIRECTIONS = 44  # of the common space that are taken over: over nine tenths of what differs from text to text
OUTPUT_GAIN = 0.5  # of each, by the map's second matrix: its outputs are then about 1
KEY_GAIN = 1.7  # of the pooling's keys: makes patches that match the sentence stand out
POOLED_SHARE = 0.5  # before its tanh; from the published 0, attention has nothing to learn from for long
SAMPLES, FRAMES_APART = 300, 5  # looked at
NEIGHBOUR_OFFSETS = (-1, 1, -3, 3, 0, 0)  # frames from itself at which each of the first heads of self-attention looks
PLACED_PAIRS = 4  # of a position's sines and cosines, the quickest: a frame is told from its neighbours by them
PLACED_SHARPNESS = 10.0  # similarity where such a head looks: the frames next to that count for two thirds as much
PLACED_FRAMES = 38  # of a usual scene
POSITION_CHANNEL_GAIN = 0.1  # gain of frame content in the channels used for positions
FIRST_FREE_OUTPUT = 16  # outputs before it are left to positions
RANDOM_SHARE = 0.3  # of what else those heads' random maps see
NEW_LAYER_GATE = -1.0  # before its sigmoid: layers that join later enter with about a quarter


@dataclass(frozen=True)
class _Tower:
    """One side of a CLIP after its last block.

    Attributes:
        scale: [C] of the last norm.
        shift: [C] of the last norm.
        projection: [C, E] into the common space.
    """

    scale: Tensor
    shift: Tensor
    projection: Tensor

    def project(self, tokens: Tensor) -> Tensor:
        """[N, C] of the residual stream into the common space, [N, E]."""
        return F.layer_norm(tokens, self.scale.shape, self.scale, self.shift) @ self.projection


@torch.no_grad()
def start_from_clip(head: R2Head, clip: Path, training_set: TrainingSet, first: int = 0) -> None:
    """Initialise the maps of a new head with the final projections of its CLIP's towers.

    What differs most from sentence to sentence and from frame to frame in CLIP's common space goes, positive and
    negative parts apart for the rectifier between, through the first outputs of both maps, so that there a frame, a
    patch and a sentence are as similar as CLIP finds them. All else stays random, and everything is trained.

    Args:
        head: on the CPU; its hidden width is at least twice `DIRECTIONS`.
        clip: the file of its CLIP.
        training_set: what is looked at for what differs.
        first: of the outputs that they go through.
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
    # As many patches as class tokens, or the background would say alone what is usual.
    seen = torch.cat([class_tokens, patches[:: len(patches) // len(class_tokens)]])
    own = slice(first, first + DIRECTIONS)
    _start_map(head.block.video_map, vision, directions, seen, own)
    _start_map(head.block.query_map, text, directions, texts, own)
    if head.config.spatial_pooling:
        for keys in (head.block.video_key, head.block.query_key):
            keys.weight[own, own] += KEY_GAIN * torch.eye(DIRECTIONS)
        head.block.scale.fill_(POOLED_SHARE)


@torch.no_grad()
def start_from_neighbours(head: R2Head) -> int:
    """Initialise some heads of the self-attention to attend to neighbouring frames.

    Positions turn once in a whole video, so a random head sees all frames nearly alike; what moves is told from what
    stays by looking at those before and after.

    Args:
        head: new, of any number of layers.

    Returns:
        The first output of the maps that positions leave free; see `start_from_clip`.
    """
    refinement, width = head.block.refinement, head.config.hidden_width
    attention = refinement.self_attention
    each = width // attention.heads
    gain = math.sqrt(PLACED_SHARPNESS * math.sqrt(each))
    refinement.cross_norm.weight[: 2 * PLACED_PAIRS] = POSITION_CHANNEL_GAIN
    for number, frames in enumerate(NEIGHBOUR_OFFSETS):
        query, key = torch.zeros(each, width), torch.zeros(each, width)
        for pair in range(PLACED_PAIRS):
            sine, cosine = 2 * pair, 2 * pair + 1
            angle = 2 * math.pi / PLACED_FRAMES * 10000 ** (-2 * pair / width) * frames
            # The sine and the cosine of the position so many frames on, from those of its own.
            query[sine, sine] = query[cosine, cosine] = math.cos(angle)
            query[sine, cosine], query[cosine, sine] = math.sin(angle), -math.sin(angle)
            key[sine, sine] = key[cosine, cosine] = 1.0
        rows = slice(number * each, (number + 1) * each)
        for linear, placed in ((attention.query, query), (attention.key, key)):
            linear.weight[rows] = RANDOM_SHARE * linear.weight[rows] + gain * placed
    return FIRST_FREE_OUTPUT


@torch.no_grad()
def start_from_one_layer(head: R2Head, trained: R2Head) -> None:
    """Initialise a head of several layers from one trained on the last layer.

    Args:
        head: of the same sizes but for its layers.
        trained: of one layer.
    """
    assert head.block.gate is not None  # of several layers
    state = trained.state_dict()
    if head.config.spatial_pooling:
        state["block.scale"] = trained.block.scale.expand(head.config.layers).clone()
    state["block.gate"] = torch.full_like(head.block.gate, NEW_LAYER_GATE)
    head.load_state_dict(state)


def _sample_features(training_set: TrainingSet) -> tuple[Tensor, Tensor]:
    """Last layers of some frames, [N, P, Cv], and of the end tokens of some sentences, [M, Cq]."""
    samples = training_set.samples[:: max(1, len(training_set.samples) // SAMPLES)]
    videos = list({sample.sample.video_id: None for sample in samples})[: SAMPLES // FRAMES_APART]
    frames = [np.array(training_set.files.video(video)[::FRAMES_APART, -1], np.float32) for video in videos]
    texts = [np.array(training_set.files.query(sample.sample)[-1, -1], np.float32) for sample in samples]
    return torch.from_numpy(np.concatenate(frames)), torch.from_numpy(np.stack(texts))


def _covariance(points: Tensor) -> Tensor:
    return torch.cov(points.t())


def _start_map(layers: nn.Sequential, tower: _Tower, directions: Tensor, points: Tensor, own: slice) -> None:
    """Put a tower's projection into a map's outputs `own`: norm, dropout, matrix, rectifier, norm, dropout, matrix."""
    norm, first, second = (cast(Any, layers[place]) for place in (0, 2, 6))
    width, count = len(tower.scale), directions.shape[1]
    middle = points.mean(dim=0)
    size = ((points - middle) @ directions).square().mean().sqrt()
    into = (tower.projection @ directions).t() / size
    norm.weight[:width], norm.bias[:width] = tower.scale, tower.shift
    for rows, sign in ((slice(count), 1), (slice(count, 2 * count), -1)):
        first.weight[rows] = 0  # the temporal extent, too, is left to the other rows
        first.weight[rows, :width] = sign * into
        first.bias[rows] = -sign * (middle @ directions) / size
    second.weight[own] = 0
    second.weight[own, :count] = OUTPUT_GAIN * torch.eye(count)
    second.weight[own, count : 2 * count] = -OUTPUT_GAIN * torch.eye(count)
    second.bias[own] = 0
