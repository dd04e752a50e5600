"""Summary figures of TVSum: F1 against users' summaries, Kendall's τ and Spearman's ρ."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from vtg.datasets import Prediction, Sample
from vtg.datasets.moments import CLIP_SECONDS
from vtg.evaluation.scoring.figures import Scores
from vtg.metrics import keyshots, rank_correlation, summary_f1

__all__ = ["SUMMARY_FIGURES", "with_summary_figures"]

SUMMARY_FIGURES = ("F1", "tau", "rho")
_DECIMALS = 5


def with_summary_figures(scores: Scores, shots_of: Callable[[Sample], NDArray[np.floating]]) -> Scores:
    """Add summary figures to the scores of TVSum predictions.

    Summaries of 15 % of the video are derived from each rater's marks and from the predicted saliency by `keyshots`. F1
    is the mean over raters; a figure is the mean over domains of the means over their videos, 0…1 (τ and ρ -1…1), at
    five decimals.

    Args:
        scores: of TVSum predictions.
        shots_of: returns the start times of a video's shots and its end, in seconds.
    """
    values = np.array(
        [_figures(*pair, shots_of) for pair in zip(scores.predictions, scores.samples, strict=True)], dtype=float
    )
    domains = sorted({sample.domain or "all" for sample in scores.samples})
    sizes = np.bincount(scores.strata)
    brief, per_query, breakdown = dict(scores.brief), dict(scores.per_query), dict(scores.breakdown)
    for column, figure in enumerate(SUMMARY_FIGURES):
        of_videos = values[:, column]
        by_domain = [float(of_videos[scores.strata == stratum].mean()) for stratum in range(len(domains))]
        brief[figure] = round(float(np.mean(by_domain)), _DECIMALS)
        breakdown[figure] = {domain: round(value, _DECIMALS) for domain, value in zip(domains, by_domain, strict=True)}
        # Weighted so that the plain mean over all videos is the mean over domains of their means.
        per_query[figure] = of_videos * len(of_videos) / (len(domains) * sizes[scores.strata])
    note = "F1, tau and rho go by clips of two seconds, F1 by shots that are found in the features"
    return replace(scores, brief=brief, breakdown=breakdown, per_query=per_query, notes=(*scores.notes, note))


def _figures(
    prediction: Prediction, sample: Sample, shots_of: Callable[[Sample], NDArray[np.floating]]
) -> tuple[float, float, float]:
    if prediction.saliency is None or sample.ratings is None:
        raise ValueError("the ground truth or the prediction is missing")
    users, clips = sample.ratings.T, len(sample.ratings)
    predicted = np.asarray(prediction.saliency, dtype=float)
    # Clips at the end without a frame belong to the last shot and get the lowest score.
    whole = np.concatenate([predicted, np.full(clips - len(predicted), predicted.min())])
    inner = np.unique(np.round(shots_of(sample)[1:-1] / CLIP_SECONDS).astype(int))
    edges = np.array([0, *inner[(inner > 0) & (inner < clips)], clips])
    f1 = summary_f1(keyshots(whole, edges), np.stack([keyshots(user, edges) for user in users])).mean
    if np.ptp(predicted) == 0:  # a constant prediction has no rank correlation
        return f1, 0.0, 0.0
    ranked = users[:, : len(predicted)]
    correlation = rank_correlation(predicted, ranked[np.ptp(ranked, axis=1) > 0])
    return f1, correlation.kendall, correlation.spearman
