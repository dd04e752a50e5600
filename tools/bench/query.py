"""Measures queries: latency by length, queries a second and memory, of each engine beside the published algorithm.

    python -m tools.bench.query --json > query.json
    python -m tools.bench.query --lengths 150s 33min --picture query.png

A full-size head (ViT-B/32 shapes) with random weights, a 12-token query, features on the disk and warm, all in one run.
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
from vtg.features.store import FeatureKey, FeatureStore, VideoFeatures
from vtg.grounding.projections import ProjectionKey, ProjectionStore
from vtg.grounding.window_layout import window_frames, window_starts
from vtg.grounding.windows import ground_with_head
from vtg.r2 import HeadConfig, Predictor, R2Head, postprocess_windows
from vtg.r2.engine import ENGINE_VARIABLE, ENGINES, engine_name

FPS = 0.5
WORDS = 12  # tokens of the query
ROUNDS = 7  # of which the median counts, after one of warm-up
LONGEST_MEASURED = 20.0  # seconds of rounds of one kind
BATCHES = (1, 8, 64)  # queries at once
CHUNK = 50  # frames of random layers made at a time
POLL_SECONDS = 0.002
MEGABYTE = 1 << 20
BATCH_LENGTH = "150s"


@dataclass(frozen=True)
class Length:
    """A video to ask.

    Attributes:
        title: for people.
        frames: T.
        window_seconds: of the head: what is longer is cut.
        reference: whether the plain algorithm and the raw layers are measured too.
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
    """A head of the published size with random weights, whose gates let everything take part."""
    torch.manual_seed(0)
    step = min(100.0, window_seconds)
    head = R2Head(HeadConfig(window_seconds=window_seconds, step_seconds=step, nms="normal", unit=2.0)).eval()
    with torch.no_grad():
        head.block.scale.uniform_(0.5, 1.0)
        assert head.block.gate is not None  # of four layers
        head.block.gate.uniform_(-1.0, 1.0)
    return head


def store_video(folder: Path, length: Length, head: R2Head) -> tuple[VideoFeatures, VideoFeatures]:
    """Writes random layers and their projection; gives the features with layers, and with the projection instead."""
    key = FeatureKey(f"{length.frames:032d}", "0" * 16, FPS)
    features, projections = FeatureStore(folder / "features"), ProjectionStore(folder / "projections")
    own = ProjectionKey(key.video, key.encoder, FPS, "1" * 16)
    with features.write(key, length.frames / FPS, "float16" if length.reference else "none") as writer:
        for layers in _random_layers(length.frames, head.config):
            writer.append(layers, np.ones((len(layers), 1), np.float32))
    with projections.write(own, head) as projector:
        for layers in _random_layers(length.frames, head.config):
            projector.append(layers)
    stored = features.open(key)
    return stored, replace(stored, layers=None, projection=projections.open(own))


def engines(head: R2Head) -> dict[str, Predictor]:
    """A head by each engine of this machine, the best first, PyTorch last."""
    found = {}
    for name in (*ENGINES, "torch"):
        os.environ[ENGINE_VARIABLE] = name
        with contextlib.suppress(VtgError):  # not here
            found[name] = Predictor(head)
    del os.environ[ENGINE_VARIABLE]
    return found


