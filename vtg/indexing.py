"""Putting files into a library: knows which of them need work, and in which order rows and features are written."""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import datetime, timezone
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from vtg.errors import VideoError
from vtg.features import FeatureKey, FeatureStore
from vtg.settings import write_settings
from vtg.specs import ModelSpec
from vtg.tables import FAILED, INDEXED, LibraryTables, VideoEntry

if TYPE_CHECKING:
    from vtg.clip import ClipEncoder
    from vtg.pipeline import EncodedVideo

__all__ = ["IndexProgress", "IndexReport", "Indexer", "forget_unused"]


@dataclass(frozen=True)
class IndexProgress:
    """Where an indexing run is.

    Attributes:
        path: the file at work.
        videos_done: files finished, well or badly.
        videos: files that have to be worked on.
        seconds_done: of the file at work.
        seconds: duration of the file at work.
    """

    path: Path
    videos_done: int
    videos: int
    seconds_done: float = 0.0
    seconds: float = 0.0


@dataclass
class IndexReport:
    """What an indexing run did.

    Attributes:
        added: files that are now in the library and were not, or had changed.
        unchanged: files that were there already.
        failed: files that cannot be indexed, with the reason.
        seconds: of video that were encoded.
        stopped: the run was asked to stop; the file at work then is not in the library.
    """

    added: list[str] = field(default_factory=list)
    unchanged: list[str] = field(default_factory=list)
    failed: dict[str, str] = field(default_factory=dict)
    seconds: float = 0.0
    stopped: bool = False


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
    """

    def __init__(
        self,
        folder: Path,
        model: ModelSpec,
        features: FeatureStore,
        tables: LibraryTables,
        fingerprint: Callable[[], str],
        load_encoder: Callable[[], ClipEncoder],
    ) -> None:
        self._folder = folder
        self._model = model
        self._features = features
        self._tables = tables
        self._fingerprint = fingerprint
        self._load_encoder = load_encoder

    def sort_by_need(self, files: list[Path], report: IndexReport, retry_failed: bool) -> list[Path]:
        """Which files have to be worked on; the others are entered into the report."""
        known = {entry.path: entry for entry in self._tables.videos()}
        stored = set(self._features)
        waiting = []
        for path in files:
            entry = known.get(str(path))
            if entry is None or (entry.size, entry.modified) != _size_and_time(path):
                waiting.append(path)
            elif entry.state == FAILED and not retry_failed:
                report.failed[entry.path] = entry.failure
            elif entry.state == INDEXED and self._key(entry.video) in stored:
                report.unchanged.append(entry.path)
            else:
                waiting.append(path)
        return waiting

    def index(
        self,
        files: list[Path],
        report: IndexReport,
        progress: Callable[[IndexProgress], None],
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
        progress(IndexProgress(files[0], 0, len(files)))
        encoder = self._load_encoder()  # before anything is written: where it cannot be had, nothing is left behind
        write_settings(self._folder, self._model)
        self._features.sweep()
        names = {str(path) for path in files}
        before = {entry.video for entry in self._tables.videos() if entry.path in names and entry.video}
        try:
            self._index(files, encoder, report, progress, stop)
        except _Stopped:
            report.stopped = True
        forget_unused(self._tables, self._features, before)
        self._tables.tidy()
        if not report.stopped:
            progress(IndexProgress(files[-1], len(files), len(files)))

    def _index(
        self,
        files: list[Path],
        encoder: ClipEncoder,
        report: IndexReport,
        progress: Callable[[IndexProgress], None],
        stop: Callable[[], bool],
    ) -> None:
        from vtg.pipeline import encode_videos

        def tell(step: IndexProgress) -> None:
            if stop():
                raise _Stopped
            progress(step)

        encoded = encode_videos(files, encoder, self._model.fps, skip=self._knows_already(files))
        with contextlib.closing(encoded):
            for done, video in enumerate(encoded):
                step = IndexProgress(video.path, done, len(files))
                tell(step)
                size, modified = _size_and_time(video.path)
                try:
                    duration, width, height = self._take(video, step, tell)
                except VideoError as error:
                    entry = self._entry(video, size, modified, failure=error.reason)
                    report.failed[entry.path] = error.reason
                else:
                    entry = self._entry(video, size, modified, duration, width, height)
                    report.added.append(entry.path)
                    report.seconds += 0.0 if video.skipped else duration
                self._tables.put_video(entry)

    def _knows_already(self, files: list[Path]) -> Callable[[str], bool]:
        """Whether the content of a file need not be encoded: another file has it, here or earlier in this run."""
        at_work = {str(path) for path in files}
        entries = [entry for entry in self._tables.videos() if entry.state == INDEXED]
        stored = {key.video for key in self._features if key == self._key(key.video)}
        # A file that is known and comes again was touched: that is how its owner asks for it to be done again.
        known = {entry.video for entry in entries if entry.path not in at_work} & stored

        def knows(key: str) -> bool:
            before = key in known
            known.add(key)
            return before

        return knows

    def _take(
        self, video: EncodedVideo, step: IndexProgress, tell: Callable[[IndexProgress], None]
    ) -> tuple[float, int, int]:
        """Store the features and embeddings of one video; its row, which makes it findable, comes after."""
        if video.skipped:
            twins = [e for e in self._tables.videos() if e.video == video.key and e.state == INDEXED]
            if not twins:
                raise VideoError(video.path, "has the same content as another file that cannot be read")
            return twins[0].duration, twins[0].width, twins[0].height
        if video.info is None:  # it could not be opened: the error waits where the frames would be
            for _ in video:
                pass
            raise VideoError(video.path, "cannot be read")
        info = video.info
        with self._features.write(self._key(video.key), info.duration) as writer:
            rows: list[tuple[np.ndarray, np.ndarray]] = []
            for chunk in video:
                writer.append(chunk.layers, chunk.embedding)
                rows.append((chunk.times, chunk.embedding))
                seconds = float(chunk.times[-1]) + 1 / self._model.fps
                tell(
                    IndexProgress(step.path, step.videos_done, step.videos, min(seconds, info.duration), info.duration)
                )
        self._tables.put_frames(video.key, *map(np.concatenate, zip(*rows, strict=True)))
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
        )

    def _key(self, video: str) -> FeatureKey:
        return FeatureKey(video, self._fingerprint(), self._model.fps)


def forget_unused(tables: LibraryTables, features: FeatureStore, videos: set[str]) -> None:
    """Drop the frames and features of those contents that no file of the library has any more.

    Args:
        tables: the library's database.
        features: its feature store.
        videos: content keys that may have become unused.
    """
    unused = sorted(videos - {entry.video for entry in tables.videos()})
    tables.delete_frames(unused)
    for key in list(features):
        if key.video in unused:
            features.remove(key)


def _size_and_time(path: Path) -> tuple[int, int]:
    try:
        status = path.stat()
    except OSError:
        return 0, 0
    return status.st_size, status.st_mtime_ns
