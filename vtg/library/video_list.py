"""An in-memory copy of the table of videos, by path and by content key."""

from __future__ import annotations

from collections.abc import Iterable

from vtg.library.rows import VideoEntry

__all__ = ["VideoList"]


class VideoList:
    """The rows of the table of videos at one of its versions. Not thread-safe: the owner has to lock it.

    Args:
        version: of the table; below 0 if it was not read yet.
        entries: with different paths.
    """

    def __init__(self, version: int = -1, entries: Iterable[VideoEntry] = ()) -> None:
        self.version = version
        self._by_path: dict[str, VideoEntry] = {}
        self._by_video: dict[str, dict[str, VideoEntry]] = {}
        self._sorted: list[VideoEntry] | None = None
        for entry in entries:
            self._put(entry)

    def all(self) -> list[VideoEntry]:
        """All files, sorted by path."""
        if self._sorted is None:
            self._sorted = [entry for _, entry in sorted(self._by_path.items())]
        return list(self._sorted)

    def of_path(self, path: str) -> VideoEntry | None:
        """The entry of a path; None if there is none."""
        return self._by_path.get(path)

    def of_video(self, video: str) -> list[VideoEntry]:
        """The entries of a content key."""
        return list(self._by_video.get(video, {}).values())

    def follow(self, before: int, after: int, put: Iterable[VideoEntry] = (), removed: Iterable[str] = ()) -> None:
        """Apply one commit, if there was no other one in between; otherwise mark the list as outdated.

        Args:
            before: version of the table before the commit.
            after: version after it.
            put: entries that it added or replaced.
            removed: paths that it deleted.
        """
        if self.version != before or after != before + 1:
            self.version = -1
            return
        self.version = after
        for entry in put:
            self._put(entry)
        for path in removed:
            self._remove(path)

    def _put(self, entry: VideoEntry) -> None:
        self._remove(entry.path)
        self._by_path[entry.path] = entry
        self._by_video.setdefault(entry.video, {})[entry.path] = entry
        self._sorted = None

    def _remove(self, path: str) -> None:
        old = self._by_path.pop(path, None)
        if old is not None:
            same = self._by_video[old.video]
            del same[path]
            if not same:
                del self._by_video[old.video]
            self._sorted = None
