"""Calibrate the score of a head and CLIP's margin to one probability."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields, replace

import numpy as np

__all__ = ["Calibration", "choose_threshold", "fit_calibration"]

LARGEST_LOGIT = 12.0  # a score of exactly 0 or 1 says no more than this
NEWTON_STEPS = 50  # of Newton's method, which needs about ten
DAMPING = 1e-3  # of each weight, so that examples that a line parts leave it finite


@dataclass(frozen=True)
class Calibration:
    """A logistic regression from what is known of a video's best moment to the chance that it is what was asked for.

    Without weights of its own a model's scores are taken as they are.

    Attributes:
        score: weight of the logit of the moment's score.
        margin: weight of how far the query beats the background prompts in it, logits
            (`vtg.grounding.zero_shot.query_margin`).
        saliency: weight of its highest saliency.
        bias: what is added.
        threshold: from which chance on something counts as found, 0…1.
    """

    score: float = 1.0
    margin: float = 0.0
    saliency: float = 0.0
    bias: float = 0.0
    threshold: float = 0.0

    @classmethod
    def of(cls, values: Mapping[str, float]) -> Calibration:
        """Of the registry's fields; of none the scores are taken as they are."""
        known = {field.name for field in fields(cls)}
        return cls(**{name: float(value) for name, value in values.items() if name in known})

    @property
    def is_identity(self) -> bool:
        """Whether scores are taken as they are, so that nothing else need be known."""
        return (self.score, self.margin, self.saliency, self.bias) == (1.0, 0.0, 0.0, 0.0)

    def chance(self, score: float, margin: float, saliency: float) -> float:
        """How likely a video's best moment is what was asked for, 0…1.

        Args:
            score: the head's, 0…1.
            margin: logits.
            saliency: as the head gives it.
        """
        if self.is_identity:
            return score
        logit = self.score * _logit(score) + self.margin * margin + self.saliency * saliency + self.bias
        return float(0.5 * (1.0 + np.tanh(0.5 * logit)))


def _logit(score: float) -> float:
    edge = 1.0 / (1.0 + np.exp(LARGEST_LOGIT))
    inside = min(max(score, edge), 1.0 - edge)
    return float(np.log(inside) - np.log1p(-inside))


def fit_calibration(evidence: np.ndarray, present: np.ndarray) -> Calibration:
    """Fit a calibration, and the threshold at which as many of the absent are found as of the present are missed.

    Args:
        evidence: [N, 3] score, margin and saliency of the best moment found for each sentence.
        present: bool [N], whether the sentence is true in what was searched.

    Raises:
        ValueError: there are no present or no absent ones.
    """
    if present.all() or not present.any():
        raise ValueError("a calibration needs sentences that are there and sentences that are not")
    inputs = np.column_stack([[_logit(score) for score in evidence[:, 0]], evidence[:, 1:], np.ones(len(evidence))])
    scale = np.maximum(np.abs(inputs).max(axis=0), 1e-9)
    inputs = inputs / scale
    # Both kinds count the same, however many there are of each: how often people ask for what is not there, who knows.
    share = np.where(present, 0.5 / present.sum(), 0.5 / (~present).sum()) * len(present)
    weights = np.zeros(inputs.shape[1])
    for _ in range(NEWTON_STEPS):
        chance = 0.5 * (1.0 + np.tanh(0.5 * (inputs @ weights)))
        slope = inputs.T @ (share * (chance - present)) + DAMPING * weights
        bend = (inputs.T * (share * chance * (1.0 - chance))) @ inputs + DAMPING * np.eye(len(weights))
        weights = weights - np.linalg.solve(bend, slope)
    score, margin, saliency, bias = (float(weight) for weight in weights / scale)
    fitted = Calibration(score, margin, saliency, bias)
    chances = np.array([fitted.chance(*(float(value) for value in row)) for row in evidence])
    return replace(fitted, threshold=choose_threshold(chances[present], chances[~present]))


def choose_threshold(present: np.ndarray, absent: np.ndarray) -> float:
    """From which chance on something counts as found: where as many of the absent are as of the present are not.

    Args:
        present: [N] best chances of sentences that are there.
        absent: [M] of sentences that are not; the more is searched, the higher they are.
    """
    levels = np.unique(np.concatenate([present, absent]))
    errors = [abs((absent >= level).mean() - (present < level).mean()) for level in levels]
    return float(levels[int(np.argmin(errors))])
