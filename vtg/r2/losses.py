"""The five training losses of R²-Tuning, over the batch of one process or of all processes."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor, distributed, nn
from torch.nn import functional as F

from vtg.errors import VtgError
from vtg.r2.config import LossWeights
from vtg.r2.decoding import HeadOutput
from vtg.r2.targets import point_targets, saliency_targets, true_windows

__all__ = ["ABSENT", "LossWeights", "TrainingBatch", "training_losses"]

ABSENT = -1  # value of `positive_frame` for a query that describes no frame
TEMPERATURE = 0.07  # of both calibration losses
MAX_SALIENCY_SCALE = 100.0  # upper bound of the inverse temperature of the saliency loss

Gather = Callable[[Tensor], Tensor]


@dataclass(frozen=True, eq=False)
class TrainingBatch:
    """Padded samples with their ground truth; values in the padding have no effect.

    Attributes:
        video: [V, T, K, P, Cv], any float dtype; V is B, or smaller: each video belongs to B / V consecutive queries.
        query: [B, L, K, Cq], any float dtype.
        video_mask: [B, T] true for valid frames.
        query_mask: [B, L] true for valid tokens.
        saliency: [B, T] 0…1, one value per frame.
        positive_frame: [B] int64, a valid frame that the query describes; `ABSENT` for a query that matches nothing:
            such a sample contributes negatives to "cls", and is excluded from the losses that need a positive frame.
        windows: B tensors [N, 2], start and end in seconds, N may be 0, rows that are not finite are padding; None for
            data sets without windows.
        fps: sampling rate of `video` in frames per second.

    Raises:
        ValueError: fields of different batch sizes or lengths, or a positive frame in the padding.
    """

    video: Tensor
    query: Tensor
    video_mask: Tensor
    query_mask: Tensor
    saliency: Tensor
    positive_frame: Tensor
    windows: Sequence[Tensor] | None
    fps: float

    def __post_init__(self) -> None:
        """Validate shapes and positive frames; convert the masks to bool."""
        (videos, frames), batch = self.video.shape[:2], len(self.query)
        if batch % videos:
            raise ValueError(f"{batch} queries are not a multiple of {videos} videos")
        shapes = {
            "video_mask": (self.video_mask.shape, (batch, frames)),
            "query_mask": (self.query_mask.shape, (batch, self.query.shape[1])),
            "saliency": (self.saliency.shape, (batch, frames)),
            "positive_frame": (self.positive_frame.shape, (batch,)),
            "windows": ((batch if self.windows is None else len(self.windows),), (batch,)),
        }
        for name, (found, wanted) in shapes.items():
            if tuple(found) != wanted:
                raise ValueError(f"{name} is {list(found)} where video is {list(self.video.shape)}, not {list(wanted)}")
        for name in ("video_mask", "query_mask"):  # integer masks too, as ~ inverts the bits of integers
            object.__setattr__(self, name, getattr(self, name).bool())
        # On the CPU only: on an accelerator this check would synchronise at every step.
        if self.video_mask.is_cpu and not (at_positive(self.video_mask, self.positive_frame) | self.absent).all():
            raise ValueError("a positive frame is in the padding: it must be a valid frame of its video")

    @property
    def absent(self) -> Tensor:
        """[B] bool, true for queries that describe no frame."""
        return self.positive_frame == ABSENT

    def to(self, device: torch.device | str) -> TrainingBatch:
        """The batch on another device; `windows` are moved later, as one array."""
        names = ("video", "query", "video_mask", "query_mask", "saliency", "positive_frame")
        overlaps = torch.device(device).type == "cuda"  # elsewhere the copy could be read too early
        return replace(self, **{name: getattr(self, name).to(device, non_blocking=overlaps) for name in names})


def training_losses(
    head: nn.Module, batch: TrainingBatch, weights: LossWeights | None = None, across_processes: bool = False
) -> dict[str, Tensor]:
    """Run the head on a batch and compute the weighted losses; training minimises their sum.

    Args:
        head: an `R2Head`, or a wrapper such as DistributedDataParallel, which is called so that its hooks run.
        batch: on the head's device.
        weights: None uses the defaults.
        across_processes: compute the losses of the joint batch of all processes in the default group. Each process
            must give the same number of samples, padded to the same T and L, and gets the same values; the *mean* of
            the processes' gradients, as in DistributedDataParallel, is the gradient of the joint batch. All processes
            must scale the losses equally before the backward pass. Without a process group it has no effect.

    Returns:
        Float32 scalars, also under autocast: "cls", "reg" (not for a highlight-only head), "sal", "video_cal" and
        "layer_cal", each multiplied by its weight.

    Raises:
        VtgError: the head predicts moments, and the batch has no windows.
    """
    weights = LossWeights() if weights is None else weights
    output: HeadOutput = head(batch.video, batch.query, batch.video_mask, batch.query_mask)
    shared = across_processes and distributed.is_available() and distributed.is_initialized()
    gather: Gather = gather_samples if shared and distributed.get_world_size() > 1 else lambda tensor: tensor
    with torch.autocast(output.video.device.type, enabled=False):
        losses = point_losses(output, batch, gather)
        losses["sal"] = saliency_loss(output, batch, inverse_temperature(head), gather)
        losses["video_cal"], losses["layer_cal"] = calibration_losses(output, batch, gather)
        return {name: loss * getattr(weights, name) for name, loss in losses.items()}


def point_losses(output: HeadOutput, batch: TrainingBatch, gather: Gather) -> dict[str, Tensor]:
    """Classification and regression losses at the points of the pyramid (Sec. 3, Prediction Heads).

    Returns:
        "cls": sigmoid focal loss (a highlight-only head: cross-entropy with the saliency), mean over the valid points;
        "reg", if the head predicts moments: L1 between offsets, in strides, mean over the positive points.
    """
    valid = output.point_mask
    assert valid is not None  # the batch has a mask
    if output.offsets is None:
        saliency = batch.saliency.float().masked_fill(~batch.video_mask, 0)
        entropy = cross_entropy(output.class_logits, saliency_targets(output.points, saliency))
        total, count = gather(masked_sum(valid, entropy)).sum(dim=0)
        return {"cls": total / count}
    if batch.windows is None:
        raise VtgError("this head predicts moments, but the samples have no windows: train on a data set with windows")
    windows = true_windows(batch.windows, batch.video_mask.sum(dim=1), batch.fps)
    targets = point_targets(output.points, windows)
    entropy = focal_loss(output.class_logits, targets.positive.float())
    # Not restricted to valid points: the padded frame after a video, where its last moment ends, can be positive.
    distance = (output.offsets - targets.offsets).abs().mean(dim=2)
    totals = gather(torch.cat((masked_sum(valid, entropy), masked_sum(targets.positive, distance)), dim=1)).sum(dim=0)
    return {"cls": totals[0] / totals[1], "reg": totals[2] / totals[3].clamp(min=1)}


def saliency_loss(output: HeadOutput, batch: TrainingBatch, scale: Tensor, gather: Gather) -> Tensor:
    """Contrast the positive frame with less salient frames of its video, and with the same frame of other videos.

    A highlight-only head has the first term only. Source: Sec. 3, Prediction Heads (sampled InfoNCE).
    """
    saliency = batch.saliency.float()
    own = at_positive(saliency, batch.positive_frame)[:, None]
    is_negative = batch.video_mask & (saliency <= own)
    similarity = F.cosine_similarity(output.video, output.pooled_query[:, None], dim=2) * scale
    logits = gather(similarity.masked_fill(~is_negative, -torch.inf))  # [B, T]
    positive = gather(batch.positive_frame)
    absent = positive == ABSENT
    loss = -mean_of_present(at_positive(logits.log_softmax(dim=1), positive), absent)
    if output.offsets is not None:
        apart = logits.masked_fill(absent[:, None], -torch.inf)
        between = apart[:, positive.clamp(min=0)]  # [B, B]: all videos at the positive frame of each
        between = between.masked_fill(absent, 0)  # softmax of a column of only -inf would be NaN, as would its gradient
        loss = loss - mean_of_present(between.log_softmax(dim=0).diagonal(), absent)
    return loss


def calibration_losses(output: HeadOutput, batch: TrainingBatch, gather: Gather) -> tuple[Tensor, Tensor]:
    """The two granularity calibration losses (Sec. 3, Granularity Calibration).

    Returns:
        Video-level: each layer's class token at the positive frame against the queries of the batch, mean over samples
        and layers. Layer-level: against all layers of the same sample, mean over layers and samples.
    """
    kept = output.calibration
    assert kept is not None  # computed by `R2Head.forward`
    layers, _, _, width = kept.class_tokens.shape
    index = batch.positive_frame.clamp(min=0)[None, :, None, None].expand(layers, -1, 1, width)
    frames = kept.class_tokens.gather(2, index).squeeze(2)  # [K, B, D]
    features = gather(torch.stack((frames, kept.queries)).permute(2, 0, 1, 3))  # [all samples, 2, K, D]
    absent = gather(batch.positive_frame) == ABSENT
    frames, queries = features.unbind(dim=1)
    across_samples = contrast(frames.transpose(0, 1), queries.transpose(0, 1), absent[None])
    return across_samples, contrast(frames, queries, absent[:, None])


def contrast(one: Tensor, other: Tensor, absent: Tensor) -> Tensor:
    """Symmetric InfoNCE between the N pairs of each group; the other pairs of the group are the negatives.

    Args:
        one: [groups, N, D].
        other: [groups, N, D].
        absent: bool, broadcast to [groups, N]; pairs to exclude, also as negatives of the others.

    Returns:
        The mean over groups, pairs and the two directions, a scalar.
    """
    similarity = F.normalize(one, dim=2) @ F.normalize(other, dim=2).transpose(1, 2) / TEMPERATURE
    pairs = similarity.shape[1]
    apart = absent[..., :, None] != absent[..., None, :]  # excluded pairs keep each other, so that no row is empty
    similarity = similarity.masked_fill(apart, -torch.inf)
    forth = similarity.log_softmax(dim=2).diagonal(dim1=1, dim2=2)
    back = similarity.log_softmax(dim=1).diagonal(dim1=1, dim2=2)
    return -mean_of_present((forth + back) / 2, absent.expand(-1, pairs))


def at_positive(values: Tensor, positive_frame: Tensor) -> Tensor:
    """[B] the values [B, T] at each sample's positive frame; at the first frame if it is absent."""
    return values.gather(1, positive_frame.clamp(min=0)[:, None]).squeeze(1)


