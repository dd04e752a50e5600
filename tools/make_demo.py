"""Rebuild the bundled weights from nothing: the small CLIP of the demo world, and its R² head.

With `--only features` it writes what a head can be trained on by the recipe alone:

    python -m tools.make_demo --only features --work build/demo
    vtg train demo --features FOLDER --annotations FOLDER --set model.layers=1
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path

import torch
from rich.console import Console

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # runs from a checkout, installed or not

import vtg.demo
from tools.demo.drill import Drill, Phase, drill_head
from tools.demo.encoder import EncoderSettings, Training, save_encoder, train_encoder
from tools.demo.features import Asked, write_training_data
from tools.demo.frames import Plan
from vtg.clip.encoder import ClipEncoder
from vtg.errors import VtgError

LINE_EVERY = 100  # steps
# Of a head that is trained by the recipe alone, a third of the queries match nothing in their scene.
HEAD_QUERIES = Asked("train", 16, absent=8)
SMOKE = Training(
    steps=30, minutes=0.6, warm_up=5, plan=Plan(frames=16, sentences=48, block_scenes=8, lessons_per_block=8)
)
SMOKE_HEAD = Drill(
    scenes=8, validation_scenes=2, phases=(Phase(1, videos=2, steps=4, minutes=1.0), Phase(4, 2, steps=3, minutes=1.0))
)


class _Progress:
    """Prints running means of the losses, and keeps the first and last ones."""

    def __init__(self, every: int) -> None:
        self.every = every
        self.begin = time.monotonic()
        self.sums: dict[str, float] = {}
        self.first: float | None = None
        self.last = 0.0

    def __call__(self, step: int, done: float, losses: dict[str, float]) -> None:
        for name, loss in losses.items():
            self.sums[name] = self.sums.get(name, 0.0) + loss
        if step % self.every and done < 1:
            return
        count = step % self.every or self.every
        self.last = sum(self.sums.values()) / count
        self.first = self.last if self.first is None else self.first
        parts = "  ".join(f"{name} {total / count:.3f}" for name, total in self.sums.items())
        minutes = (time.monotonic() - self.begin) / 60
        print(f"{100 * min(1.0, done):5.1f} %  {minutes:5.1f} min  step {step:5d}  {parts}", flush=True)
        self.sums = {}


def make_clip(
    path: Path, settings: EncoderSettings, training: Training, every: int = LINE_EVERY
) -> tuple[float, float]:
    """Trains the small CLIP and writes its file.

    Args:
        path: where to; the file appears when it is whole.
        settings: sizes of the towers.
        training: how long and how fast.
        every: steps between two lines of progress.

    Returns:
        The mean loss over the first `every` steps and over the last ones.

    Raises:
        VtgError: the folder of `path` is missing.
    """
    if not path.parent.is_dir():
        raise VtgError(f"{path.parent}: there is no such folder; make it, or give another --out")
    progress = _Progress(every)
    model, words = train_encoder(settings, training, progress)
    save_encoder(model, words, path)
    return progress.first or 0.0, progress.last


def _run(arguments: argparse.Namespace, console: Console) -> None:
    begin = time.monotonic()
    clip, head = arguments.out / vtg.demo.clip_path().name, arguments.out / vtg.demo.head_path().name
    drill = SMOKE_HEAD if arguments.smoke else Drill(scenes=arguments.scenes)
    if arguments.only in (None, "clip"):
        training = SMOKE if arguments.smoke else Training(steps=arguments.steps, minutes=arguments.minutes)
        training = replace(training, plan=replace(training.plan, seed=arguments.seed))
        first, last = make_clip(clip, EncoderSettings(), training, 5 if arguments.smoke else LINE_EVERY)
        _report(clip, f"loss {first:.2f} → {last:.2f}", begin)
    if arguments.only == "features":
        encoder = ClipEncoder(pretrained=clip, device="cpu")
        print(
            write_training_data(arguments.work, encoder, HEAD_QUERIES, drill.scenes, drill.validation_scenes, console)
        )
    if arguments.only in (None, "head"):
        folders = tempfile.TemporaryDirectory() if arguments.work is None else nullcontext(arguments.work)
        with folders as work:
            encoder = ClipEncoder(pretrained=clip, device="cpu")
            figure = drill_head(encoder, clip, head, Path(work), drill, arguments.seed, console)
        _report(head, f"{figure:.1f} % on unseen scenes by the recipe's metric", begin)


def _report(path: Path, result: str, begin: float) -> None:
    print(
        f"{path}: {path.stat().st_size / 1e6:.2f} MB, {result}, {(time.monotonic() - begin) / 60:.1f} min", flush=True
    )


def main() -> int:
    """Runs the command; 0 if it worked, 1 if not."""
    bundled = vtg.demo.clip_path().parent
    parser = argparse.ArgumentParser(
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        epilog="example: python tools/make_demo.py --out /tmp/demo",
    )
    parser.add_argument("--out", type=Path, default=bundled, help="folder of both files (default: the bundled ones)")
    parser.add_argument(
        "--only", choices=("clip", "head", "features"), help="one step; the others read the CLIP of --out"
    )
    parser.add_argument("--work", type=Path, help="keep the features here, and reuse those that are here")
    parser.add_argument("--minutes", type=float, default=Training.minutes, help="for the CLIP at most (default: 30)")
    parser.add_argument("--steps", type=int, default=Training.steps, help="of the CLIP at most (default: 6000)")
    parser.add_argument("--scenes", type=int, default=Drill.scenes, help="that the head learns from")
    parser.add_argument("--seed", type=int, default=0, help="the same seed gives the same weights (default: 0)")
    parser.add_argument("--threads", type=int, help="processor cores to train on (default: all)")
    parser.add_argument(
        "--smoke", action="store_true", help="two minutes at most: shows that it runs, trains nothing useful"
    )
    arguments = parser.parse_args()
    if arguments.smoke and arguments.only != "features" and arguments.out == bundled:
        print("--smoke: give --out, so that the bundled weights stay as they are", file=sys.stderr)
        return 1
    if arguments.only == "features" and arguments.work is None:
        print("--only features: give --work, the folder to write them to", file=sys.stderr)
        return 1
    if arguments.threads:
        torch.set_num_threads(arguments.threads)
    try:
        _run(arguments, Console(stderr=True))
    except VtgError as error:
        print(error, file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
