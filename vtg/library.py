"""The library: knows the order of operations on many videos, from files to hits."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from vtg.errors import VtgError
from vtg.features import FeatureKey, FeatureStore, VideoFeatures
from vtg.indexing import Indexer, IndexProgress, IndexReport, forget_unused
from vtg.settings import SETTINGS, agree_on_model, default_library_path, write_settings
from vtg.sources import find_videos
from vtg.specs import ModelSpec
from vtg.tables import INDEXED, LibraryTables, VideoEntry

if TYPE_CHECKING:
    from vtg.clip import ClipEncoder, TextFeatures
    from vtg.grounding import Grounder, Grounding, Moment

__all__ = ["Hit", "IndexProgress", "IndexReport", "Library", "VideoEntry", "best_time"]

CANDIDATES = 10  # videos of a search over many that a head looks at: those with the frames nearest to the query
MOST_PER_VIDEO = 3  # moments of one video in the results of a search over many


@dataclass(frozen=True)
class Hit:
    """One result of a search.

    Attributes:
        video: path of the file.
        moment: where in it.
        peak: seconds, the start of the sampled interval within the moment that answers the query best.
    """

    video: str
    moment: Moment
    peak: float


class Library:
    """Many videos in one folder that can be copied and deleted as a whole: a database, and features beside it.

    Args:
        folder: where it is; None for `default_library_path`. Made when videos are first added.
        model: what a new library is to be made with: a name, or a specification with weights of one's own. One that
            exists keeps its CLIP, and can be asked with any model that reads it at the library's rate.
        device: a torch device for the encoder; None takes the best there is.

    Raises:
        VtgError: the folder holds something else, or was made with another encoder.
    """

    def __init__(
        self,
        folder: str | os.PathLike[str] | None = None,
        model: ModelSpec | str | None = None,
        device: str | None = None,
    ) -> None:
        self.folder = Path(folder).expanduser() if folder is not None else default_library_path()
        self._device = device
        self.model = agree_on_model(self.folder, model)
        self.features = FeatureStore(self.folder / "features")
        self._tables = LibraryTables(self.folder)

    @property
    def exists(self) -> bool:
        """Whether anything has been added yet."""
        return (self.folder / SETTINGS).is_file()

    def begin(self) -> None:
        """Make the folder and say what it is made with, before anything is added; one that was begun is left as it is.

        Raises:
            VtgError: the folder cannot be written to.
        """
        write_settings(self.folder, self.model)

    @cached_property
    def fingerprint(self) -> str:
        """Of the encoder that everything in this library was made with."""
        return self.model.encoder.fingerprint

    @cached_property
    def encoder(self) -> ClipEncoder:
        """The CLIP, loaded when it is first needed; indexing needs no more."""
        from vtg.grounding import load_encoder

        return load_encoder(self.model.encoder, self._device)

    @cached_property
    def grounder(self) -> Grounder:
        """The whole model, loaded when it is first needed."""
        from vtg.grounding import Grounder

        return Grounder(self.encoder, self.model.load_head(), self.model.fps)

    def add(
        self,
        paths: Iterable[str | os.PathLike[str]],
        progress: Callable[[IndexProgress], None] = lambda step: None,
        retry_failed: bool = False,
        stop: Callable[[], bool] = lambda: False,
    ) -> IndexReport:
        """Index files and folders; what is in the library and unchanged on the disk (size, time) is left alone.

        Args:
            paths: files, and folders with everything below them.
            progress: told of every step.
            retry_failed: try again what failed before and has not changed since.
            stop: asked at every step; True ends the run, and what was finished is kept.

        Returns:
            What was done; a file that cannot be indexed is named there and stops nothing.

        Raises:
            VtgError: the encoder cannot be had, or the folder cannot be written to.
        """
        files, missing = find_videos(paths)
        report = IndexReport(failed=dict(missing))
        indexer = Indexer(
            self.folder,
            self.model,
            self.features,
            self._tables,
            fingerprint=lambda: self.fingerprint,
            load_encoder=lambda: self.encoder,
        )
        waiting = indexer.sort_by_need(files, report, retry_failed)
        if waiting:
            indexer.index(waiting, report, progress, stop)
        return report

    def _feature_key(self, video: str) -> FeatureKey:
        return FeatureKey(video, self.fingerprint, self.model.fps)

    def remove(self, paths: Iterable[str | os.PathLike[str]]) -> list[str]:
        """Forget files and everything below folders; features that no other file shares go too.

        Returns:
            The paths that were forgotten.
        """
        targets = [Path(path).expanduser().resolve() for path in paths]
        entries = self.videos()
        going = [entry for entry in entries if any(Path(entry.path).is_relative_to(target) for target in targets)]
        if going:
            self._tables.delete_videos(entry.path for entry in going)
            forget_unused(self._tables, self.features, {entry.video for entry in going if entry.video})
        return [entry.path for entry in going]

    def refresh(self, progress: Callable[[IndexProgress], None] = lambda step: None) -> IndexReport:
        """Index again what changed on the disk and forget what is no longer there; see `add`."""
        entries = [entry.path for entry in self.videos()]
        self.remove([path for path in entries if not Path(path).exists()])
        return self.add([path for path in entries if Path(path).exists()], progress)

    def videos(self) -> list[VideoEntry]:
        """All files that the library knows, sorted by path."""
        return self._tables.videos() if self.exists else []

    def reads(self, entry: VideoEntry) -> bool:
        """Whether what is stored of a file is of this library's CLIP as it is now, whose weights may be other ones."""
        return entry.encoder == self.fingerprint

    def search(
        self,
        query: str,
        limit: int = 10,
        min_score: float = 0.0,
        videos: Iterable[str | os.PathLike[str]] | None = None,
    ) -> list[Hit]:
        """Find the moments that a sentence describes.

        Args:
            query: the sentence.
            limit: how many moments at most.
            min_score: leave out moments below this score, 0…1.
            videos: files or folders to search; None for all. In one file alone, all its moments are returned;
                among several, at most 3 of each.

        Returns:
            Best first.

        Raises:
            VtgError: the query is empty, or the library has no video that was asked for.
        """
        _check(query)
        entries = self._entries_by_video(videos)
        text = self.encoder.encode_text(query)
        hits: list[Hit] = []
        for bound, video in self._candidates(entries, text):
            if bound < min_score or (len(hits) == limit and bound < hits[-1].moment.score):
                break
            (grounding,) = self.grounder.ground_texts(video, [query], [text])
            for moment in grounding.moments if len(entries) == 1 else grounding.moments[:MOST_PER_VIDEO]:
                if moment.score > 0 and moment.score >= min_score:
                    hits.append(Hit(video.name, moment, best_time(grounding, moment)))
            hits = sorted(hits, key=lambda hit: -hit.moment.score)[:limit]
        return hits

    def _candidates(self, entries: dict[str, VideoEntry], text: TextFeatures) -> Iterable[tuple[float, VideoFeatures]]:
        """The videos to ground the query in, each with what none of its moments can score above, which falls.

        All by CLIP alone, and for a head those with the frames nearest to the query.
        """
        if self.grounder.head is None:
            bounds = [(self.grounder.score_bound(video, text), video) for video in self._embeddings(entries)]
            return sorted(bounds, key=lambda pair: (-pair[0], pair[1].name))
        query = text.embedding.float().numpy()
        best = {
            key: float((embedding @ query).max())
            for key, embedding in (self._tables.frames(set(entries)) if len(entries) > CANDIDATES else [])
        }
        nearest = sorted(best or entries, key=lambda key: -best.get(key, 0.0))[:CANDIDATES]
        return ((1.0, self.features.open(self._feature_key(key), entries[key].path)) for key in nearest)

    def ground(self, path: str | os.PathLike[str], query: str) -> Grounding:
        """The whole answer, with its saliency curve, on one file of the library; see `vtg.Grounder.ground`.

        Raises:
            VtgError: the query is empty, or the file is not in the library.
        """
        return self.ground_many(path, [query])[0]

    def ground_many(self, path: str | os.PathLike[str], queries: Sequence[str]) -> list[Grounding]:
        """`ground` for several sentences, one answer each in their order."""
        for query in queries:
            _check(query)
        return self.grounder.ground_many(self.open_features(path), queries)

    def open_features(self, path: str | os.PathLike[str]) -> VideoFeatures:
        """What is stored of one file, mapped from the disk.

        Raises:
            VtgError: the file is not in the library.
        """
        ((video, entry),) = self._entries_by_video([path]).items()
        return self.features.open(self._feature_key(video), entry.path)

    def explain(self, query: str, hit: Hit, size: int = 448) -> tuple[float, np.ndarray]:
        """Show what the head looked at where a moment answers the query best.

        Args:
            query: the sentence.
            hit: one of its results.
            size: side of the picture, pixels.

        Returns:
            The time of the frame in seconds, and uint8 [size, size, 3]: what CLIP sees of it, the attention over it.

        Raises:
            VtgError: the model has no head.
        """
        from vtg.pictures import paint_attention
        from vtg.video import sample_frames

        grounding = self.ground(hit.video, query)
        time, step = best_time(grounding, hit.moment), 1 / self.model.fps
        attention = grounding.attention(time)
        _, frames = next(iter(sample_frames(hit.video, self.model.fps, size, time, time + step)))
        return time, paint_attention(frames[0], attention)

    def _entries_by_video(self, chosen: Iterable[str | os.PathLike[str]] | None) -> dict[str, VideoEntry]:
        indexed = [entry for entry in self.videos() if entry.state == INDEXED]
        if not indexed:
            raise VtgError(f"{self.folder}: this library is empty; add videos with: vtg index PATH")
        entries = [entry for entry in indexed if self.reads(entry)]
        if not entries:
            raise VtgError(f"{self.folder}: was indexed with other weights of its CLIP; do it again: vtg index PATH")
        if chosen is not None:
            targets = [Path(path).expanduser().resolve() for path in chosen]
            entries = [entry for entry in entries if any(Path(entry.path).is_relative_to(place) for place in targets)]
            if not entries:
                raise VtgError(f"{', '.join(map(str, targets))}: not in the library; add it with: vtg index PATH")
        return {entry.video: entry for entry in reversed(entries)}

    def _embeddings(self, entries: dict[str, VideoEntry]) -> Iterator[VideoFeatures]:
        for video, embedding in self._tables.frames(set(entries)):
            entry = entries[video]
            yield VideoFeatures(
                self.model.fps, entry.duration, None, embedding, encoder=self.fingerprint, name=entry.path
            )


def best_time(grounding: Grounding, moment: Moment) -> float:
    """When a moment answers the query best: the start of that sampled interval, seconds."""
    times, scores = grounding.saliency.times, grounding.saliency.scores
    step = times[1] - times[0] if len(times) > 1 else moment.end
    inside = (times + step > moment.start) & (times < moment.end)
    return float(times[np.where(inside, scores, -np.inf).argmax()])


def _check(query: str) -> None:
    if not query.strip():
        raise VtgError("the query is empty: say what to look for")