def mean_of_present(values: Tensor, absent: Tensor) -> Tensor:
    """The mean of values that are not absent, 0 if all are; `absent` is broadcast to the values."""
    absent = absent.expand_as(values)
    return values.masked_fill(absent, 0).sum() / (~absent).sum().clamp(min=1)


def cross_entropy(logits: Tensor, targets: Tensor) -> Tensor:
    """Element-wise binary cross-entropy."""
    return F.binary_cross_entropy_with_logits(logits, targets, reduction="none")


def focal_loss(logits: Tensor, targets: Tensor) -> Tensor:
    """Element-wise sigmoid focal loss with γ = 2 and no α; targets are 0 or 1."""
    entropy = cross_entropy(logits, targets)
    return (-torch.expm1(-entropy)) ** 2 * entropy  # cross-entropy is −log p, so this factor is (1 − p)²


def masked_sum(mask: Tensor, values: Tensor) -> Tensor:
    """[1, 2] sum and count of the values where the mask is true."""
    return torch.stack((torch.where(mask, values, 0).sum(), mask.sum())).reshape(1, 2)


def inverse_temperature(head: nn.Module) -> Tensor:
    """Inverse temperature of the saliency loss, from the head inside any wrappers."""
    bare: Any = head
    while not hasattr(bare, "saliency_scale"):
        bare = bare.module
    scale: Tensor = bare.saliency_scale
    return scale.float().exp().clamp(max=MAX_SALIENCY_SCALE)


class GatherSamples(torch.autograd.Function):
    """Gather the samples of all processes in order of rank; gradients are returned to the process of each sample.

    Every process computes the same losses from the gathered tensors and thus has the same gradient: the sum over
    processes required by the chain rule needs no communication in the backward pass.
    """

    @staticmethod
    def forward(ctx: Any, own: Tensor) -> Tensor:
        """[b, …] of each process → [processes · b, …]."""
        shares = [torch.empty_like(own) for _ in range(distributed.get_world_size())]
        distributed.all_gather(shares, own)
        return torch.cat(shares)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> Tensor:
        """[processes · b, …] → [b, …]."""
        processes = distributed.get_world_size()
        return gradients[0].chunk(processes)[distributed.get_rank()] * processes


def gather_samples(own: Tensor) -> Tensor:
    """Concatenate tensors [b, …] of all processes, of equal shape, to [processes · b, …]."""
    gathered: Tensor = GatherSamples.apply(own.contiguous())
    return gathered
