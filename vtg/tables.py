"""The database of a library: the only module that speaks to LanceDB."""

from __future__ import annotations

import itertools
import os
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from datetime import timedelta
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from vtg.errors import VtgError
from vtg.plain_text import from_utf8, to_utf8
from vtg.table_rows import (
    FAILED,
    INDEXED,
    NearFrames,
    SaidLine,
    VideoEntry,
    frame_rows,
    said_rows,
    video_entries,
    video_rows,
)
from vtg.video_list import VideoList

if TYPE_CHECKING:
    from vtg.extraction.claims import Claims

__all__ = ["FAILED", "INDEXED", "LibraryTables", "NearFrames", "SaidLine", "VideoEntry"]

INDEX_FROM = 20_000  # frames; reading fewer whole is as quick as asking an index
PARTITION_FRAMES = 2_000  # of the vector index, on average
PROBED_PARTITIONS = 160  # of the index in one search
REFINED_FRAMES = 1_200  # of these, the ones that are compared by their whole embeddings
STALE_SHARE = 0.5  # of the frames came after the index was trained: it is made anew
LOOSE_FRAMES = 20_000  # not in the index yet; a search reads them one by one
MOST_FRAGMENTS = 64  # small files of rows, of which a search opens each
FRAGMENT_FRAMES = 10_000  # a large table is joined more rarely, for it is written anew
KEPT_VERSIONS = timedelta(hours=1)  # of the tables: nobody reads an old one for longer
ATTEMPTS = 8  # at a write that another process's maintenance came before
PAUSE_SECONDS = 0.05  # before the second attempt, twice as long before each later one


