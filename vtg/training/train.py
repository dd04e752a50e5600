"""Train a head on cached features by a recipe."""

from __future__ import annotations

import json
import math
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import nullcontext
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch

from vtg.errors import VtgError
from vtg.files.whole import write_whole
from vtg.progress import Reporter, silent
from vtg.r2 import R2Head, TrainingBatch, save_head, training_losses
from vtg.recipes import Recipe, TrainRecipe, load_recipe
from vtg.training.batches import BatchPlan, Share, plan_epoch, read_batches
from vtg.training.log import TrainingLog, draw_curves
from vtg.training.overfitting import CheckResult, overfit
from vtg.training.preparation import Prepared, Sources, prepare
from vtg.training.processes import any_interrupted, batch_size, make_accelerator, watch_interrupts
from vtg.training.state import TrainingPosition, read_state, recipe_values, restore, save_state

__all__ = ["CheckResult", "Sources", "TrainingResult", "TrainingStep", "check", "member_recipes", "rate_at", "train"]

WARMUP_START = 0.001  # learning rate of the first step, relative to the full rate
RATE_DROP = 0.1  # factor of the learning rate after `rate_drop_epoch`
STATE, BEST, LAST, LOG, CURVES = "state.pt", "best.safetensors", "last.safetensors", "log.jsonl", "curves.png"


@dataclass(frozen=True)
class TrainingStep:
    """State of a training after one batch.

    Attributes:
        recipe: its name.
        epoch: from 1.
        epochs: in total.
        batches: done so far.
        all_batches: in total.
        losses: weighted, by name.
        rate: learning rate.
        metric: name of the recipe's metric.
        figure: its value at the last validation; None before.
    """

    recipe: str
    epoch: int
    epochs: int
    batches: int
    all_batches: int
    losses: Mapping[str, float]
    rate: float
    metric: str
    figure: float | None


@dataclass(frozen=True)
class TrainingResult:
    """Result of a training.

    Attributes:
        recipe: its name.
        folder: of the run.
        head: the checkpoint to use: the best by the recipe's metric, or the last without validation.
        epochs: number of finished epochs.
        step: number of optimiser steps.
        metric: name of the recipe's metric.
        figure: its best value; None without validation.
        best_epoch: its epoch, from 1; 0 without validation.
        finished: false if it was interrupted and can be resumed.
    """

    recipe: str
    folder: Path
    head: Path
    epochs: int
    step: int
    metric: str
    figure: float | None
    best_epoch: int
    finished: bool

    def to_dict(self) -> dict[str, Any]:
        """For JSON."""
        return {**vars(self), "folder": str(self.folder), "head": str(self.head)}


def train(
    recipe: Recipe,
    sources: Sources,
    out: Path,
    *,
    resume: bool = False,
    plot: bool = False,
    device: str | None = None,
    progress: Reporter = silent,
    report: Callable[[TrainingStep], None] = lambda step: None,
) -> TrainingResult:
    """Train one head, validate it after every epoch, and keep the best and the last checkpoint.

    With `accelerate launch` every batch is divided among the processes; the result is the same as of one process.

    Args:
        recipe: without members; see `member_recipes`.
        sources: locations of its data set.
        out: folder for `best.safetensors`, `last.safetensors`, `log.jsonl`, `tensorboard/`, `recipe.json`, and
            `state.pt` to resume from.
        resume: continue the training in `out`.
        plot: draw `curves.png` at the end.
        device: "cuda", "mps" or "cpu"; None for accelerate's default.
        progress: called during the checks before the first step.
        report: called after every batch.

    Raises:
        VtgError: data, features or recipe do not match; `out` contains a training and `resume` is not set, or
            vice versa; it cannot be written; or the loss is not finite.
    """
    _check_folder(out, resume)
    prepared = prepare(recipe, sources, device, progress)
    run = _Run(prepared, out, device, report)
    if resume:
        content = read_state(out / STATE, prepared.recipe, run.accelerator.num_processes)
        try:
            run.position = restore(content, run.accelerator, run.head, run.optimizer)
        except (RuntimeError, ValueError, KeyError, IndexError, TypeError, AttributeError) as error:
            reason = " ".join(str(error).split())[:120]
            raise VtgError(f"{out / STATE}: damaged ({reason}); train again, with another --out") from None
    try:
        finished = run.train()
        if plot and run.accelerator.is_main_process:
            draw_curves(out / LOG, recipe.evaluation.metric, out / CURVES)
    except OSError as error:
        again = "continue with --resume" if (out / STATE).exists() else "train again"
        raise VtgError(
            f"{error.filename or out}: {error.strerror or error}; free some disk space, then {again}"
        ) from error
    position = run.position
    head = out / (BEST if position.best_epoch else LAST)
    metric = recipe.evaluation.metric
    return TrainingResult(
        recipe.name, out, head, position.epoch, position.step, metric, position.best, position.best_epoch, finished
    )


