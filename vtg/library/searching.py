"""Search a library: rank videos by their frames, ground in the best, and make the scores comparable."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import TYPE_CHECKING

import numpy as np

from vtg.grounding.grounder import Grounder, Grounding, Moment
from vtg.grounding.window_layout import WindowGrid
from vtg.grounding.zero_shot import propose_moments, query_margin
from vtg.library.hits import Hit, Selection, best_hits, best_time, transcript_moments, with_transcript
from vtg.library.query import Part, Question, Stretch, embed_query
from vtg.library.ranking import Candidate, choose_windows, cut_window, every_window
from vtg.library.rows import NearFrames, VideoEntry
from vtg.library.stored_videos import StoredVideos
from vtg.models.calibration import Calibration
from vtg.timespans import suppress
from vtg.video.subtitles.lines import TranscriptLine

if TYPE_CHECKING:
    from vtg.clip.outputs import TextFeatures
    from vtg.features.store import VideoFeatures
    from vtg.library.tables import LibraryTables

__all__ = ["Searcher"]

# Frames x tokens x width that a head processes for one sentence: 25 windows of a ViT-B/32 and 150 s, about 0.2 s on two
# cores.
MAX_HEAD_WORK = 25 * 75 * 50 * 256
MIN_WINDOWS, MAX_WINDOWS = 8, 200
SECOND_PASS_FACTOR = 3  # times as many windows are searched if the first pass finds nothing above the threshold
MAX_WINDOWS_PER_VIDEO = 3
NEAREST_FRAME_COUNTS = (1024, 4096)  # frames by which videos and windows are chosen; the second if the first gives few
MAX_ZERO_SHOT_VIDEOS = 20  # grounded by embeddings alone, in libraries above `MAX_EXHAUSTIVE_FRAMES`
MAX_EXHAUSTIVE_FRAMES = 20_000  # up to which all videos are grounded by embeddings
DUPLICATE_IOU = 0.5  # from which moments of two windows are duplicates
RARE_DEVIATIONS = 3.0  # standard deviations above the library's mean frame at which a frame matches with P = 0.5
MAX_EVIDENCE_MOMENTS = 5  # grounded for each video; the best with a positive score counts
MAX_TRANSCRIPT_LINES = 1_000  # read for one query


class Searcher:
    """Search of the videos of a library.

    Args:
        tables: the library's database.
        grounder: the model to search with.
        calibration: of the grounder's head.
        open_features: opens the stored features of a file.
        warn: called once, with one line, for each damaged file that is skipped.
    """

    def __init__(
        self,
        tables: LibraryTables,
        grounder: Grounder,
        calibration: Calibration,
        open_features: Callable[[VideoEntry], VideoFeatures],
        warn: Callable[[str], None] = lambda line: None,
    ) -> None:
        self._tables = tables
        self._grounder = grounder
        self._calibration = calibration
        self._stored = StoredVideos(tables, open_features, grounder, warn)

    def search(self, question: Question, selection: Selection, limit: int, min_score: float) -> list[Hit]:
        """Find moments, best first.

        Args:
            question: the query.
            selection: the videos to search.
            limit: maximum number of moments.
            min_score: leave out moments below this score, 0…1.

        Raises:
            VtgError: a picture cannot be read, or a span is of a video that is not in the library.
        """
        transcript = self._find_transcript_lines(question.said, selection) if question.said else None
        if transcript is not None:
            selection = selection.only(transcript)
        if not question.parts:
            hits = transcript_moments(transcript or {}, selection)
        elif question.sentence is None:
            hits = self._by_embedding(question.parts, selection)
        elif self._grounder.head is not None:
            hits = self._by_head(question.sentence, selection, transcript, limit)
        else:
            # The transcript filters moments afterwards: without a limit, as the best ones may be filtered out.
            most = limit if transcript is None else None
            hits = self._by_clip(question.sentence, selection, most, min_score)
        if transcript is not None and question.parts:
            hits = with_transcript(hits, transcript, selection)
        return best_hits(hits, limit, min_score, selection.per_video)

    def _by_head(
        self, sentence: str, selection: Selection, transcript: Mapping[str, list[TranscriptLine]] | None, limit: int
    ) -> list[Hit]:
        text = self._grounder.encoder.encode_text(sentence)
        # The transcript filters moments afterwards: without a limit, as the best ones may be filtered out.
        most = limit if transcript is None else None
        chosen = self._windows(text, selection, transcript, self._max_windows)
        hits = self._search_windows(chosen, sentence, text, selection, most)
        if max((hit.moment.score for hit in hits), default=0.0) < self._calibration.threshold:
            more = self._windows(text, selection, transcript, SECOND_PASS_FACTOR * self._max_windows)
            # Videos with additional windows are grounded again in all of their windows.
            new = [candidate for candidate in more if candidate not in chosen]
            again = {selection.entries[candidate.video].path for candidate in new}
            hits = [hit for hit in hits if hit.video not in again]
            hits += self._search_windows(new, sentence, text, selection, most, not chosen) if new else []
        return hits

    def _search_windows(
        self,
        chosen: list[Candidate],
        sentence: str,
        text: TextFeatures,
        selection: Selection,
        most: int | None,
        needed: bool = True,
    ) -> list[Hit]:
        candidates = {candidate.video: candidate for candidate in chosen}
        opened = self._stored.opened(candidates, selection, self._grounder.check_groundable, needed)
        videos = [(features, candidates[video]) for video, features in opened]
        found = self._ground(videos, sentence, text, most)
        return [
            hit
            for (features, _), own in zip(videos, found, strict=True)
            for hit in self._comparable(own, features, text)
        ]

    def _windows(
        self, text: TextFeatures, selection: Selection, transcript: Mapping[str, list[TranscriptLine]] | None, most: int
    ) -> list[Candidate]:
        """The windows to ground in: all of them or, if there are more than `most`, those with the nearest frames."""
        fps, grid = self._grounder.fps, self._grid
        frames = {key: max(1, round(entry.duration * fps)) for key, entry in selection.entries.items()}
        if len(frames) == 1 or sum(len(grid.starts(count)) for count in frames.values()) <= most:
            return every_window(frames, grid)
        if transcript is not None:
            lines = sorted(
                ((line.score, key, line.start) for key in transcript for line in transcript[key]), reverse=True
            )
            near = NearFrames(
                [key for _, key, _ in lines], np.array([time for *_, time in lines]), np.zeros(len(lines))
            )
            return choose_windows(near, frames, fps, grid, most, MAX_WINDOWS_PER_VIDEO)
        chosen: list[Candidate] = []
        for count in NEAREST_FRAME_COUNTS:
            near = self._tables.nearest_frames(text.embedding.float().numpy(), count, selection.keys)
            chosen = choose_windows(near, frames, fps, grid, most, MAX_WINDOWS_PER_VIDEO)
            if sum(len(candidate.starts) for candidate in chosen) >= most or len(near.videos) < count:
                break
        return chosen

    @cached_property
    def _grid(self) -> WindowGrid:
        assert self._grounder.head is not None
        config = self._grounder.head.config
        return WindowGrid.of(config.window_seconds, config.step_seconds, self._grounder.fps)

    @property
    def _max_windows(self) -> int:
        assert self._grounder.head is not None
        config = self._grounder.head.config
        tokens = config.projected_tokens or self._grounder.encoder.tokens
        window = self._grid.length * tokens * config.hidden_width
        return min(MAX_WINDOWS, max(MIN_WINDOWS, MAX_HEAD_WORK // window))

    def _ground(
        self, videos: Sequence[tuple[VideoFeatures, Candidate]], sentence: str, text: TextFeatures, most: int | None
    ) -> list[list[_Found]]:
        """The moments of each candidate's windows, best first, without duplicates.

        Args:
            videos: features, and the windows to ground in.
            sentence: the query.
            text: its features.
            most: maximum number of moments of a window; None for no limit.
        """
        parts = [list(self._parts(features, candidate)) for features, candidate in videos]
        windows = [part for own in parts for part, _ in own]
        groundings = iter(self._grounder.ground_each(windows, [sentence], [text], most))
        return [_best_of([(next(groundings)[0], offset) for _, offset in own]) for own in parts]

    def _parts(self, features: VideoFeatures, candidate: Candidate) -> Iterator[tuple[VideoFeatures, float]]:
        """The whole video or each of the candidate's windows, with its start in seconds."""
        exact = self._grid.starts(len(features))
        # The windows were chosen by a frame count computed from the duration, which may be off by one.
        starts = {min(exact, key=lambda own: abs(own - start)) for start in candidate.starts}
        if len(starts) == len(exact):
            yield features, 0.0
            return
        for start in sorted(starts):
            yield cut_window(features, start, self._grid.length), start / features.fps

    def _comparable(self, found: list[_Found], features: VideoFeatures, text: TextFeatures) -> list[Hit]:
        """Moments of a video with scores that are comparable across videos.

        Calibrates the best moment to P(video matches the query) and scales the others by the same factor.
        """
        if not found or self._calibration.is_identity:
            return [one.hit for one in found]
        best = found[0]
        margin = self._margin(features, text, best.hit.moment)
        if not np.isfinite(margin):
            self._stored.warn_of_values(features)
            return []
        share = self._calibration.chance(best.hit.moment.score, margin, best.saliency) / best.hit.moment.score
        return [
            replace(one.hit, moment=replace(one.hit.moment, score=min(1.0, share * one.hit.moment.score)))
            for one in found
        ]

    def evidence(self, sentences: Sequence[str], videos: Iterable[VideoFeatures]) -> np.ndarray:
        """The inputs for fitting a calibration.

        Args:
            sentences: M sentences, each grounded in every video.
            videos: features of N videos, read one at a time.

        Returns:
            [M, N, 3]: score, margin and highest saliency of each video's best moment; zeros if none was found.
        """
        texts = self._grounder.encoder.encode_texts(sentences)
        columns = []
        for features in videos:
            (groundings,) = self._grounder.ground_each([features], sentences, texts, MAX_EVIDENCE_MOMENTS)
            rows = np.zeros((len(sentences), 3))
            for row, grounding, text in zip(rows, groundings, texts, strict=True):
                for best in _found(grounding, 0.0)[:1]:
                    row[:] = best.hit.moment.score, self._margin(features, text, best.hit.moment), best.saliency
            columns.append(rows)
        return np.stack(columns, axis=1)

    def _margin(self, features: VideoFeatures, text: TextFeatures, moment: Moment) -> float:
        if features.embedding is None:
            return 0.0
        first = min(len(features) - 1, int(moment.start * features.fps))
        inside = np.asarray(features.embedding[first : max(first + 1, round(moment.end * features.fps))])
        with np.errstate(all="ignore"):  # damaged features may give NaN
            return self._mean_margin(inside, text)

    def _mean_margin(self, inside: np.ndarray, text: TextFeatures) -> float:
        cosines = inside @ text.embedding.float().numpy()
        return float(
            query_margin(cosines, inside @ self._grounder.background.T, self._grounder.encoder.logit_scale).mean()
        )

    def _by_clip(self, sentence: str, selection: Selection, limit: int | None, min_score: float) -> list[Hit]:
        text = self._grounder.encoder.encode_text(sentence)
        hits: list[Hit] = []
        for bound, features in self._by_bound(text, selection):
            worst = hits[-1].moment.score if limit is not None and len(hits) >= limit else 0.0
            if bound < max(min_score, worst):
                break
            most = selection.per_video if limit is not None else None
            ((grounding,),) = self._grounder.ground_each([features], [sentence], [text], most)
            hits += [one.hit for one in _found(grounding, 0.0)]
            hits = sorted(hits, key=lambda hit: -hit.moment.score)[:limit]
        return hits

    def _by_bound(self, text: TextFeatures, selection: Selection) -> list[tuple[float, VideoFeatures]]:
        """Videos with an upper bound of their moments' scores, descending."""
        videos = self._near_videos(text.embedding.float().numpy(), selection)
        features = (video for _, video in self._stored.opened(videos, selection))
        with np.errstate(all="ignore"):  # damaged features may give NaN
            bounds = [(self._grounder.score_bound(video, text), video) for video in features]
        for bound, video in bounds:
            if not np.isfinite(bound):
                self._stored.warn_of_values(video)
        bounds = [(bound, video) for bound, video in bounds if np.isfinite(bound)]
        return sorted(bounds, key=lambda pair: (-pair[0], pair[1].name))

    def _near_videos(self, embedding: np.ndarray, selection: Selection) -> list[str]:
        """All videos or, above `MAX_EXHAUSTIVE_FRAMES`, those with the nearest frames."""
        frames = sum(entry.duration for entry in selection.entries.values()) * self._grounder.fps
        if frames <= MAX_EXHAUSTIVE_FRAMES:
            return list(selection.entries)
        videos: list[str] = []
        for count in NEAREST_FRAME_COUNTS:
            near = self._tables.nearest_frames(embedding, count, selection.keys)
            known = [video for video in dict.fromkeys(near.videos) if video in selection.entries]
            videos = known[:MAX_ZERO_SHOT_VIDEOS]
            if len(videos) == MAX_ZERO_SHOT_VIDEOS or len(near.videos) < count:
                break
        return videos

    def _by_embedding(self, parts: Sequence[Part], selection: Selection) -> list[Hit]:
        typical = self._stored.typical_frames(selection)
        question = embed_query(
            parts,
            self._grounder.encoder,
            self._stored.embed_stretch,
            self._grounder.background.mean(axis=0),
            typical.mean(axis=0),
        )
        usual = typical @ question
        hits = []
        for _, features in self._stored.opened(self._near_videos(question, selection), selection):
            assert features.embedding is not None
            with np.errstate(all="ignore"):  # damaged features may give NaN
                curve = np.asarray(features.embedding @ question)
            curve = (curve - usual.mean()) / max(float(usual.std()), 1e-6) - RARE_DEVIATIONS
            if not np.isfinite(curve).all():
                self._stored.warn_of_values(features)
                continue
            for start, end, score in propose_moments(curve, features.fps, features.duration):
                frames = curve[int(start * features.fps) : max(int(start * features.fps) + 1, int(end * features.fps))]
                peak = (int(start * features.fps) + int(frames.argmax())) / features.fps
                hits.append(Hit(features.name, Moment(float(start), float(end), float(score)), peak))
        stretches = [stretch for part in parts if (stretch := _stretch(part))]
        query_spans = [(selection.paths.get(str(stretch.video.resolve())), stretch) for stretch in stretches]
        return [hit for hit in hits if not any(_is_of(hit, key, span, selection) for key, span in query_spans)]

    def _find_transcript_lines(self, words: str, selection: Selection) -> dict[str, list[TranscriptLine]]:
        paths = None if selection.is_everything else list(selection.paths)
        found: dict[str, dict[tuple[float, str], TranscriptLine]] = {}
        for line in self._tables.find_transcript_lines(words, MAX_TRANSCRIPT_LINES, paths):
            if line.path in selection.paths:
                # Files with the same content may have the same subtitles: each line once.
                found.setdefault(selection.paths[line.path], {}).setdefault((line.start, line.text), line)
        return {video: sorted(lines.values(), key=lambda line: line.start) for video, lines in found.items()}


