"""Measure a library of many short videos: adding the first and last ones, searching, refreshing, memory and handles.

    python -m tools.bench.many_videos --videos 10000

All videos are copies of one video of 2 s with a different number in each file, so that their checksums differ. The
first and last 100 are indexed with the bundled demo model. With --real, the others are indexed too, which takes a
quarter of an hour; otherwise their rows and features are written directly into the library in a few minutes.
"""

from __future__ import annotations

import argparse
import json
import shutil
import statistics
import struct
import tempfile
import time
from dataclasses import replace
from pathlib import Path

import psutil
import pyarrow as pa

from vtg.demo import make_videos
from vtg.features.store import content_key
from vtg.library.library import Library
from vtg.library.rows import frame_rows
from vtg.video import cut

MEASURED_VIDEOS = 100  # at the beginning and at the end
QUERIES = ("a red circle", "a blue square moves to the left", "a green triangle appears")


def write_videos(folder: Path, count: int) -> list[Path]:
    """Write videos of 2 s with the same frames and different checksums."""
    (demo,) = make_videos(folder / "source", count=1, seconds=10)
    short = cut(demo.path, 2.0, 4.0, folder / "short.mp4").path.read_bytes()
    films = folder / "films"
    films.mkdir()
    paths = []
    for number in range(count):
        path = films / f"{number:06}.mp4"
        # A "free" box at the end, which MP4 readers ignore.
        path.write_bytes(short + struct.pack(">I4sQ", 16, b"free", number))
        paths.append(path)
    return paths


def fill(library: Library, like: Path, paths: list[Path]) -> None:
    """Add files as copies of an indexed file: rows in bulk, features file by file."""
    (entry,) = (entry for entry in library.videos() if entry.path == str(like))
    stored = library.features.open(library._feature_key(entry.video))
    assert stored.embedding is not None
    tables, entries, frames = library._tables, [], []
    own = {path: path.read_bytes() for path in library.folder.rglob(f"{entry.video}*") if path.is_file()}
    for path in paths:
        key, status = content_key(path), path.stat()
        for file, content in own.items():  # the content contains the key of the video, too
            copy = file.with_name(file.name.replace(entry.video, key))
            copy.write_bytes(content.replace(entry.video.encode(), key.encode()))
        entries.append(replace(entry, path=str(path), video=key, size=status.st_size, modified=status.st_mtime_ns))
        frames.append((key, stored.times, stored.embedding))
    rows = pa.concat_tables([frame_rows(*one) for one in frames])
    tables._write("frames", rows.schema, lambda table: table.add(rows))
    tables.put_videos(entries)


def measure_adding(library: Library, paths: list[Path]) -> float:
    """The seconds that it takes to add files."""
    begun = time.perf_counter()
    report = library.add(paths)
    assert len(report.added) == len(paths), report
    return time.perf_counter() - begun


def measure(folder: Path, videos: int, searches: int, real: bool) -> dict[str, float]:
    """Build the library and measure it; returns seconds, megabytes and counts by name."""
    paths = write_videos(folder, videos + 1)
    warm, paths = paths[-1], paths[:-1]
    library = Library(folder / "library", "demo", device="cpu")
    library.add([warm])  # loads the model
    figures = {"first_100_seconds": measure_adding(library, paths[:MEASURED_VIDEOS])}
    middle = paths[MEASURED_VIDEOS:-MEASURED_VIDEOS]
    if real:
        figures["middle_seconds"] = measure_adding(library, middle)
    else:
        fill(library, paths[0], middle)
        library._tables.tidy()
    figures["last_100_seconds"] = measure_adding(library, paths[-MEASURED_VIDEOS:])
    figures["ratio"] = figures["last_100_seconds"] / figures["first_100_seconds"]
    begun = time.perf_counter()
    report = library.refresh()
    figures["refresh_seconds"] = time.perf_counter() - begun
    assert not report.added and not report.removed, report
    library = Library(folder / "library", device="cpu")
    process, taken = psutil.Process(), []
    for number in range(searches):
        begun = time.perf_counter()
        library.search(QUERIES[number % len(QUERIES)])
        taken.append(time.perf_counter() - begun)
        if number in (9, searches - 1):
            name = "after_10_searches" if number == 9 else f"after_{searches}_searches"
            figures[f"megabytes_{name}"] = process.memory_info().rss / 1e6
            figures[f"handles_{name}"] = process.num_fds() if hasattr(process, "num_fds") else process.num_handles()
    figures["search_seconds"] = statistics.median(taken)
    figures["longest_search_seconds"] = max(taken[10:])
    return figures


def main() -> None:
    """Run the command."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--videos", type=int, default=10_000, help="number of videos (default: 10,000)")
    parser.add_argument("--searches", type=int, default=1_000, help="number of searches (default: 1,000)")
    parser.add_argument("--real", action="store_true", help="index all videos instead of copying the entries of one")
    parser.add_argument("--json", action="store_true", help="print one JSON document instead of a table")
    arguments = parser.parse_args()
    folder = Path(tempfile.mkdtemp())
    try:
        figures = measure(folder, arguments.videos, arguments.searches, arguments.real)
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    if arguments.json:
        print(json.dumps(figures))
        return
    print(f"{arguments.videos} videos of 2 s, bundled demo model")
    for name, value in figures.items():
        print(f"  {name:32} {value:10.3f}")


if __name__ == "__main__":
    main()
