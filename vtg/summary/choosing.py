"""What to show of a video: numbers in (a saliency curve, shots, a budget), clips out."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import pairwise

import numpy as np

from vtg.summary.knapsack import best_within
from vtg.summary.shots import change_points
from vtg.timespans import TimeSpan

__all__ = ["Clip", "as_shares", "choose_highlights", "choose_summary", "edge_times"]

SNAP_SHARE = 0.25  # of a highlight's length: a shot boundary this near to its end becomes its end
SHORTEST_SHARE = 0.5  # of the length asked for: less room than this holds no highlight
COMPARED_PLACES = 9  # of a highlight around its peak that are compared
LONGEST_PIECE = 10.0  # seconds; a longer shot enters a summary in pieces
PIECES_IN_BUDGET = 3  # at least as many pieces as this fit into any budget
SHORTEST_PIECE = 4.0  # seconds; no shorter piece is made of a longer shot
CHANGE_PENALTY = 0.08  # squared share of the curve's range: 2 frames that stand out by a third are a piece of their own
SURROUNDINGS = 0.1  # of a frame's worth comes from those around it: what leads up to an event fills a summary first
SURROUNDING_SECONDS = 6.0  # standard deviation of "around"
LEAST_WORTH = 1e-3  # of a frame that answers nothing, so that a budget is used up
SHORTEST_CLIP = 1.0  # seconds; what is left of a budget below this opens no clip of its own
CRUMB_SHARE = 0.5  # of the mean over all that is chosen: a short piece of a shot that holds less only fills a gap
NEGLIGIBLE_SECONDS = 1e-6  # seconds


@dataclass(frozen=True)
class Clip(TimeSpan):
    """A stretch of a video that is worth showing.

    Attributes:
        start: seconds.
        end: seconds.
        score: 0…1, from the lowest point of the video's saliency to its highest: of a highlight its peak, of a part of
            a summary the mean.
        peak: seconds, the middle of the sampled interval within it that is most salient.
    """

    score: float
    peak: float


def as_shares(scores: np.ndarray) -> np.ndarray:
    """[T] of any scale as 0 (its lowest) to 1 (its highest); all 1 where none is higher than another."""
    scores = np.asarray(scores, dtype=np.float64)
    low, high = scores.min(), scores.max()
    return (scores - low) / (high - low) if high > low else np.ones_like(scores)


def edge_times(edges: np.ndarray, fps: float, duration: float) -> np.ndarray:
    """[S + 1] seconds at which shots begin, and the end of the video."""
    times = np.minimum(edges / fps, duration)
    times[-1] = duration
    return times


def choose_highlights(
    scores: np.ndarray, edges: np.ndarray, fps: float, duration: float, top: int, seconds: float
) -> list[Clip]:
    """The best clips around the peaks of a saliency curve; no two overlap.

    Peak by peak, the highest first: the clip lies around it where the curve is highest, and an end near a shot boundary
    (within a quarter of the length asked for) moves there.

    Args:
        scores: [T] saliency of the sampled intervals, any scale.
        edges: [S + 1] frames at which shots begin, and T.
        fps: sampled frames a second.
        duration: of the video, seconds.
        top: how many clips at most.
        seconds: length of a clip; snapping makes it up to half as long again, and what is near limits it.

    Returns:
        Best first; fewer than asked for where the curve has fewer peaks or the video no more room.
    """
    curve = _Curve(as_shares(scores), fps, duration)
    times = edge_times(edges, fps, duration)
    free, clips = [(0.0, duration)], []
    for frame in _peaks(curve.shares):
        begin, end = curve.interval(frame)
        middle = (begin + end) / 2
        room = next((stretch for stretch in free if stretch[0] < middle < stretch[1]), None)
        if room is None or room[1] - room[0] < min(SHORTEST_SHARE * seconds, duration):
            continue
        start, stop = _snapped(curve.best_place(frame, room, seconds), middle, room, times, seconds)
        clips.append(Clip(start, stop, float(curve.shares[frame]), middle))
        free = [part for stretch in free for part in _without(stretch, start, stop)]
        if len(clips) == top:
            break
    return clips


def choose_summary(scores: np.ndarray, edges: np.ndarray, fps: float, duration: float, budget: float) -> list[Clip]:
    """The shots that together hold most of a saliency curve within a budget (exact 0/1 knapsack).

    A shot longer than 10 s (or than a third of the budget) enters in pieces, cut where its saliency changes. What the
    knapsack leaves of the budget, and what it filled with short pieces that hold little, goes to the clips that end
    inside a shot, the more salient side first, and then to the best part of a shot that is not in yet.

    Args:
        scores: [T] saliency of the sampled intervals, any scale.
        edges: [S + 1] frames at which shots begin, and T.
        fps: sampled frames a second.
        duration: of the video, seconds.
        budget: seconds.

    Returns:
        In the order of the video, none touching the next; together at most `budget` long.
    """
    curve = _Curve(as_shares(scores), fps, duration)
    if budget >= duration:
        return [curve.clip(0.0, duration)]
    frames = int(budget * fps + NEGLIGIBLE_SECONDS)
    pieces = _pieces(edges, curve, frames)
    worth = np.concatenate([[0.0], np.cumsum(_worth(curve))])
    values = worth[pieces[1:]] - worth[pieces[:-1]]
    lengths = np.diff(pieces)
    # The last interval may reach beyond a whole number of frames: it then counts as one more.
    lengths[-1] = max(1, int(np.ceil(duration * fps - pieces[-2] - NEGLIGIBLE_SECONDS)))
    times = edge_times(pieces, fps, duration)
    chosen = best_within(values, lengths, frames)
    shots = edge_times(edges, fps, duration)
    spans = _without_crumbs(_joined([(float(times[i]), float(times[i + 1])) for i in chosen]), curve, shots)
    return [curve.clip(start, end) for start, end in _used_up(spans, curve, shots, budget)]


@dataclass(frozen=True)
class _Curve:
    """A saliency curve in 0…1 as a function of time: constant over each sampled interval."""

    shares: np.ndarray
    fps: float
    duration: float

    def interval(self, frame: int) -> tuple[float, float]:
        """What a frame stands for, seconds; the last one up to the end."""
        is_last = frame == len(self.shares) - 1
        return frame / self.fps, self.duration if is_last else min((frame + 1) / self.fps, self.duration)

    def frame(self, time: float) -> int:
        """The frame that stands for a time and what comes after it."""
        return int(np.clip(np.floor(time * self.fps + NEGLIGIBLE_SECONDS), 0, len(self.shares) - 1))

    def frame_before(self, time: float) -> int:
        """The frame that stands for what comes before a time."""
        return int(np.clip(np.ceil(time * self.fps - NEGLIGIBLE_SECONDS) - 1, 0, len(self.shares) - 1))

    def between(self, start: float, end: float) -> np.ndarray:
        """The curve in a stretch, one value a frame."""
        return self.shares[self.frame(start) : max(self.frame_before(end), self.frame(start)) + 1]

    def integral(self, times: np.ndarray) -> np.ndarray:
        """Of the curve from 0 to each time."""
        total = np.concatenate([[0.0], np.cumsum(self.shares)]) / self.fps
        return np.interp(times, np.arange(len(total)) / self.fps, total)

    def clip(self, start: float, end: float) -> Clip:
        """A stretch with its mean and its peak."""
        held = self.between(start, end)
        begin, stop = self.interval(self.frame(start) + int(held.argmax()))
        return Clip(start, end, float(held.mean()), (max(begin, start) + min(stop, end)) / 2)

    def best_place(self, frame: int, room: tuple[float, float], seconds: float) -> tuple[float, float]:
        """Where a clip of a length lies best: inside the room, around the frame, with most of the curve in it."""
        begin, end = self.interval(frame)
        length = min(seconds, room[1] - room[0])
        earliest, latest = sorted((end - length, begin))
        starts = np.clip(np.linspace(earliest, latest, COMPARED_PLACES), room[0], room[1] - length)
        held = self.integral(starts + length) - self.integral(starts)
        # Of equally good places the one that has the peak nearest to its middle.
        off_centre = np.abs(starts + length / 2 - (begin + end) / 2)
        start = float(starts[np.lexsort((off_centre, -np.round(held, 6)))[0]])
        return start, start + length


def _peaks(shares: np.ndarray) -> list[int]:
    """Frames that are not lower than those beside them, the highest first."""
    padded = np.pad(shares, 1, constant_values=-np.inf)
    peaks = np.flatnonzero((shares >= padded[:-2]) & (shares >= padded[2:]))
    return [int(frame) for frame in peaks[np.argsort(-shares[peaks], kind="stable")]]


def _snapped(
    place: tuple[float, float], peak: float, room: tuple[float, float], times: np.ndarray, seconds: float
) -> tuple[float, float]:
    """A clip with its ends moved to shot boundaries that are near, as long as its peak stays inside."""
    reach = SNAP_SHARE * seconds
    ends = []
    for end, low, high in ((place[0], room[0], peak), (place[1], peak, room[1])):
        near = times[(np.abs(times - end) <= reach) & (times >= low) & (times <= high)]
        ends.append(float(near[np.abs(near - end).argmin()]) if len(near) else end)
    start, stop = ends
    return (start, stop) if stop - start >= min(SHORTEST_SHARE * seconds, place[1] - place[0]) else place


def _without(stretch: tuple[float, float], start: float, end: float) -> list[tuple[float, float]]:
    """What is left of a stretch when a part of it is taken."""
    if end <= stretch[0] or start >= stretch[1]:
        return [stretch]
    return [part for part in ((stretch[0], start), (end, stretch[1])) if part[1] - part[0] > NEGLIGIBLE_SECONDS]


def _pieces(edges: np.ndarray, curve: _Curve, budget: int) -> np.ndarray:
    """The edges of shots, with further ones inside long shots: where their saliency changes, and then evenly."""
    longest = max(1, min(round(LONGEST_PIECE * curve.fps), budget // PIECES_IN_BUDGET))
    shortest = max(1, min(round(SHORTEST_PIECE * curve.fps), longest // 2))
    pieces = [0]
    for first, stop in pairwise(edges.tolist()):
        inner = [0, stop - first]
        if stop - first > longest:
            inner = change_points(curve.shares[first:stop, None], CHANGE_PENALTY, shortest).tolist()
        for begin, end in pairwise(inner):
            parts = -(-(end - begin) // longest)
            pieces += [first + begin + round((end - begin) * (part + 1) / parts) for part in range(parts)]
    return np.array(pieces)


def _worth(curve: _Curve) -> np.ndarray:
    """[T] what each frame adds to a summary."""
    deviation = SURROUNDING_SECONDS * curve.fps
    reach = int(np.ceil(3 * deviation))
    kernel = np.exp(-0.5 * (np.arange(-reach, reach + 1) / deviation) ** 2)
    around = np.convolve(np.pad(curve.shares, reach, mode="edge"), kernel / kernel.sum(), mode="valid")
    return np.asarray((1 - SURROUNDINGS) * curve.shares + SURROUNDINGS * around + LEAST_WORTH)


def _joined(spans: Sequence[tuple[float, float]]) -> list[tuple[float, float]]:
    """Spans in order, those that touch as one."""
    joined: list[tuple[float, float]] = []
    for start, end in sorted(spans):
        if joined and start - joined[-1][1] < NEGLIGIBLE_SECONDS:
            joined[-1] = (joined[-1][0], max(end, joined[-1][1]))
        else:
            joined.append((start, end))
    return joined


def _without_crumbs(spans: list[tuple[float, float]], curve: _Curve, shots: np.ndarray) -> list[tuple[float, float]]:
    """The spans without short pieces of shots that hold little: what they take is better added to the others."""
    if not spans:
        return spans
    least = CRUMB_SHARE * float(np.concatenate([curve.between(*span) for span in spans]).mean())

    def is_crumb(start: float, end: float) -> bool:
        is_whole = np.abs(shots - start).min() < NEGLIGIBLE_SECONDS and np.abs(shots - end).min() < NEGLIGIBLE_SECONDS
        return end - start < SHORTEST_PIECE and not is_whole and float(curve.between(start, end).mean()) < least

    return [span for span in spans if not is_crumb(*span)]


def _used_up(
    spans: list[tuple[float, float]], curve: _Curve, shots: np.ndarray, budget: float
) -> list[tuple[float, float]]:
    """The spans with what they leave of the budget put to use."""
    while (left := budget - sum(end - start for start, end in spans)) > NEGLIGIBLE_SECONDS:
        growth = _best_growth(spans, curve, shots, left)
        if growth is None and (left >= SHORTEST_CLIP or not spans):
            growth = _best_opening(spans, curve, shots, left)
        if growth is None:
            break
        spans = _joined([*spans, growth])
    return spans


def _best_growth(
    spans: list[tuple[float, float]], curve: _Curve, shots: np.ndarray, left: float
) -> tuple[float, float] | None:
    """The most salient stretch beside a span and in the same shot that fits into what is left."""
    growths = []
    bounds = [0.0, *(time for span in spans for time in span), curve.duration]
    for i, (start, end) in enumerate(spans):
        shot_start = shots[np.searchsorted(shots, start + NEGLIGIBLE_SECONDS) - 1]
        shot_end = shots[np.searchsorted(shots, end - NEGLIGIBLE_SECONDS)]
        before = (max(float(shot_start), bounds[2 * i], start - left), start)
        after = (end, min(float(shot_end), bounds[2 * i + 3], end + left))
        growths += [(curve.frame_before(start), before), (curve.frame(end), after)]
    possible = [
        (curve.shares[frame], stretch) for frame, stretch in growths if stretch[1] - stretch[0] > NEGLIGIBLE_SECONDS
    ]
    return max(possible)[1] if possible else None


def _best_opening(
    spans: list[tuple[float, float]], curve: _Curve, shots: np.ndarray, left: float
) -> tuple[float, float] | None:
    """The best part, as long as what is left, of a stretch of one shot that no span touches."""
    rooms = list(pairwise(shots.tolist()))
    for start, end in spans:
        rooms = [part for room in rooms for part in _without(room, start, end)]
    best, place = -1.0, None
    for room in rooms:
        if room[1] - room[0] < min(SHORTEST_CLIP, left):
            continue
        frame = curve.frame(room[0]) + int(curve.between(*room).argmax())
        if curve.shares[frame] > best:
            best, place = float(curve.shares[frame]), curve.best_place(frame, room, left)
    return place


def moved(clip: Clip, start: float, end: float) -> Clip:
    """The clip with other ends."""
    return replace(clip, start=start, end=end, peak=min(max(clip.peak, start), end))
