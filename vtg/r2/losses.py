"""The five training losses of R²-Tuning, over the batch of one process or of all of them together."""

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

ABSENT = -1  # the positive frame of a query that describes none
TEMPERATURE = 0.07  # of both calibration losses
MOST_SALIENCY_SCALE = 100.0  # the largest inverse temperature of the saliency loss

Gather = Callable[[Tensor], Tensor]


@dataclass(frozen=True, eq=False)
class TrainingBatch:
    """Padded samples with their ground truth; what lies in the padding of any field has no effect.

    Attributes:
        video: [V, T, K, P, Cv], any float dtype; V is B, or each of fewer videos is that of the next B / V queries.
        query: [B, L, K, Cq], any float dtype.
        video_mask: [B, T] true where a frame is real.
        query_mask: [B, L] true where a token is real.
        saliency: [B, T] 0…1, one value a frame.
        positive_frame: [B] int64, a real frame that the query describes; `ABSENT` where there is none: that sample
            teaches by "cls" that nothing is there, and has no part in the losses that need a positive frame.
        windows: B tensors [N, 2], start and end in seconds, N may be 0, rows that are not finite are padding; None for
            samples that have no windows by nature.
        fps: sampling rate of `video` in frames a second.

    Raises:
        ValueError: fields of different samples or lengths, or a positive frame in the padding.
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
        """Refuses fields that do not belong together; makes the masks bool."""
        (videos, frames), batch = self.video.shape[:2], len(self.query)
        if batch % videos:
            raise ValueError(f"{batch} queries are not shared out equally among {videos} videos")
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
        for name in ("video_mask", "query_mask"):  # of zeros and ones as well: "not" means something else for numbers
            object.__setattr__(self, name, getattr(self, name).bool())
        # Only where looking is free: on an accelerator it would wait for the device at every step.
        if self.video_mask.is_cpu and not (at_positive(self.video_mask, self.positive_frame) | self.absent).all():
            raise ValueError("a positive frame lies in the padding: it must be a real frame of its video")

    @property
    def absent(self) -> Tensor:
        """[B] bool, whether the query describes no frame."""
        return self.positive_frame == ABSENT

    def to(self, device: torch.device | str) -> TrainingBatch:
        """The batch on another device; `windows` stay where they are and move as one array, when they are needed."""
        names = ("video", "query", "video_mask", "query_mask", "saliency", "positive_frame")
        overlaps = torch.device(device).type == "cuda"  # elsewhere the copy could be read before it is there
        return replace(self, **{name: getattr(self, name).to(device, non_blocking=overlaps) for name in names})


def training_losses(
    head: nn.Module, batch: TrainingBatch, weights: LossWeights | None = None, across_processes: bool = False
) -> dict[str, Tensor]:
    """Runs the head on a batch and weighs what it got wrong; the sum of the values is what training minimises.

    Args:
        head: an `R2Head`, or a wrapper of one such as DistributedDataParallel, which is called, so that its hooks run.
        batch: on the head's device.
        weights: None takes the defaults.
        across_processes: over the batches of all processes of the default group as if they were one. Each process
            brings as many samples as the others, padded to the same T and L, and gets the same values; the *mean* of
            the processes' gradients, which DistributedDataParallel takes, is the gradient of the one batch. All
            processes scale the losses alike before going backward. Without a process group it changes nothing.

    Returns:
        Scalars, float32 whatever autocast says: "cls", "reg" (not from a highlight-only head), "sal", "video_cal" and
        "layer_cal", each times its weight.

    Raises:
        VtgError: the head finds moments, and the batch has no windows.
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
    """Classification and regression, read off at the points of the pyramid (Sec. 3, Prediction Heads).

    Returns:
        "cls": sigmoid focal loss (a highlight-only head: cross-entropy with the saliency), mean over the valid points;
        "reg", if the head finds moments: L1 between offsets, in strides, mean over the positive points.
    """
    valid = output.point_mask
    assert valid is not None  # the batch has a mask
    if output.offsets is None:
        saliency = batch.saliency.float().masked_fill(~batch.video_mask, 0)
        surprise = cross_entropy(output.class_logits, saliency_targets(output.points, saliency))
        total, count = gather(sums(valid, surprise)).sum(dim=0)
        return {"cls": total / count}
    if batch.windows is None:
        raise VtgError("this head finds moments, but the samples have no windows: train it on a data set with windows")
    windows = true_windows(batch.windows, batch.video_mask.sum(dim=1), batch.fps)
    targets = point_targets(output.points, windows)
    surprise = focal_loss(output.class_logits, targets.positive.float())
    # Not the valid ones alone: a padded frame right after a video, where its last moment ends, can be a positive point.
    distance = (output.offsets - targets.offsets).abs().mean(dim=2)
    totals = gather(torch.cat((sums(valid, surprise), sums(targets.positive, distance)), dim=1)).sum(dim=0)
    return {"cls": totals[0] / totals[1], "reg": totals[2] / totals[3].clamp(min=1)}


