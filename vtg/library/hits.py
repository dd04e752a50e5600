"""Results of a search: merge moments of many videos and transcript matches into one list."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace

import numpy as np

from vtg.grounding.grounder import Grounding, Moment
from vtg.library.rows import VideoEntry
from vtg.video.subtitles.lines import TranscriptLine

__all__ = ["Hit", "Hits", "Selection", "best_hits", "best_time", "transcript_moments", "with_transcript"]

TRANSCRIPT_REACH_SECONDS = 10.0  # distance at which a transcript line still belongs to a moment
TRANSCRIPT_PAUSE_SECONDS = 2.0  # longest pause between two lines of one moment


@dataclass(frozen=True)
class Hit:
    """One result of a search.

    Attributes:
        video: path of the file.
        moment: start, end and score, which is comparable across videos.
        peak: seconds, the start of the sampled interval in the moment with the highest saliency.
        said: the matching transcript lines; "" if the query has no transcript words.
    """

    video: str
    moment: Moment
    peak: float
    said: str = ""


class Hits(list[Hit]):
    """The results of a search, best first: a list that a notebook shows as a table with thumbnails."""

    def _repr_html_(self) -> str:
        from vtg.grounding.notebook import Row, table_html

        return table_html([Row(hit.video, hit.moment, hit.moment.score, hit.peak, hit.said) for hit in self])


@dataclass(frozen=True)
class Selection:
    """The videos to search.

    Attributes:
        entries: one file for each content, by content key.
        paths: content keys of all their files, by path.
        is_everything: whether these are all videos of the library.
        per_video: maximum number of moments of one video; None for no limit.
    """

    entries: Mapping[str, VideoEntry]
    paths: Mapping[str, str]
    is_everything: bool
    per_video: int | None

    def only(self, videos: Iterable[str]) -> Selection:
        """The subset with some content keys."""
        return replace(self, entries={key: self.entries[key] for key in videos}, is_everything=False)

    @property
    def keys(self) -> list[str] | None:
        """The content keys; None for all videos of the library."""
        return None if self.is_everything else list(self.entries)


def best_time(grounding: Grounding, moment: Moment) -> float:
    """The start, in seconds, of the sampled interval in a moment with the highest saliency."""
    times, scores = grounding.saliency.times, grounding.saliency.scores
    step = times[1] - times[0] if len(times) > 1 else moment.end
    inside = (times + step > moment.start) & (times < moment.end)
    return float(times[np.where(inside, scores, -np.inf).argmax()])


def transcript_moments(lines_by_video: Mapping[str, list[TranscriptLine]], selection: Selection) -> list[Hit]:
    """Merge consecutive transcript lines into moments, with scores relative to the best."""
    best = max((line.score for lines in lines_by_video.values() for line in lines), default=0.0)
    hits = []
    for video, lines in lines_by_video.items():
        for run in _runs(lines):
            top = max(run, key=lambda line: line.score)
            score = top.score / best if best > 0 else 0.0
            moment = Moment(run[0].start, max(line.end for line in run), score)
            words = " ".join(line.text for line in run)
            hits.append(Hit(selection.entries[video].path, moment, top.start, words))
    return hits


def _runs(lines: list[TranscriptLine]) -> Iterator[list[TranscriptLine]]:
    run: list[TranscriptLine] = []
    for line in lines:
        if run and line.start > max(one.end for one in run) + TRANSCRIPT_PAUSE_SECONDS:
            yield run
            run = []
        run.append(line)
    if run:
        yield run


def with_transcript(
    hits: list[Hit], lines_by_video: Mapping[str, list[TranscriptLine]], selection: Selection
) -> list[Hit]:
    """Select the moments in or near which the words occur in the transcript."""
    kept = []
    for hit in hits:
        start, end = hit.moment.start - TRANSCRIPT_REACH_SECONDS, hit.moment.end + TRANSCRIPT_REACH_SECONDS
        near = [
            line.text for line in lines_by_video[selection.paths[hit.video]] if line.start < end and start < line.end
        ]
        if near:
            kept.append(replace(hit, said=" ".join(near)))
    return kept


def best_hits(hits: list[Hit], limit: int, min_score: float, per_video: int | None) -> list[Hit]:
    """The `limit` best of the hits with a score of at least `min_score`, at most `per_video` of each video."""
    taken: dict[str, int] = {}
    best: list[Hit] = []
    for hit in sorted(hits, key=lambda hit: -hit.moment.score):
        if hit.moment.score < min_score or len(best) == limit:
            break
        taken[hit.video] = taken.get(hit.video, 0) + 1
        if per_video is None or taken[hit.video] <= per_video:
            best.append(hit)
    return best
