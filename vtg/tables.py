"""The database of a library: the only module that speaks to LanceDB."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass, fields
from datetime import datetime
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

__all__ = ["FAILED", "INDEXED", "LibraryTables", "VideoEntry"]

INDEXED, FAILED = "indexed", "failed"


@dataclass(frozen=True)
class VideoEntry:
    """What a library knows of one file.

    Attributes:
        path: absolute.
        video: its content key; "" where it could not be read.
        size: bytes.
        modified: of the file, ns since 1970.
        duration: seconds.
        width: pixels, as displayed.
        height: pixels, as displayed.
        added: when it was indexed.
        encoder: fingerprint of the encoder.
        state: "indexed" or "failed".
        failure: why it failed, "" otherwise.
    """

    path: str
    video: str
    size: int
    modified: int
    duration: float
    width: int
    height: int
    added: datetime
    encoder: str
    state: str
    failure: str


class LibraryTables:
    """Two tables in one folder: ``videos``, a row a file, and ``frames``, a row an embedding.

    Args:
        folder: the library's; the tables are made when they are first written to.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def videos(self) -> list[VideoEntry]:
        """All files, sorted by path."""
        if "videos" not in self._names():
            return []
        columns = [column.name for column in fields(VideoEntry)]
        rows = self._database.open_table("videos").to_arrow().select(columns).to_pylist()
        return sorted((VideoEntry(**row) for row in rows), key=lambda entry: entry.path)

    def put_video(self, entry: VideoEntry) -> None:
        """Add a file, or replace what was known of its path."""
        rows = _videos_table([entry])
        if "videos" not in self._names():
            self._database.create_table("videos", schema=rows.schema, exist_ok=True)
        table = self._database.open_table("videos")
        table.merge_insert("path").when_matched_update_all().when_not_matched_insert_all().execute(rows)

    def delete_videos(self, paths: Iterable[str]) -> None:
        """Forget files."""
        self._delete("videos", "path", paths)

    def put_frames(self, video: str, times: np.ndarray, embedding: np.ndarray) -> None:
        """Add the frames of a video, in place of those that it had.

        Args:
            video: its content key.
            times: [T] seconds.
            embedding: [T, E] float32.
        """
        rows = _frames_table(video, times, embedding)
        if "frames" not in self._names():
            self._database.create_table("frames", schema=rows.schema, exist_ok=True)
        self.delete_frames([video])
        self._database.open_table("frames").add(rows)

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
        if "frames" not in self._names():
            return
        table = self._database.open_table("frames")
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

    def tidy(self) -> None:
        """Join the small files of rows that each video leaves behind: many of them make reading slow."""
        for name in self._names():
            with suppress(RuntimeError, OSError):  # another process is writing: the next run tidies
                self._database.open_table(name).optimize()

    @cached_property
    def _database(self) -> Any:
        import lancedb

        return lancedb.connect(str(self._folder))

    def _names(self) -> list[str]:
        return list(self._database.list_tables().tables) if self._folder.is_dir() else []

    def _delete(self, table: str, column: str, values: Iterable[str]) -> None:
        values = list(values)
        if values and table in self._names():
            self._database.open_table(table).delete(_one_of(column, values))


def _videos_table(entries: list[VideoEntry]) -> Any:
    import pyarrow as pa

    schema = pa.schema(
        [
            ("path", pa.string()),
            ("video", pa.string()),
            ("size", pa.int64()),
            ("modified", pa.int64()),
            ("duration", pa.float64()),
            ("width", pa.int32()),
            ("height", pa.int32()),
            ("added", pa.timestamp("us", tz="UTC")),
            ("encoder", pa.string()),
            ("state", pa.string()),
            ("failure", pa.string()),
        ]
    )
    return pa.Table.from_pylist([vars(entry) for entry in entries], schema=schema)


def _frames_table(video: str, times: np.ndarray, embedding: np.ndarray) -> Any:
    import pyarrow as pa

    flat = pa.array(np.ascontiguousarray(embedding, np.float32).reshape(-1))
    return pa.table(
        {
            "video": pa.array([video] * len(times), pa.string()),
            "time": pa.array(times, pa.float64()),
            "embedding": pa.FixedSizeListArray.from_arrays(flat, embedding.shape[1]),
        }
    )


def _one_of(column: str, values: Iterable[str]) -> str:
    quoted = ", ".join("'" + value.replace("'", "''") + "'" for value in values)
    return f"{column} IN ({quoted})"
