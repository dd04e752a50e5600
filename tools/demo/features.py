"""Training data of the demo head: CLIP layers of rendered scenes, sentences and their annotations."""

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

from tools.demo.frames import map_ahead, render_frame
from vtg.demo import absent_sentences, annotate, choose_sentences, make_scene, split_seed
from vtg.features.store import PublishedFeatures
from vtg.files.whole import write_whole
from vtg.recipes import load_recipe

if TYPE_CHECKING:
    from vtg.clip.encoder import ClipEncoder

__all__ = ["DrawnScene", "SplitQueries", "draw_scene", "features_folder", "write_features", "write_training_data"]

PARAPHRASED_SHARE = 0.5  # share of the training sentences that are paraphrased
# From a video file, the last frame before the middle of each clip is sampled, at most 0.1 s before it. Training frames
# vary around that.
FRAME_OFFSET_SECONDS = (-0.15, 0.05)  # range, relative to the middle of the clip
SCENES_AHEAD = 6  # scenes that are drawn ahead of encoding


@dataclass(frozen=True)
class DrawnScene:
    """A drawn scene with its annotations.

    Attributes:
        name: the video's id.
        frames: uint8 [clips, size, size, 3], one for each 2-second clip.
        annotations: one for each sentence, with QVHighlights' fields.
    """

    name: str
    frames: NDArray[np.uint8]
    annotations: tuple[dict[str, Any], ...]


@dataclass(frozen=True)
class SplitQueries:
    """A split and the number of queries for each of its scenes.

    Attributes:
        split: a split of the demo world.
        sentences: maximum number of sentences that match somewhere in the scene.
        absent: maximum number of sentences that match nowhere in it.
    """

    split: str
    sentences: int
    absent: int = 0

    @property
    def folder_name(self) -> str:
        """Name of the folder with the annotations of single scenes."""
        return f"parts_{self.sentences}+{self.absent}"


VALIDATION_QUERIES = SplitQueries("val", 8)


def draw_scene(queries: SplitQueries, index: int, size: int) -> DrawnScene:
    """Draw the frames of a scene as they would be decoded from a video file, and generate its queries.

    Args:
        queries: the split and the number of queries; in the train split, half of the sentences are paraphrased.
        index: index of the scene within the split.
        size: pixels along each side of a frame.

    Raises:
        VtgError: no such split.
    """
    scene = make_scene(split_seed(queries.split, index))
    rng, words = np.random.default_rng([scene.seed, 3]), random.Random(scene.seed)  # noqa: S311 - not for security
    offset = rng.uniform(*FRAME_OFFSET_SECONDS)
    frames = np.stack([render_frame(scene, float(time + offset), size, rng) for time in scene.clip_times])
    name = f"{queries.split}_{index:05d}"
    annotations = []
    chosen = choose_sentences(scene, queries.sentences, rng) + absent_sentences(scene, queries.absent, rng)
    for number, sentence in enumerate(chosen):
        fields = annotate(scene, name, sentence, number)
        fields["qid"] = f"{name}_{number:02d}"
        if queries.split == "train" and words.random() < PARAPHRASED_SHARE:
            fields["query"] = sentence.paraphrase(words)
        annotations.append(fields)
    return DrawnScene(name, frames, tuple(annotations))


def features_folder(root: Path, encoder: ClipEncoder) -> Path:
    """The folder of the features of one CLIP in a root folder; each CLIP has a separate one."""
    return root / encoder.fingerprint


def write_training_data(
    work: Path, encoder: ClipEncoder, train_queries: SplitQueries, scenes: int, validation_scenes: int, console: Console
) -> Path:
    """Write the missing features and annotations of the training and the validation scenes.

    Args:
        work: root folder for the features of any encoder.
        encoder: the demo CLIP.
        train_queries: the train split and the number of queries for each scene.
        scenes: number of training scenes.
        validation_scenes: number of validation scenes.
        console: shows the progress.

    Returns:
        The folder for ``--features`` and ``--annotations`` of `vtg train demo`.
    """
    folder = features_folder(work / "features", encoder)
    with Progress(console=console, transient=True) as bars:
        for queries, count in ((train_queries, scenes), (VALIDATION_QUERIES, validation_scenes)):
            bar = bars.add_task(f"features, {queries.split}", total=count)

            def show(done: int, _total: int, bar: TaskID = bar) -> None:
                bars.update(bar, completed=done)

            write_features(folder, encoder, queries, count, show)
    return folder


def write_features(
    folder: Path,
    encoder: ClipEncoder,
    queries: SplitQueries,
    count: int,
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> Path:
    """Write features of the first scenes of a split in the published layout, and ``<split>/annotations.jsonl``.

    Scenes that an earlier run finished are kept, so an interrupted run continues.

    Args:
        folder: folder of the features, from `features_folder`.
        encoder: the demo CLIP.
        queries: the split and the number of queries for each scene.
        count: number of scenes.
        progress: called with the number of finished scenes and the number of all scenes.

    Returns:
        The path of the annotations.

    Raises:
        VtgError: no such split.
    """
    data = load_recipe("demo").data
    published = PublishedFeatures(folder, data.video_features, data.query_features)
    parts = folder / queries.split / queries.folder_name  # each scene's annotations, written after its features
    parts.mkdir(parents=True, exist_ok=True)
    wanted = [parts / f"{index:05d}.json" for index in range(count)]
    missing = [index for index, part in enumerate(wanted) if not part.is_file()]
    done = count - len(missing)
    progress(done, count)
    draw = partial(draw_scene, queries, size=encoder.image_size)
    with closing(map_ahead(draw, missing, SCENES_AHEAD)) as drawn:
        for index, scene in zip(missing, drawn, strict=True):
            published.write_video(scene.name, encoder.encode_frames(scene.frames).layers.half().numpy())
            texts = encoder.encode_texts([fields["query"] for fields in scene.annotations])
            for fields, text in zip(scene.annotations, texts, strict=True):
                published.write_query(fields["qid"], text.layers.half().numpy())
            _write_text(wanted[index], "".join(f"{json.dumps(fields)}\n" for fields in scene.annotations))
            done += 1
            progress(done, count)
    annotations = folder / queries.split / "annotations.jsonl"
    lines = "".join(part.read_text(encoding="utf-8") for part in wanted)
    _write_text(annotations, lines)
    return annotations


def _write_text(path: Path, text: str) -> None:
    with write_whole(path) as beside:
        beside.write_text(text, encoding="utf-8")
