"""Measures frames a second of ClipEncoder, in float32 and bfloat16, against open_clip's plain loop, in one run.

python -m tools.bench.encode --model ViT-B-32-quickgelu --batch 32
"""

from __future__ import annotations

import argparse
import json
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch

from tools.bench.random_clip import write_random_clip
from vtg.clip import ClipEncoder


def _seconds(run: Callable[[], object]) -> float:
    start = time.perf_counter()
    run()
    return time.perf_counter() - start


def measure(model: str, batch: int, frames: int, rounds: int) -> dict[str, float]:
    """Time both on the same frames, in turn.

    Args:
        model: a model of open_clip's catalogue; its weights are random.
        batch: frames in one pass.
        frames: how many frames in one round.
        rounds: counted rounds of each, after one of warm-up.

    Returns:
        Medians of frames a second and of the ratios, round by round; the least cosine between the embeddings of a
        frame in float32 and bfloat16; and whether "auto" chooses bfloat16 here, 1 or 0.
    """
    import open_clip

    with tempfile.TemporaryDirectory() as folder:
        weights = write_random_clip(Path(folder) / "random.safetensors", model)
        encoder = ClipEncoder(model, weights, device="cpu", batch_size=batch)
        half = ClipEncoder(model, weights, device="cpu", batch_size=batch, encoding="bfloat16")
        chosen = ClipEncoder(model, weights, device="cpu", encoding="auto").computes == "bfloat16"
        plain = open_clip.create_model(model, str(weights), device="cpu").eval()
    size = encoder.image_size
    pictures = np.random.default_rng(0).integers(0, 256, (frames, size, size, 3), dtype=np.uint8)

    def plain_loop() -> None:
        with torch.no_grad():
            for start in range(0, frames, batch):
                pixels = encoder.pixels(pictures[start : start + batch])
                plain.encode_image(pixels, normalize=True)

    ours, halves, theirs = [], [], []
    for _ in range(rounds + 1):
        theirs.append(_seconds(plain_loop))
        ours.append(_seconds(lambda: encoder.encode_frames(pictures)))
        halves.append(_seconds(lambda: half.encode_frames(pictures)))
    exact, close = (one.encode_frames(pictures).embedding for one in (encoder, half))
    return {
        "vtg_frames_per_second": frames / statistics.median(ours[1:]),
        "vtg_bfloat16_frames_per_second": frames / statistics.median(halves[1:]),
        "open_clip_frames_per_second": frames / statistics.median(theirs[1:]),
        "ratio": statistics.median(b / a for a, b in zip(ours[1:], theirs[1:], strict=True)),
        "bfloat16_ratio": statistics.median(b / a for a, b in zip(halves[1:], theirs[1:], strict=True)),
        "bfloat16_least_cosine": float((exact * close).sum(dim=1).min()),
        "auto_is_bfloat16": float(chosen),
    }


def main() -> None:
    """Run from a shell."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="ViT-B-32-quickgelu")
    parser.add_argument("--batch", type=int, default=32, help="frames in one pass")
    parser.add_argument("--frames", type=int, default=128, help="frames in one round")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--json", action="store_true", help="one JSON document instead of a table")
    arguments = parser.parse_args()
    figures = measure(arguments.model, arguments.batch, arguments.frames, arguments.rounds)
    if arguments.json:
        print(json.dumps(figures))
        return
    print(f"{arguments.model}, random weights, {torch.get_num_threads()} threads, batch {arguments.batch}")
    for name, value in figures.items():
        print(f"  {name:32} {value:8.3f}")


if __name__ == "__main__":
    main()
