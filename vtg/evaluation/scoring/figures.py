"""Score one set of predictions with every published metric that applies."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vtg.datasets import RATED_DATASETS, Prediction, Sample
from vtg.errors import VtgError
from vtg.metrics import (
    LENGTH_RANGES,
    PRECISION_THRESHOLDS,
    RATING_LEVELS,
    RECALL_THRESHOLDS,
    HighlightFigures,
    MomentFigures,
    highlight_detection,
    moment_retrieval,
    tvsum_precision,
    youtube_precision,
)

__all__ = ["Scores", "score_predictions"]

Array = NDArray[np.float64]

_BRIEF_RECALL = (0.3, 0.5, 0.7)
_BRIEF_PRECISION = (0.5, 0.75)
_TVSUM_MISSING_CLIPS = 4  # clips at the end of a video without a frame in the published features


@dataclass(frozen=True, eq=False)
class Scores:
    """The figures of one set of predictions.

    Attributes:
        name: of the predictions, for display.
        brief: the main figures of publications, by their published names: percent at two decimals ("MR-full-R1@0.5",
            "HL-min-VeryGood-Hit1", …); for YouTube Highlights and TVSum 0…1 at five decimals: "mAP", the mean over
            domains, and each domain by its name.
        breakdown: all figures, nested as the published evaluators nest them ("full" → "MR-R1" → "0.55").
        per_query: for each brief name [Q], in the same unit: the mean over the queries that are not NaN is the figure.
        strata: [Q] number of the domain that a query belongs to; all 0 where there are no domains.
        samples: the Q samples that were scored.
        predictions: theirs, in the same order.
        notes: remarks on the figures.
        intervals: 95 % bootstrap interval of each brief figure, if computed.
    """

    name: str
    brief: Mapping[str, float]
    breakdown: Mapping[str, Any]
    per_query: Mapping[str, Array]
    strata: NDArray[np.intp]
    samples: Sequence[Sample]
    predictions: Sequence[Prediction]
    notes: tuple[str, ...] = ()
    intervals: Mapping[str, tuple[float, float]] = field(default_factory=dict)

    def to_dict(self) -> dict[str, Any]:
        """For JSON: `brief` and the breakdown as the published evaluators write them, with name, count and notes."""
        intervals = {figure: list(ends) for figure, ends in self.intervals.items()}
        return {
            "predictions": self.name,
            "queries": len(self.samples),
            "brief": dict(self.brief),
            **self.breakdown,
            **({"intervals": intervals} if intervals else {}),
            "notes": list(self.notes),
        }


def score_predictions(
    predictions: Sequence[Prediction],
    samples: Sequence[Sample],
    dataset: str | None = None,
    name: str = "predictions",
    source: Path | None = None,
    annotations: Path | None = None,
) -> Scores:
    """Compute every published figure for which predictions and annotations have data.

    Moment retrieval where both have windows, highlight detection where both have saliency; for YouTube Highlights and
    TVSum average precision by domain, over the videos of the domains' validation part.

    Args:
        predictions: one for each sample, in any order.
        samples: with ground truth.
        dataset: "youtube" and "tvsum" have their own metric; all others share QVHighlights' metrics.
        name: of the predictions, for display.
        source: the file that the predictions come from, for messages.
        annotations: the file that the samples come from, for messages.

    Raises:
        VtgError: queries and predictions do not match one to one, or one has no ground truth or a wrong
            length.
    """
    where, truth = str(source or name), str(annotations or "the annotations")
    notes: list[str] = []
    if dataset in RATED_DATASETS:
        samples = _scored_part(predictions, samples, notes)
        matched = _matched(predictions, samples, where, truth)
        return _rated_scores(matched, samples, str(dataset), name, where, notes)
    matched = _matched(predictions, samples, where, truth)
    brief: dict[str, float] = {}
    breakdown: dict[str, Any] = {}
    per_query: dict[str, Array] = {}
    if _all_or_none(matched, "windows", "pred_relevant_windows", where):
        _check_true_windows(samples, truth)
        _add_moments(matched, samples, brief, breakdown, per_query, notes)
    if _all_or_none(matched, "saliency", "pred_saliency_scores", where):
        _add_highlights(matched, samples, brief, breakdown, per_query, notes)
    if not brief:
        raise VtgError(f"{where}: {truth} has no ground truth for these predictions; give other annotations")
    strata = np.zeros(len(samples), dtype=np.intp)
    return Scores(name, brief, breakdown, per_query, strata, samples, matched, tuple(notes))


def _matched(predictions: Sequence[Prediction], samples: Sequence[Sample], where: str, truth: str) -> list[Prediction]:
    """The predictions in the order of the samples."""
    by_id = {prediction.query_id: prediction for prediction in predictions}
    known = {sample.query_id for sample in samples}
    unknown = [prediction for prediction in predictions if prediction.query_id not in known]
    missing = [sample for sample in samples if sample.query_id not in by_id]
    if unknown:
        first = unknown[0]
        line = f":{first.line}" if first.line else ""
        more = f" (and {len(unknown) - 1} more)" if len(unknown) > 1 else ""
        hint = "; give the annotations it was made for"
        if {str(query_id) for query_id in known} >= {str(prediction.query_id) for prediction in unknown}:
            kinds = ("text", "a number") if isinstance(first.query_id, str) else ("a number", "text")
            hint = f", where ids are {kinds[1]}, not {kinds[0]}; write them as there"
        raise VtgError(f"{where}{line}: query {first.query_id!r} is not in {truth}{more}{hint}")
    if missing:
        place = f"{truth}:{missing[0].line}" if missing[0].line else truth
        more = f" (and {len(missing) - 1} more of {len(samples)})" if len(missing) > 1 else ""
        raise VtgError(
            f"{where}: no prediction for query {missing[0].query_id!r} of {place}{more}; predict every query"
        )
    return [by_id[sample.query_id] for sample in samples]


def _all_or_none(predictions: Sequence[Prediction], attribute: str, name: str, where: str) -> bool:
    """Whether the predictions have an attribute; it is wrong if only some have."""
    lacking = [prediction for prediction in predictions if getattr(prediction, attribute) is None]
    if lacking and len(lacking) < len(predictions):
        line = f":{lacking[0].line}" if lacking[0].line else ""
        raise VtgError(
            f"{where}{line}: query {lacking[0].query_id} has no {name}, others have; predict it for every query"
        )
    return not lacking


def _add_moments(
    predictions: Sequence[Prediction],
    samples: Sequence[Sample],
    brief: dict[str, float],
    breakdown: dict[str, Any],
    per_query: dict[str, Array],
    notes: list[str],
) -> None:
    """Moment retrieval over the queries that have windows."""
    rows = [row for row, sample in enumerate(samples) if sample.windows is not None and len(sample.windows)]
    if not rows:
        return
    if len(rows) < len(samples):
        left_out = len(samples) - len(rows)
        notes.append(f"{left_out} of {len(samples)} queries have no windows and are left out of moment retrieval")
    by_range = moment_retrieval(
        [_required(predictions[row].windows) for row in rows], [_required(samples[row].windows) for row in rows]
    )
    for range_name, figures in by_range.items():
        breakdown[range_name] = _moment_breakdown(figures)
        if figures.is_full:
            notes.append(
                f"no query has a {range_name} window ({_describe_range(range_name)}): its figures are the full ones"
            )
    values: dict[str, tuple[float, Array]] = {}
    full, of_full = by_range["full"], breakdown["full"]
    for threshold in _BRIEF_RECALL:
        values[f"MR-full-R1@{threshold}"] = of_full["MR-R1"][str(threshold)], _percents(full.top_iou >= threshold)
    for threshold in _BRIEF_RECALL:
        values[f"MR-full-R5@{threshold}"] = of_full["MR-R5"][str(threshold)], _percents(full.five_iou >= threshold)
    values["MR-full-mAP"] = of_full["MR-mAP"]["average"], _percents(full.precision.mean(axis=1))
    for threshold in _BRIEF_PRECISION:
        column = PRECISION_THRESHOLDS.index(threshold)
        values[f"MR-full-mAP@{threshold}"] = of_full["MR-mAP"][str(threshold)], _percents(full.precision[:, column])
    values["MR-full-mIoU"] = of_full["MR-mIoU"], _percents(full.top_iou)
    for range_name in reversed(LENGTH_RANGES):
        figures = by_range[range_name]
        average, mean_iou = breakdown[range_name]["MR-mAP"]["average"], breakdown[range_name]["MR-mIoU"]
        values[f"MR-{range_name}-mAP"] = (
            average,
            _percents(figures.precision.mean(axis=1), figures.counted),
        )
        values[f"MR-{range_name}-mIoU"] = mean_iou, _percents(figures.top_iou, figures.counted)
    for figure, (value, column_values) in values.items():
        brief[figure] = value
        per_query[figure] = _scatter(column_values, rows, len(samples))


def _moment_breakdown(figures: MomentFigures) -> dict[str, Any]:
    precision = figures.mean_precision()
    by_threshold = dict(zip(map(str, PRECISION_THRESHOLDS), map(_percent, precision), strict=True))
    return {
        "MR-mIoU": _percent(figures.mean_iou()),
        "MR-mAP": {**by_threshold, "average": _percent(np.mean(precision))},
        "MR-R1": {str(threshold): _percent(figures.recall_at_one(threshold)) for threshold in RECALL_THRESHOLDS},
        "MR-R5": {str(threshold): _percent(figures.recall_at_five(threshold)) for threshold in RECALL_THRESHOLDS},
    }


def _check_true_windows(samples: Sequence[Sample], truth: str) -> None:
    """Check that no true window is reversed: it could not be matched, and would lower the figures.

    Raises:
        VtgError: the first reversed window.
    """
    for sample in samples:
        for start, end in () if sample.windows is None else sample.windows:
            if end < start:
                place = f"{truth}:{sample.line}" if sample.line else truth
                raise VtgError(
                    f"{place}: query {sample.query_id}: the true window [{start:g}, {end:g}] ends before it starts; "
                    "swap start and end, or remove the query"
                )


def _add_highlights(
    predictions: Sequence[Prediction],
    samples: Sequence[Sample],
    brief: dict[str, float],
    breakdown: dict[str, Any],
    per_query: dict[str, Array],
    notes: list[str],
) -> None:
    """Highlight detection over the queries that have ratings."""
    rows = [row for row, sample in enumerate(samples) if sample.ratings is not None]
    if not rows:
        return
    if len(rows) < len(samples):
        left_out = len(samples) - len(rows)
        notes.append(
            f"{left_out} of {len(samples)} queries have no rated clips and are left out of highlight detection"
        )
    by_level = highlight_detection(
        [_required(predictions[row].saliency) for row in rows], [_required(samples[row].ratings) for row in rows]
    )
    for level in RATING_LEVELS:
        figures: HighlightFigures = by_level[level]
        name = f"HL-min-{level}"
        breakdown[name] = {"HL-mAP": _percent(figures.mean_precision()), "HL-Hit1": _percent(figures.hit_at_one())}
        brief[f"{name}-mAP"] = breakdown[name]["HL-mAP"]
        brief[f"{name}-Hit1"] = breakdown[name]["HL-Hit1"]
        per_query[f"{name}-mAP"] = _scatter(_percents(figures.precision.mean(axis=1)), rows, len(samples))
        per_query[f"{name}-Hit1"] = _scatter(_percents(figures.hit), rows, len(samples))


def _scored_part(predictions: Sequence[Prediction], samples: Sequence[Sample], notes: list[str]) -> list[Sample]:
    """The validation videos of the domains that are predicted at all; all videos where none is in a published split."""
    validation = [sample for sample in samples if sample.split == "val"] or list(samples)
    predicted = {prediction.query_id for prediction in predictions}
    domains = list(dict.fromkeys(sample.domain for sample in validation))
    present = {sample.domain for sample in validation if sample.query_id in predicted}
    absent = [str(domain) for domain in domains if domain not in present]
    if absent and present:
        notes.append(f"no predictions for the domains {', '.join(absent)}: mAP is the mean over the others")
    return [sample for sample in validation if not present or sample.domain in present]


def _rated_scores(
    predictions: Sequence[Prediction], samples: Sequence[Sample], dataset: str, name: str, where: str, notes: list[str]
) -> Scores:
    precision = np.array(
        [_rated_precision(*pair, dataset, where) for pair in zip(predictions, samples, strict=True)], dtype=float
    )
    domains = sorted({sample.domain or "all" for sample in samples})
    strata = np.array([domains.index(sample.domain or "all") for sample in samples], dtype=np.intp)
    sizes = np.bincount(strata)
    by_domain = {domain: float(precision[strata == stratum].mean()) for stratum, domain in enumerate(domains)}
    breakdown = {domain: round(value, 5) for domain, value in by_domain.items()}
    brief = {"mAP": round(float(np.mean(list(by_domain.values()))), 5), **breakdown}
    # Weighted so that the plain mean over all videos is the mean over domains of their means.
    per_query = {"mAP": precision * len(samples) / (len(domains) * sizes[strata])}
    for stratum, domain in enumerate(domains):
        per_query[domain] = np.where(strata == stratum, precision, np.nan)
    return Scores(name, brief, breakdown, per_query, strata, samples, predictions, tuple(notes))


def _rated_precision(prediction: Prediction, sample: Sample, dataset: str, where: str) -> float:
    line = f":{prediction.line}" if prediction.line else ""
    ratings = _required(sample.ratings)
    if prediction.saliency is None:
        raise VtgError(f"{where}{line}: video {sample.video_id} has no pred_saliency_scores; predict one score a clip")
    scores, clips = len(prediction.saliency), len(ratings)
    fewest = clips - _TVSUM_MISSING_CLIPS if dataset == "tvsum" else clips
    if not max(1, fewest) <= scores <= clips:
        raise VtgError(
            f"{where}{line}: video {sample.video_id} has {scores} scores for {clips} clips; predict one a clip"
        )
    if dataset == "tvsum":
        return float(tvsum_precision(prediction.saliency, ratings).mean())
    return youtube_precision(prediction.saliency, ratings[:, 0])


def _scatter(values: Array, rows: Sequence[int], count: int) -> Array:
    """[count] the values at their rows, NaN elsewhere."""
    spread = np.full(count, np.nan)
    spread[list(rows)] = values
    return spread


def _required(values: Array | None) -> Array:
    """Values that an earlier step has checked to exist."""
    if values is None:
        raise ValueError("the ground truth or the prediction is missing")
    return values


def _percents(shares: NDArray[Any], counted: NDArray[np.bool_] | bool = True) -> Array:
    """[Q] shares as percent; NaN for queries that do not count."""
    return np.where(counted, 100.0 * shares, np.nan)


def _percent(share: float | np.floating[Any]) -> float:
    # Through its decimal form, as the published evaluators round: round() may differ in the last digit.
    return float(f"{100 * share:.2f}")


def _describe_range(range_name: str) -> str:
    shorter, longest = LENGTH_RANGES[range_name]
    return f"longer than {shorter:g} s" if np.isinf(longest) else f"of {shorter:g} to {longest:g} s"
