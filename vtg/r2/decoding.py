"""Outputs of a head, and their decoding to windows and saliency."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

from vtg.r2.config import HeadConfig

__all__ = ["CalibrationFeatures", "HeadOutput", "Prediction", "decode"]


@dataclass(frozen=True, eq=False)
class CalibrationFeatures:
    """Features of the two granularity calibration losses (Sec. 3, Granularity Calibration); last layer first.

    Attributes:
        class_tokens: [K, B, T, D] class tokens of the frames before pooling.
        queries: [K, B, D] the pooled queries.
    """

    class_tokens: Tensor
    queries: Tensor


@dataclass(frozen=True, eq=False)
class HeadOutput:
    """Output of the head before decoding.

    Attributes:
        video: [B, T, D] output of the R² block after ReLU.
        query: [B, L, D] projected query tokens of the earliest layer; None from the compiled engine.
        pooled_query: [B, D].
        class_logits: [B, points].
        offsets: [B, points, 2] distances to start and end in strides; None for a highlight-only head.
        points: [points, 4] position, lower and upper end of the regression range, stride; in frames.
        level_sizes: points of each level.
        point_mask: [B, points] true for points with a valid frame; None without padding.
        calibration: for the losses; None at inference.
    """

    video: Tensor
    query: Tensor | None
    pooled_query: Tensor
    class_logits: Tensor
    offsets: Tensor | None
    points: Tensor
    level_sizes: tuple[int, ...]
    point_mask: Tensor | None = None
    calibration: CalibrationFeatures | None = None


@dataclass(frozen=True, eq=False)
class Prediction:
    """Prediction for one video and one query, before post-processing.

    Attributes:
        windows: [N, 3] float32: start s, end s, score 0…1; best first, at most `HeadConfig.max_windows`; None for a
            highlight-only head.
        saliency: [T] float32, one score a frame.
        class_logits: [points].
        offsets: [points, 2] distances to start and end in strides; None for a highlight-only head.
        points: [points, 4] position, lower and upper end of the regression range, stride; in frames.
    """

    windows: Tensor | None
    saliency: Tensor
    class_logits: Tensor
    offsets: Tensor | None
    points: Tensor


def decode(output: HeadOutput, config: HeadConfig, fps: float) -> tuple[Tensor | None, Tensor]:
    """Decode windows and saliency (Sec. 3, Prediction Heads).

    Args:
        output: for B pairs of a video and a query.
        config: of the head.
        fps: sampling rate, frames per second.

    Returns:
        Windows [B, N, 3] float32: start s, end s, score 0…1, best first, at most `HeadConfig.max_windows`; None for a
        highlight-only head. Saliency [B, T] float32.
    """
    score = output.class_logits.sigmoid()
    saliency = _upsampled_scores(score, output).amax(dim=0)
    if output.offsets is None:
        return None, saliency
    saliency = saliency * F.cosine_similarity(output.video, output.pooled_query[:, None], dim=2)
    best = score.argsort(dim=1, descending=True, stable=True)[:, : config.max_windows]
    position, stride = output.points[:, 0], output.points[:, 3]
    start = (position - stride * output.offsets[..., 0]) / fps
    end = (position + stride * output.offsets[..., 1]) / fps
    return torch.stack([values.gather(1, best) for values in (start, end, score)], dim=2), saliency


def _upsampled_scores(score: Tensor, output: HeadOutput) -> Tensor:
    """Upsample the scores [B, points] of each level to the length of the video: [levels, B, T]."""
    frame = torch.arange(output.video.shape[1], device=score.device)
    levels = []
    for level in score.split(output.level_sizes, dim=1):
        size = level.shape[1]
        levels.append(level[:, (frame // (len(frame) // size)).clamp(max=size - 1)])
    return torch.stack(levels)
