"""Evaluate a model: from a recipe and features to a file of predictions and its figures."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from vtg.clip.specs import DEMO
from vtg.datasets import QueryId, Sample, load_predictions
from vtg.errors import VtgError
from vtg.evaluation.grounding import SampleGrounder, sample_grounder
from vtg.evaluation.heads import Heads, full_precision, head_digest
from vtg.evaluation.partial import Identity, PartialPredictions
from vtg.evaluation.scoring import Scores, score_predictions, with_summary_figures
from vtg.evaluation.sources import open_features, with_rate_of
from vtg.features.store import VideoFeatures
from vtg.grounding.window_layout import WHOLE_FRAMES
from vtg.models.specs import available_models
from vtg.progress import Progress, Reporter, silent
from vtg.recipes import Recipe, load_recipe
from vtg.summary.choosing import edge_times
from vtg.summary.shots import video_shots

if TYPE_CHECKING:
    from vtg.grounding.grounder import Grounding

__all__ = ["Evaluation", "default_model", "evaluate"]

SUMMARY_DATASET = "tvsum"  # the data set with summary figures


@dataclass(frozen=True)
class Evaluation:
    """Result of an evaluation.

    Attributes:
        predictions: the file, in the format of the QVHighlights server.
        scores: its figures; None if the annotations have no ground truth (QVHighlights' test split).
    """

    predictions: Path
    scores: Scores | None


def evaluate(
    recipe: Recipe,
    features: Path,
    out: Path,
    annotations: Path | None = None,
    model: str | None = None,
    split: str | None = None,
    progress: Reporter = silent,
    *,
    like: str | None = None,
    device: str | None = None,
    pretrained: str | None = None,
    warn: Callable[[str], None] = lambda line: None,
) -> Evaluation:
    """Ground all queries of a benchmark, write the predictions, and score them.

    Videos of up to 1,024 frames are not divided, as in training; longer ones are, into windows. The recipe's rate, unit
    and suppression are used; values that a recipe does not state are those of the head's file.

    An interrupted run is resumed: finished predictions are kept in a file beside ``out``, and used only if heads,
    features, settings and queries are the same.

    Args:
        recipe: with its domains, if any, each of which has its own head.
        features: a folder in the published layout, or a library.
        out: the file of predictions to write.
        annotations: their file, or a folder with the recipe's files; None for the recipe's folder.
        model: to evaluate; None for the recipe's published head (one per domain).
        split: None for the recipe's.
        progress: called after every video.
        like: a published model whose settings are used for a checkpoint without settings.
        device: "cuda", "mps" or "cpu"; None for the best available.
        pretrained: weights of a library's CLIP, if the user has to name them.
        warn: callback for one-line messages to the user.

    Raises:
        VtgError: annotations, features or model are missing or do not match.
    """
    if annotations is not None and annotations.is_dir():
        recipe = replace(recipe, data=replace(recipe.data, folder=annotations))
        annotations = None
    samples = recipe.data.samples(split or recipe.evaluation.split, annotations)
    models = _models(recipe, samples, model)
    recipe = with_rate_of(features, recipe)
    heads = Heads(recipe, like, device, pretrained)
    grounder = sample_grounder(open_features(features, recipe.data, device, pretrained), recipe.data, heads)
    identity = _identity(recipe, samples, models, heads)
    checked = {sample.query_id: grounder.check(models[sample.query_id], sample) for sample in samples}
    try:
        with PartialPredictions(out, identity, checked, warn) as partial, full_precision():
            _ground(samples, models, grounder, partial, progress)
            partial.finish()
    except OSError as error:
        reason = error.strerror or error
        raise VtgError(
            f"{error.filename or out}: {reason}; free some disk space, then give the same command again to continue"
        ) from error
    return Evaluation(out, _scores(recipe.data.dataset, samples, out, annotations, grounder))


def _scores(
    dataset: str, samples: Sequence[Sample], out: Path, annotations: Path | None, grounder: SampleGrounder
) -> Scores | None:
    """The figures of a file of predictions; None if the annotations have no ground truth."""
    if not any(sample.windows is not None or sample.ratings is not None for sample in samples):
        return None
    scores = score_predictions(load_predictions(out), samples, dataset, out.name, out, annotations)
    if dataset == SUMMARY_DATASET:
        scores = with_summary_figures(scores, lambda sample: _shots(grounder.video(sample)))
    return scores


def _shots(video: VideoFeatures) -> np.ndarray:
    return edge_times(video_shots(video), video.fps, video.duration)


def default_model(recipe: Recipe) -> str:
    """The default model of a recipe: its published head, or the demo model."""
    return DEMO if recipe.name == DEMO else f"r2-{recipe.name}"


def _models(recipe: Recipe, samples: Sequence[Sample], model: str | None) -> dict[QueryId, str]:
    """The model for each query.

    Raises:
        VtgError: none is given, and the recipe has no published head.
    """
    if model is None and not recipe.members and default_model(recipe) not in available_models():
        raise VtgError(
            f"recipe {recipe.name}: has no published head; train one with vtg train, and name its file with --model"
        )
    if model is not None or not recipe.members:
        return {sample.query_id: model or default_model(recipe) for sample in samples}
    by_domain = {load_recipe(member).data.domain: f"r2-{member}" for member in recipe.members}
    return {sample.query_id: by_domain[sample.domain] for sample in samples}


def _identity(recipe: Recipe, samples: Sequence[Sample], models: Mapping[QueryId, str], heads: Heads) -> Identity:
    """Digests of everything that all predictions of a run depend on."""
    found = [head for name in dict.fromkeys(models.values()) if (head := heads.find(name)) is not None]
    data = recipe.data
    settings = [data.dataset, data.domain, data.fps, WHOLE_FRAMES, *(asdict(head.config) for head in found)]
    queries = [(sample.query_id, sample.video_id, sample.query, sample.duration) for sample in samples]
    return {
        "head": _digest([head_digest(head) for head in found]),
        "settings": _digest(settings),
        "queries": _digest(queries),
    }


def _digest(values: object) -> str:
    return hashlib.sha256(json.dumps(values, sort_keys=True).encode()).hexdigest()


def _ground(
    samples: Sequence[Sample],
    models: Mapping[QueryId, str],
    grounder: SampleGrounder,
    partial: PartialPredictions,
    progress: Reporter,
) -> None:
    """Compute the missing predictions, video by video."""
    videos: dict[str, list[Sample]] = {}
    for sample in samples:
        if sample.query_id not in partial.done:
            videos.setdefault(sample.video_id, []).append(sample)
    for queries in videos.values():
        progress(Progress("evaluating", len(partial.done), len(samples), "queries"))
        groundings = grounder.ground(models[queries[0].query_id], queries)
        partial.add([_prediction(sample, own) for sample, own in zip(queries, groundings, strict=True)])
    progress(Progress("evaluating", len(samples), len(samples), "queries"))


def _prediction(sample: Sample, grounding: Grounding) -> dict[str, Any]:
    fields = grounding.to_dict(sample.query_id, sample.video_id)
    if not grounding.moments:  # a highlight-only head, which does not predict windows
        del fields["pred_relevant_windows"]
    return fields
