"""Heads of the demo world that the recipe alone trains, for comparisons: their training data, training and file."""

from __future__ import annotations

import itertools
import json
import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from rich.console import Console
from rich.progress import Progress, TaskID
from torch import Tensor

from tools.demo.features import Asked, features_folder, write_features
from tools.demo.optimizer import StepTaker, stacked_in_head
from tools.demo.start import start_from_clip
from vtg.r2 import R2Head, save_head, training_losses
from vtg.recipes import Recipe, load_recipe
from vtg.training.batches import Share, plan_epoch, read_batches
from vtg.training.preparation import Prepared, Sources
from vtg.training.processes import batch_size

if TYPE_CHECKING:
    from vtg.clip.encoder import ClipEncoder

__all__ = ["HeadTraining", "train_head", "write_training_data"]


LINE_EVERY = 100  # steps


@dataclass(frozen=True)
class HeadTraining:
    """What a head is trained on, how long and how fast; its shape and its losses are the demo recipe's business.

    Attributes:
        scenes: to learn from.
        sentences: asked about each, at most.
        absent: sentences about each that are true nowhere in it, at most: who has never seen one finds everything
            everywhere, and a moment's score then says little about whether it is one.
        validation_scenes: to see by how good it is on others.
        steps: batches.
        rate: highest learning rate, but for matrices.
        matrix_rate: theirs, see `StepTaker`. Layers of CLIP are mostly the same from frame to frame (up to 99 % of
            their mean square): AdamW alone learns from the few directions that differ several times as slowly.
        warm_up: steps.
    """

    scenes: int = 1000
    sentences: int = 16
    absent: int = 8
    validation_scenes: int = 60
    steps: int = 2400
    rate: float = 1.5e-3
    matrix_rate: float = 0.008
    warm_up: int = 50

    @property
    def name(self) -> str:
        """Tells the files of different trainings apart."""
        return f"{self.scenes}x{self.sentences}+{self.absent}-{self.steps}"


def write_training_data(work: Path, encoder: ClipEncoder, training: HeadTraining, console: Console) -> Sources:
    """Draws and encodes the scenes that heads learn from, as far as that is not done.

    Args:
        work: folder for them.
        encoder: the demo CLIP.
        training: how many.
        console: for progress.
    """
    folder = features_folder(work / "features", encoder)
    wanted = (
        (Asked("train", training.sentences, training.absent), training.scenes),
        (Asked("val", 8), training.validation_scenes),
    )
    files = {}
    with Progress(console=console, transient=True) as bars:
        for asked, count in wanted:
            bar = bars.add_task(f"scenes to learn from, {asked.split}", total=count)

            def show(done: int, _total: int, bar: TaskID = bar) -> None:
                bars.update(bar, completed=done)

            files[asked.split] = write_features(folder, encoder, asked, count, show)
    return Sources(folder, files["train"], folder, files["val"])


def train_head(
    sources: Sources,
    clip: Path,
    out: Path,
    training: HeadTraining,
    seed: int,
    settings: Mapping[str, Any],
    console: Console,
) -> float:
    """Trains a head by the demo recipe, but for start and optimizer; its file appears when it is whole.

    Both are for the sake of time: from random maps and with AdamW, about three times as many steps lead to the same
    losses.

    Args:
        sources: from `write_training_data`.
        clip: the file of the CLIP that made them.
        out: the file; its folder is made if need be.
        training: how long and how fast.
        seed: of the training.
        settings: of the recipe, instead of its own.
        console: for progress.

    Returns:
        The last figure of the recipe's metric on the validation scenes.

    Raises:
        VtgError: features and recipe do not fit.
    """
    from vtg.training.preparation import prepare
    from vtg.training.processes import make_accelerator

    recipe = demo_recipe({**settings, "train.seed": seed})
    with Progress(console=console, transient=True) as bars:
        bar = bars.add_task(f"training {out.stem}", total=training.steps)
        prepared = prepare(recipe, sources, "cpu")
        torch.manual_seed(seed)
        head = R2Head(prepared.config)
        start_from_clip(head, clip, prepared.training_set)
        taker = StepTaker(head, training.rate, training.matrix_rate, recipe.train.weight_decay, stacked_in_head)
        sums: dict[str, float] = {}
        for step, losses in enumerate(_losses(head, prepared, training.steps), 1):
            torch.stack(list(losses.values())).sum().backward()
            done = step / training.steps
            taker.step(min(step / training.warm_up, 0.5 + 0.5 * math.cos(math.pi * done)))
            head.zero_grad(set_to_none=True)
            sums = {name: sums.get(name, 0.0) + float(loss.detach()) for name, loss in losses.items()}
            bars.update(bar, completed=step)
            if step % LINE_EVERY == 0:
                parts = "  ".join(f"{name} {total / LINE_EVERY:.4f}" for name, total in sums.items())
                console.print(f"{out.stem}  step {step:5d}  {parts}", markup=False, highlight=False, soft_wrap=True)
                sums = {}
    assert prepared.validation is not None  # the demo recipe names a part to validate on
    accelerator = make_accelerator(recipe.train, "cpu", some_unused=False)
    figures = prepared.validation.figures(head, accelerator)
    console.print(f"{out.stem}  validation {dict(figures)}", markup=False, highlight=False, soft_wrap=True)
    out.parent.mkdir(parents=True, exist_ok=True)
    save_head(head.half(), out)  # at half the size
    return figures[recipe.evaluation.metric]


def _losses(head: R2Head, prepared: Prepared, steps: int) -> Iterator[dict[str, Tensor]]:
    """The losses of one batch after the other, epoch after epoch."""
    recipe, config = prepared.recipe.train, prepared.config
    samples = prepared.training_set.samples
    batch = batch_size(recipe, samples, 1)
    head.train()
    done = 0
    for epoch in itertools.count():
        plans = plan_epoch(samples, batch, recipe.repeats, recipe.queries_per_video, recipe.seed, epoch)
        plans = plans[: steps - done]
        if not plans:
            return
        with read_batches(
            prepared.training_set,
            plans,
            [(recipe.seed, epoch, number) for number in range(len(plans))],
            layers=config.layers,
            tokens=prepared.training_set.shape.tokens if config.spatial_pooling else 1,
            queries_per_video=recipe.queries_per_video,
            share=Share(),
            pin=False,
        ) as batches:
            for each in batches:
                yield training_losses(head, each, recipe)
        done += len(plans)


def demo_recipe(settings: Mapping[str, Any]) -> Recipe:
    """The demo recipe with other settings."""
    return load_recipe("demo", [f"{key}={json.dumps(value)}" for key, value in settings.items()])
