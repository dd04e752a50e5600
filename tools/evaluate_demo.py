"""Evaluate a model on unseen videos of the demo world, as `vtg evaluate` does, for each kind of query."""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from rich.console import Console
from rich.table import Table

from vtg.cli.console import progress_bar
from vtg.demo import make_videos
from vtg.demo.benchmark import index_demo
from vtg.errors import VtgError
from vtg.evaluation import evaluate
from vtg.models.specs import model_spec
from vtg.progress import Reporter, silent
from vtg.recipes import load_recipe

FIGURES = {  # heading in the table → name of the metric
    "R1@0.5": "MR-full-R1@0.5",
    "R1@0.7": "MR-full-R1@0.7",
    "MR mAP": "MR-full-mAP",
    "HD mAP": "HL-min-VeryGood-mAP",
    "Hit@1": "HL-min-VeryGood-Hit1",
}


@dataclass(frozen=True)
class TestVideos:
    """The videos on which a model is evaluated.

    Attributes:
        count: number of videos of the test split.
        first: index of the first one within the split.
        queries: maximum number of queries for each video.
    """

    __test__ = False  # not a test class of pytest

    count: int = 40
    first: int = 0
    queries: int = 8


def evaluate_demo(
    folder: Path,
    videos: TestVideos,
    model: str = "demo",
    pretrained: Path | None = None,
    progress: Reporter = silent,
) -> dict[str, dict[str, float]]:
    """Render videos of the test split, index them, and evaluate a model on them.

    Args:
        folder: folder of the videos, their features and the predictions; existing videos and features are reused.
        videos: the videos to render.
        model: a model name of `vtg.load`, or a head's checkpoint.
        pretrained: weights of the CLIP, if not the model's default.
        progress: called during rendering, indexing and evaluating.

    Returns:
        For each group of queries ("all", "single-frame", and each kind), the number of queries and the metrics of
        `FIGURES` in percent.

    Raises:
        VtgError: there is no such model, or the folder cannot be written to.
    """
    spec = model_spec(model, pretrained=pretrained)
    rendered = make_videos(
        folder,
        "test",
        videos.count,
        first=videos.first,
        sentences=videos.queries,
        progress=progress,
    )
    library = folder / f"library-{spec.encoder.fingerprint}"
    index_demo(library, rendered, spec, progress)
    scores = evaluate(
        load_recipe("demo"),
        library,
        folder / f"{Path(model).stem}.jsonl",
        folder / "annotations.jsonl",
        model,
        progress=progress,
        pretrained=None if pretrained is None else str(pretrained),
    ).scores
    assert scores is not None  # the demo's annotations have windows
    sentences = [sentence for video in rendered for sentence in video.sentences]
    kinds = np.array([sentence.kind for sentence in sentences])
    groups = {"all": np.ones(len(sentences), bool), "single-frame": np.array([one.single_frame for one in sentences])}
    groups |= {kind: kinds == kind for kind in dict.fromkeys(kinds.tolist())}
    return {name: _figures(scores.per_query, members) for name, members in groups.items()}


def _figures(per_query: Any, members: NDArray[np.bool_]) -> dict[str, float]:
    means = {name: float(np.nanmean(per_query[published][members])) for name, published in FIGURES.items()}
    return {"queries": int(members.sum()), **{name: round(mean, 2) for name, mean in means.items()}}


def _print_table(groups: dict[str, dict[str, float]], title: str) -> None:
    table = Table(title=title)
    for heading in ("queries", "number", *FIGURES):
        table.add_column(heading, justify="left" if heading == "queries" else "right")
    for name, figures in groups.items():
        table.add_row(name, f"{figures['queries']:.0f}", *(f"{figures[figure]:.1f}" for figure in FIGURES))
    Console().print(table)


def main() -> int:
    """Run the command; 0 if it worked, 1 if not."""
    parser = argparse.ArgumentParser(
        description=__doc__, epilog="example: python -m tools.evaluate_demo --videos 200 --folder build/demo-test"
    )
    parser.add_argument("--model", default="demo", help="a model name, or a checkpoint (default: demo)")
    parser.add_argument("--pretrained", type=Path, help="weights of the CLIP, if not the model's default")
    parser.add_argument("--videos", type=int, default=TestVideos.count, help="number of videos (default: 40)")
    parser.add_argument(
        "--first", type=int, default=TestVideos.first, help="index of the first video within the test split"
    )
    parser.add_argument(
        "--queries", type=int, default=TestVideos.queries, help="maximum queries for each video (default: 8)"
    )
    parser.add_argument(
        "--folder",
        type=Path,
        help="folder of videos and features; existing ones are reused (default: a temporary folder)",
    )
    parser.add_argument("--json", action="store_true", help="print one JSON document instead of the table")
    arguments = parser.parse_args()
    chosen = TestVideos(arguments.videos, arguments.first, arguments.queries)
    folders = tempfile.TemporaryDirectory() if arguments.folder is None else nullcontext(arguments.folder)
    try:
        with folders as folder, progress_bar("rendering") as show:
            groups = evaluate_demo(Path(folder), chosen, arguments.model, arguments.pretrained, show)
    except VtgError as error:
        print(error, file=sys.stderr)
        return 1
    if arguments.json:
        print(json.dumps({"model": arguments.model, "videos": arguments.videos, "figures": groups}, indent=2))
    else:
        _print_table(groups, f"{arguments.model} on {arguments.videos} unseen videos of the demo world")
    return 0


if __name__ == "__main__":
    sys.exit(main())
