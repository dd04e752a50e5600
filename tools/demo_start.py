"""Where the demo head starts: not from random maps, but from the space in which its CLIP compares frames and texts."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from vtg.clip_files import read_openai_tensors
from vtg.r2 import R2Head
from vtg.training.data import TrainingSet

__all__ = ["start_from_clip"]

DIRECTIONS = 44  # of the common space that are taken over: over nine tenths of what differs from text to text
PASSED_ON = 0.5  # of each, by the map's second matrix: its outputs are then about 1
SHARPNESS = 1.7  # of the pooling's keys: a patch that shows what the sentence says stands out among all others
POOLED_SHARE = 0.5  # before its tanh; from the published 0, attention has nothing to learn from for long
SAMPLES, FRAMES_APART = 300, 5  # looked at


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
def start_from_clip(head: R2Head, clip: Path, training_set: TrainingSet) -> None:
    """Lets a new head's maps begin with the projections that end its CLIP's towers.

    What differs most from sentence to sentence and from frame to frame in CLIP's common space goes, positive and
    negative parts apart for the rectifier between, through the first outputs of both maps, so that there a frame, a
    patch and a sentence are as similar as CLIP finds them. All else stays random, and everything is trained.

    Args:
        head: on the CPU; its hidden width is at least twice `DIRECTIONS`.
        clip: the file of its CLIP.
        training_set: what is looked at for what differs.
    """
    tensors = read_openai_tensors(clip)
    vision, text = (
        _Tower(*(tensors[name].float() for name in names))
        for names in (
            ("visual.ln_post.weight", "visual.ln_post.bias", "visual.proj"),
            ("ln_final.weight", "ln_final.bias", "text_projection"),
        )
    )
    frames, sentences = _look(training_set)
    class_tokens, patches = vision.project(frames[:, 0]), vision.project(frames[:, 1:].flatten(0, 1))
    texts = text.project(sentences)
    spread = sum(_covariance(each) / _covariance(each).trace() for each in (class_tokens, patches, texts))
    directions = torch.linalg.eigh(cast(Tensor, spread))[1].flip(1)[:, :DIRECTIONS]
    # As many patches as class tokens, or the background would say alone what is usual.
    seen = torch.cat([class_tokens, patches[:: len(patches) // len(class_tokens)]])
    _start_map(head.block.video_map, vision, directions, seen)
    _start_map(head.block.query_map, text, directions, texts)
    if head.config.spatial_pooling:
        for keys in (head.block.video_key, head.block.query_key):
            keys.weight[:DIRECTIONS, :DIRECTIONS] += SHARPNESS * torch.eye(DIRECTIONS)
        head.block.scale.fill_(POOLED_SHARE)


def _look(training_set: TrainingSet) -> tuple[Tensor, Tensor]:
    """Last layers of some frames, [N, P, Cv], and of the end tokens of some sentences, [M, Cq]."""
    samples = training_set.samples[:: max(1, len(training_set.samples) // SAMPLES)]
    videos = list({sample.sample.video_id: None for sample in samples})[: SAMPLES // FRAMES_APART]
    frames = [np.array(training_set.files.video(video)[::FRAMES_APART, -1], np.float32) for video in videos]
    texts = [np.array(training_set.files.query(sample.sample)[-1, -1], np.float32) for sample in samples]
    return torch.from_numpy(np.concatenate(frames)), torch.from_numpy(np.stack(texts))


def _covariance(points: Tensor) -> Tensor:
    return torch.cov(points.t())


def _start_map(layers: nn.Sequential, tower: _Tower, directions: Tensor, points: Tensor) -> None:
    """Puts a tower's projection into a map: norm, dropout, matrix, rectifier, norm, dropout, matrix."""
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
    second.weight[:count] = 0
    second.weight[:count, :count] = PASSED_ON * torch.eye(count)
    second.weight[:count, count : 2 * count] = -PASSED_ON * torch.eye(count)
    second.bias[:count] = 0
