"""Prepare training from a recipe: samples, features, head configuration and validation, checked against each other."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

from vtg.datasets import RATED_DATASETS
from vtg.errors import VtgError
from vtg.evaluation.sources import FeatureSource, open_features
from vtg.r2 import HeadConfig
from vtg.recipes import Recipe
from vtg.training.data import TrainingSet, make_training_set
from vtg.training.features import FeatureShape, check_features
from vtg.training.processes import require_packages
from vtg.training.validation import Validation

__all__ = ["Prepared", "Sources", "prepare"]

Progress = Callable[[str, float, float], None]  # what, how much, of how much


@dataclass(frozen=True)
class Sources:
    """Where a data set lies; what is None is where the recipe says.

    Attributes:
        features: folder of cached features in the published layout, or a library.
        annotations: the file of the part that is trained on, or a folder with the recipe's files.
        validation_features: like `features`, which they are if None.
        validation_annotations: the file of the part that is validated on.
        pretrained: weights of the CLIP of libraries, where they have to be named by the user.
    """

    features: Path | None = None
    annotations: Path | None = None
    validation_features: Path | None = None
    validation_annotations: Path | None = None
    pretrained: str | None = None


@dataclass(frozen=True, eq=False)
class Prepared:
    """Everything that training needs.

    Attributes:
        recipe: with what the sources settle.
        config: of the head.
        training_set: what it is trained on.
        validation: what says how good it is; None without.
    """

    recipe: Recipe
    config: HeadConfig
    training_set: TrainingSet
    validation: Validation | None


def prepare(recipe: Recipe, sources: Sources, device: str | None, progress: Progress) -> Prepared:
    """Reads annotations, looks at every feature file, and works out the targets.

    Args:
        recipe: a recipe on its own, without members.
        sources: where its data set lies.
        device: that a library's CLIP encodes the queries on; None takes the best there is.
        progress: told of long work.

    Raises:
        VtgError: annotations or features are missing, damaged, or do not fit each other or the recipe; or a package
            that training needs is not installed.
    """
    require_packages()
    data, train, model = recipe.data, recipe.train, recipe.model
    if sources.annotations is not None and sources.annotations.is_dir():
        data = replace(data, folder=sources.annotations)
        sources = replace(sources, annotations=None)
    if data.dataset in RATED_DATASETS and sources.validation_annotations is None:
        sources = replace(sources, validation_annotations=sources.annotations)  # one file holds both parts
    samples = data.samples(train.split, sources.annotations)
    held_out = [] if train.validation is None else data.samples(train.validation, sources.validation_annotations)
    folder = sources.features or recipe.data.folder
    validation_folder, named = sources.validation_features or folder, sources.pretrained
    if validation_folder == folder:
        files = held_out_files = open_features(folder, data, device, named)
    else:
        files = open_features(folder, data, device, named)
        held_out_files = open_features(validation_folder, data, device, named)
    files.remember_queries(samples)
    held_out_files.remember_queries(held_out)
    if model.moment_retrieval and data.fps is None:
        if files.fps is None:
            raise VtgError(f"recipe {recipe.name}: has no rate; say how many frames a second: --set data.fps=RATE")
        data = replace(data, fps=files.fps)
    recipe = replace(recipe, data=data)
    checked = check_features(files, samples, data, model, lambda done, total: progress("checking", done, total))
    training_set = make_training_set(samples, files, data, train.positive, model.moment_retrieval, checked)
    validation = None
    if held_out:
        shape, *_ = check_features(held_out_files, held_out, data, model, lambda done, total: None)
        if shape != checked[0]:
            raise VtgError(f"{validation_folder}: {shape}, but {folder}: {checked[0]}; extract both with one CLIP")
        validation = Validation(recipe, held_out, held_out_files)
    return Prepared(recipe, head_config(recipe, checked[0], files), training_set, validation)


def head_config(recipe: Recipe, shape: FeatureShape, files: FeatureSource) -> HeadConfig:
    """The head that a recipe trains on features of a shape.

    Raises:
        VtgError: the recipe's values make no head.
    """
    model, evaluation = recipe.model, recipe.evaluation
    clip_model, clip_pretrained = files.clip or (model.clip_model, model.clip_pretrained)
    try:
        return replace(
            model,
            name=recipe.name,
            video_width=shape.video_width,
            query_width=shape.query_width,
            tokens=shape.tokens,
            fps=recipe.data.fps or model.fps,
            unit=evaluation.unit,
            nms=evaluation.nms,
            nms_threshold=evaluation.nms_threshold,
            clip_model=clip_model,
            clip_pretrained=clip_pretrained,
        )
    except ValueError as error:
        raise VtgError(f"recipe {recipe.name}: model.{error}") from None
