"""What the demo head learns from: CLIP layers of scenes drawn at the sampled instants, sentences and their truth."""

from __future__ import annotations

import json
import os
import random
from collections.abc import Callable, Generator, Iterable
from concurrent.futures import Future, ProcessPoolExecutor
from contextlib import closing
from dataclasses import dataclass
from multiprocessing import get_context
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from tools.demo_frames import end_with_parent, render_frame
from vtg.demo import annotate, choose_sentences, make_scene, split_seed
from vtg.features import PublishedFeatures

if TYPE_CHECKING:
    from vtg.clip import ClipEncoder

__all__ = ["DrawnScene", "draw_scene", "features_folder", "write_features"]

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


def draw_scene(split: str, index: int, sentences: int, size: int) -> DrawnScene:
    """Draws a scene of a split as a decoder would give it and asks about it.

    Args:
        split: of the demo world.
        index: of the scene within it.
        sentences: how many at most; of the train split half are paraphrased.
        size: pixels along each side of a frame.

    Raises:
        VtgError: no such split.
    """
    scene = make_scene(split_seed(split, index))
    rng, words = np.random.default_rng([scene.seed, 3]), random.Random(scene.seed)  # noqa: S311 - nothing secret
    phase = rng.uniform(*PHASES)
    frames = np.stack([render_frame(scene, float(time + phase), size, rng) for time in scene.clip_times])
    name = f"{split}_{index:05d}"
    annotations = []
    for number, sentence in enumerate(choose_sentences(scene, sentences, rng)):
        fields = annotate(scene, name, sentence, number)
        fields["qid"] = f"{name}_{number:02d}"
        if split == "train" and words.random() < PARAPHRASED_SHARE:
            fields["query"] = sentence.paraphrase(words)
        annotations.append(fields)
    return DrawnScene(name, frames, tuple(annotations))


def features_folder(root: Path, encoder: ClipEncoder) -> Path:
    """Where a root folder has the features of one CLIP: those of another are never taken for its own."""
    return root / encoder.fingerprint


def write_features(
    folder: Path,
    encoder: ClipEncoder,
    split: str,
    count: int,
    sentences: int,
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> Path:
    """Writes features of the first scenes of a split in the published layout, and ``<split>/annotations.jsonl``.

    What an earlier run finished is kept, so a run that was stopped goes on where it was.

    Args:
        folder: of the features, from `features_folder`.
        encoder: the demo CLIP.
        split: of the demo world.
        count: how many scenes.
        sentences: asked about each, at most.
        progress: called with the number of scenes done and of all.

    Returns:
        The annotations.

    Raises:
        VtgError: no such split.
    """
    published = PublishedFeatures(folder)
    parts = folder / split / f"parts_{sentences}"  # a scene's annotations, written when its features are
    parts.mkdir(parents=True, exist_ok=True)
    wanted = [parts / f"{index:05d}.json" for index in range(count)]
    missing = [index for index, part in enumerate(wanted) if not part.is_file()]
    done = count - len(missing)
    progress(done, count)
    with closing(_draw_scenes(split, missing, sentences, encoder.image_size)) as drawn:
        for index, scene in zip(missing, drawn, strict=True):
            published.write_video(scene.name, encoder.encode_frames(scene.frames).layers.half().numpy())
            texts = encoder.encode_texts([fields["query"] for fields in scene.annotations])
            for fields, text in zip(scene.annotations, texts, strict=True):
                published.write_query(fields["qid"], text.layers.half().numpy())
            _write_lines(wanted[index], scene.annotations)
            done += 1
            progress(done, count)
    annotations = folder / split / "annotations.jsonl"
    lines = "".join(part.read_text(encoding="utf-8") for part in wanted)
    _write_text(annotations, lines)
    return annotations


def _draw_scenes(split: str, indices: list[int], sentences: int, size: int) -> Generator[DrawnScene, None, None]:
    """Scenes in order, drawn by another process while the ones before are encoded."""
    if not indices:
        return
    with ProcessPoolExecutor(1, get_context("spawn"), end_with_parent) as pool:
        waiting: list[Future[DrawnScene]] = []
        try:
            for index in indices:
                waiting.append(pool.submit(draw_scene, split, index, sentences, size))
                if len(waiting) > SCENES_AHEAD:
                    yield waiting.pop(0).result()
            while waiting:
                yield waiting.pop(0).result()
        finally:
            for future in waiting:
                future.cancel()


def _write_lines(path: Path, lines: Iterable[dict[str, Any]]) -> None:
    _write_text(path, "".join(f"{json.dumps(line)}\n" for line in lines))


def _write_text(path: Path, text: str) -> None:
    beside = path.with_name(f".{path.name}.{os.getpid()}")
    beside.write_text(text, encoding="utf-8")
    beside.replace(path)
