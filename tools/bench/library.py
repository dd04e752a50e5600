"""Measure a large library: finding candidates among a million frames, complete searches, and memory."""

from __future__ import annotations

import argparse
import contextlib
import json
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import replace
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

import numpy as np
import psutil

from tools.bench.random_clip import write_random_clip
from vtg.features.arrays import HEADER_BYTES
from vtg.features.store import FORMAT, FeatureKey
from vtg.library.library import Library
from vtg.library.tables import INDEXED, LibraryTables, VideoEntry
from vtg.models.specs import ModelSpec, model_spec

WIDTH = 512  # dimensions of an embedding
VIDEO_FRAMES = 1_000
SHOT_FRAMES = 50  # the frames of a shot have similar embeddings
CLUSTERS = 5_000  # centres of shots
SPREAD = 0.5  # standard deviation of the frames of a shot, relative to the length of its centre
NEAREST_FRAMES = 100
QUERIES = 50
LAYERS_SHAPE = (4, 50, 768)  # layers, tokens, channels of a ViT-B/32 in a feature file


def make_frames(count: int, seed: int) -> Iterator[np.ndarray]:
    """Yield the embeddings of each video, float32 [1000, 512], in clusters: similar shots recur in other videos."""
    random = np.random.default_rng(seed)
    clusters = random.normal(size=(CLUSTERS, WIDTH)).astype(np.float32) / np.sqrt(WIDTH)
    for _ in range(count // VIDEO_FRAMES):
        shots = clusters[random.integers(CLUSTERS, size=VIDEO_FRAMES // SHOT_FRAMES)].repeat(SHOT_FRAMES, axis=0)
        frames = shots + SPREAD / np.sqrt(WIDTH) * random.normal(size=shots.shape).astype(np.float32)
        yield (frames / np.linalg.norm(frames, axis=1, keepdims=True)).astype(np.float32)


def fill(library: Library, frames: int) -> dict[str, float]:
    """Add synthetic videos to a library, with sparse feature files that need little disk space.

    Args:
        library: a new library.
        frames: number of frames in total.

    Returns:
        Seconds to fill the tables, and seconds to build the index.
    """
    library.begin()
    tables = LibraryTables(library.folder)
    begin = time.perf_counter()
    for number, embedding in enumerate(make_frames(frames, seed=0)):
        key = f"{number:032x}"
        _write_sparse(library, FeatureKey(key, library.fingerprint, library.model.fps), embedding)
        tables.put_frames(key, np.arange(len(embedding)) / library.model.fps, embedding)
        tables.put_video(
            VideoEntry(
                path=f"/films/{number:05d}.mp4",
                video=key,
                size=1,
                modified=number,
                duration=len(embedding) / library.model.fps,
                width=640,
                height=480,
                added=datetime.now(timezone.utc),
                encoder=library.fingerprint,
                state=INDEXED,
                failure="",
            )
        )
    filled = time.perf_counter()
    tables.tidy()
    return {"fill_seconds": filled - begin, "index_seconds": time.perf_counter() - filled}


def _write_sparse(library: Library, key: FeatureKey, embedding: np.ndarray) -> None:
    """Write a sparse feature file: its layers take no disk space and are read as zeros, as fast as from memory."""
    layers_bytes = 2 * len(embedding) * int(np.prod(LAYERS_SHAPE))
    total = layers_bytes + embedding.nbytes
    header = {
        "__metadata__": {"format": FORMAT, "duration": repr(len(embedding) / key.fps), "sha256": "0" * 64},
        "layers": {"dtype": "F16", "shape": [len(embedding), *LAYERS_SHAPE], "data_offsets": [0, layers_bytes]},
        "embedding": {"dtype": "F32", "shape": list(embedding.shape), "data_offsets": [layers_bytes, total]},
    }
    path = library.features.path(key)
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("wb") as file:
        file.write((HEADER_BYTES - 8).to_bytes(8, "little") + json.dumps(header).encode().ljust(HEADER_BYTES - 8))
        file.seek(HEADER_BYTES + layers_bytes)
        file.write(embedding.tobytes())


def measure_candidates(library: Library, frames: int) -> dict[str, float]:
    """Find the frames nearest to noisy frames with the index, and compare with an exact search.

    Returns:
        Milliseconds after warm-up (median and 95th percentile), and recall of the nearest 100 frames.
    """
    tables = LibraryTables(library.folder)
    random = np.random.default_rng(1)
    chosen = set(random.choice(frames // VIDEO_FRAMES, QUERIES, replace=False).tolist())
    queries = [
        video[random.integers(VIDEO_FRAMES)] + 0.3 / np.sqrt(WIDTH) * random.normal(size=WIDTH)
        for number, video in enumerate(make_frames(frames, seed=0))
        if number in chosen
    ]
    expected = _find_exactly(np.stack(queries).astype(np.float32), frames)
    milliseconds, recall = [], []
    for place in range(2 * QUERIES):  # the first half is warm-up
        begin = time.perf_counter()
        near = tables.nearest_frames(queries[place % QUERIES], NEAREST_FRAMES)
        if place >= QUERIES:
            milliseconds.append(1000 * (time.perf_counter() - begin))
            found = set(zip(near.videos, (near.times * library.model.fps).round().astype(int).tolist(), strict=True))
            recall.append(len(found & expected[place % QUERIES]) / NEAREST_FRAMES)
    return {
        "candidates_ms": float(np.median(milliseconds)),
        "candidates_ms_95": float(np.quantile(milliseconds, 0.95)),
        "recall_at_100": float(np.mean(recall)),
        "lowest_recall": float(np.min(recall)),
    }


def _find_exactly(queries: np.ndarray, frames: int) -> list[set[tuple[str, int]]]:
    cosines = np.concatenate([video @ queries.T for video in make_frames(frames, seed=0)])  # [frames, queries]
    nearest = np.argpartition(-cosines, NEAREST_FRAMES, axis=0)[:NEAREST_FRAMES]
    return [{(f"{row // VIDEO_FRAMES:032x}", int(row % VIDEO_FRAMES)) for row in column} for column in nearest.T]


def measure_search(library: Library, queries: int) -> dict[str, float]:
    """Measure complete searches: text tower, candidates, grounding, ranking.

    Returns:
        Milliseconds (median and 95th percentile) without the first search, and the peak memory of this process.
    """
    process, peak = psutil.Process(), 0.0
    milliseconds = []
    for number in range(queries + 1):
        begin = time.perf_counter()
        hits = library.search(f"a dog jumps into lake number {number}")
        assert hits or library.model.head is not None
        if number:
            milliseconds.append(1000 * (time.perf_counter() - begin))
        memory = process.memory_full_info()
        peak = max(peak, memory.uss)
    return {
        "search_ms": float(np.median(milliseconds)),
        "search_ms_95": float(np.quantile(milliseconds, 0.95)),
        "private_memory_gb": peak / 1e9,
    }


def _model(arguments: argparse.Namespace, folder: Path) -> ModelSpec:
    weights = write_random_clip(folder / "clip.safetensors") if not (folder / "clip.safetensors").exists() else None
    spec = model_spec(arguments.model, pretrained=weights or folder / "clip.safetensors")
    return replace(spec, fps=0.5)


def main() -> int:
    """Run the command; 0 if it worked."""
    parser = argparse.ArgumentParser(
        description=__doc__, epilog="example: python -m tools.bench.library --frames 1000000 --model zero-shot"
    )
    parser.add_argument("--frames", type=int, default=1_000_000, help="number of frames (default: 1,000,000)")
    parser.add_argument(
        "--model",
        default="zero-shot",
        help="zero-shot (default), or a head's checkpoint (default: zero-shot)",
    )
    parser.add_argument("--queries", type=int, default=20, help="number of searches (default: 20)")
    parser.add_argument(
        "--folder", type=Path, help="folder of the library, reused if it exists (default: a temporary one)"
    )
    arguments = parser.parse_args()
    with contextlib.ExitStack() as stack:
        folder = arguments.folder or Path(stack.enter_context(tempfile.TemporaryDirectory()))
        folder.mkdir(parents=True, exist_ok=True)
        library = Library(folder / "library", _model(arguments, folder), "cpu")
        figures: dict[str, Any] = {"frames": arguments.frames, "model": arguments.model}
        figures |= fill(library, arguments.frames) if not library.exists else {}
        figures |= measure_search(library, arguments.queries)  # first, because the next measurement loads all frames
        figures |= measure_candidates(library, arguments.frames)
    print(json.dumps(figures, indent=2))
    return 0


if __name__ == "__main__":
    sys.exit(main())
