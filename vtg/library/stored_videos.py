"""Open the videos that a search reads one by one; damaged ones are skipped with a warning."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import TYPE_CHECKING

import numpy as np

from vtg.errors import VtgError
from vtg.library.hits import Selection
from vtg.library.query import Stretch
from vtg.library.rows import VideoEntry

if TYPE_CHECKING:
    from vtg.features.store import VideoFeatures
    from vtg.grounding.grounder import Grounder
    from vtg.library.tables import LibraryTables

__all__ = ["StoredVideos"]

TYPICAL_VIDEOS, FRAMES_PER_TYPICAL_VIDEO = 64, 32  # the sample of the library, evenly spaced


class StoredVideos:
    """The features of a library's videos for a search.

    Args:
        tables: the library's database.
        open_features: opens the stored features of a file.
        grounder: the model to search with.
        warn: called once, with one line, for each damaged file that is skipped.
    """

    def __init__(
        self,
        tables: LibraryTables,
        open_features: Callable[[VideoEntry], VideoFeatures],
        grounder: Grounder,
        warn: Callable[[str], None],
    ) -> None:
        self._tables = tables
        self._open = open_features
        self._grounder = grounder
        self._warn = warn
        self._warned: set[str] = set()
        self._typical: tuple[int, np.ndarray] = (-1, np.zeros((0, 0)))

    def opened(
        self,
        videos: Iterable[str],
        selection: Selection,
        check: Callable[[VideoFeatures], None] = lambda features: None,
        needed: bool = True,
    ) -> Iterator[tuple[str, VideoFeatures]]:
        """Open the features of selected videos, without those removed from the library in the meantime.

        Args:
            videos: content keys.
            selection: the videos to search.
            check: raises a VtgError for features that cannot be searched.
            needed: whether to raise an error if none of them can be opened.

        Yields:
            Content keys and features.

        Raises:
            VtgError: none of them can be opened and `needed` is set; otherwise failures are warnings.
        """
        failures = []
        any_opened = False
        for video in videos:
            if (entry := selection.entries.get(video)) is None:
                continue
            try:
                features = self._open(entry)
                self._check_width(features)
                check(features)
            except VtgError as error:
                if self._tables.video(entry.path) == entry:
                    failures.append(error)
                continue
            any_opened = True
            yield video, features
        if failures and needed and not any_opened:
            raise failures[0]
        for failure in failures:
            self._warn_once(str(failure))

    def _check_width(self, features: VideoFeatures) -> None:
        width = self._grounder.encoder.embedding_size
        if features.embedding is None or features.embedding.shape[1] != width:
            raise VtgError(f"{features.name}: has no embeddings of this library's CLIP; index it again")

    def warn_of_values(self, features: VideoFeatures) -> None:
        """Warn that a video is skipped because its stored features are not finite."""
        self._warn_once(_not_finite(features))

    def _warn_once(self, line: str) -> None:
        if line not in self._warned:
            self._warned.add(line)
            self._warn(line)

    def typical_frames(self, selection: Selection) -> np.ndarray:
        """[N, E] embeddings, a sample of the frames of the selected videos."""
        videos = list(selection.entries)
        if self._typical[0] != hash(tuple(videos)):
            chosen = [videos[i] for i in np.linspace(0, len(videos) - 1, min(len(videos), TYPICAL_VIDEOS)).astype(int)]
            frames = []
            for _, features in self.opened(chosen, selection):
                embedding = features.embedding
                assert embedding is not None
                count = min(len(embedding), FRAMES_PER_TYPICAL_VIDEO)
                rows = embedding[np.linspace(0, len(embedding) - 1, count).astype(int)]
                frames.append(rows[np.isfinite(rows).all(axis=1)])
            self._typical = hash(tuple(videos)), np.concatenate(frames)
        return self._typical[1]

    def embed_stretch(self, stretch: Stretch) -> np.ndarray:
        """The mean embedding [E] of a span of a video, unit length.

        Raises:
            VtgError: the video is not in the library, or is shorter.
        """
        entry = self._tables.video(str(stretch.video.resolve()))
        if entry is None or not entry.video:
            raise VtgError(f"{stretch.video}: not in the library; add it with: vtg index {stretch.video}")
        if stretch.start >= entry.duration:
            raise VtgError(f"{stretch.video}: {stretch.start:g} s is not in it; it is {entry.duration:.2f} s long")
        features = self._open(entry)
        self._check_width(features)
        assert features.embedding is not None
        first = min(len(features) - 1, int(stretch.start * features.fps))
        mean = features.embedding[first : max(first + 1, round(stretch.end * features.fps))].mean(axis=0)
        if not np.isfinite(mean).all():
            raise VtgError(_not_finite(features))
        return np.asarray(mean / max(float(np.linalg.norm(mean)), 1e-9))


def _not_finite(features: VideoFeatures) -> str:
    return f"{features.name}: what is stored of it is damaged; 'vtg library verify --checksums' names the file"
