"""Find moments without training, from the similarities of CLIP embeddings."""

from __future__ import annotations

import numpy as np

from vtg.timespans import suppress

__all__ = ["BACKGROUND_PROMPTS", "propose_moments", "query_margin", "relevance"]

# What a frame without the asked event looks like: a query counts only where it beats these.
BACKGROUND_PROMPTS = (
    "a photo",
    "a picture of something",
    "a frame of a video",
    "an empty scene",
    "background",
    "nothing",
)
SMOOTHING_FRAMES = (0.0, 0.7, 1.5, 3.0)  # standard deviations: short events need none, long ones bridge their gaps
LEVELS = np.linspace(0.15, 0.85, 15)  # thresholds of proposals, from the curve's floor (0) to its peak (1)
FLOOR_QUANTILE = 0.3  # of a video, at least this much shows no event: up to here lies its background
PEAK_FRAMES = 3  # whose mean is the curve's peak: a single frame may be an accident
MAX_LOGITS_BELOW_PEAK = 8.0  # odds of 1 to 3000: a frame beyond is not less of an event than one there
EVIDENCE_LEVEL = 0.7  # from floor to peak; a frame above speaks for an event, one below against
DUPLICATE_IOU = 0.5  # IoU beyond which the weaker of two proposals goes
MOST_MOMENTS = 50


def query_margin(query: np.ndarray, background: np.ndarray, logit_scale: float) -> np.ndarray:
    """How far a query beats the background, in logits.

    Args:
        query: [T] cosines of the frames with the query.
        background: [T, B] cosines with the background prompts.
        logit_scale: what CLIP multiplies cosines with.

    Returns:
        [T]: positive where the query is likelier than the background prompts together, on average.
    """
    logits = logit_scale * background
    peak = logits.max(axis=1, keepdims=True)
    mean_background = peak[:, 0] + np.log(np.exp(logits - peak).mean(axis=1))
    return np.asarray(logit_scale * query - mean_background)


def relevance(margin: np.ndarray) -> np.ndarray:
    """A margin as 0…1: the chance of the query against the background prompts."""
    return np.asarray(0.5 * (1.0 + np.tanh(0.5 * margin)))


def propose_moments(margin: np.ndarray, fps: float, duration: float) -> np.ndarray:
    """Find moments in a curve: stretches above several levels of several smoothings of it, those kept that have most
    for them and do not overlap.

    Args:
        margin: [T] logits, from `query_margin`.
        fps: frames a second.
        duration: of the video, seconds.

    Returns:
        [N, 3]: start s, end s, score 0…1, best first, at most 50.
    """
    curve = np.maximum(margin, _peak(margin) - MAX_LOGITS_BELOW_PEAK)
    stretches = _stretches(curve)
    evidence = _evidence(curve, stretches)
    best_start, best_end = stretches[evidence.argmax()]
    # How surely it is there at all, the same for all stretches, times how much less each has for it than the best.
    scores = relevance(margin[best_start:best_end].mean()) * evidence / evidence.max()
    windows = np.column_stack([stretches / fps, scores])
    windows[:, :2] = windows[:, :2].clip(0.0, duration)
    windows = windows[(windows[:, 1] > windows[:, 0]) & (windows[:, 2] > 0)]
    kept = suppress(windows, "normal", DUPLICATE_IOU, at_most=MOST_MOMENTS)
    return kept[kept[:, 2] > 0]


def _peak(margin: np.ndarray) -> float:
    return float(np.sort(margin)[-PEAK_FRAMES:].mean())


def _stretches(margin: np.ndarray) -> np.ndarray:
    """All maximal runs of frames above a level of a smoothed curve: [N, 2] first frame, end frame; no two the same."""
    found = [np.array([[0, len(margin)]])]
    for deviation in SMOOTHING_FRAMES:
        curve = _smooth(margin, deviation)
        floor, peak = np.quantile(curve, FLOOR_QUANTILE), curve.max()
        above = curve[None, :] > floor + LEVELS[:, None] * (peak - floor)
        edges = np.diff(np.pad(above, ((0, 0), (1, 1))).astype(np.int8), axis=1)
        # Row by row, so the i-th start belongs to the i-th end.
        found.append(np.column_stack([np.nonzero(edges == 1)[1], np.nonzero(edges == -1)[1]]))
    return np.unique(np.concatenate(found), axis=0)


def _smooth(curve: np.ndarray, deviation: float) -> np.ndarray:
    if not deviation:
        return curve
    reach = int(np.ceil(3 * deviation))
    kernel = np.exp(-0.5 * (np.arange(-reach, reach + 1) / deviation) ** 2)
    return np.convolve(np.pad(curve, reach, mode="edge"), kernel / kernel.sum(), mode="valid")


def _evidence(margin: np.ndarray, stretches: np.ndarray) -> np.ndarray:
    """[N], what the frames of each stretch say for it: the sum of how far they lie above or below the level."""
    floor, peak = np.quantile(margin, FLOOR_QUANTILE), _peak(margin)
    total = np.concatenate([[0.0], np.cumsum(margin - (floor + EVIDENCE_LEVEL * (peak - floor)))])
    evidence = total[stretches[:, 1]] - total[stretches[:, 0]]
    # A flat curve has no frame above its level: then the whole video is the one answer.
    return evidence if evidence.max() > 0 else (stretches == [0, len(margin)]).all(axis=1).astype(float)
