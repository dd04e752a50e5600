"""Compares what the parts of R²-Tuning are worth on the demo world: one table from nothing, over several seeds."""

from __future__ import annotations

import argparse
import json
import os
import sys
from collections.abc import Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console
from rich.progress import Progress
from rich.table import Table

from vtg.files.whole import write_whole

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # runs from a checkout, installed or not

import vtg.demo
from tools.demo.features import features_folder
from tools.demo.frames import end_with_parent
from tools.demo.head import HeadTraining, train_head, write_training_data
from tools.demo.test_set import FIGURES, TestSet, figures_of, make_test_set
from vtg.errors import VtgError
from vtg.files.hashing import file_sha256
from vtg.training.preparation import Sources

ZERO_SHOT = "zero-shot"


@dataclass(frozen=True)
class Variant:
    """A row of the table.

    Attributes:
        name: of its files.
        title: for people.
        settings: what its recipe has other than the demo's.
    """

    name: str
    title: str
    settings: Mapping[str, Any]


VARIANTS = (
    Variant("k4", "R², K=4", {}),
    Variant("k4-unpooled", "R², K=4, without spatial pooling", {"model.spatial_pooling": False}),
    Variant("k1", "R², last layer only (K=1)", {"model.layers": 1}),
)  # the longest training first, so that no core waits for it at the end


def compare(
    work: Path, tests: TestSet, training: HeadTraining, seeds: int, processes: int, console: Console
) -> dict[str, list[dict[str, dict[str, float]]]]:
    """Trains what is not trained yet and measures what is not measured yet.

    Args:
        work: for heads and figures.
        tests: what the heads are measured on.
        training: how they are trained.
        seeds: how many heads of each variant.
        processes: that train at the same time, each on one core: sums in another order would be other heads.
        console: for progress.

    Returns:
        By variant, the figures of each seed (zero-shot has one), as `figures_of` gives them.

    Raises:
        VtgError: features or heads cannot be made.
    """
    results = {ZERO_SHOT: [_measured(work, ZERO_SHOT, None, tests, console)]}
    data = write_training_data(work, tests.encoder, training, console)
    folder, clip = features_folder(work / "heads", tests.encoder), Path(tests.encoder.pretrained)
    wanted = [(variant, seed) for seed in range(seeds) for variant in VARIANTS]
    heads = [folder / f"{variant.name}-{training.name}-seed{seed}.safetensors" for variant, seed in wanted]
    with ProcessPoolExecutor(processes, get_context("spawn"), _start_worker) as pool:
        missing = [
            pool.submit(_train, data, clip, head, training, *job) for head, job in zip(heads, wanted, strict=True)
        ]
        for (variant, _), head, ready in zip(wanted, heads, missing, strict=True):
            ready.result()
            results.setdefault(variant.name, []).append(_measured(work, head.stem, head, tests, console))
    return results


def _start_worker() -> None:
    import torch  # after vtg, which says how its idle threads wait

    end_with_parent()
    torch.set_num_threads(1)


def _train(data: Sources, clip: Path, head: Path, training: HeadTraining, variant: Variant, seed: int) -> None:
    if not head.is_file():
        train_head(data, clip, head, training, seed, variant.settings, Console(stderr=True))


def _measured(
    work: Path, name: str, head: Path | None, tests: TestSet, console: Console
) -> dict[str, dict[str, float]]:
    from vtg.models.registry import load_head

    identity = {
        "encoder": tests.encoder.fingerprint,
        "head": file_sha256(head)[:16] if head is not None else "",
        "videos": len(tests.videos),
        "sentences": len(tests.samples),
    }
    path = features_folder(work / "figures", tests.encoder) / f"{name}-{len(tests.videos)}.json"
    if path.is_file():
        known = json.loads(path.read_text(encoding="utf-8"))
        if known["identity"] == identity:
            return dict(known["figures"])
    path.parent.mkdir(parents=True, exist_ok=True)
    with Progress(console=console, transient=True) as bars:
        bar = bars.add_task(f"asking {name}", total=len(tests.videos))
        groundings = tests.answer(load_head(head) if head else None, lambda done, _: bars.update(bar, completed=done))
    figures = figures_of(tests, groundings, path.with_suffix(".jsonl"))
    with write_whole(path) as beside:
        beside.write_text(json.dumps({"identity": identity, "figures": figures}, indent=1), encoding="utf-8")
    return figures


