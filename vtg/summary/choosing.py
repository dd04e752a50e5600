"""Select clips from a saliency curve and shot boundaries: highlights, or a summary within a budget."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import pairwise

import numpy as np

from vtg.summary.knapsack import best_within
from vtg.summary.shots import change_points
from vtg.timespans import TimeSpan

__all__ = ["Clip", "as_shares", "choose_highlights", "choose_summary", "edge_times"]

SNAP_SHARE = 0.25  # of a highlight's length, within which its ends move to a shot boundary
MIN_LENGTH_SHARE = 0.5  # of the requested length, for a highlight in a short free span
COMPARED_POSITIONS = 9  # of a highlight around its peak
MAX_PIECE_SECONDS = 10.0  # a longer shot is divided into pieces
MIN_PIECES_IN_BUDGET = 3  # limits the length of pieces for short budgets
MIN_PIECE_SECONDS = 4.0  # of the pieces of a longer shot
CHANGE_PENALTY = 0.08  # squared share of the curve's range: 2 frames that differ by a third become a piece
NEIGHBOUR_WEIGHT = 0.1  # of the smoothed curve in a frame's value: the lead-up to an event is preferred as filling
NEIGHBOUR_SECONDS = 6.0  # standard deviation of the smoothing
MIN_FRAME_VALUE = 1e-3  # so that the whole budget is used
MIN_CLIP_SECONDS = 1.0  # a shorter remainder of the budget starts no clip of its own
FILLER_SHARE = 0.5  # of the mean over the selection: a short piece with less was chosen only to fill the budget
NEGLIGIBLE_SECONDS = 1e-6


@dataclass(frozen=True)
class Clip(TimeSpan):
    """A selected span of a video.

    Attributes:
        start: seconds.
        end: seconds.
        score: saliency scaled to 0…1 over the video: of a highlight its peak, of a clip of a summary its mean.
        peak: middle of its most salient sampled interval, seconds.
    """

    score: float
    peak: float


def as_shares(scores: np.ndarray) -> np.ndarray:
    """Scale scores [T] linearly to 0 (lowest) … 1 (highest); all 1 where they are equal."""
    scores = np.asarray(scores, dtype=np.float64)
    low, high = scores.min(), scores.max()
    return (scores - low) / (high - low) if high > low else np.ones_like(scores)


def edge_times(edges: np.ndarray, fps: float, duration: float) -> np.ndarray:
    """Convert shot edges in frames to seconds, [S + 1]: the start of each shot, and the end of the video."""
    times = np.minimum(edges / fps, duration)
    times[-1] = duration
    return times


def choose_highlights(
    scores: np.ndarray, edges: np.ndarray, fps: float, duration: float, top: int, seconds: float
) -> list[Clip]:
    """Select the best clips around the peaks of a saliency curve, without overlap.

    From the highest peak to the lowest: the clip is placed around the peak where the curve has the largest sum, and an
    end near a shot boundary (within a quarter of the requested length) moves there.

    Args:
        scores: [T] saliency of the sampled intervals, any scale.
        edges: [S + 1] first frame of each shot, and T.
        fps: sampled frames a second.
        duration: of the video, seconds.
        top: maximum number of clips.
        seconds: length of a clip; snapping makes it up to half as long again, and other clips may limit it.

    Returns:
        Best first; fewer than `top` where the curve has fewer peaks or the video is covered.
    """
    curve = _Curve(as_shares(scores), fps, duration)
    times = edge_times(edges, fps, duration)
    free, clips = [(0.0, duration)], []
    for frame in _peaks(curve.shares):
        begin, end = curve.interval(frame)
        middle = (begin + end) / 2
        free_span = next((span for span in free if span[0] < middle < span[1]), None)
        if free_span is None or free_span[1] - free_span[0] < min(MIN_LENGTH_SHARE * seconds, duration):
            continue
        start, stop = _snap_to_shots(curve.best_position(frame, free_span, seconds), middle, free_span, times, seconds)
        clips.append(Clip(start, stop, float(curve.shares[frame]), middle))
        free = [part for span in free for part in _difference(span, start, stop)]
        if len(clips) == top:
            break
    return clips


def choose_summary(scores: np.ndarray, edges: np.ndarray, fps: float, duration: float, budget: float) -> list[Clip]:
    """Select the shots with the largest total saliency within a budget (exact 0/1 knapsack).

    A shot longer than 10 s (or than a third of the budget) is divided into pieces where its saliency changes. The rest
    of the budget, including that of short pieces with low saliency, extends the clips that end within a shot, the more
    salient side first, and then adds the best part of a shot that is not selected yet.

    Args:
        scores: [T] saliency of the sampled intervals, any scale.
        edges: [S + 1] first frame of each shot, and T.
        fps: sampled frames a second.
        duration: of the video, seconds.
        budget: maximum total length, seconds.

    Returns:
        In the order of the video, without touching each other; together at most `budget` long.
    """
    curve = _Curve(as_shares(scores), fps, duration)
    if budget >= duration:
        return [curve.clip(0.0, duration)]
    frames = int(budget * fps + NEGLIGIBLE_SECONDS)
    pieces = _pieces(edges, curve, frames)
    cumulative_value = np.concatenate([[0.0], np.cumsum(_frame_values(curve))])
    values = cumulative_value[pieces[1:]] - cumulative_value[pieces[:-1]]
    lengths = np.diff(pieces)
    # A last interval that is longer than a whole number of frames counts as one frame more.
    lengths[-1] = max(1, int(np.ceil(duration * fps - pieces[-2] - NEGLIGIBLE_SECONDS)))
    times = edge_times(pieces, fps, duration)
    chosen = best_within(values, lengths, frames)
    shots = edge_times(edges, fps, duration)
    spans = _without_fillers(_merged([(float(times[i]), float(times[i + 1])) for i in chosen]), curve, shots)
    return [curve.clip(start, end) for start, end in _fill_budget(spans, curve, shots, budget)]


@dataclass(frozen=True)
class _Curve:
    """A saliency curve in 0…1 as a function of time: constant over each sampled interval."""

    shares: np.ndarray
    fps: float
    duration: float

    def interval(self, frame: int) -> tuple[float, float]:
        """The interval that a frame represents, seconds; that of the last frame reaches to the end."""
        is_last = frame == len(self.shares) - 1
        return frame / self.fps, self.duration if is_last else min((frame + 1) / self.fps, self.duration)

    def frame(self, time: float) -> int:
        """The frame whose interval starts at or contains a time."""
        return int(np.clip(np.floor(time * self.fps + NEGLIGIBLE_SECONDS), 0, len(self.shares) - 1))

    def frame_before(self, time: float) -> int:
        """The frame whose interval ends at or contains a time."""
        return int(np.clip(np.ceil(time * self.fps - NEGLIGIBLE_SECONDS) - 1, 0, len(self.shares) - 1))

    def between(self, start: float, end: float) -> np.ndarray:
        """The values of the curve in a span, one per frame."""
        return self.shares[self.frame(start) : max(self.frame_before(end), self.frame(start)) + 1]

    def integral(self, times: np.ndarray) -> np.ndarray:
        """Integral of the curve from 0 to each time."""
        total = np.concatenate([[0.0], np.cumsum(self.shares)]) / self.fps
        return np.interp(times, np.arange(len(total)) / self.fps, total)

    def clip(self, start: float, end: float) -> Clip:
        """A clip with the mean and the peak of the curve."""
        held = self.between(start, end)
        begin, stop = self.interval(self.frame(start) + int(held.argmax()))
        return Clip(start, end, float(held.mean()), (max(begin, start) + min(stop, end)) / 2)

    def best_position(self, frame: int, free_span: tuple[float, float], seconds: float) -> tuple[float, float]:
        """The best position of a clip around a frame, within a free span: the one with the largest integral."""
        begin, end = self.interval(frame)
        length = min(seconds, free_span[1] - free_span[0])
        earliest, latest = sorted((end - length, begin))
        starts = np.clip(np.linspace(earliest, latest, COMPARED_POSITIONS), free_span[0], free_span[1] - length)
        held = self.integral(starts + length) - self.integral(starts)
        # Of equally good positions the one whose middle is nearest to the peak.
        off_centre = np.abs(starts + length / 2 - (begin + end) / 2)
        start = float(starts[np.lexsort((off_centre, -np.round(held, 6)))[0]])
        return start, start + length


def _peaks(shares: np.ndarray) -> list[int]:
    """Frames that are not lower than their neighbours, the highest first."""
    padded = np.pad(shares, 1, constant_values=-np.inf)
    peaks = np.flatnonzero((shares >= padded[:-2]) & (shares >= padded[2:]))
    return [int(frame) for frame in peaks[np.argsort(-shares[peaks], kind="stable")]]


def _snap_to_shots(
    position: tuple[float, float], peak: float, free_span: tuple[float, float], times: np.ndarray, seconds: float
) -> tuple[float, float]:
    """Move the ends of a clip to near shot boundaries, as long as the peak stays inside."""
    reach = SNAP_SHARE * seconds
    ends = []
    for end, low, high in ((position[0], free_span[0], peak), (position[1], peak, free_span[1])):
        near = times[(np.abs(times - end) <= reach) & (times >= low) & (times <= high)]
        ends.append(float(near[np.abs(near - end).argmin()]) if len(near) else end)
    start, stop = ends
    return (start, stop) if stop - start >= min(MIN_LENGTH_SHARE * seconds, position[1] - position[0]) else position


def _difference(span: tuple[float, float], start: float, end: float) -> list[tuple[float, float]]:
    """The parts of a span outside of another one."""
    if end <= span[0] or start >= span[1]:
        return [span]
    return [part for part in ((span[0], start), (end, span[1])) if part[1] - part[0] > NEGLIGIBLE_SECONDS]


def _pieces(edges: np.ndarray, curve: _Curve, budget: int) -> np.ndarray:
    """Edges of shots and of the pieces of long shots, which are divided where saliency changes, and then evenly."""
    longest = max(1, min(round(MAX_PIECE_SECONDS * curve.fps), budget // MIN_PIECES_IN_BUDGET))
    shortest = max(1, min(round(MIN_PIECE_SECONDS * curve.fps), longest // 2))
    pieces = [0]
    for first, stop in pairwise(edges.tolist()):
        inner = [0, stop - first]
        if stop - first > longest:
            inner = change_points(curve.shares[first:stop, None], CHANGE_PENALTY, shortest).tolist()
        for begin, end in pairwise(inner):
            parts = -(-(end - begin) // longest)
            pieces += [first + begin + round((end - begin) * (part + 1) / parts) for part in range(parts)]
    return np.array(pieces)


def _frame_values(curve: _Curve) -> np.ndarray:
    """[T] value of each frame in a summary."""
    deviation = NEIGHBOUR_SECONDS * curve.fps
    reach = int(np.ceil(3 * deviation))
    kernel = np.exp(-0.5 * (np.arange(-reach, reach + 1) / deviation) ** 2)
    around = np.convolve(np.pad(curve.shares, reach, mode="edge"), kernel / kernel.sum(), mode="valid")
    return np.asarray((1 - NEIGHBOUR_WEIGHT) * curve.shares + NEIGHBOUR_WEIGHT * around + MIN_FRAME_VALUE)


def _merged(spans: Sequence[tuple[float, float]]) -> list[tuple[float, float]]:
    """Sort spans and merge those that touch."""
    merged: list[tuple[float, float]] = []
    for start, end in sorted(spans):
        if merged and start - merged[-1][1] < NEGLIGIBLE_SECONDS:
            merged[-1] = (merged[-1][0], max(end, merged[-1][1]))
        else:
            merged.append((start, end))
    return merged


def _without_fillers(spans: list[tuple[float, float]], curve: _Curve, shots: np.ndarray) -> list[tuple[float, float]]:
    """Remove short pieces of shots with low saliency: their time is better added to other spans."""
    if not spans:
        return spans
    least = FILLER_SHARE * float(np.concatenate([curve.between(*span) for span in spans]).mean())

    def is_filler(start: float, end: float) -> bool:
        is_whole = np.abs(shots - start).min() < NEGLIGIBLE_SECONDS and np.abs(shots - end).min() < NEGLIGIBLE_SECONDS
        return end - start < MIN_PIECE_SECONDS and not is_whole and float(curve.between(start, end).mean()) < least

    return [span for span in spans if not is_filler(*span)]


def _fill_budget(
    spans: list[tuple[float, float]], curve: _Curve, shots: np.ndarray, budget: float
) -> list[tuple[float, float]]:
    """Extend the spans to use the whole budget."""
    while (left := budget - sum(end - start for start, end in spans)) > NEGLIGIBLE_SECONDS:
        growth = _best_growth(spans, curve, shots, left)
        if growth is None and (left >= MIN_CLIP_SECONDS or not spans):
            growth = _best_new_clip(spans, curve, shots, left)
        if growth is None:
            break
        spans = _merged([*spans, growth])
    return spans


def _best_growth(
    spans: list[tuple[float, float]], curve: _Curve, shots: np.ndarray, left: float
) -> tuple[float, float] | None:
    """The most salient extension of a span, within its shot and the remaining budget."""
    growths = []
    bounds = [0.0, *(time for span in spans for time in span), curve.duration]
    for i, (start, end) in enumerate(spans):
        shot_start = shots[np.searchsorted(shots, start + NEGLIGIBLE_SECONDS) - 1]
        shot_end = shots[np.searchsorted(shots, end - NEGLIGIBLE_SECONDS)]
        before = (max(float(shot_start), bounds[2 * i], start - left), start)
        after = (end, min(float(shot_end), bounds[2 * i + 3], end + left))
        growths += [(curve.frame_before(start), before), (curve.frame(end), after)]
    possible = [(curve.shares[frame], span) for frame, span in growths if span[1] - span[0] > NEGLIGIBLE_SECONDS]
    return max(possible)[1] if possible else None


def _best_new_clip(
    spans: list[tuple[float, float]], curve: _Curve, shots: np.ndarray, left: float
) -> tuple[float, float] | None:
    """The best clip of the remaining length in a shot, without touching a span."""
    free_spans = list(pairwise(shots.tolist()))
    for start, end in spans:
        free_spans = [part for free_span in free_spans for part in _difference(free_span, start, end)]
    best, position = -1.0, None
    for free_span in free_spans:
        if free_span[1] - free_span[0] < min(MIN_CLIP_SECONDS, left):
            continue
        frame = curve.frame(free_span[0]) + int(curve.between(*free_span).argmax())
        if curve.shares[frame] > best:
            best, position = float(curve.shares[frame]), curve.best_position(frame, free_span, left)
    return position


def moved(clip: Clip, start: float, end: float) -> Clip:
    """The clip with a new start and end; its peak stays within them."""
    return replace(clip, start=start, end=end, peak=min(max(clip.peak, start), end))
