"""Read and write the tables of a library; damaged rows are skipped."""

from __future__ import annotations

import itertools
import threading
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from datetime import timedelta
from pathlib import Path
from typing import Any

import numpy as np

from vtg.errors import VtgError
from vtg.library.database import Database, delete_rows, one_of
from vtg.library.rows import (
    FAILED,
    INDEXED,
    DamagedRow,
    NearFrames,
    VideoEntry,
    frame_rows,
    frames_by_video,
    is_absolute,
    near_frames,
    said_lines,
    said_rows,
    texts,
    times_by_video,
    video_entries,
    video_rows,
)
from vtg.library.video_list import VideoList
from vtg.text import to_utf8
from vtg.video.subtitles.lines import TranscriptLine

__all__ = ["FAILED", "INDEXED", "DamagedRow", "LibraryTables", "NearFrames", "TranscriptLine", "VideoEntry"]

TABLES = ("videos", "frames", "said", "folders")
INDEX_FROM = 20_000  # frames; reading fewer whole is as quick as asking an index
PARTITION_FRAMES = 2_000  # of the vector index, on average
PROBED_PARTITIONS = 160  # of the index in one search
REFINED_FRAMES = 1_200  # of these, the ones that are compared by their whole embeddings
STALE_SHARE = 0.5  # of the frames came after the index was trained: it is made anew
LOOSE_FRAMES = 20_000  # not in the index yet; a search reads them one by one
MOST_FRAGMENTS = 64  # small files of rows, of which a search opens each
FRAGMENT_FRAMES = 10_000  # a large table is joined more rarely, for it is written anew
KEPT_VERSIONS = timedelta(hours=1)  # of the tables: nobody reads an old one for longer


class LibraryTables(Database):
    """Four tables in one folder: ``videos``, a row a file; ``frames``, a row an embedding; ``said``, a row a line of
    subtitles; ``folders``, a row a folder that was added as a whole.

    Any number of processes may read and write: a write is one transaction, and one at a time.

    Args:
        folder: the library's; the tables are made when they are first written to.
    """

    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        self._listed = VideoList()
        self._damaged: list[DamagedRow] = []  # among those of the list
        self._counted: tuple[int, dict[str, int]] = (-1, {})  # frames of each content, at a version of their table
        self._listing = threading.Lock()  # of the list; never held while something is written
        self._working = threading.Lock()
        self._at_work: set[str] = set()

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

    def damaged_rows(self) -> list[DamagedRow]:
        """Rows of the table of videos that make no sense, and are no files for `videos`."""
        with self._current_list():
            return list(self._damaged)

    def drop_damaged_rows(self) -> None:
        """Remove the rows of `damaged_rows`, whose files can then be indexed again."""

        def keep_others(table: Any) -> None:
            entries, damaged = video_entries(table.to_arrow())
            if damaged:
                table.add(video_rows(entries), mode="overwrite")

        if self.damaged_rows():
            self._write("videos", None, keep_others)

    @contextmanager
    def _current_list(self) -> Iterator[VideoList]:
        table = self._table("videos")
        with self._listing:
            with self._named("videos"):
                version = -1 if table is None else table.version
                if version != self._listed.version:
                    # A library of before `subtitles` has no such column until it is next written to.
                    entries, self._damaged = ([], []) if table is None else video_entries(table.to_arrow())
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
            delete_rows(table, one_of("path", paths))
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
                delete_rows(table, one_of("video", [video]))

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
        with self._named("frames"):
            if videos is not None and len(videos) == 1:
                rows = table.search().where(one_of("video", videos)).limit(table.count_rows()).to_arrow()
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
        rows = self._frame_columns(["video", "time"])
        return {} if rows is None else times_by_video(rows)

    def frames_of_videos(self) -> dict[str, int]:
        """How many frames there are of each content, by its key; read once for each version of the table."""
        table = self._table("frames")
        with self._named("frames"):
            version = -1 if table is None else table.version
        if version != self._counted[0]:
            rows = self._frame_columns(["video", "time"])
            self._counted = version, {} if rows is None else frames_by_video(rows)
        return self._counted[1]

    def _frame_columns(self, columns: list[str]) -> Any | None:
        table = self._table("frames")
        with self._named("frames"):
            return (
                None if table is None else table.search().select(columns).limit(max(1, table.count_rows())).to_arrow()
            )

    def count_frames(self) -> int:
        """How many frames all videos have together."""
        table = self._table("frames")
        with self._named("frames"):
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
        with self._named("frames"):
            question = table.search(np.asarray(embedding, np.float32), vector_column_name="embedding")
            question = question.distance_type("cosine").nprobes(PROBED_PARTITIONS)
            question = question.refine_factor(max(2, REFINED_FRAMES // count))
            if videos is not None:
                question = question.where(one_of("video", videos), prefilter=True)
            return near_frames(question.select(["video", "time", "_distance"]).limit(count).to_arrow())

    def put_said(self, path: str, lines: Sequence[TranscriptLine]) -> None:
        """Say what is said in a file, in place of what was known of it."""
        rows = said_rows(lines)

        def make_index(table: Any) -> None:
            if not table.list_indices() and table.count_rows():
                from lancedb.index import FTS

                # By Unicode's rules, which know the words of writings without spaces too; no language is assumed.
                words = FTS(base_tokenizer="icu", with_position=True, stem=False, remove_stop_words=False)
                table.create_index("text", config=words)

        self._delete("said", "path", [path])
        # Where nothing is said the table is made all the same: that it is not there means that it was removed.
        self._write("said", rows.schema, *([lambda table: table.add(rows), make_index] if lines else []))

    def has_said(self) -> bool:
        """Whether there is a table of what is said: it was looked for, even if nothing was found."""
        return self._table("said") is not None

    def find_said(self, words: str, limit: int, paths: Iterable[str] | None = None) -> list[TranscriptLine]:
        """Find lines that have a question's words.

        Args:
            words: of which a line has some, the more the better; "in quotes" one after the other.
            limit: how many lines at most.
            paths: files to look in; None for all.

        Returns:
            Best first.
        """
        table = self._table("said")
        if table is None:
            return []
        from lancedb.query import MatchQuery, PhraseQuery

        words = words.strip()
        is_phrase = len(words) > 2 and words[0] == words[-1] == '"'
        asked = PhraseQuery(words[1:-1], "text") if is_phrase else MatchQuery(words, "text")
        with self._named("said"):
            if not table.count_rows():
                return []
            question = table.search(asked)
            if paths is not None:
                question = question.where(one_of("path", paths), prefilter=True)
            return said_lines(question.limit(limit).to_list())

    def count_said(self) -> dict[str, int]:
        """How many lines are said in each file that has any."""
        table = self._table("said")
        with self._named("said"):
            return {} if table is None else dict(Counter(texts(table.to_arrow()["path"])))

    def folders(self) -> list[str]:
        """The folders that were added as a whole, sorted."""
        table = self._table("folders")
        with self._named("folders"):
            paths = [] if table is None else texts(table.to_arrow()["path"])
        return sorted(path for path in set(paths) if is_absolute(path))

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
            for name in TABLES:
                # A write of another process came between: the next run tidies. What is damaged is told by who reads it.
                with suppress(VtgError), self._named(name):
                    if (table := self._table(name)) is not None:
                        self._tidy(name, table)
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
