"""Plan the highlights or the summary of a video, with or without a query."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from vtg.errors import VtgError
from vtg.features.store import VideoFeatures
from vtg.progress import Progress, Reporter, silent
from vtg.summary.choosing import Clip, as_shares, choose_highlights, choose_summary, edge_times, moved
from vtg.summary.shots import video_shots

if TYPE_CHECKING:
    from vtg.grounding.grounder import Grounder

__all__ = ["NEUTRAL_PROMPTS", "Plan", "best_labels", "find_highlights", "sharpen", "summarize"]

# Queries for use without a user's query; the mean of their saliency curves counts.
NEUTRAL_PROMPTS = (
    "the most interesting moment of the video",
    "something exciting happens",
    "people doing something",
    "a close-up of the main subject",
    "a beautiful view",
)
SEARCH_SHARE = 0.75  # of a sampled interval, around a shot boundary, in which the exact cut is searched
MIN_KEPT_SHARE = 0.5  # of a clip's length that must remain when its ends move to cuts


@dataclass(frozen=True)
class Plan:
    """The selected clips of a video.

    Attributes:
        video: path or id.
        query: of the user; None without one.
        prompts: the queries that were used: that of the user, or others in its place.
        duration: of the video, seconds.
        shots: start of each shot, and end of the video, seconds.
        clips: highlights best first; a summary in the order of the video.
        budget: maximum length of a summary, seconds; None for highlights.
        interval: between sampled frames, seconds: the precision of shot boundaries.
    """

    video: str
    query: str | None
    prompts: tuple[str, ...]
    duration: float
    shots: tuple[float, ...]
    clips: tuple[Clip, ...]
    budget: float | None
    interval: float

    @property
    def seconds(self) -> float:
        """Total length of the clips."""
        return sum(clip.seconds for clip in self.clips)


def find_highlights(
    grounder: Grounder,
    video: str | os.PathLike[str] | VideoFeatures,
    query: str | None = None,
    top: int = 5,
    seconds: float = 10.0,
) -> Plan:
    """The best clips of a video around the peaks of its saliency curve.

    Args:
        grounder: a model; without a head it goes by CLIP alone.
        video: a file, or its features.
        query: what to look for. None: the video's title for a highlight-only head (as of TVSum), as in its training,
            and `NEUTRAL_PROMPTS` for other models.
        top: maximum number of clips.
        seconds: length of a clip.

    Returns:
        The clips best first, none overlapping another.

    Raises:
        VideoError: the file cannot be read.
        VtgError: features of another CLIP, an empty query, or a length that is not above 0.
    """
    if not seconds > 0:
        raise VtgError(f"highlights of {seconds:g} s are not possible: give a length above 0")
    features = video if isinstance(video, VideoFeatures) else grounder.features(video)
    prompts, scores = _saliency(grounder, features, query)
    edges = video_shots(features)
    clips = choose_highlights(scores, edges, features.fps, features.duration, top, seconds)
    return _plan(features, query, prompts, edges, clips, None)


def summarize(
    grounder: Grounder,
    video: str | os.PathLike[str] | VideoFeatures,
    query: str | None = None,
    *,
    ratio: float = 0.15,
    seconds: float | None = None,
) -> Plan:
    """A short version of a video: the shots that together are most salient within a budget.

    Args:
        grounder: a model; without a head it goes by CLIP alone.
        video: a file, or its features.
        query: what the summary is to show; None as for `find_highlights`.
        ratio: the budget as a share of the video.
        seconds: the budget instead.

    Returns:
        The clips in the order of the video.

    Raises:
        VideoError: the file cannot be read.
        VtgError: features of another CLIP, an empty query, or a budget that is not above 0.
    """
    features = video if isinstance(video, VideoFeatures) else grounder.features(video)
    budget = ratio * features.duration if seconds is None else seconds
    if not budget > 0:
        raise VtgError(f"{features.name}: a summary of {budget:g} s shows nothing; give more")
    prompts, scores = _saliency(grounder, features, query)
    edges = video_shots(features)
    clips = choose_summary(scores, edges, features.fps, features.duration, budget)
    return _plan(features, query, prompts, edges, clips, min(budget, features.duration))


def best_labels(
    grounder: Grounder, video: str | os.PathLike[str] | VideoFeatures, plan: Plan, labels: Sequence[str]
) -> list[str]:
    """The best matching label of each clip of a plan, by CLIP's embeddings of its frames.

    Args:
        grounder: the model whose CLIP is used.
        video: the file of the plan, or its features, with embeddings.
        plan: whose clips are labelled.
        labels: candidates, sentences or words.

    Raises:
        VideoError: the file cannot be read.
        VtgError: no label, or features without embeddings.
    """
    if not labels:
        raise VtgError("there are no labels for the chapters: give at least one")
    features = video if isinstance(video, VideoFeatures) else grounder.features(video)
    if features.embedding is None:
        raise VtgError(f"{features.name}: has no embeddings, which labels are compared with; index the video")
    texts = grounder.encoder.encode_texts(list(labels))
    similarity = features.embedding @ np.stack([text.embedding.float().numpy() for text in texts]).T
    # Relative to the label's mean over the video, because some labels are similar to every frame.
    similarity = similarity - similarity.mean(axis=0)
    chosen = []
    for clip in plan.clips:
        first = int(clip.start * features.fps)
        stop = max(first + 1, round(clip.end * features.fps))
        chosen.append(labels[int(similarity[first:stop].mean(axis=0).argmax())])
    return chosen


def sharpen(plan: Plan, progress: Reporter = silent) -> Plan:
    """Move the ends of clips at shot boundaries to the exact frame of the cut.

    Boundaries are known to half a sampled interval; without this step a clip may show a few frames of the next shot.
    The frames around each boundary are decoded to find the cut. A summary stays within its budget: ends move inwards
    first, then outwards. Where no cut is found (for example at a fade), the end stays.

    Args:
        plan: of a file.
        progress: called for each start and end of a clip.

    Raises:
        VideoError: the file cannot be read.
    """
    from vtg.video.cuts import CutFinder

    finder = CutFinder(Path(plan.video))
    inner = np.array(plan.shots[1:-1])
    wanted: dict[tuple[int, bool], float] = {}
    ends = [(i, is_end) for i in range(len(plan.clips)) for is_end in (False, True)]
    for done, (i, is_end) in enumerate(ends):
        progress(Progress("looking for cuts", done, len(ends), "ends"))
        time = plan.clips[i].end if is_end else plan.clips[i].start
        if len(inner) and np.abs(inner - time).min() < 1e-3:
            cut = finder.find_near(time, SEARCH_SHARE * plan.interval)
            if cut is not None:
                wanted[i, is_end] = cut
    progress(Progress("looking for cuts", len(ends), len(ends), "ends"))
    clips = list(plan.clips)
    left = np.inf if plan.budget is None else plan.budget - plan.seconds
    # Inwards first, which frees the time that moving outwards needs.
    for outwards in (False, True):
        for (i, is_end), cut in wanted.items():
            clip = clips[i]
            start, end = (clip.start, cut) if is_end else (cut, clip.end)
            gain = end - start - clip.seconds
            if (gain > 0) == outwards and gain <= left + 1e-9 and _can_move(clips, i, start, end):
                clips[i] = moved(clip, start, end)
                left -= gain
    return replace(plan, clips=tuple(clips))


def _can_move(clips: Sequence[Clip], i: int, start: float, end: float) -> bool:
    """Whether a clip can move to other ends: it keeps its peak and half its length, and overlaps no other clip."""
    clip = clips[i]
    others = (other for j, other in enumerate(clips) if j != i)
    is_free = all(end <= other.start or start >= other.end for other in others)
    return is_free and start <= clip.peak <= end and end - start >= MIN_KEPT_SHARE * clip.seconds


def _saliency(grounder: Grounder, features: VideoFeatures, query: str | None) -> tuple[tuple[str, ...], np.ndarray]:
    """The queries used, and the saliency curve of the video, [T]."""
    if query is not None and not query.strip():
        raise VtgError("the query is empty: say what to look for, or leave it out")
    prompts = (query,) if query is not None else _own_prompts(grounder, features)
    curves = [grounding.saliency.scores for grounding in grounder.ground_many(features, prompts)]
    if len(curves) == 1:
        return prompts, curves[0]
    # Each scaled to its own range, so that all prompts have the same weight.
    return prompts, np.mean([as_shares(curve) for curve in curves], axis=0)


def _own_prompts(grounder: Grounder, features: VideoFeatures) -> tuple[str, ...]:
    """The queries used without a query of the user."""
    if grounder.head is None or grounder.head.config.moment_retrieval:
        return NEUTRAL_PROMPTS
    path = Path(features.name)
    if path.is_file():
        from vtg.video import probe

        title = probe(path).title
        if title:
            return (title,)
    return (path.stem.replace("_", " ").replace("-", " ").strip() or "a video",)


def _plan(
    features: VideoFeatures,
    query: str | None,
    prompts: tuple[str, ...],
    edges: np.ndarray,
    clips: Sequence[Clip],
    budget: float | None,
) -> Plan:
    shots = tuple(edge_times(edges, features.fps, features.duration).tolist())
    return Plan(features.name, query, prompts, features.duration, shots, tuple(clips), budget, 1 / features.fps)
