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
from vtg.files.text import to_utf8
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
    texts,
    times_by_video,
    transcript_lines,
    transcript_rows,
    video_entries,
    video_rows,
)
from vtg.library.video_list import VideoList
from vtg.video.subtitles.lines import TranscriptLine

__all__ = ["FAILED", "INDEXED", "DamagedRow", "LibraryTables", "NearFrames", "TranscriptLine", "VideoEntry"]

TABLES = ("videos", "frames", "said", "folders")
MIN_INDEXED_FRAMES = 20_000  # a full scan of fewer is as fast as a vector index
FRAMES_PER_PARTITION = 2_000  # of the vector index, on average
PROBED_PARTITIONS = 160  # of the index in one search
REFINED_FRAMES = 1_200  # candidates that are compared by their full embeddings
MAX_UNINDEXED_SHARE = 0.5  # of frames added since the index was trained; above it the index is trained again
MAX_UNINDEXED_FRAMES = 20_000  # a search scans those that are not in the index yet
MAX_FRAGMENTS = 64  # small files of rows; a search opens each
FRAMES_PER_FRAGMENT = 10_000  # one more fragment is allowed for each, as merging rewrites the whole table
VERSION_RETENTION = timedelta(hours=1)  # longer than any reader uses an old version


class LibraryTables(Database):
    """Four tables in one folder: ``videos``, a row a file; ``frames``, a row an embedding; ``said``, a row a transcript
    line; ``folders``, a row a folder that was added as a whole.

    Any number of processes may read and write; a write is a transaction, and writes are serialised.

    Args:
        folder: of the library; the tables are created on the first write.
    """

    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        self._listed = VideoList()
        self._damaged: list[DamagedRow] = []  # at the version of the list
        self._counted: tuple[int, dict[str, int]] = (-1, {})  # table version, frames of each content key
        self._listing = threading.Lock()  # of the list; never held during a write
        self._working = threading.Lock()
        self._at_work: set[str] = set()

    def begin_work(self, video: str) -> bool:
        """Claim a content key for this thread; False if another thread or process has claimed it."""
        with self._working:
            if video in self._at_work or not self.claims.take(f"video {video}"):
                return False
            self._at_work.add(video)
            return True

    def end_work(self, video: str) -> None:
        """Release a content key that was claimed with `begin_work`."""
        with self._working:
            if video in self._at_work:
                self._at_work.remove(video)
                self.claims.release(f"video {video}")

    def videos(self) -> list[VideoEntry]:
        """All files, sorted by path."""
        with self._current_list() as listed:
            return listed.all()

    def video(self, path: str) -> VideoEntry | None:
        """The entry of a path; None if there is none."""
        with self._current_list() as listed:
            return listed.of_path(path)

    def videos_of(self, video: str) -> list[VideoEntry]:
        """The entries of a content key."""
        with self._current_list() as listed:
            return listed.of_video(video)

    def damaged_rows(self) -> list[DamagedRow]:
        """Invalid rows of the table of videos, which `videos` leaves out."""
        with self._current_list():
            return list(self._damaged)

    def drop_damaged_rows(self) -> None:
        """Remove the rows of `damaged_rows`, so that their files can be indexed again."""

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
                    # Older libraries have no column `subtitles` until the next write.
                    entries, self._damaged = ([], []) if table is None else video_entries(table.to_arrow())
                    self._listed = VideoList(version, entries)
            yield self._listed

    def put_video(self, entry: VideoEntry) -> None:
        """Add an entry, or replace the one with its path."""
        self.put_videos([entry])

    def put_videos(self, entries: Sequence[VideoEntry]) -> None:
        """Add entries with different paths, or replace those with the same paths, in one commit."""
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
        """Delete entries and their transcripts."""
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
        """Replace the frames of a video.

        Args:
            video: its content key.
            times: [T] seconds.
            embedding: [T, E] float32.
            is_new: the video has no frames in the table, so that none need be deleted.

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
        """Delete the frames of videos, by content key."""
        self._delete("frames", "video", videos)

    def frames(self, videos: set[str] | None = None) -> Iterator[tuple[str, np.ndarray]]:
        """Read embeddings, video by video.

        Args:
            videos: content keys; None for all.

        Yields:
            A content key and its [T, E] float32, ordered by time.
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
        """The times of all frames, ascending, by content key."""
        rows = self._frame_columns(["video", "time"])
        return {} if rows is None else times_by_video(rows)

    def frames_of_videos(self) -> dict[str, int]:
        """The number of frames of each content key; read once for each version of the table."""
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
        """The number of frames of all videos."""
        table = self._table("frames")
        with self._named("frames"):
            return 0 if table is None else int(table.count_rows())

    def nearest_frames(self, embedding: np.ndarray, count: int, videos: Iterable[str] | None = None) -> NearFrames:
        """Find the frames with the largest cosine similarity to an embedding.

        Args:
            embedding: [E], not zero.
            count: maximum number of frames.
            videos: content keys to search; None for all.
        """
        table = self._table("frames")
        if table is None:
            return NearFrames([], np.zeros(0), np.zeros(0))
        with self._named("frames"):
            search = table.search(np.asarray(embedding, np.float32), vector_column_name="embedding")
            search = search.distance_type("cosine").nprobes(PROBED_PARTITIONS)
            search = search.refine_factor(max(2, REFINED_FRAMES // count))
            if videos is not None:
                search = search.where(one_of("video", videos), prefilter=True)
            return near_frames(search.select(["video", "time", "_distance"]).limit(count).to_arrow())

    def put_transcript(self, path: str, lines: Sequence[TranscriptLine]) -> None:
        """Replace the transcript of a file."""
        rows = transcript_rows(lines)

        def make_index(table: Any) -> None:
            if not table.list_indices() and table.count_rows():
                from lancedb.index import FTS

                # Word boundaries by Unicode's rules, also in scripts without spaces; no language is assumed.
                words = FTS(base_tokenizer="icu", with_position=True, stem=False, remove_stop_words=False)
                table.create_index("text", config=words)

        self._delete("said", "path", [path])
        # The table is created even without lines: a missing table means that it was deleted.
        self._write("said", rows.schema, *([lambda table: table.add(rows), make_index] if lines else []))

    def has_transcript(self) -> bool:
        """Whether the table of transcripts exists, even if it has no lines."""
        return self._table("said") is not None

    def find_transcript_lines(self, words: str, limit: int, paths: Iterable[str] | None = None) -> list[TranscriptLine]:
        """Find transcript lines with the words of a query.

        Args:
            words: any of them, lines with more of them rank higher; in quotes, the exact phrase.
            limit: maximum number of lines.
            paths: files to search; None for all.

        Returns:
            Best first.
        """
        table = self._table("said")
        if table is None:
            return []
        from lancedb.query import MatchQuery, PhraseQuery

        words = words.strip()
        is_phrase = len(words) > 2 and words[0] == words[-1] == '"'
        text_query = PhraseQuery(words[1:-1], "text") if is_phrase else MatchQuery(words, "text")
        with self._named("said"):
            if not table.count_rows():
                return []
            search = table.search(text_query)
            if paths is not None:
                search = search.where(one_of("path", paths), prefilter=True)
            return transcript_lines(search.limit(limit).to_list())

    def count_transcript_lines(self) -> dict[str, int]:
        """The number of transcript lines of each file that has any."""
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
        """Add folders that were indexed as a whole."""
        import pyarrow as pa

        new = sorted(set(folders) - set(self.folders()))
        if new:
            rows = pa.table({"path": pa.array([to_utf8(path) for path in new], pa.string())})

            def put(table: Any) -> None:
                table.merge_insert("path").when_not_matched_insert_all().execute(rows)

            self._write("folders", rows.schema, put)

    def delete_folders(self, folders: Iterable[str]) -> None:
        """Delete folders that were indexed as a whole."""
        self._delete("folders", "path", folders)

    def tidy(self) -> None:
        """Merge the small fragments of rows that each video leaves, and update the indexes.

        Nothing is done if another process is doing this.
        """
        if not self.claims.take("tidy"):
            return
        try:
            for name in TABLES:
                # After a conflicting write the next run does it; damage is reported by the next read.
                with suppress(VtgError), self._named(name):
                    if (table := self._table(name)) is not None:
                        self._tidy(name, table)
        finally:
            self.claims.release("tidy")

    def _tidy(self, name: str, table: Any) -> None:
        rows = table.count_rows()
        index = next((index.name for index in table.list_indices() if "embedding" in index.columns), None)
        unindexed = table.index_stats(index).num_unindexed_rows if index else 0
        fragments = table.stats()["fragment_stats"]["num_small_fragments"]
        if unindexed > MAX_UNINDEXED_FRAMES or fragments > 1 + (MAX_FRAGMENTS + rows // FRAMES_PER_FRAGMENT) * (
            name == "frames"
        ):
            table.optimize(cleanup_older_than=VERSION_RETENTION)
        if (
            name == "frames"
            and rows >= MIN_INDEXED_FRAMES
            and (index is None or unindexed > MAX_UNINDEXED_SHARE * rows)
        ):
            from lancedb.index import IvfRq

            partitions = max(1, rows // FRAMES_PER_PARTITION)
            table.create_index("embedding", config=IvfRq(distance_type="cosine", num_partitions=partitions))
