"""The rows of a library's database: what they say, as Python and as Arrow know them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields
from datetime import datetime
from typing import Any

import numpy as np

from vtg.plain_text import from_utf8, to_utf8

__all__ = [
    "FAILED",
    "INDEXED",
    "NearFrames",
    "SaidLine",
    "VideoEntry",
    "frame_rows",
    "said_rows",
    "video_entries",
    "video_rows",
]

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
        subtitles: names what its said words were read from; "" where nobody has looked yet.
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
    subtitles: str = ""


@dataclass(frozen=True)
class SaidLine:
    """Words that are said in a video.

    Attributes:
        path: the file.
        start: seconds.
        end: seconds.
        text: one line.
        score: how well they fit a question, higher is better; 0 where nothing was asked.
    """

    path: str
    start: float
    end: float
    text: str
    score: float = 0.0


@dataclass(frozen=True)
class NearFrames:
    """The frames nearest to an embedding, nearest first.

    Attributes:
        videos: [N] content keys.
        times: [N] seconds.
        cosines: [N] with the embedding.
    """

    videos: list[str]
    times: np.ndarray
    cosines: np.ndarray


_TEXTS = ("path", "failure", "subtitles")  # of a `VideoEntry`, in which names of files are


def video_entries(rows: Any) -> list[VideoEntry]:
    """What the rows of `video_rows` say; columns that an older library lacks have their defaults."""
    columns = {
        field.name: rows[field.name].to_pylist() for field in fields(VideoEntry) if field.name in rows.schema.names
    }
    columns |= {name: list(map(from_utf8, columns[name])) for name in _TEXTS if name in columns}
    return [VideoEntry(**dict(zip(columns, row, strict=True))) for row in zip(*columns.values(), strict=True)]


def video_rows(entries: list[VideoEntry]) -> Any:
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
            ("subtitles", pa.string()),
        ]
    )
    rows = [{**vars(entry), **{name: to_utf8(getattr(entry, name)) for name in _TEXTS}} for entry in entries]
    return pa.Table.from_pylist(rows, schema=schema)


def frame_rows(video: str, times: np.ndarray, embedding: np.ndarray) -> Any:
    import pyarrow as pa

    flat = pa.array(np.ascontiguousarray(embedding, np.float32).reshape(-1))
    return pa.table(
        {
            "video": pa.array([video] * len(times), pa.string()),
            "time": pa.array(times, pa.float64()),
            "embedding": pa.FixedSizeListArray.from_arrays(flat, embedding.shape[1]),
        }
    )


def said_rows(lines: Sequence[SaidLine]) -> Any:
    import pyarrow as pa

    schema = pa.schema([("path", pa.string()), ("start", pa.float64()), ("end", pa.float64()), ("text", pa.string())])
    rows = [{**vars(line), "path": to_utf8(line.path)} for line in lines]
    return pa.Table.from_pylist(rows, schema=schema)