class LibraryTables:
    """Four tables in one folder: ``videos``, a row a file; ``frames``, a row an embedding; ``said``, a row a line of
    subtitles; ``folders``, a row a folder that was added as a whole.

    Any number of processes may read and write: a write is one transaction, and one at a time.

    Args:
        folder: the library's; the tables are made when they are first written to.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._open: dict[str, Any] = {}
        self._listed = VideoList()
        self._listing = threading.Lock()  # of the list; never held while something is written
        self._threads = threading.RLock()  # one of them writes at a time
        self._working = threading.Lock()
        self._at_work: set[str] = set()

    @cached_property
    def claims(self) -> Claims:
        """What this process is at work on; others have claims of their own."""
        from vtg.extraction.claims import Claims

        return Claims(self._folder / ".locks")

    def begin_work(self, video: str) -> bool:
        """Be the only one, of all processes and threads, to work on a content key; False where somebody else is."""
        with self._working:
            if video in self._at_work or not self.claims.take(f"video {video}"):
                return False
            self._at_work.add(video)
            return True

    def end_work(self, video: str) -> None:
        """Let others work on a content key that this one has begun to work on."""
        with self._working:
            if video in self._at_work:
                self._at_work.remove(video)
                self.claims.release(f"video {video}")

    def videos(self) -> list[VideoEntry]:
        """All files, sorted by path."""
        with self._current_list() as listed:
            return listed.all()

    def video(self, path: str) -> VideoEntry | None:
        """A file by its path; None where it is not known."""
        with self._current_list() as listed:
            return listed.of_path(path)

    def videos_of(self, video: str) -> list[VideoEntry]:
        """The files of a content, by its key."""
        with self._current_list() as listed:
            return listed.of_video(video)

    @contextmanager
    def _current_list(self) -> Iterator[VideoList]:
        table = self._table("videos")
        with self._listing:
            version = -1 if table is None else table.version
            if version != self._listed.version:
                # A library of before `subtitles` has no such column until it is next written to.
                entries = [] if table is None else video_entries(table.to_arrow())
                self._listed = VideoList(version, entries)
            yield self._listed

    def put_video(self, entry: VideoEntry) -> None:
        """Add a file, or replace what was known of its path."""
        self.put_videos([entry])

    def put_videos(self, entries: Sequence[VideoEntry]) -> None:
        """Add files, each with a path of its own, or replace what was known of their paths, all at once."""
        rows = video_rows(list(entries))

        def complete(table: Any) -> None:
            if "subtitles" not in table.schema.names:
                table.add_columns({"subtitles": "cast('' as string)"})

        def put(table: Any) -> None:
            before = table.version
            table.merge_insert("path").when_matched_update_all().when_not_matched_insert_all().execute(rows)
            with self._listing:
                self._listed.follow(before, table.version, put=entries)

        self._write("videos", rows.schema, complete, put)

    def delete_videos(self, paths: Iterable[str]) -> None:
        """Forget files, with what is said in them."""
        paths = list(paths)
        if not paths:
            return
        self._delete("said", "path", paths)

        def delete(table: Any) -> None:
            before = table.version
            table.delete(_one_of("path", paths))
            with self._listing:
                self._listed.follow(before, table.version, removed=paths)

        self._write("videos", None, delete)

    def put_frames(self, video: str, times: np.ndarray, embedding: np.ndarray, is_new: bool = False) -> None:
        """Add the frames of a video, in place of those that it had.

        Args:
            video: its content key.
            times: [T] seconds.
            embedding: [T, E] float32.
            is_new: it has none, which saves looking for them among all.

        Raises:
            VtgError: the library has embeddings of another width.
        """
        rows = frame_rows(video, times, embedding)

        def delete(table: Any) -> None:
            if table.schema.field("embedding").type != rows.schema.field("embedding").type:
                raise VtgError(
                    f"{self._folder}: its embeddings are of another CLIP, with another width than "
                    f"{embedding.shape[1]}; name another folder with --library, or delete this one"
                )
            if not is_new:
                table.delete(_one_of("video", [video]))

        self._write("frames", rows.schema, delete, lambda table: table.add(rows))

    def delete_frames(self, videos: Iterable[str]) -> None:
        """Forget the frames of videos, by content key."""
        self._delete("frames", "video", videos)

    def frames(self, videos: set[str] | None = None) -> Iterator[tuple[str, np.ndarray]]:
        """Read embeddings, video by video.

        Args:
            videos: content keys; None for all.

        Yields:
            A content key and its [T, E] float32, in the order of time.
        """
        table = self._table("frames")
        if table is None:
            return
        if videos is not None and len(videos) == 1:
            rows = table.search().where(_one_of("video", videos)).limit(table.count_rows()).to_arrow()
        else:
            rows = table.to_arrow()
        rows = rows.sort_by([("video", "ascending"), ("time", "ascending")]).combine_chunks()
        names = rows["video"].to_numpy()
        embedding = rows["embedding"].combine_chunks().flatten().to_numpy()
        embedding = embedding.reshape(len(names), -1) if len(names) else embedding
        edges = [0, *(np.nonzero(names[1:] != names[:-1])[0] + 1), len(names)] if len(names) else []
        for start, end in itertools.pairwise(edges):
            if videos is None or names[start] in videos:
                yield str(names[start]), embedding[start:end]

    def frame_times(self) -> dict[str, list[float]]:
        """The times of all frames, in order, by content key."""
        table = self._table("frames")
        times: dict[str, list[float]] = {}
        if table is not None:
            rows = table.search().select(["video", "time"]).limit(max(1, table.count_rows())).to_arrow()
            for video, seconds in zip(rows["video"].to_pylist(), rows["time"].to_pylist(), strict=True):
                times.setdefault(video, []).append(seconds)
        return {video: sorted(seconds) for video, seconds in times.items()}

    def count_frames(self) -> int:
        """How many frames all videos have together."""
        table = self._table("frames")
        return 0 if table is None else int(table.count_rows())

    def nearest_frames(self, embedding: np.ndarray, count: int, videos: Iterable[str] | None = None) -> NearFrames:
        """Find the frames whose embeddings have the largest cosines with one.

        Args:
            embedding: [E], of any length but 0.
            count: how many frames at most.
            videos: content keys to look in; None for all.
        """
        table = self._table("frames")
        if table is None:
            return NearFrames([], np.zeros(0), np.zeros(0))
        question = table.search(np.asarray(embedding, np.float32), vector_column_name="embedding")
        question = question.distance_type("cosine").nprobes(PROBED_PARTITIONS)
        question = question.refine_factor(max(2, REFINED_FRAMES // count))
        if videos is not None:
            question = question.where(_one_of("video", videos), prefilter=True)
        rows = question.select(["video", "time", "_distance"]).limit(count).to_arrow()
        return NearFrames(
            rows["video"].to_pylist(), rows["time"].to_numpy(), 1.0 - rows["_distance"].to_numpy().astype(float)
        )

    def put_said(self, path: str, lines: Sequence[SaidLine]) -> None:
        """Say what is said in a file, in place of what was known of it."""
        rows = said_rows(lines)

        def make_index(table: Any) -> None:
            if not table.list_indices() and table.count_rows():
                from lancedb.index import FTS

                # By Unicode's rules, which know the words of writings without spaces too; no language is assumed.
                words = FTS(base_tokenizer="icu", with_position=True, stem=False, remove_stop_words=False)
                table.create_index("text", config=words)

        self._delete("said", "path", [path])
        if lines:
            self._write("said", rows.schema, lambda table: table.add(rows), make_index)

    def find_said(self, words: str, limit: int, paths: Iterable[str] | None = None) -> list[SaidLine]:
        """Find lines that have a question's words.

        Args:
            words: of which a line has some, the more the better; "in quotes" one after the other.
            limit: how many lines at most.
            paths: files to look in; None for all.

        Returns:
            Best first.
        """
        table = self._table("said")
        if table is None or not table.count_rows():
            return []
        from lancedb.query import MatchQuery, PhraseQuery

        words = words.strip()
        is_phrase = len(words) > 2 and words[0] == words[-1] == '"'
        asked = PhraseQuery(words[1:-1], "text") if is_phrase else MatchQuery(words, "text")
        question = table.search(asked)
        if paths is not None:
            question = question.where(_one_of("path", paths), prefilter=True)
        return [
            SaidLine(from_utf8(row["path"]), row["start"], row["end"], row["text"], float(row["_score"]))
            for row in question.limit(limit).to_list()
        ]

    def count_said(self) -> dict[str, int]:
        """How many lines are said in each file that has any."""
        table = self._table("said")
        counts: dict[str, int] = {}
        if table is not None:
            for path in map(from_utf8, table.to_arrow()["path"].to_pylist()):
                counts[path] = counts.get(path, 0) + 1
        return counts

    def folders(self) -> list[str]:
        """The folders that were added as a whole, sorted."""
        table = self._table("folders")
        return [] if table is None else sorted(map(from_utf8, table.to_arrow()["path"].to_pylist()))

    def put_folders(self, folders: Iterable[str]) -> None:
        """Remember folders that were added as a whole."""
        import pyarrow as pa

        new = sorted(set(folders) - set(self.folders()))
        if new:
            rows = pa.table({"path": pa.array([to_utf8(path) for path in new], pa.string())})

            def put(table: Any) -> None:
                table.merge_insert("path").when_not_matched_insert_all().execute(rows)

            self._write("folders", rows.schema, put)

    def delete_folders(self, folders: Iterable[str]) -> None:
        """Forget that folders were added as a whole."""
        self._delete("folders", "path", folders)

    def tidy(self) -> None:
        """Join the small files of rows that each video leaves behind, and keep the indexes up with the tables.

        One process at a time does this; where another is at it, nothing is done.
        """
        if not self.claims.take("tidy"):
            return
        try:
            for name in self._names():
                # A write of another process came between: the next run tidies.
                with suppress(RuntimeError, OSError, ValueError):
                    self._tidy(name, self._table(name))
        finally:
            self.claims.release("tidy")

    def _tidy(self, name: str, table: Any) -> None:
        rows = table.count_rows()
        index = next((index.name for index in table.list_indices() if "embedding" in index.columns), None)
        loose = table.index_stats(index).num_unindexed_rows if index else 0
        fragments = table.stats()["fragment_stats"]["num_small_fragments"]
        if loose > LOOSE_FRAMES or fragments > 1 + (MOST_FRAGMENTS + rows // FRAGMENT_FRAMES) * (name == "frames"):
            table.optimize(cleanup_older_than=KEPT_VERSIONS)
        if name == "frames" and rows >= INDEX_FROM and (index is None or loose > STALE_SHARE * rows):
            from lancedb.index import IvfRq

            partitions = max(1, rows // PARTITION_FRAMES)
            table.create_index("embedding", config=IvfRq(distance_type="cosine", num_partitions=partitions))

    @cached_property
    def _database(self) -> Any:
        os.environ.setdefault("LANCE_LOG", "error")  # or it tells people about every table that it makes
        import lancedb

        return lancedb.connect(str(self._folder), read_consistency_interval=timedelta(0))

    def _names(self) -> list[str]:
        return list(self._database.list_tables().tables) if self._folder.is_dir() else []

    def _table(self, name: str) -> Any | None:
        """A table as it is now; None where it was never written to."""
        if name not in self._open:
            if name not in self._names():
                return None
            self._open[name] = self._database.open_table(name)
        return self._open[name]

    def _made(self, name: str, schema: Any) -> Any:
        """A table, made if it is not there; only inside `_write`."""
        table = self._table(name)
        if table is None:
            self._database.create_table(name, schema=schema, exist_ok=True)
            table = self._table(name)
        return table

    def _delete(self, name: str, column: str, values: Iterable[str]) -> None:
        values = list(values)
        if values:
            self._write(name, None, lambda table: table.delete(_one_of(column, values)))

    def _write(self, name: str, schema: Any | None, *steps: Callable[[Any], None]) -> None:
        """Change a table in steps of at most one commit each, again where another process has committed meanwhile.

        Where the table is not there it is made with the schema; without one nothing is done.
        """
        with self._threads, self.claims.held("write"):
            table = self._table(name) if schema is None else self._made(name, schema)
            for step in steps if table is not None else ():
                assert table is not None
                for attempt in itertools.count():
                    before = table.version
                    try:
                        step(table)
                        break
                    except (RuntimeError, OSError, ValueError):
                        # LanceDB has no error of its own for conflicts. A step that fails has committed nothing: where
                        # the version is another one all the same, another process's commit came before it.
                        if attempt == ATTEMPTS or table.version == before:
                            raise
                        time.sleep(PAUSE_SECONDS * 2**attempt)


def _one_of(column: str, values: Iterable[str]) -> str:
    quoted = ", ".join("'" + to_utf8(value).replace("'", "''") + "'" for value in values)
    return f"{column} IN ({quoted})"
