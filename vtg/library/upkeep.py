"""Find moved files, and check a library for problems."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from stat import S_ISREG
from typing import TYPE_CHECKING, Any

from vtg.errors import VideoError, VtgError
from vtg.features.store import FeatureKey, FeatureStore, content_key
from vtg.files.paths import is_folder, is_gone
from vtg.library.tables import INDEXED, LibraryTables, VideoEntry
from vtg.progress import Progress, Reporter
from vtg.video.sources import find_videos

if TYPE_CHECKING:
    from vtg.library.settings import Storage
    from vtg.models.specs import ModelSpec

__all__ = ["REPAIR_HINT", "Problem", "describe", "find_moved", "find_problems", "is_away"]

REFRESH_HINT = "follow the disk with: vtg library refresh"
REPAIR_HINT = "remove it with 'vtg library refresh', and index its video again"


@dataclass(frozen=True)
class Problem:
    """A problem of a library.

    Attributes:
        where: the file of the library, or the video.
        what: what is wrong and what to do; the message after "where: ".
    """

    where: str
    what: str


def find_moved(vanished: Sequence[VideoEntry], known: Iterable[str], folders: Iterable[Path]) -> list[Path]:
    """Find files that were moved or renamed: new paths with the content of missing files.

    Args:
        vanished: entries of missing files.
        known: paths of all files of the library.
        folders: to search with all below them, besides the folders of the known files.
    """
    contents = {entry.video for entry in vanished if entry.video}
    sizes = {entry.size for entry in vanished if entry.video}
    if not contents:
        return []
    known = set(known)
    places = {Path(path).parent for path in known}
    beside = [path for place in places for path in _files_in(place)]
    below, _ = find_videos(folder for folder in folders if is_folder(folder))
    moved = []
    for path in dict.fromkeys([*below, *beside]):
        # Hashing a whole file is slow: only those of the right size are hashed.
        status = _status(path) if str(path) not in known else None
        if status is not None and status.st_size in sizes and _content(path) in contents:
            moved.append(path)
    return moved


def _files_in(folder: Path) -> list[Path]:
    """The files in a folder, without links; none if it cannot be read."""
    try:
        with os.scandir(folder) as listing:
            return [Path(entry.path) for entry in listing if entry.is_file(follow_symlinks=False)]
    except OSError:
        return []


def _content(path: Path) -> str:
    try:
        return content_key(path)
    except VideoError:
        return ""


def is_away(path: str, folders: Iterable[str]) -> bool:
    """Whether a file is missing because its whole folder is, as on a disk that is not connected.

    Args:
        path: of a missing file.
        folders: that were indexed as a whole.
    """
    above = [folder for folder in map(Path, folders) if Path(path).is_relative_to(folder)]
    return not is_folder(max(above, key=lambda folder: len(folder.parts), default=Path(path).parent))


def find_problems(
    tables: LibraryTables,
    features: FeatureStore,
    key_of: Callable[[str], FeatureKey],
    checksums: bool,
    progress: Reporter,
) -> list[Problem]:
    """Check that the files, features and tables of a library are consistent.

    Args:
        tables: its database.
        features: its feature store.
        key_of: returns the feature key of a content key.
        checksums: also verify the checksum of every file of features.
        progress: called for every file.
    """
    entries = tables.videos()
    problems = [
        Problem(row.path or str(tables.place("videos")), f"a row of it is damaged ({row.what}); {REPAIR_HINT}")
        for row in tables.damaged_rows()
    ]
    try:
        times = tables.frame_times()
    except VtgError as error:
        problems.append(Problem(str(tables.place("frames")), _after_name(error, tables.place("frames"))))
        times = None
    for done, entry in enumerate(entries):
        progress(Progress("checking", done, len(entries), "files"))
        for what in _problems_of(entry, times, features, key_of, checksums):
            problems.append(Problem(entry.path, what))
    known = {entry.video for entry in entries}
    left = {key.video for key in features} | set(times or ())
    for video in sorted(left - known):
        problems.append(Problem(video, "belongs to no file: a run was killed; the next 'vtg index' removes it"))
    return [*problems, *_problems_of_texts(tables, {entry.path for entry in entries})]


def _problems_of_texts(tables: LibraryTables, paths: set[str]) -> list[Problem]:
    problems = []
    try:
        for path in sorted(set(tables.count_transcript_lines()) - paths):
            problems.append(Problem(path, "has words and is not listed; index it again, or remove it"))
    except VtgError as error:
        problems.append(Problem(str(tables.place("said")), _after_name(error, tables.place("said"))))
    try:
        tables.folders()
    except VtgError as error:
        problems.append(Problem(str(tables.place("folders")), _after_name(error, tables.place("folders"))))
    return problems


def _after_name(error: VtgError, place: Path) -> str:
    return str(error).removeprefix(f"{place}: ")


def _problems_of(
    entry: VideoEntry,
    times: dict[str, list[float]] | None,
    features: FeatureStore,
    key_of: Callable[[str], FeatureKey],
    checksums: bool,
) -> list[str]:
    path = Path(entry.path)
    status = _status(path)
    if status is None:
        if is_gone(entry.path):
            return [f"is not there any more; {REFRESH_HINT}"]
        return ["cannot be read; check the permissions of its folder"]
    if (status.st_size, status.st_mtime_ns) != (entry.size, entry.modified):
        return [f"has changed since it was indexed; {REFRESH_HINT}"]
    if entry.state != INDEXED:
        return []
    key = key_of(entry.video)
    if entry.encoder != key.encoder:
        return ["was indexed with other weights of the library's CLIP; do it again: vtg index PATH"]
    try:
        stored = features.open(key, entry.path)
        if checksums:
            features.verify(key)
    except VtgError as error:
        return [f"cannot be searched ({error})"]
    if key not in features:
        return ["has not all that this library keeps of a video, or it is damaged; index it again"]
    if times is None:
        return []
    in_database = times.get(entry.video, [])
    if len(in_database) != len(stored) or len(set(in_database)) != len(in_database):
        return [f"has {len(in_database)} frames in the database and {len(stored)} in its features; index it again"]
    return []


def describe(folder: Path, tables: LibraryTables | None, model: ModelSpec, storage: Storage) -> dict[str, Any]:
    """Describe the content and size of a library; see `Library.describe`.

    Args:
        folder: of the library.
        tables: its database; None if nothing was added yet.
        model: that it is used with.
        storage: features that it stores.
    """
    entries = tables.videos() if tables else []
    indexed = {entry.video: entry for entry in entries if entry.state == INDEXED}
    seconds = sum(entry.duration for entry in indexed.values())
    size = sum(status.st_size for path in folder.rglob("*") if (status := _status(path)) and S_ISREG(status.st_mode))
    line_counts = tables.count_transcript_lines() if tables else {}
    return {
        "videos": sum(entry.state == INDEXED for entry in entries),
        "failed": sum(entry.state != INDEXED for entry in entries),
        "seconds": seconds,
        "frames": tables.count_frames() if tables else 0,
        "fps": model.fps,
        "said_lines": sum(line_counts.values()),
        "videos_with_words": len(line_counts),
        "encoder": str(model.encoder),
        "model": model.name,
        "precision": storage.precision,
        "keep_layers": storage.keep_layers,
        "bytes": size,
        "bytes_per_minute": 60 * size / seconds if seconds else None,
    }


def _status(path: Path) -> os.stat_result | None:
    try:
        return path.stat()
    except OSError:
        return None
