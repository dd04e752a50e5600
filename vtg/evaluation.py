"""Evaluation: knows the order of operations from a recipe and features to a file of predictions and its figures."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

from vtg.datasets import QueryId, Sample, load_predictions
from vtg.errors import VtgError
from vtg.features import VideoFeatures, read_npy
from vtg.recipes import DataRecipe, Recipe, load_recipe
from vtg.scoring import Scores, score_predictions, with_summary_figures
from vtg.settings import Storage
from vtg.specs import DEMO
from vtg.summary.choosing import edge_times
from vtg.summary.shots import video_shots

if TYPE_CHECKING:
    import torch

    from vtg.grounding import Grounding
    from vtg.library import Library
    from vtg.r2 import R2Head

__all__ = ["Evaluation", "default_model", "evaluate", "open_features", "prepare_demo"]

SUMMARISED = "tvsum"  # the data set whose figures include those of summaries
DEMO_VIDEOS = 40  # of the demo data set
DEMO_SENTENCES = 8  # asked about each

Progress = Callable[[int, int], None]  # queries done, queries in all


class FeatureSource(Protocol):
    """Where the features of a data set come from, and what grounds by them."""

    def ground(self, model: str, samples: Sequence[Sample]) -> list[Grounding]:
        """Ground the queries of one video."""

    def video(self, sample: Sample) -> VideoFeatures:
        """The features of a query's video."""


@dataclass(frozen=True)
class Evaluation:
    """What one evaluation gave.

    Attributes:
        predictions: the file, as the QVHighlights server accepts it.
        scores: its figures; None where the annotations have no truth (QVHighlights' test part).
    """

    predictions: Path
    scores: Scores | None


class PublishedSource:
    """Cached features in the published layout: an array a video and one a query, so that no CLIP is needed.

    Args:
        data: the recipe's, with ``folder`` where the features are.
    """

    def __init__(self, data: DataRecipe) -> None:
        self._data = data
        self._heads: dict[str, R2Head] = {}

    def ground(self, model: str, samples: Sequence[Sample]) -> list[Grounding]:
        """Ground the queries of one video.

        Raises:
            VtgError: features are missing, damaged or of another CLIP than the head's.
        """
        import torch

        from vtg.grounding import ground_with_head
        from vtg.models import load_head, pull, registry

        if model not in self._heads:
            if model in registry():
                pull(model)
            self._heads[model] = load_head(model)
        video = self.video(samples[0])
        texts = [self._query(sample) for sample in samples]
        with torch.inference_mode():
            return ground_with_head(self._heads[model], video, [sample.query for sample in samples], texts)

    def video(self, sample: Sample) -> VideoFeatures:
        """The features of a query's video.

        Raises:
            VtgError: they are missing or damaged.
        """
        layers = read_npy(self._data.video_feature_file(sample.video_id), dimensions=4)
        fps = self._data.fps or len(layers) / sample.duration
        return VideoFeatures(fps, sample.duration, layers, name=sample.video_id)

    def _query(self, sample: Sample) -> torch.Tensor:
        import torch

        layers = read_npy(self._data.query_feature_file(sample.query_id, sample.video_id), dimensions=3)
        return torch.from_numpy(np.array(layers))


class LibrarySource:
    """A library that has the data set's videos: its features, and its own CLIP for the queries.

    Args:
        library: its files are named by video id.
    """

    def __init__(self, library: Library) -> None:
        self._library = library
        self._paths = {Path(entry.path).stem: entry.path for entry in library.videos() if entry.state == "indexed"}

    def ground(self, model: str, samples: Sequence[Sample]) -> list[Grounding]:
        """Ground the queries of one video.

        Raises:
            VtgError: the video is not in the library.
        """
        return self._library.ground_many(self._path(samples[0]), [sample.query for sample in samples])

    def video(self, sample: Sample) -> VideoFeatures:
        """The features of a query's video.

        Raises:
            VtgError: the video is not in the library.
        """
        return self._library.open_features(self._path(sample))

    def _path(self, sample: Sample) -> str:
        if sample.video_id not in self._paths:
            raise VtgError(f"{self._library.folder}: has no video {sample.video_id}; index it first")
        return self._paths[sample.video_id]


def open_features(folder: Path, data: DataRecipe, model: str) -> FeatureSource:
    """Features in the published layout, or a library.

    Args:
        folder: of either.
        data: the recipe's.
        model: what a library is asked with.

    Raises:
        VtgError: the folder is neither.
    """
    from vtg.library import Library

    if (folder / "library.json").is_file():
        return LibrarySource(Library(folder, model))
    if not (folder / data.video_features).is_dir():
        raise VtgError(f"{folder}: has neither {data.video_features}/ nor a library; check --features")
    return PublishedSource(replace(data, folder=folder))


