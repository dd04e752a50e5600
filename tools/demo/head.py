"""Train the bundled head with hard negative queries and auxiliary targets, first on one CLIP layer, then on all."""

from __future__ import annotations

import math
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ProcessPoolExecutor, ThreadPoolExecutor
from dataclasses import dataclass
from itertools import chain
from multiprocessing import get_context
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch
from rich.console import Console
from rich.progress import Progress
from torch import Tensor, nn
from torch.nn import functional as F

from tools.demo.auxiliary import TARGET_COLUMNS, AuxiliaryHead, SceneTargets
from tools.demo.features import SplitQueries, write_training_data
from tools.demo.frames import exit_with_parent
from tools.demo.initialization import init_from_clip, init_from_one_layer, init_neighbour_attention
from tools.demo.optimizer import USES_BFLOAT16, MuonAdamW, count_head_matrices
from tools.demo.queries import SceneQuery, make_queries
from vtg.demo import make_scene, split_seed
from vtg.r2 import HeadOutput, LossWeights, R2Head, TrainingBatch, save_head, training_losses
from vtg.r2.losses import ABSENT
from vtg.recipes import load_recipe
from vtg.training.preparation import Prepared, Sources, prepare

if TYPE_CHECKING:
    from vtg.clip.encoder import ClipEncoder

__all__ = ["HeadBatch", "HeadTraining", "QueryPool", "TrainingPhase", "presence_loss", "train_head"]

# Queries that are generated for each scene; each batch samples some of them.
TRUE_QUERIES, FALSE_QUERIES = 60, 220
MIN_HARDNESS = 0.1  # sampling weight of the easiest queries, relative to the hardest
# Without the contrastive losses between the queries of one video: many of them match the same frames.
LOSS_WEIGHTS = LossWeights(cls=20.0, reg=1.0, sal=0.1, video_cal=0.0, layer_cal=0.0)
AUXILIARY_WEIGHT = 0.3
PRESENCE_WEIGHT = 0.3
LEARNING_RATE, MATRIX_LEARNING_RATE = 1.5e-3, 0.008  # of AdamW, and of the orthogonalised steps
WEIGHT_DECAY, WARM_UP_STEPS = 1e-4, 50
LENGTH_BUCKET_BATCHES = 4  # a batch is sampled from this many batches' worth of videos of similar length
REPORT_STEPS = 100  # steps between two lines of progress
AVERAGE_DECAY = 0.99  # of the moving average of the weights, per step


@dataclass(frozen=True)
class TrainingPhase:
    """One phase of the training: the number of layers, the batch size and the schedule.

    Attributes:
        layers: K, the number of CLIP layers that the head reads.
        videos: videos in a batch.
        steps: maximum number of batches.
        minutes: maximum wall time; on a machine too slow for all steps, the learning rate decays with the time.
        initial_rate: initial learning rates as a share of the highest ones.
        true_queries: queries about each video that match somewhere in it.
        false_queries: queries about each video that match nowhere in it.
    """

    layers: int
    videos: int
    steps: int
    minutes: float
    initial_rate: float = 1.0
    true_queries: int = 16
    false_queries: int = 32


@dataclass(frozen=True)
class HeadTraining:
    """Data and duration of the bundled head's training.

    The head is trained on CLIP's last layer first; its weights then initialise a head that reads all layers.

    Attributes:
        scenes: number of training scenes.
        validation_scenes: number of validation scenes.
        phases: in order; the last one's `layers` is the final head's.
    """

    scenes: int = 1200
    validation_scenes: int = 60
    phases: tuple[TrainingPhase, ...] = (
        TrainingPhase(layers=1, videos=6, steps=1400, minutes=20.0),
        TrainingPhase(layers=4, videos=4, steps=2000, minutes=36.0, initial_rate=0.8),
    )