def check(
    recipe: Recipe,
    sources: Sources,
    device: str | None = None,
    progress: Reporter = silent,
) -> CheckResult:
    """Run the overfit check: train on a few samples, to verify that data and recipe match.

    Args:
        recipe: without members.
        sources: locations of its data set.
        device: "cuda", "mps" or "cpu"; None for accelerate's default.
        progress: called after every checked sample, then after every step.

    Raises:
        VtgError: data, features or recipe do not match.
    """
    prepared = prepare(recipe, sources, device, progress)
    accelerator = make_accelerator(replace(recipe.train, precision="float32"), device, some_unused=False)
    return overfit(prepared, accelerator.device, progress)


def member_recipes(recipe: Recipe) -> list[Recipe]:
    """The recipes to train separately: one per domain, or the recipe itself."""
    if not recipe.members:
        return [recipe]
    domains = {member: load_recipe(member).data.domain for member in recipe.members}
    return [
        replace(recipe, name=member, members=(), data=replace(recipe.data, domain=domain))
        for member, domain in domains.items()
    ]


def rate_at(recipe: TrainRecipe, epoch: int, step: int) -> float:
    """Learning rate schedule: linear warm-up from a thousandth, and a tenth after `rate_drop_epoch`.

    Args:
        recipe: with rate, warm-up and drop.
        epoch: from 0.
        step: of the optimizer, from 0.
    """
    dropped = recipe.rate_drop_epoch is not None and epoch >= recipe.rate_drop_epoch
    rate = recipe.rate * (RATE_DROP if dropped else 1.0)
    if step >= recipe.warmup_steps:
        return rate
    return rate * (WARMUP_START + (1 - WARMUP_START) * step / recipe.warmup_steps)