def prepare_demo(recipe: Recipe, split: str, progress: Callable[[str, float, float], None]) -> tuple[Path, Path]:
    """Make the demo data set, as far as it is not there: videos, annotations, and a library of them.

    Args:
        recipe: the demo's.
        split: "train", "val" or "test".
        progress: told of every step: what, how much, of how much.

    Returns:
        The library and the annotations.

    Raises:
        VtgError: no such split, or the folder cannot be written to.
    """
    from vtg.demo import make_videos
    from vtg.library import Library

    folder = recipe.data.folder / split
    videos = make_videos(
        folder,
        split,
        DEMO_VIDEOS,
        sentences=DEMO_SENTENCES,
        progress=lambda done, total: progress("rendering", done, total),
    )
    library = Library(folder / "library", "demo", storage=Storage("float16", keep_layers=True), encoding="float32")
    paths = [video.path for video in videos]
    library.add(paths, lambda step: progress("indexing", step.videos_done, step.videos))
    return library.folder, folder / "annotations.jsonl"


def evaluate(
    recipe: Recipe,
    features: Path,
    out: Path,
    annotations: Path | None = None,
    model: str | None = None,
    split: str | None = None,
    progress: Progress = lambda done, total: None,
) -> Evaluation:
    """Ground all queries of a benchmark, write the predictions, and score them.

    A run that was stopped goes on where it was: what is finished lies beside ``out`` until all of it is.

    Args:
        recipe: with its domains, where it has some: each by its own head.
        features: a folder in the published layout, or a library.
        out: the file of predictions to write.
        annotations: their file; the recipe's where None.
        model: what grounds; None for the recipe's published head (of each domain its own).
        split: the part; the recipe's where None.
        progress: told of every video.

    Raises:
        VtgError: annotations, features or model are missing or do not fit.
    """
    samples = recipe.data.samples(split or recipe.evaluation.split, annotations)
    models = _models(recipe, samples, model)
    source = open_features(features, recipe.data, next(iter(models.values())))
    _write_predictions(samples, models, source, out, progress)
    dataset = recipe.data.dataset
    truth = any(sample.windows is not None or sample.ratings is not None for sample in samples)
    scores = score_predictions(load_predictions(out), samples, dataset, out.name, out, annotations) if truth else None
    if scores is not None and dataset == SUMMARISED:
        scores = with_summary_figures(scores, lambda sample: _shots(source.video(sample)))
    return Evaluation(out, scores)


def _shots(video: VideoFeatures) -> np.ndarray:
    return edge_times(video_shots(video), video.fps, video.duration)


def default_model(recipe: Recipe) -> str:
    """The model that a recipe is evaluated with where none is named: its published head, or the demo's own."""
    return DEMO if recipe.name == DEMO else f"r2-{recipe.name}"


def _models(recipe: Recipe, samples: Sequence[Sample], model: str | None) -> dict[QueryId, str]:
    """The model that grounds each query."""
    if model is not None or not recipe.members:
        return {sample.query_id: model or default_model(recipe) for sample in samples}
    by_domain = {load_recipe(member).data.domain: f"r2-{member}" for member in recipe.members}
    return {sample.query_id: by_domain[sample.domain] for sample in samples}


def _write_predictions(
    samples: Sequence[Sample], models: Mapping[QueryId, str], source: FeatureSource, out: Path, progress: Progress
) -> None:
    """One JSON line a query, in the order of the samples."""
    out.parent.mkdir(parents=True, exist_ok=True)
    part = out.with_name(f"{out.name}.part")
    # The first line says what the others are of; a part of something else is not gone on with.
    identity = {"queries": [sample.query_id for sample in samples], "models": sorted(set(models.values()))}
    done = _finished(part, identity)
    videos: dict[str, list[Sample]] = {}
    for sample in samples:
        if sample.query_id not in done:
            videos.setdefault(sample.video_id, []).append(sample)
    with part.open("a" if done else "w", encoding="utf-8") as file:
        if not done:
            file.write(json.dumps(identity) + "\n")
        for queries in videos.values():
            progress(len(done), len(samples))
            for sample, grounding in zip(queries, source.ground(models[queries[0].query_id], queries), strict=True):
                done[sample.query_id] = _prediction(sample, grounding)
                file.write(json.dumps(done[sample.query_id]) + "\n")
            file.flush()
    progress(len(samples), len(samples))
    whole = out.with_name(f"{out.name}.{os.getpid()}.part")
    whole.write_text("".join(json.dumps(done[sample.query_id]) + "\n" for sample in samples), encoding="utf-8")
    whole.replace(out)
    part.unlink()


def _prediction(sample: Sample, grounding: Grounding) -> dict[str, Any]:
    fields = grounding.to_dict(sample.query_id, sample.video_id)
    if not grounding.moments:  # a highlight-only head predicts no windows, which is not the same as none found
        del fields["pred_relevant_windows"]
    return fields


def _finished(part: Path, identity: Mapping[str, object]) -> dict[QueryId, dict[str, Any]]:
    """What an earlier run of the same finished."""
    if not part.is_file():
        return {}
    lines = list(_whole_lines(part))
    if not lines or lines[0] != identity:
        return {}
    return {line["qid"]: line for line in lines[1:]}


def _whole_lines(part: Path) -> Iterator[dict[str, Any]]:
    text = part.read_bytes()
    end = text.rfind(b"\n") + 1
    if end < len(text):  # the last line of a run that was killed while it wrote
        with part.open("r+b") as file:
            file.truncate(end)
    for line in text[:end].splitlines():
        try:
            yield json.loads(line)
        except ValueError:
            return
