"""Find moments without training, from the similarities of CLIP embeddings."""

from __future__ import annotations

import numpy as np

from vtg.timespans import suppress

__all__ = ["BACKGROUND_PROMPTS", "propose_moments", "query_margin", "relevance"]

# Prompts for frames that do not match the query: a frame matches only if it is closer to the query than to these.
BACKGROUND_PROMPTS = (
    "a photo",
    "a picture of something",
    "a frame of a video",
    "an empty scene",
    "background",
    "nothing",
)
SMOOTHING_FRAMES = (0.0, 0.7, 1.5, 3.0)  # standard deviations; smoothing joins long events across gaps
LEVELS = np.linspace(0.15, 0.85, 15)  # thresholds for proposals, relative to the curve's floor (0) and peak (1)
FLOOR_QUANTILE = 0.3  # share of a video that is assumed to be background
PEAK_FRAMES = 3  # the peak is the mean of this many frames, for robustness against outliers
MAX_LOGITS_BELOW_PEAK = 8.0  # clips the curve below its peak, at odds of 1 to 3000
EVIDENCE_LEVEL = 0.7  # relative to floor and peak; frames above are evidence for an event, frames below against it
DUPLICATE_IOU = 0.5  # IoU above which the lower-scored of two proposals is suppressed
MAX_MOMENTS = 50


def query_margin(query: np.ndarray, background: np.ndarray, logit_scale: float) -> np.ndarray:
    """Margin of the query over the background prompts, in logits.

    Args:
        query: [T] cosines of the frames with the query.
        background: [T, B] cosines with the background prompts.
        logit_scale: CLIP's scale of cosine similarities.

    Returns:
        [T]: positive where the query is more likely than the mean of the background prompts.
    """
    logits = logit_scale * background
    peak = logits.max(axis=1, keepdims=True)
    mean_background = peak[:, 0] + np.log(np.exp(logits - peak).mean(axis=1))
    return np.asarray(logit_scale * query - mean_background)


def relevance(margin: np.ndarray) -> np.ndarray:
    """Convert a margin to a probability of the query against the background prompts, 0…1."""
    return np.asarray(0.5 * (1.0 + np.tanh(0.5 * margin)))


def propose_moments(margin: np.ndarray, fps: float, duration: float) -> np.ndarray:
    """Find moments in a curve by thresholding and non-maximum suppression.

    Proposals are runs of frames above several levels of several smoothings of the curve; of overlapping proposals, the
    one with the most evidence is kept.

    Args:
        margin: [T] logits, from `query_margin`.
        fps: frames per second.
        duration: of the video, seconds.

    Returns:
        [N, 3]: start s, end s, score 0…1, best first, at most 50.
    """
    curve = np.maximum(margin, _peak(margin) - MAX_LOGITS_BELOW_PEAK)
    proposals = _proposals(curve)
    evidence = _evidence(curve, proposals)
    best_start, best_end = proposals[evidence.argmax()]
    # Probability of the best proposal, times the evidence of each relative to the best.
    scores = relevance(margin[best_start:best_end].mean()) * evidence / evidence.max()
    windows = np.column_stack([proposals / fps, scores])
    windows[:, :2] = windows[:, :2].clip(0.0, duration)
    windows = windows[(windows[:, 1] > windows[:, 0]) & (windows[:, 2] > 0)]
    kept = suppress(windows, "normal", DUPLICATE_IOU, at_most=MAX_MOMENTS)
    return kept[kept[:, 2] > 0]


def _peak(margin: np.ndarray) -> float:
    return float(np.sort(margin)[-PEAK_FRAMES:].mean())


def _proposals(margin: np.ndarray) -> np.ndarray:
    """All distinct maximal runs of frames above a level of a smoothed curve: [N, 2] first frame, end frame."""
    found = [np.array([[0, len(margin)]])]
    for deviation in SMOOTHING_FRAMES:
        curve = _smooth(margin, deviation)
        floor, peak = np.quantile(curve, FLOOR_QUANTILE), curve.max()
        above = curve[None, :] > floor + LEVELS[:, None] * (peak - floor)
        edges = np.diff(np.pad(above, ((0, 0), (1, 1))).astype(np.int8), axis=1)
        # In row-major order, so that the i-th start belongs to the i-th end.
        found.append(np.column_stack([np.nonzero(edges == 1)[1], np.nonzero(edges == -1)[1]]))
    return np.unique(np.concatenate(found), axis=0)


def _smooth(curve: np.ndarray, deviation: float) -> np.ndarray:
    if not deviation:
        return curve
    reach = int(np.ceil(3 * deviation))
    kernel = np.exp(-0.5 * (np.arange(-reach, reach + 1) / deviation) ** 2)
    return np.convolve(np.pad(curve, reach, mode="edge"), kernel / kernel.sum(), mode="valid")


def _evidence(margin: np.ndarray, proposals: np.ndarray) -> np.ndarray:
    """[N] evidence of each proposal: sum of the curve's distance from the evidence level over its frames."""
    floor, peak = np.quantile(margin, FLOOR_QUANTILE), _peak(margin)
    total = np.concatenate([[0.0], np.cumsum(margin - (floor + EVIDENCE_LEVEL * (peak - floor)))])
    evidence = total[proposals[:, 1]] - total[proposals[:, 0]]
    # In a flat curve no frame is above the level: the only result is the whole video.
    return evidence if evidence.max() > 0 else (proposals == [0, len(margin)]).all(axis=1).astype(float)