class QueryPool:
    """Queries about a scene, sampled in proportion to their last loss."""

    def __init__(self, queries: Sequence[SceneQuery]) -> None:
        self.queries = queries
        self.hardness = np.ones(len(queries))

    def draw(self, count: int, random: np.random.Generator) -> list[tuple[QueryPool, int]]:
        """Sample queries without replacement: (this pool, index of the query) for each."""
        if not self.queries:
            return []
        count = min(count, len(self.queries))
        indices = random.choice(len(self.queries), count, replace=False, p=self.hardness / self.hardness.sum())
        return [(self, int(index)) for index in indices]


@dataclass(frozen=True, eq=False)
class _TrainingScene:
    """A training scene with its queries.

    Attributes:
        name: the video id of its features.
        targets: its auxiliary targets.
        true_queries: queries that match somewhere in it.
        false_queries: queries that match nowhere in it.
    """

    name: str
    targets: SceneTargets
    true_queries: QueryPool
    false_queries: QueryPool


def train_head(
    encoder: ClipEncoder, clip: Path, out: Path, work: Path, training: HeadTraining, seed: int, console: Console
) -> float:
    """Train the bundled head and write its file, whole or not at all.

    Args:
        encoder: the demo CLIP.
        clip: the checkpoint of the demo CLIP.
        out: the head's file; its folder is created if it does not exist.
        work: folder of the training features; existing ones are reused.
        training: data and duration.
        seed: seed of the training.
        console: shows the progress.

    Returns:
        The demo recipe's metric on the validation scenes.

    Raises:
        VtgError: the features do not fit the recipe.
    """
    from vtg.training.processes import make_accelerator

    queries = SplitQueries("train", sentences=4)  # for the initialization; `make_queries` generates those to train on
    folder = write_training_data(work, encoder, queries, training.scenes, training.validation_scenes, console)
    sources = Sources(features=folder, annotations=folder)
    scenes = _make_training_scenes(training.scenes, console)
    torch.manual_seed(seed)
    head: R2Head | None = None
    for number, phase in enumerate(training.phases):
        recipe = load_recipe("demo", [f"model.layers={phase.layers}", f"train.seed={seed}"])
        prepared = prepare(recipe, sources, "cpu")
        new_head = R2Head(prepared.config)
        if head is None:
            init_from_clip(new_head, clip, prepared.training_set, first=init_neighbour_attention(new_head))
        else:
            init_from_one_layer(new_head, head)
        head = _run_phase(new_head, encoder, prepared, scenes, phase, [seed, number], console)
    assert head is not None and prepared.validation is not None  # the recipe has a validation split
    figures = prepared.validation.figures(head, make_accelerator(recipe.train, "cpu", some_unused=False))
    console.print(f"{out.stem}  validation {dict(figures)}", markup=False, highlight=False, soft_wrap=True)
    out.parent.mkdir(parents=True, exist_ok=True)
    save_head(head.half(), out)  # float16 halves the size
    return figures[recipe.evaluation.metric]


def _make_training_scenes(count: int, console: Console) -> list[_TrainingScene]:
    """The first scenes of the train split with their queries, generated by worker processes."""
    with (
        Progress(console=console, transient=True) as bars,
        ProcessPoolExecutor(mp_context=get_context("spawn"), initializer=exit_with_parent) as pool,
    ):
        return list(bars.track(pool.map(_make_training_scene, range(count), chunksize=8), count, description="queries"))


def _make_training_scene(index: int) -> _TrainingScene:
    scene = make_scene(split_seed("train", index))
    queries = make_queries(scene, TRUE_QUERIES, FALSE_QUERIES, np.random.default_rng([scene.seed, 7]))
    true, false = ([query for query in queries if bool(len(query.windows)) == matches] for matches in (True, False))
    return _TrainingScene(f"train_{index:05d}", SceneTargets.from_scene(scene), QueryPool(true), QueryPool(false))


