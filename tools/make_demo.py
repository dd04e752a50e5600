"""Rebuilds what is bundled in vtg/demo from nothing: the small CLIP that knows the demo world."""

from __future__ import annotations

import argparse
import sys
import time
from dataclasses import replace
from pathlib import Path

import torch

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # runs from a checkout, installed or not

from tools.demo_encoder import EncoderSettings, Training, save_encoder, train_encoder
from tools.demo_lessons import Plan
from vtg.demo import clip_path
from vtg.errors import VtgError

LINE_EVERY = 100  # steps
SMOKE = Training(
    steps=30, minutes=0.6, warm_up=5, plan=Plan(frames=16, sentences=48, block_scenes=8, lessons_per_block=8)
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
        raise VtgError(f"{path}: its folder does not exist; make it, or give another --out")
    progress = _Progress(every)
    model, words = train_encoder(settings, training, progress)
    save_encoder(model, words, path)
    return progress.first or 0.0, progress.last


def main() -> int:
    """Runs the command; 0 if it worked, 1 if not."""
    parser = argparse.ArgumentParser(
        description=__doc__, epilog="example: python tools/make_demo.py --out /tmp/clip.safetensors"
    )
    parser.add_argument("--out", type=Path, default=clip_path(), help="the file (default: the bundled one)")
    parser.add_argument("--minutes", type=float, default=Training.minutes, help="wall time at most (default: 26)")
    parser.add_argument("--steps", type=int, default=Training.steps, help="steps at most (default: 6000)")
    parser.add_argument("--seed", type=int, default=0, help="the same seed gives the same weights (default: 0)")
    parser.add_argument("--threads", type=int, help="processor cores to train on (default: all)")
    parser.add_argument(
        "--smoke", action="store_true", help="a minute at most: shows that it runs, trains nothing useful"
    )
    arguments = parser.parse_args()
    if arguments.smoke and arguments.out == clip_path():
        print("--smoke: give --out, so that the bundled weights stay as they are", file=sys.stderr)
        return 1
    if arguments.threads:
        torch.set_num_threads(arguments.threads)
    training = SMOKE if arguments.smoke else Training(steps=arguments.steps, minutes=arguments.minutes)
    training = replace(training, plan=replace(training.plan, seed=arguments.seed))
    begin = time.monotonic()
    try:
        first, last = make_clip(arguments.out, EncoderSettings(), training, 5 if arguments.smoke else LINE_EVERY)
    except VtgError as error:
        print(error, file=sys.stderr)
        return 1
    size = arguments.out.stat().st_size / 1e6
    minutes = (time.monotonic() - begin) / 60
    print(f"{arguments.out}: {size:.2f} MB, loss {first:.2f} → {last:.2f}, {minutes:.1f} min")
    return 0


if __name__ == "__main__":
    sys.exit(main())
