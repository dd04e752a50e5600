"""Training targets of samples: saliency, positive frames, windows."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from vtg.datasets import Sample
from vtg.errors import VtgError
from vtg.evaluation.sources import FeatureSource
from vtg.r2.targets import true_windows
from vtg.recipes import DataRecipe
from vtg.training.features import FeatureShape

__all__ = ["TrainingSample", "TrainingSet", "frame_saliency", "make_training_set", "positive_frames"]

Array = NDArray[np.float32]


@dataclass(frozen=True, eq=False)
class TrainingSample:
    """One query with its targets.

    Attributes:
        sample: as annotated.
        frames: T of its video's features.
        tokens: L of its query's features.
        saliency: [T] float32, 0…1.
        positives: frames that may be chosen as positives; none if the query matches nothing in its video.
        windows: [N, 2] float32, start and end in seconds; None for a sample without.
    """

    sample: Sample
    frames: int
    tokens: int
    saliency: Array
    positives: NDArray[np.int64]
    windows: torch.Tensor | None


@dataclass(frozen=True, eq=False)
class TrainingSet:
    """The training data.

    Attributes:
        samples: each with a positive frame, or annotated without a match.
        files: their features.
        shape: of the features.
        fps: of the features in frames a second; None: one frame per annotated clip.
        left_out: number of samples without a positive frame.
    """

    samples: tuple[TrainingSample, ...]
    files: FeatureSource
    shape: FeatureShape
    fps: float | None
    left_out: int


def make_training_set(
    samples: Sequence[Sample],
    files: FeatureSource,
    data: DataRecipe,
    positive: str,
    moment_retrieval: bool,
    checked: tuple[FeatureShape, list[int], list[int]],
) -> TrainingSet:
    """Compute the targets of all samples.

    Args:
        samples: of the training part.
        files: their features.
        data: the recipe's.
        positive: the recipe's `train.positive`.
        moment_retrieval: whether the head predicts moments.
        checked: the result of `vtg.training.features.check_features`.

    Raises:
        VtgError: a sample without windows or ratings, or none with a positive frame.

    A query with an empty list of windows matches nothing in its video; such samples train a head that predicts moments.
    """
    shape, frames, tokens = checked
    ready = []
    for sample, length, words in zip(samples, frames, tokens, strict=True):
        if moment_retrieval and sample.windows is None:
            raise VtgError(f"query {sample.query_id}: has no relevant_windows to train on; leave it out")
        saliency = frame_saliency(sample, length, data.fps)
        positives = positive_frames(saliency, positive)
        absent = moment_retrieval and sample.windows is not None and not len(sample.windows)
        if len(positives) or absent:
            windows = torch.from_numpy(sample.windows.astype(np.float32)) if sample.windows is not None else None
            ready.append(TrainingSample(sample, length, words, saliency, positives, windows))
    if not any(len(sample.positives) for sample in ready):
        raise VtgError(f"none of {len(samples)} samples has a frame with a saliency {positive}; check the annotations")
    return TrainingSet(tuple(ready), files, shape, data.fps, len(samples) - len(ready))


def frame_saliency(sample: Sample, frames: int, fps: float | None) -> Array:
    """Target saliency of each frame: that of the rated clip that contains it, or 1 within the windows.

    Args:
        sample: with ratings or windows.
        frames: T.
        fps: frames a second; None: one frame per rated clip.

    Returns:
        [T] float32, 0 where nothing was rated.

    Raises:
        VtgError: the sample has neither.
    """
    target = np.zeros(frames, np.float32)
    if sample.saliency is not None:
        clip = np.arange(frames)
        if fps is not None and sample.clips is not None:
            middle = (clip + 0.5) / fps
            clip = np.searchsorted(sample.clips[:, 0], middle, side="right") - 1
            clip[(clip < 0) | (middle >= sample.clips[clip, 1])] = len(sample.saliency)
        rated = clip < len(sample.saliency)
        target[rated] = sample.saliency[clip[rated]]
    elif sample.windows is not None and fps is not None:
        windows = torch.from_numpy(sample.windows.astype(np.float32))
        spans = true_windows([windows], torch.tensor([frames]), fps)
        for start, end in np.ceil(spans.spans[spans.present].numpy()).astype(int):
            target[start:end] = 1
    else:
        raise VtgError(f"query {sample.query_id}: has neither windows nor ratings to train on; leave it out")
    return target


def positive_frames(saliency: Array, positive: str) -> NDArray[np.int64]:
    """The frames that may be chosen as positives of a query.

    Args:
        saliency: [T].
        positive: "above 0", "above half", or "above median" (the lower one of an even number).
    """
    threshold = {"above 0": 0.0, "above half": 0.5}.get(positive, np.sort(saliency)[(len(saliency) - 1) // 2])
    return np.flatnonzero(saliency > threshold)
