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
from vtg.video.subtitles import SubtitleFolders, said_lines

if TYPE_CHECKING:
    from vtg.clip.encoder import ClipEncoder
    from vtg.features.pipeline import EncodedVideo

__all__ = ["IndexReport", "Indexer", "forget_unused"]

TIDY_EVERY = 64  # videos, for a long run leaves many small files of rows
WAITING_SECONDS = 0.2  # between two looks whether another run has finished


class _Stopped(Exception):  # noqa: N818 - not an error
    """Somebody asked to stop in the middle of a file."""


class Indexer:
    """Writes one library; rows come after what they name, so that whatever is found is whole.

    Args:
        folder: the library's.
        model: what it is made with.
        features: its feature store.
        tables: its database.
        fingerprint: gives that of the model's encoder; asked only when it is needed, for it reads the weights.
        load_encoder: gives the encoder; asked only when there is something to encode.
        within: folders, without links, outside of which no subtitles are read; none for everywhere.
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
        self._counts = threading.Lock()  # of the two below, which the thread that decodes and this one change
        self._at_work: Counter[str] = Counter()  # files in hand, by the content key that this run has claimed for them
        self._judged: deque[bool] = deque()  # of the files in hand, in order: whether another run has claimed them
        self._touched: dict[str, VideoEntry] = {}  # of files that were known and come again, by path
        self._stored: set[str] = set()  # contents that something is stored of since before this run
        self._postponed: dict[Path, str] = {}  # files to look at once more, with their content keys
        self._unreadable: set[str] = set()  # contents that this run could not read

    def sort_by_need(self, files: list[Path], report: IndexReport, retry_failed: bool) -> list[Path]:
        """Which files have to be worked on; the others are entered into the report."""
        known = {entry.path: entry for entry in self._tables.videos()}
        frames = self._tables.frames_of_videos()
        words_lost = not self._tables.has_said()
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
                    self._fill_in(entry)
                self._listen(entry, report, words_lost)
            else:
                waiting.append(path)
        # By what was known just now: what another run enters from here on is done.
        self._touched = {str(path): known[str(path)] for path in waiting if str(path) in known}
        return waiting

    def _fill_in(self, entry: VideoEntry) -> None:
        """Put an indexed file's frames into the database anew, from its features: they are lost there, or too many."""
        video = entry.video
        if not self._tables.begin_work(video):  # somebody else has just put them in, or removes them
            return
        try:
            stored = self._features.open(self._key(video), entry.path)
            if self._tables.videos_of(video) and self._tables.frames_of_videos().get(video) != len(stored):
                assert stored.embedding is not None  # as every store keeps it
                self._tables.put_frames(video, stored.times, np.asarray(stored.embedding))
        finally:
            self._tables.end_work(video)

    def _listen(self, entry: VideoEntry, report: IndexReport, lost: bool) -> None:
        """Read what is said in an indexed file, if its subtitles have changed, or what was read of them is lost."""
        path = Path(entry.path)
        if (name := self._subtitles.fingerprint(path)) != entry.subtitles or lost:
            self._tables.put_said(entry.path, said_lines(path, self._subtitles, report.warnings.append))
            if name != entry.subtitles:
                self._tables.put_video(replace(entry, subtitles=name))

    def index(
        self,
        files: list[Path],
        report: IndexReport,
        progress: Reporter,
        stop: Callable[[], bool],
    ) -> None:
        """Encode files and enter them, each as soon as it is done.

        Args:
            files: at least one.
            report: is filled in.
            progress: told of every step.
            stop: asked at every step; True ends the run there.

        Raises:
            VtgError: the encoder cannot be had, or the folder cannot be written to.
        """
        from vtg.video.decoders import chosen_decoder

        progress(_progress(files[0], 0, len(files)))
        chosen_decoder()  # a wrong choice is no fault of the files
        encoder = self._load_encoder()  # before anything is written: where it cannot be had, nothing is left behind
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
                waiting = self._take_over(report, stop)
        except _Stopped:
            report.stopped = True
        finally:
            with self._counts:
                for video in self._at_work:
                    self._tables.end_work(video)
                self._at_work.clear()
                self._judged.clear()
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

        def tell(step: Progress) -> None:
            if stop():
                raise _Stopped
            progress(step)

        encoded = encode_videos(files, encoder, self._model.fps, skip=self._knows_already)
        with contextlib.closing(encoded):
            for done, video in enumerate(encoded):
                step = _progress(video.path, done, len(files))
                tell(step)
                if video.key and self._is_left_to_others():
                    self._postponed[video.path] = video.key
                else:
                    twins = self._indexed(video.key) if video.skipped else []
                    if video.skipped and not twins and video.key not in self._unreadable:
                        # The file whose features were to serve was removed since, or was gone before it was read.
                        self._postponed[video.path] = video.key
                    else:
                        self._enter(video, twins, step, report, tell)
                    self._let_go(video.key)
                if (done + 1) % TIDY_EVERY == 0:
                    self._tables.tidy()

    def _enter(
        self,
        video: EncodedVideo,
        twins: list[VideoEntry],
        step: Progress,
        report: IndexReport,
        tell: Reporter,
    ) -> None:
        """Store one video with all that belongs to it; its row, which makes it findable, comes last."""
        size, modified = _size_and_time(video.path)
        if any((e.path, e.size, e.modified) == (str(video.path), size, modified) for e in twins):
            report.unchanged.append(str(video.path))  # another run has done it since this one began
            return
        try:
            duration, width, height = self._take(video, twins, step, tell)
        except VideoError as error:
            entry = self._entry(video, size, modified, failure=error.reason)
            report.failed[entry.path] = error.reason
            if not is_gone(entry.path):
                self._unreadable.add(video.key)
        else:
            entry = self._entry(video, size, modified, duration, width, height)
            said = said_lines(video.path, self._subtitles, report.warnings.append)
            self._tables.put_said(entry.path, said)
            report.added.append(entry.path)
            report.seconds += 0.0 if video.skipped else duration
        self._tables.put_video(entry)
        gone = [twin.path for twin in twins if twin.path != entry.path and is_gone(twin.path)]
        if gone and entry.state == INDEXED:
            self._tables.delete_videos(gone)
            report.moved[entry.path] = gone[0]

    def _take_over(self, report: IndexReport, stop: Callable[[], bool]) -> list[Path]:
        """Tell which of the postponed files still have to be done, once another run that is at work on them is over."""
        if not self._postponed:
            return []
        first = next(iter(self._postponed.values()))
        while not self._tables.begin_work(first):
            if stop():
                raise _Stopped
            time.sleep(WAITING_SECONDS)
        self._tables.end_work(first)
        files = list(self._postponed)
        self._postponed.clear()
        return self.sort_by_need(files, report, retry_failed=False)

    def _knows_already(self, key: str) -> bool:
        """Whether a content need not be encoded: another file has it, or another run is at work on it."""
        with self._counts:
            if self._at_work[key]:
                known, is_others = True, False
            else:
                is_others = not self._tables.begin_work(key)
                known = is_others or self._is_stored(key)
            self._judged.append(is_others)
            if not is_others:
                self._at_work[key] += 1
        return known

    def _is_left_to_others(self) -> bool:
        """What `_knows_already` has found of the next of the files in hand."""
        with self._counts:
            return self._judged.popleft()

    def _is_stored(self, video: str) -> bool:
        # A file that is known and comes again was touched: that is how its owner asks for it to be done again.
        untouched = any(entry != self._touched.get(entry.path) for entry in self._indexed(video))
        return untouched and self._key(video) in self._features

    def _indexed(self, video: str) -> list[VideoEntry]:
        return [entry for entry in self._tables.videos_of(video) if entry.state == INDEXED]

    def _let_go(self, video: str) -> None:
        with self._counts:
            self._at_work[video] -= 1
            if self._at_work[video] <= 0:
                del self._at_work[video]
                self._tables.end_work(video)

    def _take(
        self,
        video: EncodedVideo,
        twins: list[VideoEntry],
        step: Progress,
        tell: Reporter,
    ) -> tuple[float, int, int]:
        """Store the features and embeddings of one video, unless another file of its content has them."""
        if video.skipped:
            if not twins:
                raise VideoError(video.path, "has the same content as another file that cannot be read")
            return twins[0].duration, twins[0].width, twins[0].height
        if video.info is None:  # it could not be opened: the error waits where the frames would be
            for _ in video:
                pass
            raise VideoError(video.path, "cannot be read")
        info = video.info
        computed = self._load_encoder().computes
        key = self._key(video.key)
        if in_the_way := self._features.in_the_way(key):
            raise VideoError(video.path, f"its features cannot be kept: {in_the_way} is a folder; remove it")
        # A run that was killed, this one's neighbour too, may have left frames of a content; its features come first.
        is_new = video.key not in self._stored and not self._features.path(key).is_file()
        with self._features.write(key, info.duration, computed=computed) as writer:
            rows: list[tuple[np.ndarray, np.ndarray]] = []
            for chunk in video:
                writer.append(chunk.layers, chunk.embedding, chunk.miniatures)
                rows.append((chunk.times, chunk.embedding))
                seconds = float(chunk.times[-1]) + 1 / self._model.fps
                tell(replace(step, current=min(1.0, seconds / info.duration) if info.duration else 0.0))
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
    """Drop the frames and features of those contents that no file of the library has any more.

    Args:
        tables: the library's database.
        features: its feature store.
        videos: content keys that may have become unused.
    """
    unused = sorted(video for video in videos if not tables.videos_of(video))
    kept: dict[str, list[FeatureKey]] = {}
    for key in features if unused else ():
        kept.setdefault(key.video, []).append(key)
    for video in unused:
        # Who is at work on a content now is about to enter a file of it.
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
