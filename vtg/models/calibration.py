"""Calibrate the scores of a head to probabilities, by logistic regression."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields, replace

import numpy as np

__all__ = ["Calibration", "choose_threshold", "fit_calibration"]

MAX_LOGIT = 12.0  # bound of the logits of scores near 0 and 1
NEWTON_STEPS = 50  # Newton's method converges in about ten
DAMPING = 1e-3  # L2 regularisation: keeps the weights of separable examples finite


@dataclass(frozen=True)
class Calibration:
    """Logistic regression from features of a video's best moment to the probability that it matches the query.

    The default leaves scores unchanged.

    Attributes:
        score: weight of the logit of the moment's score.
        margin: weight of CLIP's margin in it, in logits (`vtg.grounding.zero_shot.query_margin`).
        saliency: weight of its highest saliency.
        bias: constant term.
        threshold: probability from which a moment counts as found, 0…1.
    """

    score: float = 1.0
    margin: float = 0.0
    saliency: float = 0.0
    bias: float = 0.0
    threshold: float = 0.0

    @classmethod
    def of(cls, values: Mapping[str, float]) -> Calibration:
        """Make a calibration from the registry's fields; without fields, scores are unchanged."""
        known = {field.name for field in fields(cls)}
        return cls(**{name: float(value) for name, value in values.items() if name in known})

    @property
    def is_identity(self) -> bool:
        """Whether scores are unchanged, so that no other features are needed."""
        return (self.score, self.margin, self.saliency, self.bias) == (1.0, 0.0, 0.0, 0.0)

    def chance(self, score: float, margin: float, saliency: float) -> float:
        """Probability that a video's best moment matches the query, 0…1.

        Args:
            score: of the head, 0…1.
            margin: in logits.
            saliency: highest saliency of the head in the moment.
        """
        if self.is_identity:
            return score
        logit = self.score * _logit(score) + self.margin * margin + self.saliency * saliency + self.bias
        return float(0.5 * (1.0 + np.tanh(0.5 * logit)))


def _logit(score: float) -> float:
    edge = 1.0 / (1.0 + np.exp(MAX_LOGIT))
    inside = min(max(score, edge), 1.0 - edge)
    return float(np.log(inside) - np.log1p(-inside))


def fit_calibration(evidence: np.ndarray, present: np.ndarray) -> Calibration:
    """Fit a calibration, and the threshold with equal false positive and false negative rates.

    Args:
        evidence: [N, 3] score, margin and saliency of the best moment for each query.
        present: bool [N], whether the query matches any video.

    Raises:
        ValueError: all or none of the queries match.
    """
    if present.all() or not present.any():
        raise ValueError("a calibration needs queries that match and queries that do not")
    inputs = np.column_stack([[_logit(score) for score in evidence[:, 0]], evidence[:, 1:], np.ones(len(evidence))])
    scale = np.maximum(np.abs(inputs).max(axis=0), 1e-9)
    inputs = inputs / scale
    # Both classes have the same total weight, as the real rate of queries without a match is unknown.
    sample_weight = np.where(present, 0.5 / present.sum(), 0.5 / (~present).sum()) * len(present)
    weights = np.zeros(inputs.shape[1])
    for _ in range(NEWTON_STEPS):
        chance = 0.5 * (1.0 + np.tanh(0.5 * (inputs @ weights)))
        gradient = inputs.T @ (sample_weight * (chance - present)) + DAMPING * weights
        hessian = (inputs.T * (sample_weight * chance * (1.0 - chance))) @ inputs + DAMPING * np.eye(len(weights))
        weights = weights - np.linalg.solve(hessian, gradient)
    score, margin, saliency, bias = (float(weight) for weight in weights / scale)
    fitted = Calibration(score, margin, saliency, bias)
    chances = np.array([fitted.chance(*(float(value) for value in row)) for row in evidence])
    return replace(fitted, threshold=choose_threshold(chances[present], chances[~present]))


def choose_threshold(present: np.ndarray, absent: np.ndarray) -> float:
    """The threshold with equal false positive and false negative rates.

    Args:
        present: [N] highest probabilities for queries that match.
        absent: [M] for queries that do not; they grow with the number of videos searched.
    """
    levels = np.unique(np.concatenate([present, absent]))
    errors = [abs((absent >= level).mean() - (present < level).mean()) for level in levels]
    return float(levels[int(np.argmin(errors))])
