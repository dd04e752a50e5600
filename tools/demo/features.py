"""What the demo head learns from: CLIP layers of scenes drawn at the sampled instants, sentences and their truth."""

from __future__ import annotations

import json
import random
from collections.abc import Callable
from contextlib import closing
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray
from rich.console import Console
from rich.progress import Progress, TaskID

from tools.demo.frames import render_frame, run_ahead
from vtg.demo import absent_sentences, annotate, choose_sentences, make_scene, split_seed
from vtg.features.store import PublishedFeatures
from vtg.files.whole import write_whole

if TYPE_CHECKING:
    from vtg.clip.encoder import ClipEncoder

__all__ = ["Asked", "DrawnScene", "draw_scene", "features_folder", "write_features", "write_training_data"]

PARAPHRASED_SHARE = 0.5  # of the sentences to learn from are not in the plainest words
# A file's frame is the last one before the middle of its clip, at most a tenth of a second before it; scenes to learn
# from are sampled a little earlier or later than that.
PHASES = (-0.15, 0.05)  # seconds
SCENES_AHEAD = 6  # drawn before they are encoded


@dataclass(frozen=True)
class DrawnScene:
    """A scene to learn from.

    Attributes:
        name: the video's id.
        frames: uint8 [clips, size, size, 3], one of every 2-second clip.
        annotations: a sentence each, QVHighlights' fields.
    """

    name: str
    frames: NDArray[np.uint8]
    annotations: tuple[dict[str, Any], ...]


@dataclass(frozen=True)
class Asked:
    """What is asked about each scene of a split.

    Attributes:
        split: of the demo world.
        sentences: that are true somewhere in the scene, at most.
        absent: sentences that are true nowhere in it, at most.
    """

    split: str
    sentences: int
    absent: int = 0

    @property
    def name(self) -> str:
        """Of the folder of its parts."""
        return f"parts_{self.sentences}+{self.absent}"


VALIDATION = Asked("val", 8)


def draw_scene(asked: Asked, index: int, size: int) -> DrawnScene:
    """Draws a scene of a split as a decoder would give it and asks about it.

    Args:
        asked: about it; of the train split half of the sentences are paraphrased.
        index: of the scene within the split.
        size: pixels along each side of a frame.

    Raises:
        VtgError: no such split.
    """
    scene = make_scene(split_seed(asked.split, index))
    rng, words = np.random.default_rng([scene.seed, 3]), random.Random(scene.seed)  # noqa: S311 - nothing secret
    phase = rng.uniform(*PHASES)
    frames = np.stack([render_frame(scene, float(time + phase), size, rng) for time in scene.clip_times])
    name = f"{asked.split}_{index:05d}"
    annotations = []
    chosen = choose_sentences(scene, asked.sentences, rng) + absent_sentences(scene, asked.absent, rng)
    for number, sentence in enumerate(chosen):
        fields = annotate(scene, name, sentence, number)
        fields["qid"] = f"{name}_{number:02d}"
        if asked.split == "train" and words.random() < PARAPHRASED_SHARE:
            fields["query"] = sentence.paraphrase(words)
        annotations.append(fields)
    return DrawnScene(name, frames, tuple(annotations))


def features_folder(root: Path, encoder: ClipEncoder) -> Path:
    """Where a root folder has the features of one CLIP: those of another are never taken for its own."""
    return root / encoder.fingerprint


def write_training_data(
    work: Path, encoder: ClipEncoder, train: Asked, scenes: int, validation_scenes: int, console: Console
) -> Path:
    """Write features and annotations of both parts on which heads are trained, as far as they are not there.

    Args:
        work: folder for the features of any encoder.
        encoder: the demo CLIP.
        train: what is asked about the scenes of the train split.
        scenes: number of scenes to train on.
        validation_scenes: number of scenes to validate on.
        console: for progress.

    Returns:
        The folder, as `vtg train demo` takes it for ``--features`` and ``--annotations``.
    """
    folder = features_folder(work / "features", encoder)
    with Progress(console=console, transient=True) as bars:
        for asked, count in ((train, scenes), (VALIDATION, validation_scenes)):
            bar = bars.add_task(f"features, {asked.split}", total=count)

            def show(done: int, _total: int, bar: TaskID = bar) -> None:
                bars.update(bar, completed=done)

            write_features(folder, encoder, asked, count, show)
    return folder


def write_features(
    folder: Path,
    encoder: ClipEncoder,
    asked: Asked,
    count: int,
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> Path:
    """Writes features of the first scenes of a split in the published layout, and ``<split>/annotations.jsonl``.

    What an earlier run finished is kept, so a run that was stopped goes on where it was.

    Args:
        folder: of the features, from `features_folder`.
        encoder: the demo CLIP.
        asked: of which split, and what.
        count: how many scenes.
        progress: called with the number of scenes done and of all.

    Returns:
        The annotations.

    Raises:
        VtgError: no such split.
    """
    published = PublishedFeatures(folder)
    parts = folder / asked.split / asked.name  # a scene's annotations, written when its features are
    parts.mkdir(parents=True, exist_ok=True)
    wanted = [parts / f"{index:05d}.json" for index in range(count)]
    missing = [index for index, part in enumerate(wanted) if not part.is_file()]
    done = count - len(missing)
    progress(done, count)
    draw = partial(draw_scene, asked, size=encoder.image_size)
    with closing(run_ahead(draw, missing, SCENES_AHEAD)) as drawn:
        for index, scene in zip(missing, drawn, strict=True):
            published.write_video(scene.name, encoder.encode_frames(scene.frames).layers.half().numpy())
            texts = encoder.encode_texts([fields["query"] for fields in scene.annotations])
            for fields, text in zip(scene.annotations, texts, strict=True):
                published.write_query(fields["qid"], text.layers.half().numpy())
            _write_text(wanted[index], "".join(f"{json.dumps(fields)}\n" for fields in scene.annotations))
            done += 1
            progress(done, count)
    annotations = folder / asked.split / "annotations.jsonl"
    lines = "".join(part.read_text(encoding="utf-8") for part in wanted)
    _write_text(annotations, lines)
    return annotations


def _write_text(path: Path, text: str) -> None:
    with write_whole(path) as beside:
        beside.write_text(text, encoding="utf-8")