def _run_phase(
    head: R2Head,
    encoder: ClipEncoder,
    prepared: Prepared,
    scenes: Sequence[_TrainingScene],
    phase: TrainingPhase,
    seed: Sequence[int],
    console: Console,
) -> R2Head:
    """Run one phase; the returned head has the exponential moving average of the weights."""
    auxiliary = AuxiliaryHead(head.config.hidden_width)
    modules = nn.ModuleDict({"head": head, "auxiliary": auxiliary}).train()
    averaged = R2Head(head.config)
    averaged.load_state_dict(head.state_dict())
    optimizer = MuonAdamW(modules, LEARNING_RATE, MATRIX_LEARNING_RATE, WEIGHT_DECAY, count_head_matrices)
    outputs: list[HeadOutput] = []
    hook = head.register_forward_hook(lambda _head, _inputs, output: outputs.append(output))
    begin, sums = time.monotonic(), dict[str, float]()
    reader = _BatchReader(encoder, prepared, phase)
    with Progress(console=console, transient=True) as bars:
        bar = bars.add_task(f"training, {phase.layers} of CLIP's layers", total=1.0)
        for step, batch in enumerate(_read_ahead(reader, scenes, np.random.default_rng(seed)), 1):
            done = max(step / phase.steps, (time.monotonic() - begin) / 60 / phase.minutes)
            with torch.autocast("cpu", torch.bfloat16, enabled=USES_BFLOAT16):
                losses = training_losses(head, batch.samples, LOSS_WEIGHTS)
            output = outputs.pop()
            presence = presence_loss(output, batch.samples)
            losses["presence"] = PRESENCE_WEIGHT * presence.mean()
            losses["auxiliary"] = AUXILIARY_WEIGHT * auxiliary(output.video, batch.values, batch.known)
            batch.update_hardness(presence.detach())
            torch.stack(list(losses.values())).sum().backward()
            decay = phase.initial_rate * (0.5 + 0.5 * math.cos(math.pi * min(1.0, done)))
            optimizer.step(min(step / WARM_UP_STEPS, decay))
            modules.zero_grad(set_to_none=True)
            _update_average(averaged, head, min(AVERAGE_DECAY, step / (step + 10)))
            sums = {name: sums.get(name, 0.0) + float(loss.detach()) for name, loss in losses.items()}
            bars.update(bar, completed=min(1.0, done))
            if step % REPORT_STEPS == 0:
                parts = "  ".join(f"{name} {total / REPORT_STEPS:.4f}" for name, total in sums.items())
                console.print(f"step {step:5d}  {parts}", markup=False, highlight=False, soft_wrap=True)
                sums = {}
            if done >= 1:
                break
    hook.remove()
    return averaged


@torch.no_grad()
def _update_average(averaged: R2Head, head: R2Head, decay: float) -> None:
    for old, new in zip(averaged.parameters(), head.parameters(), strict=True):
        old.lerp_(new, 1 - decay)


def presence_loss(output: HeadOutput, batch: TrainingBatch) -> Tensor:
    """The loss of each sample's best point as a classifier of whether the query matches anywhere in the video.

    A library search ranks videos by their best point, which has little weight in the mean over all points.

    Args:
        output: the head's output for the batch.
        batch: B samples.

    Returns:
        [B] binary cross-entropy.
    """
    assert output.point_mask is not None  # the batch has a mask
    best = output.class_logits.masked_fill(~output.point_mask, -math.inf).amax(dim=1)
    return F.binary_cross_entropy_with_logits(best, (~batch.absent).to(best), reduction="none")


@dataclass(frozen=True, eq=False)
class HeadBatch:
    """A batch with its auxiliary targets.

    Attributes:
        samples: B samples.
        values: [B, T, TARGET_COLUMNS] auxiliary targets.
        known: bool [B, T, TARGET_COLUMNS], which of the targets are known.
        sources: the pool of each sample's query, and its index in that pool.
    """

    samples: TrainingBatch
    values: Tensor
    known: Tensor
    sources: Sequence[tuple[QueryPool, int]]

    def update_hardness(self, losses: Tensor) -> None:
        """Set the sampling weight of each query from its loss, [B]."""
        for (pool, index), hardness in zip(self.sources, losses.clamp(MIN_HARDNESS, 1.0).tolist(), strict=True):
            pool.hardness[index] = hardness


