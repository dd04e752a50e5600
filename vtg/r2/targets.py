"""Training targets of the points of the pyramid: normalised true windows, and their assignment to points."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

__all__ = ["PointTargets", "TrueWindows", "point_targets", "saliency_targets", "true_windows"]

CENTRE_RADIUS = 1.5  # in strides: maximum distance of a point from the centre of its window


@dataclass(frozen=True, eq=False)
class TrueWindows:
    """The true windows of a batch, padded.

    Attributes:
        spans: [B, N, 2] start and end in frames, inside the video and at least one frame long; N at least 1.
        present: [B, N] bool, false for padding.
    """

    spans: Tensor
    present: Tensor


@dataclass(frozen=True, eq=False)
class PointTargets:
    """Targets of each point.

    Attributes:
        positive: [B, points] bool, whether a window is assigned to the point.
        offsets: [B, points, 2] from the point to the window's start and end, in the point's strides; undefined but
            finite for points that are not positive.
    """

    positive: Tensor
    offsets: Tensor


def true_windows(windows: Sequence[Tensor], frames: Tensor, fps: float) -> TrueWindows:
    """Convert annotated windows to frames and repair invalid ones.

    Windows are clipped to the video, start and end are swapped if reversed, and windows shorter than a frame are
    widened to one frame around their centre, which is moved where needed so that the frame is inside the video.

    Args:
        windows: B tensors [N, 2], start and end in seconds; N may be 0, and rows that are not finite are padding.
        frames: [B] the length of each video in frames.
        fps: frames per second.
    """
    rows = [window.reshape(-1, 2).float() for window in windows]
    padded = nn.utils.rnn.pad_sequence(rows, batch_first=True, padding_value=math.inf)
    padded = F.pad(padded, (0, 0, 0, max(1 - padded.shape[1], 0)), value=math.inf)  # argmin needs at least one
    padded = padded.to(frames.device)
    present = padded.isfinite().all(dim=2)
    length = frames.to(torch.float32)[:, None, None]
    spans = padded.masked_fill(~present[:, :, None], 0) * fps
    spans = spans.clamp(min=0).minimum(length).sort(dim=2).values
    centre = spans.mean(dim=2, keepdim=True).clamp(min=0.5).minimum(length - 0.5)
    short = spans[..., 1:] - spans[..., :1] < 1
    widened = torch.cat((centre - 0.5, centre + 0.5), dim=2)
    return TrueWindows(torch.where(short, widened, spans), present)


def point_targets(points: Tensor, windows: TrueWindows) -> PointTargets:
    """Assign windows to the points of the pyramid (Sec. 3, Prediction Heads).

    A window is a candidate for a point that lies inside it and within `CENTRE_RADIUS` strides of its centre, if the
    distance to its farther end is in the regression range of the point's level (all bounds inclusive). The shortest
    candidate is assigned.

    Args:
        points: [points, 4] position, lower and upper end of the regression range, stride; in frames.
        windows: the ground truth of B samples.
    """
    position, low, high, stride = points[:, :, None].unbind(dim=1)  # each [points, 1]
    start, end = windows.spans[:, None].unbind(dim=3)  # each [B, 1, N]
    before, after = position - start, end - position  # [B, points, N]
    farther = before.maximum(after)
    candidate = (
        windows.present[:, None]
        & (before.minimum(after) >= 0)
        & ((before - after).abs() / 2 <= CENTRE_RADIUS * stride)
        & (farther >= low)
        & (farther <= high)
    )
    length = (end - start).expand_as(candidate).masked_fill(~candidate, math.inf)
    shortest = length.argmin(dim=2, keepdim=True)  # [B, points, 1]
    offsets = torch.cat((before.gather(2, shortest), after.gather(2, shortest)), dim=2)
    return PointTargets(candidate.any(dim=2), offsets / stride)


def saliency_targets(points: Tensor, saliency: Tensor) -> Tensor:
    """Targets of a highlight-only head: the saliency of the frame at each point.

    Args:
        points: [points, 4], as for `point_targets`.
        saliency: [B, T], 0…1.

    Returns:
        [B, points].
    """
    return saliency[:, points[:, 0].long()]
