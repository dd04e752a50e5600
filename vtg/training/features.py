"""Check that cached features for training are complete and of one CLIP."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from vtg.clip.layout import ClipLayout, clip_layout
from vtg.datasets import Sample
from vtg.errors import VtgError
from vtg.evaluation.sources import FeatureSource
from vtg.progress import Progress, Reporter
from vtg.r2.config import HeadConfig
from vtg.recipes import DataRecipe

__all__ = ["FeatureShape", "check_features"]

RATE_TOLERANCE_FRAMES = 5  # difference from duration · rate that is normal, due to rounding
RATE_TOLERANCE_SHARE = 0.1  # relative difference; beyond both, the features have another rate


@dataclass(frozen=True)
class FeatureShape:
    """Common shape of all features of a data set: K layers, P tokens, Cv and Cq channels."""

    layers: int
    tokens: int
    video_width: int
    query_width: int


def check_features(
    files: FeatureSource,
    samples: Sequence[Sample],
    data: DataRecipe,
    model: HeadConfig,
    progress: Reporter,
) -> tuple[FeatureShape, list[int], list[int]]:
    """Check the header of every file before training.

    Args:
        files: source of the features.
        samples: to check the features of.
        data: the recipe's: features of another rate than its `fps` are refused.
        model: the recipe's: features of fewer layers, or of another CLIP than it names, are refused.
        progress: called after every sample.

    Returns:
        The shape that all features share; T of each sample's video; L of each sample's query.

    Raises:
        VtgError: the first file that is missing, damaged, of another shape than the others, or not of the recipe.
    """
    layout = None if model.clip_model is None else clip_layout(model.clip_model)
    shape: FeatureShape | None = None
    lengths: dict[str, int] = {}
    tokens, mismatches = [], []
    for done, sample in enumerate(samples):
        name = files.video_name(sample.video_id)
        if sample.video_id not in lengths:
            found = files.video(sample.video_id).shape
            lengths[sample.video_id] = found[0]
            if shape is None:
                shape = FeatureShape(found[1], found[2], found[3], files.query(sample).shape[2])
            _check(name, found[1:], (shape.layers, shape.tokens, shape.video_width), "T, K, P, Cv")
            if data.fps is not None and _rate_differs(found[0], sample.duration * data.fps):
                mismatches.append(f"{name}: has {found[0]} frames for {sample.duration:g} s")
        assert shape is not None  # the first sample has a video
        text = files.query(sample).shape
        _check(files.query_name(sample), text[1:], (shape.layers, shape.query_width), "L, K, Cq")
        if done == 0:
            _check_recipe(name, shape, model, layout)
        tokens.append(text[0])
        progress(Progress("checking", done + 1, len(samples), "samples"))
    if 2 * len(mismatches) > len(lengths):
        raise VtgError(
            f"{mismatches[0]}, which is not the recipe's {data.fps:g} a second; --set data.fps=RATE, or check ids"
        )
    assert shape is not None  # a part has samples
    return shape, [lengths[sample.video_id] for sample in samples], tokens


def _rate_differs(found: int, expected: float) -> bool:
    return abs(found - expected) > max(RATE_TOLERANCE_FRAMES, RATE_TOLERANCE_SHARE * expected)


def _check(name: str, found: tuple[int, ...], wanted: tuple[int, ...], axes: str) -> None:
    if found != wanted:
        raise VtgError(
            f"{name}: [{axes}] is [_, {', '.join(map(str, found))}] and not [_, {', '.join(map(str, wanted))}] like "
            "the features before it; extract all of them with one CLIP and as many layers"
        )


def _check_recipe(name: str, shape: FeatureShape, model: HeadConfig, layout: ClipLayout | None) -> None:
    if shape.layers < model.layers:
        raise VtgError(
            f"{name}: has {shape.layers} layers, and the recipe reads {model.layers}; extract as many, or "
            f"--set model.layers={shape.layers}"
        )
    if layout is None:
        return
    found = (shape.tokens, shape.video_width, shape.query_width)
    wanted = (layout.tokens, layout.width, layout.text_width)
    if found != wanted:
        raise VtgError(
            f"{name}: has {found[0]} tokens a frame, {found[1]} wide, and queries {found[2]} wide; {model.clip_model} "
            f"has {wanted[0]}, {wanted[1]} and {wanted[2]}: name the CLIP of the features with "
            "--set model.clip_model=NAME (none where open_clip has no name for it)"
        )