def saliency_loss(output: HeadOutput, batch: TrainingBatch, scale: Tensor, gather: Gather) -> Tensor:
    """Contrasts the positive frame with the less salient ones of its video, and its query with those of other videos.

    A highlight-only head has the first part alone. Source: Sec. 3, Prediction Heads (sampled InfoNCE).
    """
    saliency = batch.saliency.float()
    own = at_positive(saliency, batch.positive_frame)[:, None]
    competes = batch.video_mask & (saliency <= own)
    similarity = F.cosine_similarity(output.video, output.pooled_query[:, None], dim=2) * scale
    logits = gather(similarity.masked_fill(~competes, -torch.inf))  # [B, T]
    positive = gather(batch.positive_frame)
    absent = positive == ABSENT
    loss = -present_mean(at_positive(logits.log_softmax(dim=1), positive), absent)
    if output.offsets is not None:
        apart = logits.masked_fill(absent[:, None], -torch.inf)
        between = apart[:, positive.clamp(min=0)]  # [B, B]: all videos at each one's frame
        between = between.masked_fill(absent, 0)  # whole columns of -inf have no softmax, nor has its gradient
        loss = loss - present_mean(between.log_softmax(dim=0).diagonal(), absent)
    return loss


def calibration_losses(output: HeadOutput, batch: TrainingBatch, gather: Gather) -> tuple[Tensor, Tensor]:
    """The two granularity calibration losses (Sec. 3, Granularity Calibration).

    Returns:
        Video-level: each layer's class token at the positive frame against the queries of the batch, mean over samples
        and layers. Layer-level: against the layers of the sample's own query, mean over layers and samples.
    """
    kept = output.calibration
    assert kept is not None  # the forward of training keeps them
    layers, _, _, width = kept.class_tokens.shape
    index = batch.positive_frame.clamp(min=0)[None, :, None, None].expand(layers, -1, 1, width)
    frames = kept.class_tokens.gather(2, index).squeeze(2)  # [K, B, D]
    features = gather(torch.stack((frames, kept.queries)).permute(2, 0, 1, 3))  # [all samples, 2, K, D]
    absent = gather(batch.positive_frame) == ABSENT
    frames, queries = features.unbind(dim=1)
    across_samples = contrast(frames.transpose(0, 1), queries.transpose(0, 1), absent[None])
    return across_samples, contrast(frames, queries, absent[:, None])


def contrast(one: Tensor, other: Tensor, absent: Tensor) -> Tensor:
    """Symmetric InfoNCE between the N pairs of each group, others of the group being the negatives.

    Args:
        one: [groups, N, D].
        other: [groups, N, D].
        absent: bool, broadcast to [groups, N]; pairs that are to be left out, as negatives of the others as well.

    Returns:
        The mean over groups, pairs and the two directions, a scalar.
    """
    similarity = F.normalize(one, dim=2) @ F.normalize(other, dim=2).transpose(1, 2) / TEMPERATURE
    pairs = similarity.shape[1]
    apart = absent[..., :, None] != absent[..., None, :]  # those left out still see each other, so no row is empty
    similarity = similarity.masked_fill(apart, -torch.inf)
    forth = similarity.log_softmax(dim=2).diagonal(dim1=1, dim2=2)
    back = similarity.log_softmax(dim=1).diagonal(dim1=1, dim2=2)
    return -present_mean((forth + back) / 2, absent.expand(-1, pairs))


def at_positive(values: Tensor, positive_frame: Tensor) -> Tensor:
    """[B] of values [B, T], that of each sample's positive frame; of an absent one the first frame's."""
    return values.gather(1, positive_frame.clamp(min=0)[:, None]).squeeze(1)


def present_mean(values: Tensor, absent: Tensor) -> Tensor:
    """The mean of what is not absent, 0 where all of it is; `absent` is broadcast to the values."""
    absent = absent.expand_as(values)
    return values.masked_fill(absent, 0).sum() / (~absent).sum().clamp(min=1)


def cross_entropy(logits: Tensor, targets: Tensor) -> Tensor:
    """Binary cross-entropy, element by element."""
    return F.binary_cross_entropy_with_logits(logits, targets, reduction="none")


def focal_loss(logits: Tensor, targets: Tensor) -> Tensor:
    """Sigmoid focal loss with γ = 2 and no α, element by element; targets are 0 or 1."""
    surprise = cross_entropy(logits, targets)
    return (-torch.expm1(-surprise)) ** 2 * surprise  # cross-entropy is −log p, so this factor is (1 − p)²


def sums(mask: Tensor, values: Tensor) -> Tensor:
    """[1, 2] the sum of the values where the mask is true, and how many there are."""
    return torch.stack((torch.where(mask, values, 0).sum(), mask.sum())).reshape(1, 2)


def inverse_temperature(head: nn.Module) -> Tensor:
    """What the similarities of the saliency loss are multiplied by: the head's own, inside whatever wraps it."""
    bare: Any = head
    while not hasattr(bare, "saliency_scale"):
        bare = bare.module
    scale: Tensor = bare.saliency_scale
    return scale.float().exp().clamp(max=MOST_SALIENCY_SCALE)


class GatherSamples(torch.autograd.Function):
    """The samples of all processes, in order of rank; the gradient goes to the process that a sample came from.

    Every process computes the same losses from what is gathered, so all of them hold the same gradient: adding those of
    all processes up, as the chain rule asks, needs no communication on the way back.
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
    """Concatenates a tensor [b, …] of each process, all of one shape, to [processes · b, …]."""
    gathered: Tensor = GatherSamples.apply(own.contiguous())
    return gathered