def _read_ahead(
    reader: _BatchReader, scenes: Sequence[_TrainingScene], random: np.random.Generator
) -> Iterator[HeadBatch]:
    """Yield batches endlessly; the next one is read during the current training step."""
    by_length = np.argsort([len(scene.true_queries.queries[0].saliency) + random.uniform(0, 3) for scene in scenes])
    near = min(len(scenes), LENGTH_BUCKET_BATCHES * reader.videos)

    def read() -> Future[HeadBatch]:
        first = int(random.integers(len(scenes) - near + 1))
        indices = random.permutation(by_length[first : first + near])[: reader.videos]
        chosen = [scenes[index] for index in indices]
        # Queries are sampled in this thread, not during the step that updates their hardness: a seed is reproducible.
        return pool.submit(reader.read, chosen, [reader.draw(scene, random) for scene in chosen], random)

    with ThreadPoolExecutor(1) as pool:
        pending = read()
        while True:
            batch = pending.result()
            pending = read()
            yield batch


class _BatchReader:
    """Builds batches from the features of scenes and queries about them."""

    def __init__(self, encoder: ClipEncoder, prepared: Prepared, phase: TrainingPhase) -> None:
        self.videos = phase.videos
        self._encoder = encoder
        self._files = prepared.training_set.files
        self._phase = phase
        self._fps = prepared.config.fps

    def read(
        self,
        scenes: Sequence[_TrainingScene],
        sources: Sequence[list[tuple[QueryPool, int]]],
        random: np.random.Generator,
    ) -> HeadBatch:
        """Build the batch of some scenes and the queries that were sampled for each of them."""
        layers = [np.asarray(self._files.video(scene.name)[:, -self._phase.layers :]) for scene in scenes]
        frames = max(map(len, layers))
        video = np.zeros((len(scenes), frames, *layers[0].shape[1:]), np.float16)
        queries = [(row, pool.queries[index]) for row, own in enumerate(sources) for pool, index in own]
        mask = np.zeros((len(queries), frames), bool)
        saliency, positive = np.zeros(mask.shape, np.float32), np.full(len(queries), ABSENT)
        values, known = (
            np.zeros((*mask.shape, TARGET_COLUMNS), np.float32),
            np.zeros((*mask.shape, TARGET_COLUMNS), bool),
        )
        for row, features in enumerate(layers):
            video[row, : len(features)] = features
        for sample, (row, query) in enumerate(queries):
            own = slice(len(query.saliency))
            mask[sample, own], saliency[sample, own] = True, query.saliency
            if len(matching := np.flatnonzero(query.saliency)):
                positive[sample] = random.choice(matching)
            values[sample, own], known[sample, own] = scenes[row].targets.for_sentence(query.sentence, query.saliency)
        texts, text_mask = self._encode([query.text for _, query in queries])
        batch = TrainingBatch(
            video=torch.from_numpy(video),
            query=texts,
            video_mask=torch.from_numpy(mask),
            query_mask=text_mask,
            saliency=torch.from_numpy(saliency),
            positive_frame=torch.from_numpy(positive),
            windows=[torch.from_numpy(query.windows) for _, query in queries],
            fps=self._fps,
        )
        return HeadBatch(batch, torch.from_numpy(values), torch.from_numpy(known), list(chain.from_iterable(sources)))

    def draw(self, scene: _TrainingScene, random: np.random.Generator) -> list[tuple[QueryPool, int]]:
        """Sample the same number of queries for every scene: false ones replace missing true ones, some may repeat."""
        count = self._phase.true_queries + self._phase.false_queries
        chosen = scene.true_queries.draw(self._phase.true_queries, random)
        chosen += scene.false_queries.draw(count - len(chosen), random)
        return (chosen * count)[:count]

    def _encode(self, texts: Sequence[str]) -> tuple[Tensor, Tensor]:
        encoded = [text.layers[:, -self._phase.layers :].half() for text in self._encoder.encode_texts(texts)]
        mask = torch.arange(max(map(len, encoded))) < torch.tensor([len(text) for text in encoded])[:, None]
        return nn.utils.rnn.pad_sequence(encoded, batch_first=True), mask
