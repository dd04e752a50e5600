"""Train the bundled models from scratch: the small CLIP of the demo world and its R² head.

With `--only features`, it writes features and annotations for training a head with `vtg train`:

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
from tools.demo.encoder import EncoderSettings, EncoderTraining, save_encoder, train_encoder
from tools.demo.features import SplitQueries, write_training_data
from tools.demo.frames import BatchPlan
from tools.demo.head import HeadTraining, TrainingPhase, train_head
from vtg.clip.encoder import ClipEncoder
from vtg.errors import VtgError

REPORT_STEPS = 100  # steps between two lines of progress
# For training by the recipe alone: a third of the queries match nothing in their scene.
HEAD_QUERIES = SplitQueries("train", 16, absent=8)
# Limited by their steps: a busy machine does as many, and its loss falls as far.
SMOKE_CLIP = EncoderTraining(
    steps=30, minutes=5.0, warm_up_steps=5, plan=BatchPlan(frames=16, sentences=48, block_scenes=8, batches_per_block=8)
)
SMOKE_HEAD = HeadTraining(
    scenes=8,
    validation_scenes=2,
    phases=(TrainingPhase(1, videos=2, steps=4, minutes=3.0), TrainingPhase(4, videos=2, steps=3, minutes=3.0)),
)


class _Progress:
    """Prints mean losses at regular intervals, and keeps the first and the last mean of their sum."""

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
    path: Path, settings: EncoderSettings, training: EncoderTraining, every: int = REPORT_STEPS
) -> tuple[float, float]:
    """Train the small CLIP and write its file.

    Args:
        path: the file, written whole or not at all.
        settings: sizes of the towers.
        training: duration, learning rates and batches.
        every: steps between two lines of progress.

    Returns:
        The mean loss over the first `every` steps and over the last ones.

    Raises:
        VtgError: the folder of `path` does not exist.
    """
    if not path.parent.is_dir():
        raise VtgError(f"{path.parent}: there is no such folder; create it, or give another --out")
    progress = _Progress(every)
    model, token_rows = train_encoder(settings, training, progress)
    save_encoder(model, token_rows, path)
    return progress.first or 0.0, progress.last


def _run(arguments: argparse.Namespace, console: Console) -> None:
    begin = time.monotonic()
    clip, head = arguments.out / vtg.demo.clip_path().name, arguments.out / vtg.demo.head_path().name
    head_training = SMOKE_HEAD if arguments.smoke else HeadTraining(scenes=arguments.scenes)
    if arguments.only in (None, "clip"):
        training = SMOKE_CLIP if arguments.smoke else EncoderTraining(steps=arguments.steps, minutes=arguments.minutes)
        training = replace(training, plan=replace(training.plan, seed=arguments.seed))
        first, last = make_clip(clip, EncoderSettings(), training, 5 if arguments.smoke else REPORT_STEPS)
        _report(clip, f"loss {first:.2f} → {last:.2f}", begin)
    if arguments.only == "features":
        encoder = ClipEncoder(pretrained=clip, device="cpu")
        counts = head_training.scenes, head_training.validation_scenes
        print(write_training_data(arguments.work, encoder, HEAD_QUERIES, *counts, console))
    if arguments.only in (None, "head"):
        folders = tempfile.TemporaryDirectory() if arguments.work is None else nullcontext(arguments.work)
        with folders as work:
            encoder = ClipEncoder(pretrained=clip, device="cpu")
            figure = train_head(encoder, clip, head, Path(work), head_training, arguments.seed, console)
        _report(head, f"{figure:.1f} % on unseen scenes by the recipe's metric", begin)


def _report(path: Path, result: str, begin: float) -> None:
    print(
        f"{path}: {path.stat().st_size / 1e6:.2f} MB, {result}, {(time.monotonic() - begin) / 60:.1f} min", flush=True
    )


def main() -> int:
    """Run the command; 0 if it worked, 1 if not."""
    bundled = vtg.demo.clip_path().parent
    parser = argparse.ArgumentParser(
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        epilog="example: python tools/make_demo.py --out /tmp/demo",
    )
    parser.add_argument(
        "--out",
        type=Path,
        default=bundled,
        help="folder of both files (default: the package's, which replaces the bundled files)",
    )
    parser.add_argument(
        "--only",
        choices=("clip", "head", "features"),
        help="run one step only; head and features use the CLIP in --out",
    )
    parser.add_argument(
        "--work",
        type=Path,
        help="folder of the training features; existing ones are reused (default: a temporary folder)",
    )
    parser.add_argument(
        "--minutes", type=float, default=EncoderTraining.minutes, help="maximum training time of the CLIP (default: 30)"
    )
    parser.add_argument(
        "--steps", type=int, default=EncoderTraining.steps, help="maximum training steps of the CLIP (default: 6000)"
    )
    parser.add_argument(
        "--scenes", type=int, default=HeadTraining.scenes, help="training scenes of the head (default: 1200)"
    )
    parser.add_argument(
        "--seed", type=int, default=0, help="random seed; the same seed gives the same weights (default: 0)"
    )
    parser.add_argument("--threads", type=int, help="processor threads of PyTorch (default: all cores)")
    parser.add_argument(
        "--smoke", action="store_true", help="check in about two minutes that everything runs; the models are useless"
    )
    arguments = parser.parse_args()
    if arguments.smoke and arguments.only != "features" and arguments.out == bundled:
        print("--smoke: give another --out, because it would overwrite the bundled weights", file=sys.stderr)
        return 1
    if arguments.only == "features" and arguments.work is None:
        print("--only features: give --work, the folder to write the features to", file=sys.stderr)
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
