"""Measure queries: latency by video length, throughput and memory of each engine and of the published algorithm.

    python -m tools.bench.query --json > query.json
    python -m tools.bench.query --lengths 150s 33min --picture query.png

Uses a head of the published size (ViT-B/32) with random weights, queries of 12 tokens, and features in files that the
system has cached.
"""

from __future__ import annotations

import argparse
import contextlib
import itertools
import json
import os
import statistics
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch

from tools.bench.reference import ground_plainly
from vtg.errors import VtgError
from vtg.features.store import EncodedChunk, FeatureKey, FeatureStore, VideoFeatures
from vtg.grounding.projections import ProjectionKey, ProjectionStore
from vtg.grounding.window_layout import WindowGrid
from vtg.grounding.windows import ground_with_head
from vtg.r2 import HeadConfig, Predictor, R2Head, postprocess_windows
from vtg.r2.engine import ENGINE_VARIABLE, ENGINES, engine_name

FPS = 0.5
QUERY_TOKENS = 12
ROUNDS = 7  # after one of warm-up; the median is reported
MAX_MEASURED_SECONDS = 20.0  # for all rounds of one engine
BATCH_SIZES = (1, 8, 64)  # queries in one call
CHUNK_FRAMES = 50  # frames for which random features are generated at a time
POLL_SECONDS = 0.002  # between two measurements of memory
MEGABYTE = 1 << 20
BATCH_LENGTH = "150s"  # key of `LENGTHS` for measuring throughput


@dataclass(frozen=True)
class Length:
    """A video length to measure.

    Attributes:
        title: name in tables.
        frames: T.
        window_seconds: window length of the head; longer videos are divided into windows.
        reference: whether the published algorithm and raw layers are measured too.
    """

    title: str
    frames: int
    window_seconds: float = 150.0
    reference: bool = True


LENGTHS = {
    "10s": Length("10 s", 5),
    "150s": Length("150 s", 75),
    "33min": Length("33 min, one sequence", 1000, window_seconds=2000.0),
    "1h": Length("1 h", 1800),
    "10h": Length("10 h", 18000, reference=False),
}


def make_head(window_seconds: float) -> R2Head:
    """A head of the published size with random weights; its gates and scales give all layers an effect."""
    torch.manual_seed(0)
    step = min(100.0, window_seconds)
    head = R2Head(HeadConfig(window_seconds=window_seconds, step_seconds=step, nms="normal", unit=2.0)).eval()
    with torch.no_grad():
        head.block.scale.uniform_(0.5, 1.0)
        assert head.block.gate is not None  # of four layers
        head.block.gate.uniform_(-1.0, 1.0)
    return head


def store_video(folder: Path, length: Length, head: R2Head) -> tuple[VideoFeatures, VideoFeatures]:
    """Write random layers and their projection; returns features with the layers, and features with the projection."""
    key = FeatureKey(f"{length.frames:032d}", "0" * 16, FPS)
    features, projections = FeatureStore(folder / "features"), ProjectionStore(folder / "projections")
    own = ProjectionKey(key.video, key.encoder, FPS, "1" * 16)
    with features.write(key, length.frames / FPS, "float16" if length.reference else "none") as writer:
        for layers in _random_layers(length.frames, head.config):
            writer.append(EncodedChunk(np.arange(len(layers)), layers, np.ones((len(layers), 1), np.float32)))
    with projections.write(own, head) as projector:
        for layers in _random_layers(length.frames, head.config):
            projector.append(layers)
    stored = features.open(key)
    return stored, replace(stored, layers=None, projection=projections.open(own))


def engines(head: R2Head) -> dict[str, Predictor]:
    """Predictors of a head for each engine that this machine supports, the fastest first and PyTorch last."""
    found = {}
    for name in (*ENGINES, "torch"):
        os.environ[ENGINE_VARIABLE] = name
        with contextlib.suppress(VtgError):  # not supported by this machine
            found[name] = Predictor(head)
    del os.environ[ENGINE_VARIABLE]
    return found