class _Run:
    """State and loop of one training.

    Args:
        prepared: recipe, configuration and data.
        out: folder of the run.
        device: see `train`.
        report: called after every batch.
    """

    def __init__(
        self, prepared: Prepared, out: Path, device: str | None, report: Callable[[TrainingStep], None]
    ) -> None:
        from accelerate.utils import set_seed

        self.recipe, self.train_recipe = prepared.recipe, prepared.recipe.train
        self.training_set, self.validation = prepared.training_set, prepared.validation
        self.out = out
        self.report = report
        self.position = TrainingPosition()
        self.figure: float | None = None
        shortest = min(sample.frames for sample in self.training_set.samples)
        self.accelerator = make_accelerator(self.train_recipe, device, shortest < max(prepared.config.strides))
        self.batch = batch_size(self.train_recipe, self.training_set.samples, self.accelerator.num_processes)
        set_seed(self.train_recipe.seed)  # the same initial weights in every process
        self.head = R2Head(prepared.config)
        optimizer = torch.optim.AdamW(
            self.head.parameters(), lr=self.train_recipe.rate, weight_decay=self.train_recipe.weight_decay
        )
        self.model, self.optimizer = self.accelerator.prepare(self.head, optimizer)
        set_seed(self.train_recipe.seed, device_specific=True)  # different dropout in each process

    def train(self) -> bool:
        """Train until the last epoch or an interrupt; returns whether training is finished."""
        main = self.accelerator.is_main_process
        if main:
            self.out.mkdir(parents=True, exist_ok=True)
            _write_json(self.out / "recipe.json", {"name": self.recipe.name, **recipe_values(self.recipe)})
        self.accelerator.wait_for_everyone()
        self.head.train()
        with (
            TrainingLog(self.out, self.position.step) if main else nullcontext() as log,
            watch_interrupts() as interrupted,
        ):
            while self.position.epoch < self.train_recipe.epochs:
                if not self._epoch(log, interrupted):
                    self._save_state()
                    return False
                self._finish_epoch(log)
        return True

    def _epoch(self, log: TrainingLog | None, interrupted: Callable[[], bool]) -> bool:
        """Train to the end of the current epoch; false if interrupted."""
        plans, position = self._plans(), self.position
        seeds = [(self.train_recipe.seed, position.epoch, number) for number in range(len(plans))]
        config, first = self.head.config, position.batch
        with read_batches(
            self.training_set,
            plans[first:],
            seeds[first:],
            layers=config.layers,
            tokens=config.read_tokens or self.training_set.shape.tokens,
            queries_per_video=self.train_recipe.queries_per_video,
            share=Share(self.accelerator.process_index, self.accelerator.num_processes),
            pin=self.accelerator.device.type == "cuda",
        ) as batches:
            return self._steps(plans, batches, log, interrupted)

    def _steps(
        self,
        plans: list[BatchPlan],
        batches: Iterator[TrainingBatch],
        log: TrainingLog | None,
        interrupted: Callable[[], bool],
    ) -> bool:
        epoch, accumulate = self.position.epoch, self.train_recipe.accumulate
        passes: list[dict[str, float]] = []
        begun = time.perf_counter()
        for number, batch in enumerate(batches, self.position.batch):
            size = min(accumulate, len(plans) - number // accumulate * accumulate)
            is_last = len(passes) == size - 1
            passes.append(self._pass(batch, size, is_last))
            losses = {name: sum(each[name] for each in passes) / len(passes) for name in passes[0]}
            rate = rate_at(self.train_recipe, epoch, self.position.step)
            if is_last:
                norm = self._step(rate)
                self.position = replace(self.position, step=self.position.step + 1, batch=number + 1)
                pace = size * self.batch / (time.perf_counter() - begun)
                if log is not None:
                    log.step(epoch + 1, self.position.step, rate, losses, norm, pace)
                passes, begun = [], time.perf_counter()
            self._report(losses, rate, epoch * len(plans) + number + 1, len(plans))
            if is_last and number + 1 < len(plans) and any_interrupted(self.accelerator, interrupted()):
                return False
        return True

    def _report(self, losses: Mapping[str, float], rate: float, done: int, batches: int) -> None:
        state = TrainingStep(
            recipe=self.recipe.name,
            epoch=self.position.epoch + 1,
            epochs=self.train_recipe.epochs,
            batches=done,
            all_batches=self.train_recipe.epochs * batches,
            losses=losses,
            rate=rate,
            metric=self.recipe.evaluation.metric,
            figure=self.figure,
        )
        self.report(state)

    def _pass(self, batch: TrainingBatch, passes: int, is_last: bool) -> dict[str, float]:
        """Forward and backward pass of one batch; returns its losses."""
        # Synchronise gradients between processes once per step.
        with nullcontext() if is_last else self.accelerator.no_sync(self.model):
            losses = training_losses(
                self.model, batch.to(self.accelerator.device), self.train_recipe, across_processes=True
            )
            values = dict(zip(losses, torch.stack([*losses.values()]).tolist(), strict=True))
            if not math.isfinite(sum(values.values())):
                raise VtgError(
                    f"recipe {self.recipe.name}: after step {self.position.step} the loss is not finite; check the "
                    f"features for infinite values, or lower the rate: --set train.rate={self.train_recipe.rate / 2:g}"
                )
            self.accelerator.backward(sum(losses.values()) / passes)
        return values

    def _step(self, rate: float) -> float:
        """One optimizer step; returns the norm of the gradient before clipping."""
        norm = self.accelerator.clip_grad_norm_(self.model.parameters(), self.train_recipe.clip_norm)
        for group in self.optimizer.param_groups:
            group["lr"] = rate
        self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)
        return float(norm)

    def _finish_epoch(self, log: TrainingLog | None) -> None:
        """Validate, and save checkpoints and state."""
        position = replace(self.position, epoch=self.position.epoch + 1, batch=0)
        main = self.accelerator.is_main_process
        is_due = position.epoch % self.train_recipe.validate_every == 0 or position.epoch == self.train_recipe.epochs
        if self.validation is not None and is_due:
            figures = self.validation.figures(self.head, self.accelerator)
            self.figure = figures[self.recipe.evaluation.metric]
            is_best = position.best is None or self.figure > position.best
            if is_best:
                position = replace(position, best=self.figure, best_epoch=position.epoch)
            if log is not None:
                log.figures(position.epoch, position.step, figures, is_best)
            if main and is_best:
                save_head(self.head, self.out / BEST)
        self.position = position
        self._save_state()

    def _save_state(self) -> None:
        if self.accelerator.is_main_process:
            save_head(self.head, self.out / LAST)
        save_state(self.out / STATE, self.accelerator, self.head, self.optimizer, self.position, self.recipe)

    def _plans(self) -> list[BatchPlan]:
        recipe = self.train_recipe
        return plan_epoch(
            self.training_set.samples,
            self.batch,
            recipe.repeats,
            recipe.queries_per_video,
            recipe.seed,
            self.position.epoch,
        )


def _check_folder(out: Path, resume: bool) -> None:
    if out.is_file():
        raise VtgError(f"{out}: is a file; name a folder with --out")
    if not resume and (out / STATE).exists():
        raise VtgError(f"{out}: contains a training already; continue it with --resume, or choose another --out")
    if resume and not (out / STATE).exists():
        raise VtgError(f"{out}: contains no training to resume; leave out --resume, or check --out")


def _write_json(path: Path, content: Mapping[str, Any]) -> None:
    with write_whole(path) as beside:
        beside.write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")
