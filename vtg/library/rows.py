"""Rows of a library's tables, as Python objects and as Arrow."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta, timezone
from pathlib import Path
from typing import Any

import numpy as np

from vtg.features.store import MAX_DURATION_SECONDS
from vtg.files.text import from_utf8, to_utf8
from vtg.video.subtitles.lines import TranscriptLine

__all__ = [
    "FAILED",
    "INDEXED",
    "DamagedRow",
    "NearFrames",
    "VideoEntry",
    "frame_rows",
    "frames_by_video",
    "is_absolute",
    "near_frames",
    "texts",
    "times_by_video",
    "transcript_lines",
    "transcript_rows",
    "video_entries",
    "video_rows",
]

INDEXED, FAILED = "indexed", "failed"


@dataclass(frozen=True)
class VideoEntry:
    """The entry of a file in a library.

    Attributes:
        path: absolute.
        video: its content key; "" if it could not be read.
        size: bytes.
        modified: modification time, ns since 1970.
        duration: seconds.
        width: pixels, as displayed.
        height: pixels, as displayed.
        added: when it was indexed.
        encoder: fingerprint of the encoder.
        state: "indexed" or "failed".
        failure: why it failed, "" otherwise.
        subtitles: fingerprint of the files that its transcript was read from; "" if it was not read yet.
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


@dataclass(frozen=True)
class DamagedRow:
    """An invalid row of the table of videos.

    Attributes:
        path: of its file, as stored in the row.
        what: the invalid column and its value.
    """

    path: str
    what: str


LATEST_MICROSECONDS = 7_258_118_400_000_000  # since 1970, in the year 2200
_NAME = re.compile("[0-9A-Za-z_-]{0,128}")  # content key or fingerprint
_COLUMNS: dict[str, type] = {
    "path": str,
    "video": str,
    "size": int,
    "modified": int,
    "duration": float,
    "width": int,
    "height": int,
    "added": datetime,
    "encoder": str,
    "state": str,
    "failure": str,
    "subtitles": str,
}
_TEXTS = ("path", "failure", "subtitles")  # fields of a `VideoEntry` that contain file names


def video_entries(rows: Any) -> tuple[list[VideoEntry], list[DamagedRow]]:
    """Read the rows of `video_rows`; columns that an older library lacks get their defaults.

    Returns:
        The entries, each path once, and the invalid rows.

    Raises:
        KeyError: a column is missing.
        ValueError: a column has another type.
    """
    for field in _video_schema():
        if field.name in rows.schema.names and rows.schema.field(field.name).type != field.type:
            raise ValueError(f"column {field.name} of another type")
    columns = {name: rows[name].to_pylist() for name in _COLUMNS if name in rows.schema.names and name != "added"}
    columns["added"] = [_added_time(since) for since in rows["added"].cast("int64").to_pylist()]
    missing = _COLUMNS.keys() - columns.keys() - {"subtitles"}
    if missing:
        raise KeyError(f"no column {min(missing)}")
    entries: dict[str, VideoEntry] = {}
    damaged = []
    for values in zip(*columns.values(), strict=True):
        row = dict(zip(columns, values, strict=True))
        if wrong := _invalid_column(row):
            damaged.append(DamagedRow(str(row["path"] or ""), f"{wrong} {str(row[wrong])[:40]!r}"))
            continue
        row |= {name: from_utf8(row[name]) for name in _TEXTS if name in row}
        if row["path"] in entries:
            damaged.append(DamagedRow(row["path"], "is listed twice"))
        entries[row["path"]] = VideoEntry(**row)
    return list(entries.values()), damaged


def _added_time(microseconds: int | None) -> datetime | None:
    """The time when a file was added; None for an invalid value."""
    if microseconds is None or not 0 <= microseconds < LATEST_MICROSECONDS:
        return None
    return datetime.fromtimestamp(0, timezone.utc) + timedelta(microseconds=microseconds)


def _invalid_column(row: dict[str, Any]) -> str:
    """The name of a column with an invalid value; "" if there is none."""
    for name, value in row.items():
        if not isinstance(value, _COLUMNS[name]) or isinstance(value, bool):
            return name
    if not is_absolute(row["path"]):
        return "path"
    # Content keys and fingerprints are parts of file names: they must not contain a path.
    for name in ("video", "encoder"):
        if not _NAME.fullmatch(row[name]):
            return name
    if not 0 <= row["duration"] < MAX_DURATION_SECONDS:
        return "duration"
    if row["state"] not in (INDEXED, FAILED) or (row["state"] == INDEXED) != bool(row["video"]):
        return "state"
    return next((name for name in ("size", "width", "height") if row[name] < 0), "")


def is_absolute(path: str) -> bool:
    """Whether a text is an absolute path without null characters."""
    return "\0" not in path and Path(path).is_absolute()


def texts(column: Any) -> list[str]:
    """The paths in a column, without invalid values."""
    return [from_utf8(text) for text in column.to_pylist() if isinstance(text, str)]


def times_by_video(rows: Any) -> dict[str, list[float]]:
    """The times of frames, ascending, by content key, without invalid values."""
    times: dict[str, list[float]] = {}
    for video, seconds in zip(rows["video"].to_pylist(), rows["time"].to_pylist(), strict=True):
        if isinstance(video, str) and _is_time(seconds):
            times.setdefault(video, []).append(seconds)
    return {video: sorted(seconds) for video, seconds in times.items()}


def frames_by_video(rows: Any) -> dict[str, int]:
    """The number of frames of each content key, without those with invalid times."""
    import pyarrow.compute as pc

    times = rows["time"].to_numpy().astype(float)
    counts = pc.value_counts(rows["video"].filter((times >= 0) & (times < MAX_DURATION_SECONDS))).to_pylist()
    return {count["values"]: count["counts"] for count in counts if isinstance(count["values"], str)}


def near_frames(rows: Any) -> NearFrames:
    """The frames found by a search, without those with an invalid time or distance."""
    times, distances = (rows[name].to_numpy().astype(float) for name in ("time", "_distance"))
    valid = np.flatnonzero((times >= 0) & (times < MAX_DURATION_SECONDS) & np.isfinite(distances))
    videos = rows["video"].to_pylist()
    return NearFrames([videos[place] for place in valid], times[valid], 1.0 - distances[valid])


def transcript_lines(rows: list[dict[str, Any]]) -> list[TranscriptLine]:
    """The transcript lines found by a search, best first, without those with invalid values."""
    return [
        TranscriptLine(from_utf8(row["path"]), row["start"], row["end"], row["text"], float(row["_score"]))
        for row in rows
        if isinstance(row["path"], str)
        and isinstance(row["text"], str)
        and _is_time(row["start"])
        and _is_time(row["end"])
        and row["start"] <= row["end"]
    ]


def _is_time(seconds: Any) -> bool:
    return isinstance(seconds, float) and 0 <= seconds < MAX_DURATION_SECONDS


def video_rows(entries: list[VideoEntry]) -> Any:
    import pyarrow as pa

    rows = [{**vars(entry), **{name: to_utf8(getattr(entry, name)) for name in _TEXTS}} for entry in entries]
    return pa.Table.from_pylist(rows, schema=_video_schema())


def _video_schema() -> Any:
    import pyarrow as pa

    return pa.schema(
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


def transcript_rows(lines: Sequence[TranscriptLine]) -> Any:
    import pyarrow as pa

    schema = pa.schema([("path", pa.string()), ("start", pa.float64()), ("end", pa.float64()), ("text", pa.string())])
    rows = [{**vars(line), "path": to_utf8(line.path)} for line in lines]
    return pa.Table.from_pylist(rows, schema=schema)
