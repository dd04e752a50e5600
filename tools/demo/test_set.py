"""The unseen videos that the demo models are measured on: real files, encoded once, asked by any head or by none."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import dataclass, replace
from multiprocessing import get_context
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from tools.demo.frames import end_with_parent
from vtg.datasets import Prediction, Sample, load_predictions, load_samples
from vtg.demo import DemoVideo, make_scene, make_videos, split_seed, write_video
from vtg.evaluation.scoring import score_predictions
from vtg.features.store import FeatureKey, FeatureStore, VideoFeatures, content_key
from vtg.files.whole import write_whole
from vtg.grounding.grounder import Grounder, Grounding, ground_with_head

if TYPE_CHECKING:
    from vtg.clip.encoder import ClipEncoder
    from vtg.r2 import R2Head

__all__ = ["FIGURES", "TestSet", "figures_of", "make_test_set"]

FIGURES = {  # what the table calls them, and the published names
    "R1@0.5": "MR-full-R1@0.5",
    "R1@0.7": "MR-full-R1@0.7",
    "MR mAP": "MR-full-mAP",
    "HD mAP": "HL-min-VeryGood-mAP",
    "Hit@1": "HL-min-VeryGood-Hit1",
}
RATE = 0.5  # frames a second

Progress = Callable[[str, int, int], None]  # what, how much, of how much


@dataclass(frozen=True)
class TestSet:
    """Videos of the test split with their features.

    Attributes:
        encoder: the CLIP that made the features.
        videos: the files.
        features: of each file, by the path that any file takes.
        samples: every sentence asked, video by video.
        kinds: of the sentences, in their order.
    """

    __test__ = False  # not for pytest, whatever its name

    encoder: ClipEncoder
    videos: Sequence[DemoVideo]
    features: Sequence[VideoFeatures]
    samples: Sequence[Sample]
    kinds: Sequence[str]

    def answer(self, head: R2Head | None, progress: Callable[[int, int], None]) -> list[Grounding]:
        """Grounds every sentence in its video; by CLIP's embeddings alone where there is no head.

        Args:
            head: one that reads at most as many layers as the features have; it gets the last ones.
            progress: called with the number of videos done and of all.
        """
        groundings = []
        for number, (video, features) in enumerate(zip(self.videos, self.features, strict=True)):
            progress(number, len(self.videos))
            groundings += self._ground(head, features, [sentence.text for sentence in video.sentences])
        progress(len(self.videos), len(self.videos))
        return groundings

    def _ground(self, head: R2Head | None, features: VideoFeatures, queries: list[str]) -> list[Grounding]:
        if head is None:
            return Grounder(self.encoder).ground_many(features, queries)
        assert features.layers is not None  # make_test_set keeps them
        layers = head.config.layers
        texts = [text.layers[:, -layers:] for text in self.encoder.encode_texts(queries)]
        return ground_with_head(head, replace(features, layers=features.layers[:, -layers:]), queries, texts)


def make_test_set(
    folder: Path, encoder: ClipEncoder, count: int, sentences: int, processes: int, progress: Progress
) -> TestSet:
    """Renders the first videos of the test split and encodes them; what is there already is used.

    Args:
        folder: for the videos and their features.
        encoder: the demo CLIP.
        count: how many videos.
        sentences: asked about each, at most.
        processes: that render at the same time.
        progress: told of every step.

    Raises:
        VtgError: ffmpeg fails, or the folder cannot be written to.
    """
    folder.mkdir(parents=True, exist_ok=True)
    _render(folder, count, processes, lambda done, total: progress("rendering", done, total))
    videos = make_videos(folder, "test", count, sentences=sentences)
    store = FeatureStore(folder / "features")
    features = []
    for number, video in enumerate(videos):
        progress("encoding", number, count)
        features.append(_encode(video.path, encoder, store))
    progress("encoding", count, count)
    annotations = folder / "annotations.jsonl"
    lines = annotations.read_text(encoding="utf-8").splitlines()
    kinds = [json.loads(line)["kind"] for line in lines]
    return TestSet(encoder, videos, features, load_samples(annotations, "demo"), kinds)


def figures_of(tests: TestSet, groundings: Sequence[Grounding], predictions: Path) -> dict[str, dict[str, float]]:
    """Writes predictions and scores them by the published metrics.

    Args:
        tests: what was asked.
        groundings: the answers, in the order of the samples.
        predictions: the file to write, as the QVHighlights server takes it.

    Returns:
        Percent by name of `FIGURES`: "all", and of every kind of sentence.
    """
    lines = [
        json.dumps(grounding.to_dict(sample.query_id, sample.video_id))
        for sample, grounding in zip(tests.samples, groundings, strict=True)
    ]
    with write_whole(predictions) as beside:
        beside.write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")
    read: list[Prediction] = load_predictions(predictions)
    scores = score_predictions(read, list(tests.samples), "demo", predictions.stem, predictions)
    kinds = np.array(tests.kinds)
    table = {"all": {name: scores.brief[published] for name, published in FIGURES.items()}}
    for kind in sorted(set(tests.kinds)):
        table[kind] = {
            name: round(float(np.nanmean(scores.per_query[published][kinds == kind])), 2)
            for name, published in FIGURES.items()
        }
    return table


def _render(folder: Path, count: int, processes: int, progress: Callable[[int, int], None]) -> None:
    """Writes the files that `make_videos` would, several at a time; it then finds them."""
    paths = {index: folder / f"test_{index:05d}.mp4" for index in range(count)}
    missing = [index for index, path in paths.items() if not path.exists()]
    progress(count - len(missing), count)
    if not missing:
        return
    with ProcessPoolExecutor(processes, get_context("spawn"), end_with_parent) as pool:
        writing = [pool.submit(_write, index, paths[index]) for index in missing]
        for done, future in enumerate(as_completed(writing), count - len(missing) + 1):
            future.result()
            progress(done, count)


def _write(index: int, path: Path) -> None:
    write_video(make_scene(split_seed("test", index)), path)


def _encode(path: Path, encoder: ClipEncoder, store: FeatureStore) -> VideoFeatures:
    from vtg.features.pipeline import encode_video
    from vtg.video import probe

    key = FeatureKey(content_key(path), encoder.fingerprint, RATE)
    if key not in store:
        with store.write(key, probe(path).duration) as writer:
            for chunk in encode_video(path, encoder, RATE):
                writer.append(chunk.layers, chunk.embedding, chunk.miniatures)
    return store.open(key, path.stem)
