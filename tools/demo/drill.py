"""The bundled head's training: near misses beside what is true, a teacher beside the losses, one layer before all."""

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

from tools.demo.features import Asked, write_training_data
from tools.demo.frames import end_with_parent
from tools.demo.optimizer import USES_BFLOAT16, StepTaker, stacked_in_head
from tools.demo.questions import Question, ask_about
from tools.demo.start import look_around, start_from_clip, start_from_one_layer
from tools.demo.teacher import TOLD, Teacher, Telling
from vtg.demo import make_scene, split_seed
from vtg.r2 import HeadOutput, LossWeights, R2Head, TrainingBatch, save_head, training_losses
from vtg.r2.losses import ABSENT
from vtg.recipes import load_recipe
from vtg.training.preparation import Prepared, Sources, prepare

if TYPE_CHECKING:
    from vtg.clip.encoder import ClipEncoder

__all__ = ["Drill", "Lesson", "Phase", "Pool", "drill_head", "presence_surprise"]

# Asked about each scene in all, from which each time some are drawn.
TRUE, FALSE = 60, 220
EASIEST = 0.1  # what is answered well comes a tenth as often as what is answered wrongly
# Of the losses, those that tell one sentence from another count; contrasts between sentences about one video do not, as
# many of these mean the same frames.
WEIGHTS = LossWeights(cls=20.0, reg=1.0, sal=0.1, video_cal=0.0, layer_cal=0.0)
TEACHER_WEIGHT = 0.3
PRESENCE_WEIGHT = 0.3
RATE, MATRIX_RATE, WEIGHT_DECAY, WARM_UP = 1.5e-3, 0.008, 1e-4, 50
LENGTHS_TOGETHER = 4  # batches' worth of videos of about one length, of which each batch is drawn
LINE_EVERY = 100  # steps
KEPT = 0.99  # of the averaged weights, from step to step


@dataclass(frozen=True)
class Phase:
    """A stretch of the training.

    Attributes:
        layers: K of the head.
        videos: in a batch.
        true: sentences about each that hold.
        false: sentences about each that do not.
        steps: batches at most.
        minutes: wall time at most; on a machine that is too slow for all steps the rate falls with the clock.
        first_rate: share of the rates to begin with.
    """

    layers: int
    videos: int
    steps: int
    minutes: float
    first_rate: float = 1.0
    true: int = 16
    false: int = 32


@dataclass(frozen=True)
class Drill:
    """What the bundled head learns from, and for how long.

    What it has learned from one layer in a third of the time, it takes over when it goes on with all of them.

    Attributes:
        scenes: to learn from.
        validation_scenes: to see by how good it is on others.
        phases: one after the other; the last one's K is the head's.
    """

    scenes: int = 1200
    validation_scenes: int = 60
    phases: tuple[Phase, ...] = (
        Phase(layers=1, videos=6, steps=1400, minutes=20.0),
        Phase(layers=4, videos=4, steps=2000, minutes=36.0, first_rate=0.8),
    )


class Pool:
    """Questions about a scene, of which those that were answered worst when they were last asked come most."""

    def __init__(self, questions: Sequence[Question]) -> None:
        self.questions = questions
        self.hardness = np.ones(len(questions))

    def draw(self, count: int, random: np.random.Generator) -> list[tuple[Pool, int]]:
        """Some of the questions, each at most once: this pool, and their places in it."""
        if not self.questions:
            return []
        count = min(count, len(self.questions))
        places = random.choice(len(self.questions), count, replace=False, p=self.hardness / self.hardness.sum())
        return [(self, int(place)) for place in places]


@dataclass(frozen=True, eq=False)
class _Scene:
    """A scene to learn from.

    Attributes:
        name: of its features.
        telling: what happens in it.
        true: questions whose answer is somewhere.
        false: the others.
    """

    name: str
    telling: Telling
    true: Pool
    false: Pool


def drill_head(
    encoder: ClipEncoder, clip: Path, out: Path, work: Path, drill: Drill, seed: int, console: Console
) -> float:
    """Trains the head that is bundled; its file appears when it is whole.

    Args:
        encoder: the demo CLIP.
        clip: its file.
        out: the head's file; its folder is made if need be.
        work: folder for the features that it learns from; those that are there are used again.
        drill: how long.
        seed: of the training.
        console: for progress.

    Returns:
        The demo recipe's metric on the validation scenes.

    Raises:
        VtgError: features and recipe do not fit.
    """
    from vtg.training.processes import make_accelerator

    few = Asked("train", sentences=4)
    folder = write_training_data(work, encoder, few, drill.scenes, drill.validation_scenes, console)
    sources = Sources(features=folder, annotations=folder)
    scenes = _ask(drill.scenes, console)
    torch.manual_seed(seed)
    head: R2Head | None = None
    for number, phase in enumerate(drill.phases):
        recipe = load_recipe("demo", [f"model.layers={phase.layers}", f"train.seed={seed}"])
        prepared = prepare(recipe, sources, "cpu")
        begun = R2Head(prepared.config)
        if head is None:
            start_from_clip(begun, clip, prepared.training_set, first=look_around(begun))
        else:
            start_from_one_layer(begun, head)
        head = _run(begun, encoder, prepared, scenes, phase, [seed, number], console)
    assert head is not None and prepared.validation is not None  # there is a phase, and the recipe names a part
    figures = prepared.validation.figures(head, make_accelerator(recipe.train, "cpu", some_unused=False))
    console.print(f"{out.stem}  validation {dict(figures)}", markup=False, highlight=False, soft_wrap=True)
    out.parent.mkdir(parents=True, exist_ok=True)
    save_head(head.half(), out)  # at half the size
    return figures[recipe.evaluation.metric]