def _random_layers(frames: int, config: HeadConfig) -> Iterator[np.ndarray]:
    shape = (config.layers, config.tokens or 50, config.video_width)
    chunk = torch.randn(CHUNK, *shape, generator=torch.Generator().manual_seed(1)).half().numpy()
    for first in range(0, frames, CHUNK):
        yield np.roll(chunk, first // CHUNK, axis=0)[: frames - first]


def _queries(config: HeadConfig, count: int) -> list[torch.Tensor]:
    """As many as there are questions: nothing that was worked out for a query before helps."""
    generator = torch.Generator().manual_seed(2)
    return [torch.randn(WORDS, config.layers, config.query_width, generator=generator) for _ in range(count)]


def _answer_plainly(head: R2Head, video: VideoFeatures, query: torch.Tensor) -> None:
    assert video.layers is not None
    length, step = window_frames(head.config.window_seconds, head.config.step_seconds, FPS)
    found = []
    for start in window_starts(len(video), length, step):
        part = torch.from_numpy(np.array(video.layers[start : start + length]))
        windows, _ = ground_plainly(head, part, query, FPS)
        found.append(windows.numpy() + np.array([start / FPS, start / FPS, 0.0], np.float32))
    joined = np.concatenate(found)
    ordered = joined[np.argsort(-joined[:, 2])]
    postprocess_windows(ordered, video.duration, unit=2.0, nms="normal", at_most=50)


def _median_ms(
    ways: Mapping[str, Callable[[list[torch.Tensor]], object]], config: HeadConfig, count: int = 1
) -> dict[str, float]:
    """Of one go of each way with so many queries, which are ready before the clock starts; the ways take turns."""
    times: dict[str, list[float]] = {name: [] for name in ways}
    queries = iter(_queries(config, count * (ROUNDS + 1)))
    for _ in range(ROUNDS + 1):
        asked = list(itertools.islice(queries, count))
        for name, run in ways.items():
            if sum(times[name]) < LONGEST_MEASURED:
                begin = time.perf_counter()
                run(asked)
                times[name].append(time.perf_counter() - begin)
    return {name: 1000 * statistics.median(taken[1:] or taken) for name, taken in times.items()}


def measure_length(folder: Path, length: Length) -> dict[str, Any]:
    """Latency of one query, milliseconds, and how far private memory grows."""
    head = make_head(length.window_seconds)
    raw, projected = store_video(folder, length, head)
    assert projected.projection is not None
    predictors = engines(head)
    ways: dict[str, Callable[[list[torch.Tensor]], object]] = {}
    if length.reference:
        ways["reference"] = lambda texts: _answer_plainly(head, raw, texts[0])
        ways["raw"] = partial(_ask, head, raw, predictor=predictors["torch"])
    for name, predictor in predictors.items():
        ways[name] = partial(_ask, head, projected, predictor=predictor)
    taken = _median_ms(ways, head.config)
    with _PrivateMemory() as memory:  # not while time is measured: looking takes some
        _ask(head, projected, _queries(head.config, 1), next(iter(predictors.values())))
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


def _ask(head: R2Head, video: VideoFeatures, texts: list[torch.Tensor], predictor: Predictor) -> None:
    ground_with_head(head, video, ["a query"] * len(texts), texts, predictor)


def measure_batches(folder: Path) -> list[dict[str, Any]]:
    """Queries a second on 150 s of video."""
    length = LENGTHS[BATCH_LENGTH]
    head = make_head(length.window_seconds)
    _, projected = store_video(folder, length, head)
    ways = {name: partial(_ask, head, projected, predictor=predictor) for name, predictor in engines(head).items()}
    rows = []
    for count in BATCHES:
        taken = _median_ms(ways, head.config, count)
        pace = {f"{name}_queries_per_second": 1000 * count / value for name, value in taken.items()}
        rows.append({"queries": count, **pace})
    return rows


class _PrivateMemory:
    """Watches what belongs to this process alone (RssAnon: mapped files do not count), where the system tells it."""

    growth_mb: float | None = None

    def __enter__(self) -> _PrivateMemory:
        self._begin = self._most = _private_bytes()
        self._over = threading.Event()
        self._watcher = threading.Thread(target=self._watch)
        self._watcher.start()
        return self

    def _watch(self) -> None:
        while not self._over.wait(POLL_SECONDS):
            self._most = max(self._most, _private_bytes())

    def __exit__(self, *_: object) -> None:
        self._over.set()
        self._watcher.join()
        if self._begin:
            self.growth_mb = (self._most - self._begin) / MEGABYTE


def _private_bytes() -> int:
    status = Path("/proc/self/status")
    if not status.exists():
        return 0
    line = next(line for line in status.read_text().splitlines() if line.startswith("RssAnon"))
    return int(line.split()[1]) * 1024


def draw(latency: list[dict[str, Any]], path: Path) -> None:
    """Latency by length as a picture."""
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
    """Run from a shell."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--lengths", nargs="*", choices=LENGTHS, default=list(LENGTHS), help="default: all")
    parser.add_argument("--threads", type=int, help="of torch; default: its own choice")
    parser.add_argument("--folder", type=Path, help="for the features, 3 GB for ten hours; default: a temporary one")
    parser.add_argument("--picture", type=Path, help="a PNG to draw the latencies to")
    parser.add_argument("--json", action="store_true", help="one JSON document instead of tables")
    arguments = parser.parse_args()
    if arguments.threads:
        torch.set_num_threads(arguments.threads)
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
    print(
        f"one query of {WORDS} tokens, milliseconds (× quicker than the reference); {torch.get_num_threads()} threads\n"
    )
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
