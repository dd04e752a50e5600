"""What the points of the pyramid should predict: true windows in frames, mended, and the points that stand for them."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

__all__ = ["PointTargets", "TrueWindows", "point_targets", "saliency_targets", "true_windows"]

CENTRE_RADIUS = 1.5  # strides from a window's centre within which a point may be responsible for it


@dataclass(frozen=True, eq=False)
class TrueWindows:
    """The ground truth of a batch as one array.

    Attributes:
        spans: [B, N, 2] start and end in frames, inside the video and at least one frame long; N at least 1.
        present: [B, N] bool, which of them are windows; the others fill up.
    """

    spans: Tensor
    present: Tensor


@dataclass(frozen=True, eq=False)
class PointTargets:
    """What each point should predict.

    Attributes:
        positive: [B, points] bool, whether the point stands for a window.
        offsets: [B, points, 2] from the point to the window's start and end, in the point's strides; meaningless where
            not positive, but finite.
    """

    positive: Tensor
    offsets: Tensor


def true_windows(windows: Sequence[Tensor], frames: Tensor, fps: float) -> TrueWindows:
    """Brings annotated windows into frames and mends what annotators leave behind.

    Windows are clipped to the video, reversed ones turned round, and those shorter than a frame widened to one frame
    around their centre, which first moves so far that the frame fits inside the video.

    Args:
        windows: B tensors [N, 2], start and end in seconds; N may be 0, and rows that are not finite are padding.
        frames: [B] the length of each video in frames.
        fps: frames a second.
    """
    rows = [window.reshape(-1, 2).float() for window in windows]
    padded = nn.utils.rnn.pad_sequence(rows, batch_first=True, padding_value=math.inf)
    padded = F.pad(padded, (0, 0, 0, max(1 - padded.shape[1], 0)), value=math.inf)  # a minimum over windows must exist
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
    """Assigns the windows to the points of the pyramid (Sec. 3, Prediction Heads).

    A window is a candidate of a point that lies inside it, within `CENTRE_RADIUS` strides of its centre, and whose
    farther end lies in the regression range of the point's level; every end is included. Of several, the shortest.

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
    """What each point of a highlight-only head should predict: the saliency of the frame that it stands on.

    Args:
        points: [points, 4], as for `point_targets`.
        saliency: [B, T], 0…1.

    Returns:
        [B, points].
    """
    return saliency[:, points[:, 0].long()]