def _ask(count: int, console: Console) -> list[_Scene]:
    """The questions about the first scenes of the train split, drawn by processes of their own."""
    with (
        Progress(console=console, transient=True) as bars,
        ProcessPoolExecutor(mp_context=get_context("spawn"), initializer=end_with_parent) as pool,
    ):
        return list(bars.track(pool.map(_ask_about, range(count), chunksize=8), count, description="questions"))


def _ask_about(index: int) -> _Scene:
    scene = make_scene(split_seed("train", index))
    questions = ask_about(scene, TRUE, FALSE, np.random.default_rng([scene.seed, 7]))
    true, false = ([one for one in questions if bool(len(one.windows)) == holds] for holds in (True, False))
    return _Scene(f"train_{index:05d}", Telling.of(scene), Pool(true), Pool(false))


def _run(
    head: R2Head,
    encoder: ClipEncoder,
    prepared: Prepared,
    scenes: Sequence[_Scene],
    phase: Phase,
    seed: Sequence[int],
    console: Console,
) -> R2Head:
    """One phase; the head that it ends with has the average of the last steps' weights."""
    teacher = Teacher(head.config.hidden_width)
    both = nn.ModuleDict({"head": head, "teacher": teacher}).train()
    averaged = R2Head(head.config)
    averaged.load_state_dict(head.state_dict())
    taker = StepTaker(both, RATE, MATRIX_RATE, WEIGHT_DECAY, stacked_in_head)
    outputs: list[HeadOutput] = []
    hook = head.register_forward_hook(lambda _head, _inputs, output: outputs.append(output))
    begin, sums = time.monotonic(), dict[str, float]()
    reader = _Reader(encoder, prepared, phase)
    with Progress(console=console, transient=True) as bars:
        bar = bars.add_task(f"training, {phase.layers} of CLIP's layers", total=1.0)
        for step, lesson in enumerate(_ahead(reader, scenes, np.random.default_rng(seed)), 1):
            done = max(step / phase.steps, (time.monotonic() - begin) / 60 / phase.minutes)
            with torch.autocast("cpu", torch.bfloat16, enabled=USES_BFLOAT16):
                losses = training_losses(head, lesson.batch, WEIGHTS)
            output = outputs.pop()
            surprise = presence_surprise(output, lesson.batch)
            losses["presence"] = PRESENCE_WEIGHT * surprise.mean()
            losses["teacher"] = TEACHER_WEIGHT * teacher(output.video, lesson.values, lesson.told)
            lesson.remember(surprise.detach())
            torch.stack(list(losses.values())).sum().backward()
            taker.step(min(step / WARM_UP, phase.first_rate * (0.5 + 0.5 * math.cos(math.pi * min(1.0, done)))))
            both.zero_grad(set_to_none=True)
            _average(averaged, head, min(KEPT, step / (step + 10)))
            sums = {name: sums.get(name, 0.0) + float(loss.detach()) for name, loss in losses.items()}
            bars.update(bar, completed=min(1.0, done))
            if step % LINE_EVERY == 0:
                parts = "  ".join(f"{name} {total / LINE_EVERY:.4f}" for name, total in sums.items())
                console.print(f"step {step:5d}  {parts}", markup=False, highlight=False, soft_wrap=True)
                sums = {}
            if done >= 1:
                break
    hook.remove()
    return averaged


@torch.no_grad()
def _average(averaged: R2Head, head: R2Head, kept: float) -> None:
    for old, new in zip(averaged.parameters(), head.parameters(), strict=True):
        old.lerp_(new, 1 - kept)


def presence_surprise(output: HeadOutput, batch: TrainingBatch) -> Tensor:
    """How wrong the best point of each sample is about whether the sentence is true anywhere.

    Among the videos of a library it is the best point that counts; in the mean over all points it is one of many.

    Args:
        output: of the batch.
        batch: its samples.

    Returns:
        [B] binary cross-entropy.
    """
    assert output.point_mask is not None  # the batch has a mask
    best = output.class_logits.masked_fill(~output.point_mask, -math.inf).amax(dim=1)
    return F.binary_cross_entropy_with_logits(best, (~batch.absent).to(best), reduction="none")


