"""Overfit check: train a head on a few samples, to find errors in data or recipe before a long training."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np
import torch

from vtg.progress import Progress, Reporter
from vtg.r2 import R2Head, TrainingBatch, training_losses
from vtg.r2.targets import true_windows
from vtg.timespans import interval_iou
from vtg.training.batches import BatchPlan, Share, read_batches
from vtg.training.data import TrainingSample
from vtg.training.preparation import Prepared

__all__ = ["CheckResult", "overfit"]

CHECKED_SAMPLES = 8
MAX_STEPS = 400
STEPS_BETWEEN_CHECKS = 20
MIN_LEARNT_IOU = 0.7  # minimum IoU of the first predicted window with a true one
WARMUP_STEPS = 20


@dataclass(frozen=True)
class CheckResult:
    """Result of the overfit check.

    Attributes:
        recipe: its name.
        samples: number of samples.
        learnt: number of samples that were learnt.
        steps: optimiser steps until all were learnt, or the maximum.
        first_loss: sum of the losses at the first step.
        last_loss: at the last step.
    """

    recipe: str
    samples: int
    learnt: int
    steps: int
    first_loss: float
    last_loss: float

    @property
    def fits(self) -> bool:
        """Whether the check passed: all samples were learnt."""
        return self.learnt == self.samples

    @property
    def verdict(self) -> str:
        """The result in one sentence."""
        course = f"{self.learnt} of {self.samples} samples in {self.steps} steps, loss {self.first_loss:.2f} → "
        course += f"{self.last_loss:.2f}"
        if self.fits:
            return f"overfit check passed: {course}; features, annotations and recipe match"
        return (
            f"overfit check failed: {course}; either the learning rate is unsuitable (try --set train.rate=), or the "
            "features are not of these videos and queries: check ids, data.fps and the order of layers"
        )

    def to_dict(self) -> dict[str, Any]:
        """For JSON."""
        return {**asdict(self), "fits": self.fits, "verdict": self.verdict}


def overfit(prepared: Prepared, device: torch.device, progress: Reporter) -> CheckResult:
    """Train on a few samples, without dropout, until all are learnt or `MAX_STEPS` is reached.

    A sample is learnt if its first predicted window has an IoU of at least `MIN_LEARNT_IOU` with a true one; for a
    highlight-only head, if its best-scored frame is a positive.

    Args:
        prepared: recipe, configuration and training data.
        device: to train on.
        progress: called after every step.
    """
    train = prepared.recipe.train
    torch.manual_seed(train.seed)
    chosen = _chosen(prepared.training_set.samples)
    training_set = replace(prepared.training_set, samples=chosen)
    head = R2Head(replace(prepared.config, dropout=0.0, drop_path=0.0)).to(device).train()
    optimizer = torch.optim.AdamW(head.parameters(), lr=train.rate, weight_decay=0.0)
    plan = BatchPlan(
        np.arange(len(chosen)), max(sample.frames for sample in chosen), max(sample.tokens for sample in chosen)
    )
    shape = training_set.shape
    with read_batches(
        training_set, [plan], [(train.seed,)], prepared.config.layers, shape.tokens, 1, Share(), pin=False
    ) as batches:
        batch = next(batches).to(device)
        totals: list[float] = []
        learnt = 0
        while len(totals) < MAX_STEPS and learnt < len(chosen):
            for group in optimizer.param_groups:
                group["lr"] = train.rate * min(1.0, (len(totals) + 1) / WARMUP_STEPS)
            loss = torch.stack([*training_losses(head, batch, train).values()]).sum()
            optimizer.zero_grad(set_to_none=True)
            loss.backward()
            torch.nn.utils.clip_grad_norm_(head.parameters(), train.clip_norm)
            optimizer.step()
            totals.append(loss.item())
            if len(totals) % STEPS_BETWEEN_CHECKS == 0:
                learnt = _learnt(head, batch, chosen)
            detail = f"loss {totals[-1]:.3f}, {learnt} of {len(chosen)} samples learnt"
            progress(Progress("overfit check", len(totals), MAX_STEPS, "steps", detail=detail))
    return CheckResult(prepared.recipe.name, len(chosen), learnt, len(totals), totals[0], totals[-1])


def _chosen(samples: Sequence[TrainingSample]) -> tuple[TrainingSample, ...]:
    """Samples with a positive frame, evenly from the data set, of different videos if possible."""
    samples = [sample for sample in samples if len(sample.positives)]
    first_of_video = list({sample.sample.video_id: sample for sample in reversed(samples)}.values())[::-1]
    pool = first_of_video if len(first_of_video) >= CHECKED_SAMPLES else list(samples)
    places = np.linspace(0, len(pool) - 1, min(CHECKED_SAMPLES, len(pool))).round().astype(int)
    return tuple(pool[place] for place in places)


def _learnt(head: R2Head, batch: TrainingBatch, samples: Sequence[TrainingSample]) -> int:
    """Number of samples that the head has learnt."""
    head.eval()
    known = 0
    for i, sample in enumerate(samples):
        prediction = head.predict(batch.video[i, : sample.frames], batch.query[i, : sample.tokens], batch.fps)
        if prediction.windows is None:
            known += int(prediction.saliency.argmax().item() in sample.positives)
        else:
            first = prediction.windows[:1, :2].cpu().numpy()
            assert sample.windows is not None  # a training set for such a head has windows
            mended = true_windows([sample.windows], torch.tensor([sample.frames]), batch.fps)
            true = (mended.spans[mended.present] / batch.fps).numpy()
            known += bool((interval_iou(first, true) >= MIN_LEARNT_IOU).any())
    head.train()
    return known
