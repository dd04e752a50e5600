"""Measures what rounding costs on unseen demo videos: projections as int8, and CLIP computed in bfloat16.

python -m tools.bench.precision --work build/demo --head head.safetensors --videos 200 --json > precision.json
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import tempfile
from dataclasses import replace
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.progress import Progress
from rich.table import Table

import vtg.demo
from tools.demo.test_set import FIGURES, TestSet, figures_of, make_test_set
from vtg.errors import VtgError
from vtg.features.store import FeatureKey
from vtg.grounding.projections import ProjectionKey, ProjectionStore
from vtg.r2 import R2Head

EXACT = "raw layers"
PROJECTED = "projection, int8"
HALVED = "CLIP in bfloat16"


def projected(tests: TestSet, head: R2Head, folder: Path) -> TestSet:
    """The same videos, with the projections instead of the layers."""
    store = ProjectionStore(folder / "projections")
    features = []
    for video in tests.features:
        key = ProjectionKey(video.name, tests.encoder.fingerprint, video.fps, "0" * 16)
        with store.write(key, head) as writer:
            assert video.layers is not None  # make_test_set keeps them
            writer.append(video.layers[:, -head.config.layers :])
        features.append(replace(video, projection=store.open(key)))
    return replace(tests, features=features)


def measure(work: Path, head: R2Head, videos: int, sentences: int, console: Console) -> dict[str, dict[str, float]]:
    """Figures by what was rounded.

    Args:
        work: of `tools/compare_demo.py`, whose test videos are used; they are made where they are not there.
        head: for the demo CLIP.
        videos: how many.
        sentences: asked about each.
        console: for progress.
    """
    from vtg.clip.encoder import ClipEncoder

    results = {}
    with Progress(console=console, transient=True) as bars, tempfile.TemporaryDirectory() as scratch:
        steps: dict[str, Any] = {}

        def show(label: str, done: int, total: int) -> None:
            if label not in steps:
                steps[label] = bars.add_task(label, total=total)
            bars.update(steps[label], completed=done)

        def figures(name: str, tests: TestSet) -> dict[str, float]:
            answers = tests.answer(head, lambda done, total: show(f"asking, {name}", done, total))
            return dict(figures_of(tests, answers, Path(scratch) / f"{name}.jsonl")["all"])

        weights = str(vtg.demo.clip_path())
        cores = os.cpu_count() or 1
        tests = make_test_set(work / "test", ClipEncoder(pretrained=weights), videos, sentences, cores, show)
        results[EXACT] = figures(EXACT, tests)
        results[PROJECTED] = figures(PROJECTED, projected(tests, head, Path(scratch)))
        half = ClipEncoder(pretrained=weights, encoding="bfloat16")
        results[HALVED] = figures(HALVED, _encoded_again(tests, half, Path(scratch), show))
    return results


def _encoded_again(tests: TestSet, encoder: Any, folder: Path, show: Any) -> TestSet:
    from vtg.features.pipeline import encode_video
    from vtg.features.store import FeatureStore

    store = FeatureStore(folder / "halved")
    features = []
    for number, (video, before) in enumerate(zip(tests.videos, tests.features, strict=True)):
        show("encoding in bfloat16", number, len(tests.videos))
        key = FeatureKey(before.name, encoder.fingerprint, before.fps)
        with store.write(key, before.duration, computed=encoder.computes) as writer:
            for chunk in encode_video(video.path, encoder, before.fps):
                writer.append(chunk.layers, chunk.embedding, chunk.miniatures)
        features.append(store.open(key, before.name))
    return replace(tests, encoder=encoder, features=features)


def main() -> int:
    """Runs the command; 0 if it worked, 1 if not."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--work", type=Path, default=Path("build/demo"), help="folder of the test videos")
    parser.add_argument("--head", default="demo", help="a checkpoint or a name of the registry (default: demo)")
    parser.add_argument("--videos", type=int, default=200)
    parser.add_argument("--sentences", type=int, default=8, help="asked about each (default: 8)")
    parser.add_argument("--json", action="store_true", help="one JSON document instead of the table")
    arguments = parser.parse_args()
    try:
        from vtg.models.registry import load_head

        head = load_head(arguments.head)
        results = measure(arguments.work, head, arguments.videos, arguments.sentences, Console(stderr=True))
    except VtgError as error:
        print(error, file=sys.stderr)
        return 1
    if arguments.json:
        print(json.dumps(results, indent=2))
        return 0
    table = Table(title=f"{arguments.videos} unseen videos of the demo world, {arguments.sentences} sentences each")
    for heading in ("", *FIGURES):
        table.add_column(heading, justify="right" if heading else "left")
    for name, row in results.items():
        table.add_row(name, *(f"{row[figure]:.2f}" for figure in FIGURES))
    Console().print(table)
    return 0


if __name__ == "__main__":
    sys.exit(main())
