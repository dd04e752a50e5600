"""The library: knows the order of operations on many videos, from files to hits."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timezone
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from vtg.errors import VideoError, VtgError
from vtg.features import FeatureKey, FeatureStore, VideoFeatures
from vtg.settings import SETTINGS, agree_on_model, default_library_path, write_settings
from vtg.sources import find_videos
from vtg.specs import ModelSpec
from vtg.tables import FAILED, INDEXED, LibraryTables, VideoEntry

if TYPE_CHECKING:
    from vtg.clip import ClipEncoder
    from vtg.grounding import Grounder, Grounding, Moment
    from vtg.pipeline import EncodedVideo

__all__ = ["Hit", "IndexProgress", "IndexReport", "Library", "VideoEntry"]

CANDIDATES = 10  # videos of a search over many that a head looks at: those with the frames nearest to the query
MOST_PER_VIDEO = 3  # moments of one video in the results of a search over many


@dataclass(frozen=True)
class Hit:
    """One result of a search.

    Attributes:
        video: path of the file.
        moment: where in it.
    """

    video: str
    moment: Moment


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
    """

    added: list[str] = field(default_factory=list)
    unchanged: list[str] = field(default_factory=list)
    failed: dict[str, str] = field(default_factory=dict)
    seconds: float = 0.0


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
    ) -> IndexReport:
        """Index files and folders; what is in the library and unchanged on the disk (size, time) is left alone.

        Args:
            paths: files, and folders with everything below them.
            progress: told of every step.
            retry_failed: try again what failed before and has not changed since.

        Returns:
            What was done; a file that cannot be indexed is named there and stops nothing.

        Raises:
            VtgError: the encoder cannot be had, or the folder cannot be written to.
        """
        files, missing = find_videos(paths)
        report = IndexReport(failed=dict(missing))
        waiting = self._sort_by_need(files, report, retry_failed)
        if waiting:
            self._index(waiting, report, progress)
        return report

    def _sort_by_need(self, files: list[Path], report: IndexReport, retry_failed: bool) -> list[Path]:
        known = {entry.path: entry for entry in self.videos()}
        stored = set(self.features)
        waiting = []
        for path in files:
            entry = known.get(str(path))
            if entry is None or (entry.size, entry.modified) != _size_and_time(path):
                waiting.append(path)
            elif entry.state == FAILED and not retry_failed:
                report.failed[entry.path] = entry.failure
            elif entry.state == INDEXED and self._feature_key(entry.video) in stored:
                report.unchanged.append(entry.path)
            else:
                waiting.append(path)
        return waiting

    def _index(self, files: list[Path], report: IndexReport, progress: Callable[[IndexProgress], None]) -> None:
        from vtg.pipeline import encode_videos

        progress(IndexProgress(files[0], 0, len(files)))
        encoder = self.encoder  # before anything is written: where it cannot be had, nothing is left behind
        write_settings(self.folder, self.model)
        self.features.sweep()
        names = {str(path) for path in files}
        before = {entry.video for entry in self.videos() if entry.path in names and entry.video}
        for done, video in enumerate(encode_videos(files, encoder, self.model.fps, skip=self._knows_already(files))):
            step = IndexProgress(video.path, done, len(files))
            size, modified = _size_and_time(video.path)
            try:
                duration, width, height = self._take(video, step, progress)
            except VideoError as error:
                entry = self._entry(video, size, modified, failure=error.reason)
                report.failed[entry.path] = error.reason
            else:
                entry = self._entry(video, size, modified, duration, width, height)
                report.added.append(entry.path)
                report.seconds += 0.0 if video.skipped else duration
            self._tables.put_video(entry)
        self._forget_unused(before)
        self._tables.tidy()
        progress(IndexProgress(files[-1], len(files), len(files)))

    def _knows_already(self, files: list[Path]) -> Callable[[str], bool]:
        """Whether the content of a file need not be encoded: another file has it, here or earlier in this run."""
        at_work = {str(path) for path in files}
        entries = [entry for entry in self.videos() if entry.state == INDEXED]
        stored = {key.video for key in self.features if key == self._feature_key(key.video)}
        # A file that is known and comes again was touched: that is how its owner asks for it to be done again.
        known = {entry.video for entry in entries if entry.path not in at_work} & stored

        def knows(key: str) -> bool:
            before = key in known
            known.add(key)
            return before

        return knows

    def _take(
        self, video: EncodedVideo, step: IndexProgress, progress: Callable[[IndexProgress], None]
    ) -> tuple[float, int, int]:
        """Store the features and embeddings of one video; its row, which makes it findable, comes after."""
        if video.skipped:
            twins = [entry for entry in self.videos() if entry.video == video.key and entry.state == INDEXED]
            if not twins:
                raise VideoError(video.path, "has the same content as another file that cannot be read")
            return twins[0].duration, twins[0].width, twins[0].height
        if video.info is None:  # it could not be opened: the error waits where the frames would be
            for _ in video:
                pass
            raise VideoError(video.path, "cannot be read")
        info = video.info
        with self.features.write(self._feature_key(video.key), info.duration) as writer:
            rows: list[tuple[np.ndarray, np.ndarray]] = []
            for chunk in video:
                writer.append(chunk.layers, chunk.embedding)
                rows.append((chunk.times, chunk.embedding))
                seconds = float(chunk.times[-1]) + 1 / self.model.fps
                progress(
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
            encoder=self.fingerprint,
            state=FAILED if failure else INDEXED,
            failure=failure,
        )

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
            self._forget_unused({entry.video for entry in going if entry.video})
        return [entry.path for entry in going]

    def refresh(self, progress: Callable[[IndexProgress], None] = lambda step: None) -> IndexReport:
        """Index again what changed on the disk and forget what is no longer there; see `add`."""
        entries = [entry.path for entry in self.videos()]
        self.remove([path for path in entries if not Path(path).exists()])
        return self.add([path for path in entries if Path(path).exists()], progress)

    def _forget_unused(self, videos: set[str]) -> None:
        unused = sorted(videos - {entry.video for entry in self.videos()})
        self._tables.delete_frames(unused)
        for key in list(self.features):
            if key.video in unused:
                self.features.remove(key)

    def videos(self) -> list[VideoEntry]:
        """All files that the library knows, sorted by path."""
        return self._tables.videos() if self.exists else []

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
        paths = self._paths_by_video(videos)
        text = self.encoder.encode_text(query)
        hits = []
        for video in self._candidates(paths, text.embedding.float().numpy()):
            (grounding,) = self.grounder.ground_texts(video, [query], [text])
            for moment in grounding.moments if len(paths) == 1 else grounding.moments[:MOST_PER_VIDEO]:
                if moment.score > 0 and moment.score >= min_score:
                    hits.append(Hit(video.name, moment))
        return sorted(hits, key=lambda hit: -hit.moment.score)[:limit]

    def _candidates(self, paths: dict[str, str], query: np.ndarray) -> Iterator[VideoFeatures]:
        """The videos to ground the query in: all by CLIP alone, and for a head those with the most similar frames."""
        if self.grounder.head is None:
            yield from self._embeddings(paths)
            return
        best = {
            key: float((embedding @ query).max())
            for key, embedding in (self._tables.frames(set(paths)) if len(paths) > CANDIDATES else [])
        }
        for key in sorted(best or paths, key=lambda key: -best.get(key, 0.0))[:CANDIDATES]:
            yield self.features.open(self._feature_key(key), paths[key])

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
        ((video, name),) = self._paths_by_video([path]).items()
        return self.grounder.ground_many(self.features.open(self._feature_key(video), name), queries)

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
        times, step = grounding.saliency.times, 1 / self.model.fps
        inside = (times + step > hit.moment.start) & (times < hit.moment.end)
        time = float(times[np.where(inside, grounding.saliency.scores, -np.inf).argmax()])
        attention = grounding.attention(time)
        _, frames = next(iter(sample_frames(hit.video, self.model.fps, size, time, time + step)))
        return time, paint_attention(frames[0], attention)

    def _paths_by_video(self, chosen: Iterable[str | os.PathLike[str]] | None) -> dict[str, str]:
        entries = [entry for entry in self.videos() if entry.state == INDEXED]
        if not entries:
            raise VtgError(f"{self.folder}: this library is empty; add videos with: vtg index PATH")
        if chosen is not None:
            targets = [Path(path).expanduser().resolve() for path in chosen]
            entries = [entry for entry in entries if any(Path(entry.path).is_relative_to(place) for place in targets)]
            if not entries:
                raise VtgError(f"{', '.join(map(str, targets))}: not in the library; add it with: vtg index PATH")
        return {entry.video: entry.path for entry in reversed(entries)}

    def _embeddings(self, paths: dict[str, str]) -> Iterator[VideoFeatures]:
        durations = {entry.video: entry.duration for entry in self.videos()}
        for video, embedding in self._tables.frames(set(paths)):
            yield VideoFeatures(
                self.model.fps, durations[video], None, embedding, encoder=self.fingerprint, name=paths[video]
            )


def _size_and_time(path: Path) -> tuple[int, int]:
    try:
        status = path.stat()
    except OSError:
        return 0, 0
    return status.st_size, status.st_mtime_ns


def _check(query: str) -> None:
    if not query.strip():
        raise VtgError("the query is empty: say what to look for")
