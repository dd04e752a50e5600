"""Measure encoding and indexing on a GPU: frames a second for each CLIP, and for the whole way from film to library.

    python -m tools.bench.gpu film.mp4 --fps 2

Weights are random. float16 is compared with float32, embeddings alone with four layers.
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
from vtg.library.library import Library
from vtg.library.settings import Storage
from vtg.models.specs import model_spec
from vtg.video import probe

MODELS = ("ViT-B-32-quickgelu", "ViT-B-16-quickgelu", "ViT-L-14", "ViT-L-14-336")
FRAMES = 1024  # of the measurement of encoding


def _rate(run: Callable[[], object], frames: int, rounds: int) -> float:
    """Frames a second: the median of some rounds after one of warm-up."""
    seconds = []
    for _ in range(rounds + 1):
        torch.cuda.synchronize()
        begin = time.perf_counter()
        run()
        torch.cuda.synchronize()
        seconds.append(time.perf_counter() - begin)
    return frames / statistics.median(seconds[1:])


def measure_encoding(model: str, weights: Path, rounds: int) -> dict[str, float]:
    """Frames a second of one CLIP, by precision and number of layers."""
    figures: dict[str, float] = {}
    for dtype in (torch.float16, torch.float32):
        for layers in (0, 4):
            encoder = ClipEncoder(model, weights, layers, "cuda", dtype, preprocessing="openai")
            size = encoder.image_size
            frames = np.random.default_rng(0).integers(0, 256, (FRAMES, size, size, 3), dtype=np.uint8)
            name = f"{str(dtype).removeprefix('torch.')}_{layers}_layers"
            figures[name] = _rate(lambda encoder=encoder, frames=frames: encoder.encode_frames(frames), FRAMES, rounds)  # type: ignore[misc]
    return figures


def measure_index(film: Path, model: str, weights: Path, fps: float, rounds: int) -> dict[str, float]:
    """Sampled frames a second of ``vtg index``, decoding included: embeddings alone, and with the layers kept."""
    spec = model_spec("zero-shot", model, weights, fps, "openai")
    frames = round(probe(film).duration * fps)
    figures: dict[str, float] = {}
    for name, storage in (("index_embeddings", Storage()), ("index_layers", Storage(keep_layers=True))):
        seconds = []
        for _ in range(rounds + 1):
            with tempfile.TemporaryDirectory() as folder:
                library = Library(Path(folder) / "library", spec, "cuda", storage)
                assert library.encoder  # loaded before the measurement
                begin = time.perf_counter()
                failed = library.add([film]).failed
                seconds.append(time.perf_counter() - begin)
                if failed:
                    raise SystemExit(f"{film}: {next(iter(failed.values()))}")
        figures[name] = frames / statistics.median(seconds[1:])
    return figures


def main() -> None:
    """Run the command."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("video", type=Path, help="video to index")
    parser.add_argument("--models", nargs="+", default=MODELS, help="CLIPs in open_clip (default: %(default)s)")
    parser.add_argument("--fps", type=float, default=2.0, help="sampled frames a second (default: %(default)g)")
    parser.add_argument("--rounds", type=int, default=3, help="rounds after one of warm-up (default: %(default)d)")
    parser.add_argument("--json", action="store_true", help="print one JSON document instead of a table")
    arguments = parser.parse_args()
    if not torch.cuda.is_available():
        raise SystemExit("there is no CUDA device here")
    table: dict[str, dict[str, float]] = {}
    with tempfile.TemporaryDirectory() as folder:
        for model in arguments.models:
            weights = write_random_clip(Path(folder) / f"{model}.safetensors", model)
            table[model] = measure_encoding(model, weights, arguments.rounds)
            table[model] |= measure_index(arguments.video, model, weights, arguments.fps, arguments.rounds)
    device = torch.cuda.get_device_name()
    if arguments.json:
        print(json.dumps({"device": device, "frames_per_second": table}))
        return
    print(f"{device}, random weights, frames a second")
    for model, figures in table.items():
        print(model)
        for name, value in figures.items():
            print(f"  {name:24} {value:10.1f}")


if __name__ == "__main__":
    main()
