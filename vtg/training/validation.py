"""Compute the published figures of a head on the validation part during training."""

from __future__ import annotations

import difflib
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np
import torch

from vtg.datasets import Prediction, Sample
from vtg.errors import VtgError
from vtg.evaluation.grounding import ground_samples
from vtg.evaluation.scoring import score_predictions
from vtg.evaluation.sources import FeatureSource
from vtg.recipes import Recipe

if TYPE_CHECKING:
    from accelerate import Accelerator

    from vtg.r2 import R2Head

__all__ = ["Validation"]


class Validation:
    """Grounds the validation part and scores it as `vtg evaluate` does.

    Args:
        recipe: determines the metric.
        samples: of the validation part.
        files: their features.

    Raises:
        VtgError: the annotations do not give the recipe's metric.
    """

    def __init__(self, recipe: Recipe, samples: Sequence[Sample], files: FeatureSource) -> None:
        self._recipe = recipe
        self._samples = samples
        self._files = files
        self._by_video: dict[str, list[Sample]] = {}
        for sample in samples:
            self._by_video.setdefault(sample.video_id, []).append(sample)
        self._check_metric()

    def figures(self, head: R2Head, accelerator: Accelerator) -> Mapping[str, float]:
        """The main figures of a head, by their published names. Every process must call this.

        Args:
            head: without wrappers; in training mode before and after.
            accelerator: the videos are divided among its processes.
        """
        from accelerate.utils import gather_object

        videos = list(self._by_video.values())[accelerator.process_index :: accelerator.num_processes]
        head.eval()
        with torch.inference_mode():
            predictions = [prediction for queries in videos for prediction in self._ground(head, queries)]
        head.train()
        if accelerator.num_processes > 1:
            predictions = gather_object(predictions)
        return self._score(predictions)

    def _ground(self, head: R2Head, queries: Sequence[Sample]) -> list[Prediction]:
        """The predictions for the queries of one video."""
        groundings = ground_samples(head, self._files, queries, self._recipe.data.fps)
        predictions = []
        for sample, grounding in zip(queries, groundings, strict=True):
            windows = [[moment.start, moment.end, moment.score] for moment in grounding.moments]
            saliency = grounding.saliency.scores.astype(np.float64)
            predictions.append(Prediction(sample.query_id, np.array(windows) if windows else None, saliency))
        return predictions

    def _score(self, predictions: Sequence[Prediction]) -> Mapping[str, float]:
        dataset = self._recipe.data.dataset
        return score_predictions(predictions, self._samples, dataset, "the validation").brief

    def _check_metric(self) -> None:
        """Score dummy predictions to find out which figures the annotations give."""
        nothing = []
        for sample in self._samples:
            window = np.array([[0.0, sample.duration, 1.0]]) if self._recipe.model.moment_retrieval else None
            clips = 1 if sample.ratings is None else len(sample.ratings)
            nothing.append(Prediction(sample.query_id, window, np.zeros(clips)))
        figures = self._score(nothing)
        metric = self._recipe.evaluation.metric
        if metric not in figures:
            near = difflib.get_close_matches(metric, figures, n=1)
            hint = f"did you mean {near[0]}?" if near else f"there are {', '.join(figures)}"
            raise VtgError(f"evaluation.metric is {metric}, which these annotations do not give; {hint}")