@dataclass(frozen=True, eq=False)
class Lesson:
    """A batch, and what the teacher tells of it.

    Attributes:
        batch: B samples.
        values: [B, T, TOLD].
        told: bool [B, T, TOLD], which of them are told.
        asked: where each sample's question is from.
    """

    batch: TrainingBatch
    values: Tensor
    told: Tensor
    asked: Sequence[tuple[Pool, int]]

    def remember(self, surprise: Tensor) -> None:
        """Notes how hard each question, [B], was."""
        for (pool, place), hardness in zip(self.asked, surprise.clamp(EASIEST, 1.0).tolist(), strict=True):
            pool.hardness[place] = hardness


def _ahead(reader: _Reader, scenes: Sequence[_Scene], random: np.random.Generator) -> Iterator[Lesson]:
    """Endless lessons, one read while the one before is learned from."""
    by_length = np.argsort([len(scene.true.questions[0].saliency) + random.uniform(0, 3) for scene in scenes])
    near = min(len(scenes), LENGTHS_TOGETHER * reader.videos)

    def read() -> Future[Lesson]:
        first = int(random.integers(len(scenes) - near + 1))
        places = random.permutation(by_length[first : first + near])[: reader.videos]
        chosen = [scenes[place] for place in places]
        # Drawn here, not beside the step that notes how hard questions were: the same seed asks the same.
        return pool.submit(reader.read, chosen, [reader.draw(scene, random) for scene in chosen], random)

    with ThreadPoolExecutor(1) as pool:
        coming = read()
        while True:
            ready = coming.result()
            coming = read()
            yield ready


class _Reader:
    """Makes lessons of scenes and questions about them."""

    def __init__(self, encoder: ClipEncoder, prepared: Prepared, phase: Phase) -> None:
        self.videos = phase.videos
        self._encoder = encoder
        self._files = prepared.training_set.files
        self._phase = phase
        self._fps = prepared.config.fps

    def read(
        self, scenes: Sequence[_Scene], drawn: Sequence[list[tuple[Pool, int]]], random: np.random.Generator
    ) -> Lesson:
        """A lesson of some scenes and what was drawn of each."""
        layers = [np.asarray(self._files.video(scene.name)[:, -self._phase.layers :]) for scene in scenes]
        frames = max(map(len, layers))
        video = np.zeros((len(scenes), frames, *layers[0].shape[1:]), np.float16)
        asked = [(row, pool.questions[place]) for row, own in enumerate(drawn) for pool, place in own]
        mask = np.zeros((len(asked), frames), bool)
        saliency, positive = np.zeros(mask.shape, np.float32), np.full(len(asked), ABSENT)
        values, told = np.zeros((*mask.shape, TOLD), np.float32), np.zeros((*mask.shape, TOLD), bool)
        for row, features in enumerate(layers):
            video[row, : len(features)] = features
        for place, (row, question) in enumerate(asked):
            own = slice(len(question.saliency))
            mask[place, own], saliency[place, own] = True, question.saliency
            if len(described := np.flatnonzero(question.saliency)):
                positive[place] = random.choice(described)
            values[place, own], told[place, own] = scenes[row].telling.about(question.sentence, question.saliency)
        query, query_mask = self._encode([question.text for _, question in asked])
        batch = TrainingBatch(
            video=torch.from_numpy(video),
            query=query,
            video_mask=torch.from_numpy(mask),
            query_mask=query_mask,
            saliency=torch.from_numpy(saliency),
            positive_frame=torch.from_numpy(positive),
            windows=[torch.from_numpy(question.windows) for _, question in asked],
            fps=self._fps,
        )
        return Lesson(batch, torch.from_numpy(values), torch.from_numpy(told), list(chain.from_iterable(drawn)))

    def draw(self, scene: _Scene, random: np.random.Generator) -> list[tuple[Pool, int]]:
        """As many questions of every scene: where too few are true, more false ones, and some twice if need be."""
        wanted = self._phase.true + self._phase.false
        chosen = scene.true.draw(self._phase.true, random)
        chosen += scene.false.draw(wanted - len(chosen), random)
        return (chosen * wanted)[:wanted]

    def _encode(self, texts: Sequence[str]) -> tuple[Tensor, Tensor]:
        encoded = [text.layers[:, -self._phase.layers :].half() for text in self._encoder.encode_texts(texts)]
        mask = torch.arange(max(map(len, encoded))) < torch.tensor([len(text) for text in encoded])[:, None]
        return nn.utils.rnn.pad_sequence(encoded, batch_first=True), mask
