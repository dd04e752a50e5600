"""Index files into a library: select new and changed files, encode them, and write features before rows."""

from __future__ import annotations

import contextlib
import threading
import time
from collections import Counter, deque
from collections.abc import Callable, Sequence
from dataclasses import replace
from datetime import datetime, timezone
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from vtg.errors import VideoError
from vtg.features.store import FeatureKey, FeatureStore
from vtg.files.paths import is_gone
from vtg.library.reports import IndexReport
from vtg.library.settings import write_settings
from vtg.library.stored_features import LibraryFeatures
from vtg.library.tables import FAILED, INDEXED, LibraryTables, VideoEntry
from vtg.models.specs import ModelSpec
from vtg.progress import Progress, Reporter
from vtg.video.subtitles import SubtitleFolders, read_transcript

if TYPE_CHECKING:
    from vtg.clip.encoder import ClipEncoder
    from vtg.features.pipeline import EncodedVideo

__all__ = ["IndexReport", "Indexer", "forget_unused"]

TIDY_INTERVAL_VIDEOS = 64  # a long run leaves many small fragments of rows
POLL_SECONDS = 0.2  # between two checks whether another run has finished


class _Stopped(Exception):  # noqa: N818 - not an error
    """The run was stopped in the middle of a file."""


class Indexer:
    """Writer of a library; rows are written after the features they refer to, so that every row found is complete.

    Args:
        folder: of the library.
        model: of the library.
        features: its feature store.
        tables: its database.
        fingerprint: returns the encoder's fingerprint; called only if needed, as it reads the weights.
        load_encoder: returns the encoder; called only if there is something to encode.
        within: resolved folders outside of which no subtitles are read; none for no restriction.
    """

    def __init__(
        self,
        folder: Path,
        model: ModelSpec,
        features: LibraryFeatures,
        tables: LibraryTables,
        fingerprint: Callable[[], str],
        load_encoder: Callable[[], ClipEncoder],
        within: Sequence[Path] = (),
    ) -> None:
        self._folder = folder
        self._model = model
        self._features = features
        self._tables = tables
        self._fingerprint = fingerprint
        self._load_encoder = load_encoder
        self._subtitles = SubtitleFolders(within)
        self._counts = threading.Lock()  # of the two below, which the decoding thread and this one change
        self._active: Counter[str] = Counter()  # number of files in progress, by the content key claimed for them
        # For each file in progress, in order: whether another run has claimed it.
        self._claimed_elsewhere: deque[bool] = deque()
        self._changed: dict[str, VideoEntry] = {}  # earlier entries of files that are indexed again, by path
        self._stored: set[str] = set()  # content keys that were stored before this run
        self._postponed: dict[Path, str] = {}  # content keys of files to check again, by path
        self._unreadable: set[str] = set()  # content keys that this run could not read

    def sort_by_need(self, files: list[Path], report: IndexReport, retry_failed: bool) -> list[Path]:
        """Return the files that have to be indexed; enter the others into the report."""
        known = {entry.path: entry for entry in self._tables.videos()}
        frames = self._tables.frames_of_videos()
        is_transcript_lost = not self._tables.has_transcript()
        waiting = []
        for path in files:
            entry = known.get(str(path))
            if entry is None or (entry.size, entry.modified) != _size_and_time(path):
                waiting.append(path)
            elif entry.state == FAILED and not retry_failed:
                report.failed[entry.path] = entry.failure
            elif entry.state == INDEXED and (count := self._features.frames_of(self._key(entry.video))):
                report.unchanged.append(entry.path)
                if frames.get(entry.video) != count:
                    self._restore_frames(entry)
                self._update_transcript(entry, report, is_transcript_lost)
            else:
                waiting.append(path)
        # From the entries read above: what another run adds from here on counts as indexed.
        self._changed = {str(path): known[str(path)] for path in waiting if str(path) in known}
        return waiting

    def _restore_frames(self, entry: VideoEntry) -> None:
        """Rewrite an indexed file's frames in the database from its features, if they are missing or too many."""
        video = entry.video
        if not self._tables.begin_work(video):  # another run is adding or removing them
            return
        try:
            stored = self._features.open(self._key(video), entry.path)
            if self._tables.videos_of(video) and self._tables.frames_of_videos().get(video) != len(stored):
                assert stored.embedding is not None  # every store has it
                self._tables.put_frames(video, stored.times, np.asarray(stored.embedding))
        finally:
            self._tables.end_work(video)

    def _update_transcript(self, entry: VideoEntry, report: IndexReport, lost: bool) -> None:
        """Read the transcript of an indexed file if its subtitles have changed or the table is missing."""
        path = Path(entry.path)
        if (name := self._subtitles.fingerprint(path)) != entry.subtitles or lost:
            self._tables.put_transcript(entry.path, read_transcript(path, self._subtitles, report.warnings.append))
            if name != entry.subtitles:
                self._tables.put_video(replace(entry, subtitles=name))

    def index(
        self,
        files: list[Path],
        report: IndexReport,
        progress: Reporter,
        stop: Callable[[], bool],
    ) -> None:
        """Encode files and add them to the library one by one.

        Args:
            files: at least one.
            report: receives the results.
            progress: called at every step.
            stop: called at every step; True ends the run.

        Raises:
            VtgError: the encoder cannot be loaded, or the folder cannot be written to.
        """
        from vtg.video.decoders import chosen_decoder

        progress(_progress(files[0], 0, len(files)))
        chosen_decoder()  # raises once for a wrong setting, not for every file
        encoder = self._load_encoder()  # before anything is written, so that an error leaves nothing behind
        write_settings(self._folder, self._model, self._features.storage, loaded=True)
        self._features.check_folders()
        self._features.sweep()
        names = {str(path) for path in files}
        known = self._tables.videos()
        before = {entry.video for entry in known if entry.path in names and entry.video}
        self._stored = {entry.video for entry in known}
        abandoned = ({key.video for key in self._features} | set(self._tables.frames_of_videos())) - self._stored
        before |= abandoned
        self._stored |= abandoned
        try:
            waiting = files
            while waiting:
                self._index(waiting, encoder, report, progress, stop)
                waiting = self._postponed_files(report, stop)
        except _Stopped:
            report.stopped = True
        finally:
            with self._counts:
                for video in self._active:
                    self._tables.end_work(video)
                self._active.clear()
                self._claimed_elsewhere.clear()
        forget_unused(self._tables, self._features, before)
        self._tables.tidy()
        if not report.stopped:
            progress(_progress(files[-1], len(files), len(files)))

    def _index(
        self,
        files: list[Path],
        encoder: ClipEncoder,
        report: IndexReport,
        progress: Reporter,
        stop: Callable[[], bool],
    ) -> None:
        from vtg.features.pipeline import encode_videos

        def report_step(step: Progress) -> None:
            if stop():
                raise _Stopped
            progress(step)

        encoded = encode_videos(files, encoder, self._model.fps, skip=self._should_skip)
        with contextlib.closing(encoded):
            for done, video in enumerate(encoded):
                step = _progress(video.path, done, len(files))
                report_step(step)
                if video.key and self._is_left_to_others():
                    self._postponed[video.path] = video.key
                else:
                    twins = self._indexed(video.key) if video.skipped else []
                    if video.skipped and not twins and video.key not in self._unreadable:
                        # The other file with this content has been removed since, or before it was read.
                        self._postponed[video.path] = video.key
                    else:
                        self._add(video, twins, step, report, report_step)
                    self._release(video.key)
                if (done + 1) % TIDY_INTERVAL_VIDEOS == 0:
                    self._tables.tidy()

    def _add(
        self,
        video: EncodedVideo,
        twins: list[VideoEntry],
        step: Progress,
        report: IndexReport,
        report_step: Reporter,
    ) -> None:
        """Store one video: features, transcript and, last, the row that makes it searchable."""
        size, modified = _size_and_time(video.path)
        if any((e.path, e.size, e.modified) == (str(video.path), size, modified) for e in twins):
            report.unchanged.append(str(video.path))  # indexed by another run since this one began
            return
        try:
            duration, width, height = self._store(video, twins, step, report_step)
        except VideoError as error:
            entry = self._entry(video, size, modified, failure=error.reason)
            report.failed[entry.path] = error.reason
            if not is_gone(entry.path):
                self._unreadable.add(video.key)
        else:
            entry = self._entry(video, size, modified, duration, width, height)
            lines = read_transcript(video.path, self._subtitles, report.warnings.append)
            self._tables.put_transcript(entry.path, lines)
            report.added.append(entry.path)
            report.seconds += 0.0 if video.skipped else duration
        self._tables.put_video(entry)
        deleted = [twin.path for twin in twins if twin.path != entry.path and is_gone(twin.path)]
        if deleted and entry.state == INDEXED:
            self._tables.delete_videos(deleted)
            report.moved[entry.path] = deleted[0]

    def _postponed_files(self, report: IndexReport, stop: Callable[[], bool]) -> list[Path]:
        """Wait until the other run has finished the postponed files, and return those that remain to be indexed."""
        if not self._postponed:
            return []
        first = next(iter(self._postponed.values()))
        while not self._tables.begin_work(first):
            if stop():
                raise _Stopped
            time.sleep(POLL_SECONDS)
        self._tables.end_work(first)
        files = list(self._postponed)
        self._postponed.clear()
        return self.sort_by_need(files, report, retry_failed=False)

    def _should_skip(self, key: str) -> bool:
        """Whether a content need not be encoded: another file has it, or another run is encoding it."""
        with self._counts:
            if self._active[key]:
                known, is_others = True, False
            else:
                is_others = not self._tables.begin_work(key)
                known = is_others or self._is_stored(key)
            self._claimed_elsewhere.append(is_others)
            if not is_others:
                self._active[key] += 1
        return known

    def _is_left_to_others(self) -> bool:
        """Whether another run has claimed the next of the files in progress, as found by `_should_skip`."""
        with self._counts:
            return self._claimed_elsewhere.popleft()

    def _is_stored(self, video: str) -> bool:
        # A known file with a new modification time is encoded again even if its content is the same.
        is_unchanged = any(entry != self._changed.get(entry.path) for entry in self._indexed(video))
        return is_unchanged and self._key(video) in self._features

    def _indexed(self, video: str) -> list[VideoEntry]:
        return [entry for entry in self._tables.videos_of(video) if entry.state == INDEXED]

    def _release(self, video: str) -> None:
        with self._counts:
            self._active[video] -= 1
            if self._active[video] <= 0:
                del self._active[video]
                self._tables.end_work(video)

    def _store(
        self,
        video: EncodedVideo,
        twins: list[VideoEntry],
        step: Progress,
        report_step: Reporter,
    ) -> tuple[float, int, int]:
        """Store the features and embeddings of one video, unless another file with the same content has them.

        Returns:
            Duration in seconds, width and height in pixels.
        """
        if video.skipped:
            if not twins:
                raise VideoError(video.path, "has the same content as another file that cannot be read")
            return twins[0].duration, twins[0].width, twins[0].height
        if video.info is None:  # it could not be opened: iterating raises the error
            for _ in video:
                pass
            raise VideoError(video.path, "cannot be read")
        info = video.info
        computed = self._load_encoder().computes
        key = self._key(video.key)
        if blocking_folder := self._features.blocking_folder(key):
            raise VideoError(video.path, f"its features cannot be kept: {blocking_folder} is a folder; remove it")
        # A run that was killed may have left frames of this content; it has written the features before them.
        is_new = video.key not in self._stored and not self._features.path(key).is_file()
        with self._features.write(key, info.duration, computed=computed) as writer:
            rows: list[tuple[np.ndarray, np.ndarray]] = []
            for chunk in video:
                writer.append(chunk)
                rows.append((chunk.times, chunk.embedding))
                seconds = float(chunk.times[-1]) + 1 / self._model.fps
                report_step(replace(step, current=min(1.0, seconds / info.duration) if info.duration else 0.0))
        times, embedding = map(np.concatenate, zip(*rows, strict=True))
        self._tables.put_frames(video.key, times, embedding, is_new)
        return info.duration, info.width, info.height

    def _entry(
        self,
        video: EncodedVideo,
        size: int,
        modified: int,
        duration: float = 0.0,
        width: int = 0,
        height: int = 0,
        failure: str = "",
    ) -> VideoEntry:
        return VideoEntry(
            path=str(video.path),
            video="" if failure else video.key,
            size=size,
            modified=modified,
            duration=duration,
            width=width,
            height=height,
            added=datetime.now(timezone.utc),
            encoder=self._fingerprint(),
            state=FAILED if failure else INDEXED,
            failure=failure,
            subtitles="" if failure else self._subtitles.fingerprint(video.path),
        )

    def _key(self, video: str) -> FeatureKey:
        return FeatureKey(video, self._fingerprint(), self._model.fps)


def _progress(path: Path, done: int, total: int) -> Progress:
    return Progress("indexing", done, total, "files", path=path)


def forget_unused(tables: LibraryTables, features: FeatureStore, videos: set[str]) -> None:
    """Delete the frames and features of content keys that no file of the library has any more.

    Args:
        tables: of the library.
        features: of the library.
        videos: content keys that may be unused.
    """
    unused = sorted(video for video in videos if not tables.videos_of(video))
    kept: dict[str, list[FeatureKey]] = {}
    for key in features if unused else ():
        kept.setdefault(key.video, []).append(key)
    for video in unused:
        # A run that has claimed a content key is about to add a file of it.
        if not tables.begin_work(video):
            continue
        try:
            if not tables.videos_of(video):
                tables.delete_frames([video])
                for key in kept.get(video, ()):
                    features.remove(key)
        finally:
            tables.end_work(video)


def _size_and_time(path: Path) -> tuple[int, int]:
    try:
        status = path.stat()
    except OSError:
        return 0, 0
    return status.st_size, status.st_mtime_ns
