"""A library of videos: add, remove, refresh, search and ground."""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from datetime import datetime
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from vtg.errors import VtgError
from vtg.features.store import FeatureKey, VideoFeatures
from vtg.files.paths import is_folder, is_gone, is_there
from vtg.library.hits import Hit, Hits, Selection, best_time
from vtg.library.indexing import Indexer, IndexReport, forget_unused
from vtg.library.named_files import NamedFiles
from vtg.library.query import Part, Question, Stretch
from vtg.library.settings import SETTINGS, Storage, agree_on_model, default_library_path, read_storage, write_settings
from vtg.library.stored_features import LibraryFeatures
from vtg.library.tables import INDEXED, LibraryTables, VideoEntry
from vtg.library.upkeep import REPAIR_HINT, Problem, describe, find_moved, find_problems, is_away
from vtg.models.calibration import Calibration
from vtg.models.registry import registry
from vtg.models.specs import ModelSpec
from vtg.progress import Reporter, silent
from vtg.video.sources import below, find_videos

if TYPE_CHECKING:
    from vtg.clip.encoder import ClipEncoder
    from vtg.grounding.grounder import Grounder, Grounding
    from vtg.library.searching import Searcher

__all__ = [
    "Hit",
    "IndexReport",
    "Library",
    "Part",
    "Problem",
    "Question",
    "Stretch",
    "VideoEntry",
    "best_time",
]

MAX_MOMENTS_PER_VIDEO = 3  # moments of one video in the results of a search over many


