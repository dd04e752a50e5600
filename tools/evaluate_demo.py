"""Measures a model on unseen videos of the demo world, by the same path that any file takes."""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
import time
from collections.abc import Callable, Iterable, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from rich.console import Console
from rich.progress import Progress
from rich.table import Table

import vtg
from vtg.demo import DemoVideo, Sentence, make_videos, truth
from vtg.errors import VtgError
from vtg.timespans import interval_iou

if TYPE_CHECKING:
    from collections.abc import Iterator

    from numpy.random import Generator
    from numpy.typing import NDArray

RANDOM_DRAWS = 200  # windows drawn for each sentence, of which the mean counts


@dataclass(frozen=True)
class Scores:
    """How well the first windows fit, in percent.

    Attributes:
        sentences: how many were asked.
        r1_at_5: of these, how many have an IoU of at least 0.5 with a true window.
        r1_at_7: the same at 0.7.
        mean_iou: over the sentences, with the true window that fits best.
    """

    sentences: int
    r1_at_5: float
    r1_at_7: float
    mean_iou: float


@dataclass(frozen=True)
class Answer:
    """A sentence asked about a video: IoU of the first window, and IoUs of random windows of a true length."""

    sentence: Sentence
    iou: float
    random_ious: NDArray[np.float64]


def evaluate(
    grounder: vtg.Grounder, videos: Sequence[DemoVideo], seed: int = 0, progress: Callable[[int], None] | None = None
) -> list[Answer]:
    """Asks every sentence of every video.

    Args:
        grounder: what answers.
        videos: rendered files and what is asked about them.
        seed: of the random windows.
        progress: called with the number of videos done so far.

    Returns:
        One answer a sentence.

    Raises:
        VideoError: a file cannot be read.
    """
    random = np.random.default_rng(seed)
    answers = []
    for done, video in enumerate(videos, 1):
        groundings = grounder.ground_many(video.path, [sentence.text for sentence in video.sentences])
        for sentence, grounding in zip(video.sentences, groundings, strict=True):
            true = np.array(truth(video.scene, sentence).windows)
            found = np.array([[moment.start, moment.end] for moment in grounding.moments[:1]]).reshape(-1, 2)
            drawn = _random_windows(random, true, video.scene.duration)
            answers.append(
                Answer(sentence, float(interval_iou(found, true).max(initial=0)), interval_iou(drawn, true).max(axis=1))
            )
        if progress is not None:
            progress(done)
    return answers


def summarise(answers: Iterable[Answer]) -> dict[str, Scores]:
    """Scores for single-frame sentences, for all, kind by kind, and for random windows of a true length."""
    answers = list(answers)
    groups = {
        "single-frame sentences": [answer for answer in answers if answer.sentence.single_frame],
        "all sentences": answers,
    }
    for kind in dict.fromkeys(answer.sentence.kind for answer in answers):
        groups[f"kind: {kind}"] = [answer for answer in answers if answer.sentence.kind == kind]
    table = {name: _scores([np.array([answer.iou]) for answer in group]) for name, group in groups.items()}
    table["random, single-frame"] = _scores([answer.random_ious for answer in groups["single-frame sentences"]])
    table["random, all"] = _scores([answer.random_ious for answer in answers])
    return table


def _scores(ious: Sequence[NDArray[np.float64]]) -> Scores:
    if not ious:
        return Scores(0, 0.0, 0.0, 0.0)
    return Scores(
        sentences=len(ious),
        r1_at_5=100 * float(np.mean([(iou >= 0.5).mean() for iou in ious])),
        r1_at_7=100 * float(np.mean([(iou >= 0.7).mean() for iou in ious])),
        mean_iou=100 * float(np.mean([iou.mean() for iou in ious])),
    )


def _random_windows(random: Generator, true: NDArray[np.float64], duration: float) -> NDArray[np.float64]:
    lengths = random.choice(true[:, 1] - true[:, 0], RANDOM_DRAWS)
    starts = random.uniform(0, duration - lengths)
    return np.column_stack([starts, starts + lengths])


@contextmanager
def _folder(chosen: Path | None) -> Iterator[Path]:
    if chosen is not None:
        yield chosen
        return
    with tempfile.TemporaryDirectory() as folder:
        yield Path(folder)


def _measure(arguments: argparse.Namespace, console: Console) -> dict[str, Any]:
    grounder = vtg.load(arguments.model, pretrained=arguments.pretrained)
    with _folder(arguments.folder) as folder, Progress(console=console) as bars:
        rendering = bars.add_task("rendering", total=None)
        videos = make_videos(
            folder,
            "test",
            arguments.videos,
            first=arguments.first,
            sentences=arguments.sentences,
            progress=lambda state: bars.update(rendering, completed=state.done, total=state.total),
        )
        asking = bars.add_task("asking", total=len(videos))
        begin = time.monotonic()
        answers = evaluate(grounder, videos, progress=lambda done: bars.update(asking, completed=done))
        seconds = time.monotonic() - begin
    return {
        "model": arguments.model,
        "videos": len(videos),
        "minutes_of_video": sum(video.scene.duration for video in videos) / 60,
        "seconds": seconds,
        "scores": {name: vars(scores) for name, scores in summarise(answers).items()},
    }


def _print_table(measured: dict[str, Any], console: Console) -> None:
    table = Table(title=f"{measured['model']} on {measured['videos']} unseen videos of the demo world")
    for heading in ("", "sentences", "R1@0.5", "R1@0.7", "mean IoU"):
        table.add_column(heading, justify="right" if heading else "left")
    for name, scores in measured["scores"].items():
        figures = (f"{scores[key]:.1f}" for key in ("r1_at_5", "r1_at_7", "mean_iou"))
        table.add_row(name, str(scores["sentences"]), *figures)
    console.print(table)


def main() -> int:
    """Runs the command; 0 if it worked, 1 if not."""
    parser = argparse.ArgumentParser(
        description=__doc__, epilog="example: python tools/evaluate_demo.py --videos 40 --json > scores.json"
    )
    parser.add_argument("--model", default="demo", help="a name that vtg.load knows (default: demo)")
    parser.add_argument("--pretrained", help="other CLIP weights for it, a tag or a file")
    parser.add_argument("--videos", type=int, default=40, help="how many (default: 40)")
    parser.add_argument("--first", type=int, default=0, help="number of the first one within the test split")
    parser.add_argument("--sentences", type=int, default=8, help="asked about each video (default: 8)")
    parser.add_argument("--folder", type=Path, help="keep the videos here, and use those that are here already")
    parser.add_argument("--json", action="store_true", help="one JSON document instead of the table")
    arguments = parser.parse_args()
    try:
        measured = _measure(arguments, Console(stderr=True))
    except VtgError as error:
        print(error, file=sys.stderr)
        return 1
    if arguments.json:
        print(json.dumps(measured, indent=2))
    else:
        _print_table(measured, Console())
    return 0


if __name__ == "__main__":
    sys.exit(main())
