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
from vtg.clip.encoder import ClipEncoder


def _seconds(run: Callable[[], object]) -> float:
    start = time.perf_counter()
    run()
    return time.perf_counter() - start


def measure_gpu(model: str, batch: int, frames: int, rounds: int) -> dict[str, float]:
    """Time ClipEncoder and open_clip's plain loop on a CUDA device, both in float16, in turn.

    Args:
        model: a model of open_clip's catalogue; its weights are random.
        batch: frames in one pass of the plain loop; ClipEncoder sizes its own to memory.
        frames: how many frames in one round.
        rounds: counted rounds of each, after one of warm-up.

    Returns:
        Medians of frames a second and of the ratios, round by round, and the least cosine between the embeddings of a
        frame in float16 there and in float32 on the CPU. Both include the way of pixels there and of results back.
    """
    import open_clip

    with tempfile.TemporaryDirectory() as folder:
        weights = write_random_clip(Path(folder) / "random.safetensors", model)
        encoder = ClipEncoder(model, weights, device="cuda")
        exact = ClipEncoder(model, weights, device="cpu")
        plain = open_clip.create_model(model, str(weights), device="cuda", precision="fp16").eval()
    size = encoder.image_size
    pictures = np.random.default_rng(0).integers(0, 256, (frames, size, size, 3), dtype=np.uint8)

    def plain_loop() -> None:
        with torch.no_grad():
            for start in range(0, frames, batch):
                pixels = torch.from_numpy(pictures[start : start + batch]).cuda().permute(0, 3, 1, 2)
                normal = (pixels.half() / 255 - 0.45) / 0.27
                plain.encode_image(normal, normalize=True).cpu()

    ours, theirs = [], []
    for _ in range(rounds + 1):
        theirs.append(_seconds(plain_loop))
        ours.append(_seconds(lambda: encoder.encode_frames(pictures)))
    few = pictures[:16]
    close = encoder.encode_frames(few).embedding.float().cpu()
    return {
        "vtg_frames_per_second": frames / statistics.median(ours[1:]),
        "open_clip_frames_per_second": frames / statistics.median(theirs[1:]),
        "ratio": statistics.median(b / a for a, b in zip(ours[1:], theirs[1:], strict=True)),
        "float16_least_cosine": float((exact.encode_frames(few).embedding * close).sum(dim=1).min()),
    }


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
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cpu")
    parser.add_argument("--json", action="store_true", help="one JSON document instead of a table")
    arguments = parser.parse_args()
    run = measure_gpu if arguments.device == "cuda" else measure
    figures = run(arguments.model, arguments.batch, arguments.frames, arguments.rounds)
    if arguments.json:
        print(json.dumps(figures))
        return
    where = torch.cuda.get_device_name() if arguments.device == "cuda" else f"{torch.get_num_threads()} threads"
    print(f"{arguments.model}, random weights, {where}, batch {arguments.batch}")
    for name, value in figures.items():
        print(f"  {name:32} {value:8.3f}")


if __name__ == "__main__":
    main()