class Library:
    """A library of videos in one folder (a database and features), which can be copied and deleted as a whole.

    Args:
        folder: None for `default_library_path`. Created when the first video is added.
        model: of a new library: a name, or a specification with other weights. An existing library keeps its CLIP and
            can be searched with any model that uses the same CLIP and frame rate.
        device: a torch device for the encoder; None for the best available.
        storage: which features to store of videos added from now on; None to keep the library's setting.
        encoding: precision of the encoder on a CPU; see `vtg.ClipEncoder`.
        language: of the queries, for tokenizers that need it; see `vtg.ClipEncoder`.

    Raises:
        VtgError: the folder is not a library, or was made with another encoder.
    """

    def __init__(
        self,
        folder: str | os.PathLike[str] | None = None,
        model: ModelSpec | str | None = None,
        device: str | None = None,
        storage: Storage | None = None,
        encoding: str = "auto",
        language: str | None = None,
    ) -> None:
        self.folder = Path(folder).expanduser() if folder is not None else default_library_path()
        self._device = device
        self.model = agree_on_model(self.folder, model)
        self._files = NamedFiles(self.folder, model, self.model)
        self._encoding = encoding
        self._language = language
        kept = storage or read_storage(self.folder) or Storage()
        self.features = LibraryFeatures(self.folder, kept, self.model.head, lambda: self.grounder.head)
        self._tables = LibraryTables(self.folder)
        self.warn: Callable[[str], None] = logging.getLogger(
            "vtg"
        ).warning  # called for each damaged file that is skipped

    @property
    def exists(self) -> bool:
        """Whether anything has been added yet."""
        return (self.folder / SETTINGS).is_file()

    def begin(self) -> None:
        """Create the folder and its settings before anything is added; existing settings stay.

        Raises:
            VtgError: the folder cannot be written to.
        """
        write_settings(self.folder, self.model, self.features.storage)

    @cached_property
    def fingerprint(self) -> str:
        """Fingerprint of the encoder that this library was made with."""
        return self._files.fingerprint()

    @cached_property
    def encoder(self) -> ClipEncoder:
        """The CLIP, loaded on first use."""
        with_layers = self.model.head is not None or self.features.storage.keep_layers
        return self._files.load_encoder(self._device, self._encoding, self.videos, with_layers, self._language)

    @property
    def threshold(self) -> float:
        """The score from which on a moment counts as found; 0 if the model is not calibrated."""
        return self.calibration.threshold

    @cached_property
    def calibration(self) -> Calibration:
        """Calibration that makes the model's scores comparable across videos; the registry's, unless another is set."""
        entry = registry().get(self.model.head or "")
        return Calibration.of(entry.calibration if entry else {})

    @cached_property
    def grounder(self) -> Grounder:
        """The whole model, loaded on first use."""
        from vtg.grounding.grounder import Grounder

        return Grounder(self.encoder, self._files.load_head(), self.model.fps)

    def add(
        self,
        paths: Iterable[str | os.PathLike[str]],
        progress: Reporter = silent,
        retry_failed: bool = False,
        stop: Callable[[], bool] = lambda: False,
        within: Sequence[Path] = (),
    ) -> IndexReport:
        """Index files and folders; files in the library with the same size and modification time are skipped.

        Args:
            paths: files, and folders with everything below them, including linked folders.
            progress: called at every step.
            retry_failed: try files again that failed before and have not changed since.
            stop: called at every step; True ends the run, and finished files are kept.
            within: resolved folders outside of which nothing is read, even through links; none for no restriction.

        Returns:
            The result; files that cannot be indexed are listed in it and do not stop the run.

        Raises:
            VtgError: the encoder cannot be loaded, or the folder cannot be written to.
        """
        places = [Path(path).expanduser() for path in paths]
        files, missing = find_videos(places, within)
        report = IndexReport(failed=dict(missing))
        stores = self.folder, self.model, self.features, self._tables
        indexer = Indexer(*stores, lambda: self.fingerprint, lambda: self.encoder, within)
        waiting = indexer.sort_by_need(files, report, retry_failed)
        if waiting:
            indexer.index(waiting, report, progress, stop)
        if self.exists:
            self._tables.put_folders(str(path.resolve()) for path in places if is_folder(path))
        return report

    def _feature_key(self, video: str) -> FeatureKey:
        return FeatureKey(video, self.fingerprint, self.model.fps)

    def remove(self, paths: Iterable[str | os.PathLike[str]]) -> list[str]:
        """Remove files and everything below folders from the library, with features that no other file shares.

        Returns:
            The paths that were removed.
        """
        targets = [Path(path).expanduser().resolve() for path in paths]
        removed = below((entry.path for entry in self.videos()), targets)
        if self.exists:
            self._tables.delete_folders(below(self._tables.folders(), targets))
        return self._forget(removed)

    def refresh(
        self,
        progress: Reporter = silent,
        look_in: Iterable[str | os.PathLike[str]] = (),
        stop: Callable[[], bool] = lambda: False,
    ) -> IndexReport:
        """Synchronize with the disk: index changed files again, find moved files and remove missing ones.

        A moved file is recognised by its content and is not encoded again. New files are not added. Files whose whole
        folder is missing, as on a disk that is not connected, are kept.

        Args:
            progress: called at every step.
            look_in: more folders to search for moved files, besides those of the library's files.
            stop: called at every step; True ends the run, and finished files are kept.

        Returns:
            The result.

        Raises:
            VtgError: the encoder cannot be loaded, or the folder cannot be written to.
        """
        self._tables.drop_damaged_rows()
        entries = self.videos()
        vanished = [entry for entry in entries if is_gone(entry.path)]
        folders = self._tables.folders() if self.exists else []
        places = [*(Path(place).expanduser().resolve() for place in look_in), *map(Path, folders)]
        moved = find_moved(vanished, [entry.path for entry in entries], places)
        deleted = {entry.path for entry in vanished}
        there = dict.fromkeys(entry.path for entry in entries if is_there(entry.path))
        unseen = [entry.path for entry in entries if entry.path not in deleted and entry.path not in there]
        report = self.add([*there, *moved], progress, stop=stop)
        left = [entry.path for entry in self.videos() if entry.path in deleted]
        report.away = [*unseen, *(path for path in left if is_away(path, folders))]
        report.removed = self._forget(path for path in left if path not in set(report.away))
        return report

    def _forget(self, paths: Iterable[str]) -> list[str]:
        """Remove files by their exact paths."""
        chosen = set(paths)
        removed = [entry for entry in self.videos() if entry.path in chosen]
        self._tables.delete_videos(entry.path for entry in removed)
        forget_unused(self._tables, self.features, {entry.video for entry in removed if entry.video})
        return [entry.path for entry in removed]

    def verify(self, checksums: bool = False, progress: Reporter = silent) -> list[Problem]:
        """Check that files, features and database are consistent.

        Args:
            checksums: also read all features and compare them with their checksums.
            progress: called for every file.

        Returns:
            The problems found.
        """
        return find_problems(self._tables, self.features, self._feature_key, checksums, progress) if self.exists else []

    def videos(self) -> list[VideoEntry]:
        """All files of the library, sorted by path."""
        return self._tables.videos() if self.exists else []

    def describe(self) -> dict[str, Any]:
        """Describe the content and size of the library.

        Returns:
            library (its folder), videos, failed, seconds, frames, fps, said_lines, videos_with_words, encoder, model,
            precision and keep_layers (of stored features), bytes (of everything in the folder), and bytes_per_minute
            of video (None without videos).
        """
        counted = self._tables if self.exists else None
        return {"library": str(self.folder), **describe(self.folder, counted, self.model, self.features.storage)}

    def reads(self, entry: VideoEntry) -> bool:
        """Whether a file was indexed with the library's current CLIP weights, which may have been replaced."""
        return entry.encoder == self.fingerprint

    def search(
        self,
        query: str | Question,
        limit: int = 10,
        min_score: float = 0.0,
        videos: Iterable[str | os.PathLike[str]] | None = None,
        *,
        since: datetime | None = None,
        until: datetime | None = None,
        per_video: int | None = None,
    ) -> list[Hit]:
        """Find the moments that match a query.

        Args:
            query: a sentence, or a query with other terms.
            limit: maximum number of moments.
            min_score: leave out moments below this score, 0…1; with `threshold` only likely matches are left.
            videos: files or folders to search; None for all.
            since: only files modified at this time or later.
            until: only files modified before this time.
            per_video: maximum number of moments of one video; by default 3, or no limit if a single file is searched.

        Returns:
            Best first; a notebook shows them with thumbnails.

        Raises:
            VtgError: the query is empty, no video is selected, a picture cannot be read, or a span is of a video that
                is not in the library.
        """
        question = Question((Part(query),)) if isinstance(query, str) else query
        selection = self._select(videos, since, until, per_video)
        return Hits(self.searcher.search(question, selection, limit, min_score))

    @cached_property
    def searcher(self) -> Searcher:
        """The searcher, with the model loaded on first use."""
        from vtg.library.searching import Searcher

        return Searcher(self._tables, self.grounder, self.calibration, self._open, lambda line: self.warn(line))

    def _open(self, entry: VideoEntry) -> VideoFeatures:
        key = self._feature_key(entry.video)
        self.features.project(key)
        return self.features.open(key, entry.path)

    def _select(
        self,
        videos: Iterable[str | os.PathLike[str]] | None,
        since: datetime | None,
        until: datetime | None,
        per_video: int | None,
    ) -> Selection:
        readable = self._readable()
        entries = readable if videos is None else _named(readable, videos)
        if since is not None or until is not None:
            begin, end = (time.timestamp() * 1e9 if time else edge for time, edge in ((since, 0), (until, np.inf)))
            entries = [entry for entry in entries if begin <= entry.modified < end]
            if not entries:
                raise VtgError(f"{self.folder}: has no videos of these dates; 'vtg library list' shows what it has")
        by_video = {entry.video: entry for entry in reversed(entries)}
        paths = {entry.path: entry.video for entry in entries}
        most = per_video or (None if len(by_video) == 1 else MAX_MOMENTS_PER_VIDEO)
        return Selection(by_video, paths, len(entries) == len(readable), most)

    def ground(self, path: str | os.PathLike[str], query: str) -> Grounding:
        """Ground a query in one file of the library, with its saliency curve; see `vtg.Grounder.ground`.

        Raises:
            VtgError: the query is empty, or the file is not in the library.
        """
        return self.ground_many(path, [query])[0]

    def ground_many(self, path: str | os.PathLike[str], queries: Sequence[str]) -> list[Grounding]:
        """Ground several sentences, with one result each in their order; see `ground`."""
        for query in queries:
            Question((Part(query),))  # raises for an empty one
        return self.grounder.ground_many(self.open_features(path), queries)

    def open_features(self, path: str | os.PathLike[str]) -> VideoFeatures:
        """The stored features of one file, memory-mapped.

        Raises:
            VtgError: the file is not in the library.
        """
        return self._open(_named(self._readable(), [path])[0])

    def explain(self, query: str, hit: Hit, size: int = 448) -> tuple[float, np.ndarray]:
        """Draw the head's attention on the frame of a moment with the highest saliency.

        Args:
            query: the sentence.
            hit: one of its results.
            size: side of the image, pixels.

        Returns:
            The time of the frame in seconds, and uint8 [size, size, 3]: the square that CLIP sees of it with the
            attention overlaid.

        Raises:
            VtgError: the model has no head.
        """
        from vtg.video import sample_frames
        from vtg.video.pictures import paint_attention

        grounding = self.ground(hit.video, query)
        time, step = best_time(grounding, hit.moment), 1 / self.model.fps
        attention = grounding.attention(time)
        framing = replace(self.encoder.framing, size=size)
        _, frames = next(iter(sample_frames(hit.video, self.model.fps, framing, time, time + step)))
        return time, paint_attention(frames[0], attention)

    def _readable(self) -> list[VideoEntry]:
        """The files that can be searched, at least one."""
        indexed = [entry for entry in self.videos() if entry.state == INDEXED]
        for row in self._tables.damaged_rows() if self.exists else []:
            self.warn(f"{self.folder}: a row of its videos is damaged ({row.path}: {row.what}); {REPAIR_HINT}")
        if not indexed:
            raise VtgError(f"{self.folder}: this library is empty; add videos with: vtg index PATH")
        entries = [entry for entry in indexed if self.reads(entry)]
        if not entries:
            made = {entry.encoder for entry in indexed}
            if self._files.earlier_fingerprint() in made:
                raise VtgError(
                    f"{self.folder}: was indexed with the centre of each frame only, and its CLIP needs frames with "
                    f"{self.model.encoder.frame_preprocessing}; index its videos again: vtg index PATH"
                )
            raise VtgError(
                f"{self.folder}: was indexed with other weights of its CLIP; index its videos again: vtg index PATH"
            )
        return entries


def _named(entries: list[VideoEntry], paths: Iterable[str | os.PathLike[str]]) -> list[VideoEntry]:
    """The entries with one of the paths, or below one of them."""
    targets = [Path(path).expanduser().resolve() for path in paths]
    among = set(below((entry.path for entry in entries), targets))
    found = [entry for entry in entries if entry.path in among]
    if not found:
        raise VtgError(f"{', '.join(map(str, targets))}: not in the library; add it with: vtg index PATH")
    return found