def summarised(results: Mapping[str, Sequence[Mapping[str, Mapping[str, float]]]]) -> dict[str, dict[str, Any]]:
    """Mean and spread (the sample's standard deviation; 0 for one seed) by variant, group and figure."""
    table: dict[str, dict[str, Any]] = {}
    for variant, seeds in results.items():
        table[variant] = {"seeds": len(seeds)}
        for group in seeds[0]:
            values = {name: np.array([figures[group][name] for figures in seeds]) for name in FIGURES}
            table[variant][group] = {
                name: [round(float(value.mean()), 2), round(float(value.std(ddof=1)) if len(value) > 1 else 0.0, 2)]
                for name, value in values.items()
            }
    return table


def _print_table(summary: Mapping[str, Mapping[str, Any]], tests: TestSet, console: Console) -> None:
    table = Table(title=f"{len(tests.videos)} unseen videos of the demo world, {len(tests.samples)} sentences")
    for heading in ("", *FIGURES):
        table.add_column(heading, justify="right" if heading else "left")
    titles = {ZERO_SHOT: "zero-shot (CLIP alone)", **{variant.name: variant.title for variant in VARIANTS}}
    for name, groups in summary.items():
        cells = (_cell(groups["all"][figure], groups["seeds"]) for figure in FIGURES)
        table.add_row(titles[name], *cells)
    console.print(table)
    kinds = [group for group in summary[ZERO_SHOT] if group not in ("seeds", "all")]
    by_kind = Table(title="R1@0.5 by kind of sentence")
    for heading in ("", *kinds):
        by_kind.add_column(heading, justify="right" if heading else "left")
    for name, groups in summary.items():
        by_kind.add_row(titles[name], *(_cell(groups[kind]["R1@0.5"], groups["seeds"]) for kind in kinds))
    console.print(by_kind)


def _cell(figure: Sequence[float], seeds: int) -> str:
    mean, spread = figure
    return f"{mean:.1f} ± {spread:.1f}" if seeds > 1 else f"{mean:.1f}"


def main() -> int:
    """Runs the command; 0 if it worked, 1 if not."""
    parser = argparse.ArgumentParser(
        description=__doc__, epilog="example: python tools/compare_demo.py --work build/demo --json > table.json"
    )
    parser.add_argument(
        "--work", type=Path, default=Path("build/demo"), help="folder for all of it; a run goes on there"
    )
    parser.add_argument("--videos", type=int, default=200, help="of the test split (default: 200)")
    parser.add_argument("--sentences", type=int, default=8, help="asked about each (default: 8)")
    parser.add_argument("--seeds", type=int, default=3, help="heads of each variant (default: 3)")
    parser.add_argument(
        "--processes", type=int, default=os.cpu_count() or 1, help="that render and train (default: all cores)"
    )
    parser.add_argument("--json", action="store_true", help="one JSON document instead of the table")
    arguments = parser.parse_args()
    console = Console(stderr=True)
    try:
        summary, tests = _run(arguments, console)
    except VtgError as error:
        print(error, file=sys.stderr)
        return 1
    if arguments.json:
        print(json.dumps(summary, indent=2))
    else:
        _print_table(summary, tests, Console())
    return 0


def _run(arguments: argparse.Namespace, console: Console) -> tuple[dict[str, dict[str, Any]], TestSet]:
    from vtg.clip.encoder import ClipEncoder

    encoder = ClipEncoder(pretrained=str(vtg.demo.clip_path()))
    with Progress(console=console, transient=True) as bars:
        steps: dict[str, Any] = {}

        def show(label: str, done: int, total: int) -> None:
            if label not in steps:
                steps[label] = bars.add_task(label, total=total)
            bars.update(steps[label], completed=done)

        tests = make_test_set(
            arguments.work / "test", encoder, arguments.videos, arguments.sentences, arguments.processes, show
        )
    results = compare(arguments.work, tests, HeadTraining(), arguments.seeds, arguments.processes, console)
    return summarised(results), tests


if __name__ == "__main__":
    sys.exit(main())