def _random_layers(frames: int, config: HeadConfig) -> Iterator[np.ndarray]:
    shape = (config.layers, config.tokens or 50, config.video_width)
    chunk = torch.randn(CHUNK_FRAMES, *shape, generator=torch.Generator().manual_seed(1)).half().numpy()
    for first in range(0, frames, CHUNK_FRAMES):
        yield np.roll(chunk, first // CHUNK_FRAMES, axis=0)[: frames - first]


def _queries(config: HeadConfig, count: int) -> list[torch.Tensor]:
    """Random queries, all different, so that no result of an earlier query can be reused."""
    generator = torch.Generator().manual_seed(2)
    return [torch.randn(QUERY_TOKENS, config.layers, config.query_width, generator=generator) for _ in range(count)]


def _ground_by_reference(head: R2Head, video: VideoFeatures, query: torch.Tensor) -> None:
    assert video.layers is not None
    grid = WindowGrid.of(head.config.window_seconds, head.config.step_seconds, FPS)
    found = []
    for start in grid.starts(len(video)):
        part = torch.from_numpy(np.array(video.layers[start : start + grid.length]))
        windows, _ = ground_plainly(head, part, query, FPS)
        found.append(windows.numpy() + np.array([start / FPS, start / FPS, 0.0], np.float32))
    joined = np.concatenate(found)
    ordered = joined[np.argsort(-joined[:, 2])]
    postprocess_windows(ordered, video.duration, unit=2.0, nms="normal", at_most=50)


def _median_ms(
    runs: Mapping[str, Callable[[list[torch.Tensor]], object]], config: HeadConfig, count: int = 1
) -> dict[str, float]:
    """The median milliseconds of each run with `count` queries; the runs alternate, and queries are prepared before."""
    times: dict[str, list[float]] = {name: [] for name in runs}
    queries = iter(_queries(config, count * (ROUNDS + 1)))
    for _ in range(ROUNDS + 1):
        batch = list(itertools.islice(queries, count))
        for name, run in runs.items():
            if sum(times[name]) < MAX_MEASURED_SECONDS:
                begin = time.perf_counter()
                run(batch)
                times[name].append(time.perf_counter() - begin)
    return {name: 1000 * statistics.median(taken[1:] or taken) for name, taken in times.items()}


def measure_length(folder: Path, length: Length) -> dict[str, Any]:
    """Measure the latency of one query, in milliseconds, and the growth of private memory."""
    head = make_head(length.window_seconds)
    raw, projected = store_video(folder, length, head)
    assert projected.projection is not None
    predictors = engines(head)
    runs: dict[str, Callable[[list[torch.Tensor]], object]] = {}
    if length.reference:
        runs["reference"] = lambda texts: _ground_by_reference(head, raw, texts[0])
        runs["raw"] = partial(_ground, head, raw, predictor=predictors["torch"])
    for name, predictor in predictors.items():
        runs[name] = partial(_ground, head, projected, predictor=predictor)
    taken = _median_ms(runs, head.config)
    with _PrivateMemory() as memory:  # not during the measurement of time, which it would slow down
        _ground(head, projected, _queries(head.config, 1), next(iter(predictors.values())))
    figures: dict[str, Any] = {
        "length": length.title,
        "frames": length.frames,
        "windows": len(projected.projection.starts),
        "bytes_a_frame": projected.projection.nbytes / length.frames,
        "memory_growth_mb": memory.growth_mb,
        **{f"{name}_ms": value for name, value in taken.items()},
    }
    if length.reference:
        figures |= {f"reference_to_{name}": taken["reference"] / taken[name] for name in predictors}
    return figures


def _ground(head: R2Head, video: VideoFeatures, texts: list[torch.Tensor], predictor: Predictor) -> None:
    ground_with_head(head, video, ["a query"] * len(texts), texts, predictor)


def measure_batches(folder: Path) -> list[dict[str, Any]]:
    """Measure queries a second on a video of 150 s, by batch size."""
    length = LENGTHS[BATCH_LENGTH]
    head = make_head(length.window_seconds)
    _, projected = store_video(folder, length, head)
    runs = {name: partial(_ground, head, projected, predictor=predictor) for name, predictor in engines(head).items()}
    rows = []
    for count in BATCH_SIZES:
        taken = _median_ms(runs, head.config, count)
        pace = {f"{name}_queries_per_second": 1000 * count / value for name, value in taken.items()}
        rows.append({"queries": count, **pace})
    return rows


class _PrivateMemory:
    """Measures the growth of this process's private memory (RssAnon, without mapped files) where reported."""

    growth_mb: float | None = None

    def __enter__(self) -> _PrivateMemory:
        self._begin = self._peak = _private_bytes()
        self._finished = threading.Event()
        self._watcher = threading.Thread(target=self._watch)
        self._watcher.start()
        return self

    def _watch(self) -> None:
        while not self._finished.wait(POLL_SECONDS):
            self._peak = max(self._peak, _private_bytes())

    def __exit__(self, *_: object) -> None:
        self._finished.set()
        self._watcher.join()
        if self._begin:
            self.growth_mb = (self._peak - self._begin) / MEGABYTE


def _private_bytes() -> int:
    status = Path("/proc/self/status")
    if not status.exists():
        return 0
    line = next(line for line in status.read_text().splitlines() if line.startswith("RssAnon"))
    return int(line.split()[1]) * 1024


def draw(latency: list[dict[str, Any]], path: Path) -> None:
    """Plot latency by video length to a PNG file."""
    import matplotlib as mpl

    mpl.use("Agg")
    from matplotlib import pyplot as plt

    figure, axes = plt.subplots(figsize=(8, 4.5), layout="constrained")
    titles = {
        "reference": "published algorithm",
        "raw": "raw layers",
        **{name: f"projected, {name}" for name in (*ENGINES, "torch")},
    }
    for kind, title in titles.items():
        points = [(row["frames"] / FPS, row[f"{kind}_ms"]) for row in latency if f"{kind}_ms" in row]
        if points:
            axes.plot(*zip(*points, strict=True), marker="o", label=title)
    axes.set(xscale="log", yscale="log", xlabel="length of the video", ylabel="one query, milliseconds")
    axes.set_xticks([row["frames"] / FPS for row in latency], [row["length"].partition(",")[0] for row in latency])
    axes.minorticks_off()
    axes.grid(alpha=0.3)
    axes.legend(frameon=False)
    figure.savefig(path, dpi=120)
    plt.close(figure)


def main() -> None:
    """Run the command."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--lengths", nargs="*", choices=LENGTHS, default=list(LENGTHS), help="video lengths (default: all)"
    )
    parser.add_argument("--threads", type=int, help="threads of PyTorch (default: its own choice)")
    parser.add_argument("--folder", type=Path, help="folder of the features, 3 GB for 10 h (default: a temporary one)")
    parser.add_argument("--picture", type=Path, help="PNG file to which the latencies are plotted")
    parser.add_argument("--json", action="store_true", help="print one JSON document instead of tables")
    arguments = parser.parse_args()
    if arguments.threads:
        torch.set_num_threads(arguments.threads)
    if arguments.folder:
        arguments.folder.mkdir(parents=True, exist_ok=True)
    latency = []
    for name in arguments.lengths:
        with tempfile.TemporaryDirectory(dir=arguments.folder) as folder:
            latency.append(measure_length(Path(folder), LENGTHS[name]))
    with tempfile.TemporaryDirectory(dir=arguments.folder) as folder:
        batches = measure_batches(Path(folder))
    if arguments.picture:
        draw(latency, arguments.picture)
    if arguments.json:
        setting = {"threads": torch.get_num_threads(), "engine": engine_name()}
        print(json.dumps({**setting, "latency": latency, "batches": batches}, indent=1))
        return
    threads = f"{torch.get_num_threads()} threads"
    print(f"one query of {QUERY_TOKENS} tokens, milliseconds (× faster than the reference); {threads}\n")
    for row in latency:
        grown = row["memory_growth_mb"]
        print(row["length"] + (f", {grown:.0f} MB more private memory" if grown is not None else ""))
        for name in ("reference", "raw", *ENGINES, "torch"):
            if f"{name}_ms" in row:
                ratio = f"{row[f'reference_to_{name}']:9.1f} ×" if f"reference_to_{name}" in row else ""
                print(f"  {name:<12}{row[f'{name}_ms']:11.1f}{ratio}")
    print("\nqueries a second on 150 s of video\n")
    for batch in batches:
        cells = [f"{name.removesuffix('_queries_per_second')} {pace:.1f}" for name, pace in batch.items()][1:]
        print(f"{batch['queries']:>4} at once: " + ", ".join(cells))


if __name__ == "__main__":
    main()
