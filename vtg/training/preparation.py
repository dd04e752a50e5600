"""Prepare training from a recipe: samples, features, head configuration and validation, checked against each other."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

from vtg.clip.layout import clip_layout
from vtg.datasets import RATED_DATASETS
from vtg.errors import VtgError
from vtg.evaluation.sources import FeatureSource, open_features
from vtg.progress import Reporter, silent
from vtg.r2 import HeadConfig
from vtg.recipes import Recipe
from vtg.training.data import TrainingSet, make_training_set
from vtg.training.features import FeatureShape, check_features
from vtg.training.processes import require_packages
from vtg.training.validation import Validation

__all__ = ["Prepared", "Sources", "prepare"]


@dataclass(frozen=True)
class Sources:
    """Locations of a data set; None for those of the recipe.

    Attributes:
        features: folder of cached features in the published layout, or a library.
        annotations: file of the training part, or a folder with the recipe's files.
        validation_features: like `features`; None for the same.
        validation_annotations: file of the validation part.
        pretrained: weights of a library's CLIP, if the user has to name them.
    """

    features: Path | None = None
    annotations: Path | None = None
    validation_features: Path | None = None
    validation_annotations: Path | None = None
    pretrained: str | None = None


@dataclass(frozen=True, eq=False)
class Prepared:
    """Checked inputs of a training.

    Attributes:
        recipe: with values from the sources.
        config: of the head.
        training_set: the training data.
        validation: computes the validation figures; None without validation.
    """

    recipe: Recipe
    config: HeadConfig
    training_set: TrainingSet
    validation: Validation | None


def prepare(recipe: Recipe, sources: Sources, device: str | None, progress: Reporter = silent) -> Prepared:
    """Read annotations, check every feature file, and compute the targets.

    Args:
        recipe: without members.
        sources: locations of its data set.
        device: for a library's CLIP, which encodes the queries; None for the best available.
        progress: called after every checked sample.

    Raises:
        VtgError: annotations or features are missing, damaged, or do not match each other or the recipe; or a package
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
    files.cache_queries(samples)
    held_out_files.cache_queries(held_out)
    if model.moment_retrieval and data.fps is None:
        if files.fps is None:
            raise VtgError(
                f"recipe {recipe.name}: has no sampling rate; give the frames per second: --set data.fps=RATE"
            )
        data = replace(data, fps=files.fps)
    recipe = replace(recipe, data=data)
    checked = check_features(files, samples, data, model, progress)
    training_set = make_training_set(samples, files, data, train.positive, model.moment_retrieval, checked)
    validation = None
    if held_out:
        shape, *_ = check_features(held_out_files, held_out, data, model, progress)
        if shape != checked[0]:
            raise VtgError(f"{validation_folder}: {shape}, but {folder}: {checked[0]}; extract both with one CLIP")
        validation = Validation(recipe, held_out, held_out_files)
    return Prepared(recipe, head_config(recipe, checked[0], files), training_set, validation)


def head_config(recipe: Recipe, shape: FeatureShape, files: FeatureSource) -> HeadConfig:
    """The configuration of a recipe's head for features of a shape.

    Raises:
        VtgError: the recipe's values are not valid for a head.
    """
    model, evaluation = recipe.model, recipe.evaluation
    stated = model.clip_model, model.clip_pretrained, model.clip_preprocessing
    clip_model, clip_pretrained, clip_preprocessing = files.clip or stated
    class_token = _has_class_token(recipe, files)
    is_large = model.max_patches is not None and shape.tokens - class_token > model.max_patches
    try:
        return replace(
            model,
            name=recipe.name,
            video_width=shape.video_width,
            query_width=shape.query_width,
            tokens=shape.tokens,
            class_token=class_token,
            max_patches=model.max_patches if is_large else None,  # None is also read by earlier versions
            fps=recipe.data.fps or model.fps,
            unit=evaluation.unit,
            nms=evaluation.nms,
            nms_threshold=evaluation.nms_threshold,
            clip_model=clip_model,
            clip_pretrained=clip_pretrained,
            clip_preprocessing=clip_preprocessing,
        )
    except ValueError as error:
        raise VtgError(f"recipe {recipe.name}: model.{error}") from None


def _has_class_token(recipe: Recipe, files: FeatureSource) -> bool:
    """Whether the frames of a source have a class token: as its CLIP, or the one that the recipe names, or as stated.

    Raises:
        VtgError: the recipe states something else.
    """
    model, known = recipe.model, files.class_token
    if known is None and model.clip_model is not None and (layout := clip_layout(model.clip_model)) is not None:
        known = layout.class_token
    if known is None:
        return model.class_token
    if recipe.states("model.class_token") and model.class_token != known:
        raise VtgError(
            f"recipe {recipe.name}: model.class_token is {str(model.class_token).lower()}, and the features' CLIP has "
            f"{'one' if known else 'none'}; leave the key out"
        )
    return known