@dataclass(frozen=True)
class _Found:
    """A moment of one video with the head's score.

    Attributes:
        hit: the moment.
        saliency: the highest saliency in it.
    """

    hit: Hit
    saliency: float


def _best_of(groundings: Sequence[tuple[Grounding, float]]) -> list[_Found]:
    """The moments of a video's windows, best first, without duplicates.

    Args:
        groundings: of the windows, each with the start of its window in seconds.
    """
    found = [one for grounding, offset in groundings for one in _found(grounding, offset)]
    if len(groundings) > 1:
        windows = np.array([[one.hit.moment.start, one.hit.moment.end, one.hit.moment.score] for one in found])
        kept = {tuple(row) for row in suppress(windows.reshape(-1, 3), "normal", DUPLICATE_IOU).tolist()}
        found = [one for one in found if (one.hit.moment.start, one.hit.moment.end, one.hit.moment.score) in kept]
    return sorted(found, key=lambda one: -one.hit.moment.score)


def _found(grounding: Grounding, offset: float) -> list[_Found]:
    """The moments of a window's grounding, best first, in the time of the video; `offset` is the window's start."""
    found = []
    for moment in grounding.moments:
        if moment.score > 0:
            peak = best_time(grounding, moment)
            saliency = float(grounding.saliency.scores[int(np.searchsorted(grounding.saliency.times, peak))])
            shifted = Moment(moment.start + offset, moment.end + offset, moment.score)
            found.append(_Found(Hit(grounding.video, shifted, peak + offset), saliency))
    return found


def _stretch(part: Part) -> Stretch | None:
    return part.what if isinstance(part.what, Stretch) else None


def _is_of(hit: Hit, video: str | None, stretch: Stretch, selection: Selection) -> bool:
    """Whether a hit overlaps the span of the query itself."""
    overlaps = hit.moment.start < stretch.end and stretch.start < hit.moment.end
    return overlaps and video is not None and selection.paths.get(hit.video) == video
