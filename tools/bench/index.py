"""Measure indexing: time relative to decoding plus open_clip's plain loop, overlap on a separate device, and memory.

    python -m tools.bench.index film.mp4 --model ViT-B-32-quickgelu

Weights are random. The overlap is measured with a simulated encoder that sleeps, like waiting for another device.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import psutil
import torch

from tools.bench.random_clip import write_random_clip
from vtg.clip.encoder import ClipEncoder
from vtg.clip.outputs import FrameFeatures
from vtg.features.arrays import HEADER_BYTES
from vtg.features.pipeline import encode_video
from vtg.library.library import Library
from vtg.models.specs import model_spec
from vtg.video import sample_frames
from vtg.video.framing import Framing

POLL_SECONDS = 0.05  # between two measurements of memory


class SleepingEncoder:
    """A simulated encoder that takes a fixed time for each frame without using the processor."""

    def __init__(self, framing: Framing, seconds_per_frame: float) -> None:
        self.framing = framing
        self._seconds = seconds_per_frame

    def encode_frames(self, frames: np.ndarray) -> FrameFeatures:
        """Sleep, and return zeros."""
        time.sleep(self._seconds * len(frames))
        return FrameFeatures(torch.zeros(len(frames), 4, 2, 2), torch.zeros(len(frames), 2))


def _seconds(run: Callable[[], object]) -> float:
    start = time.perf_counter()
    run()
    return time.perf_counter() - start


def _consume(chunks: Iterator[object]) -> None:
    for _ in chunks:
        pass


def measure_time(video: Path, weights: Path, model: str, fps: float, rounds: int) -> dict[str, float]:
    """Measure decoding, open_clip's plain loop and indexing in alternation.

    The plain loop encodes the decoded frames with open_clip's own model, 32 at a time, and gives embeddings alone, as
    the index does. Medians over the rounds, without the warm-up.
    """
    import open_clip

    encoder = ClipEncoder(model, weights, layers=0, device="cpu", preprocessing="openai")
    plain = open_clip.create_model(model).eval()
    chunks = [frames for _, frames in sample_frames(video, fps, encoder.framing)]
    spec = model_spec("zero-shot", model, weights, fps, "openai")

    def encode_plainly() -> None:
        with torch.inference_mode():
            for frames in chunks:
                plain.encode_image(encoder.pixels(frames), normalize=True)

    decode, encode, index = [], [], []
    for _ in range(rounds + 1):
        decode.append(_seconds(lambda: _consume(sample_frames(video, fps, encoder.framing))))
        encode.append(_seconds(encode_plainly))
        with tempfile.TemporaryDirectory() as folder:
            library = Library(Path(folder) / "library", spec, device="cpu", encoding="float32")
            library.grounder.encoder.encode_frames(chunks[0])  # load the model before the measurement
            index.append(_seconds(lambda library=library: library.add([video])))  # type: ignore[misc]
            kept = sum(path.stat().st_size for path in library.folder.rglob("*") if path.is_file())
    # The first round is warm-up, unless it is the only one.
    first = 1 if rounds else 0
    ratios = [c / (a + b) for a, b, c in zip(decode, encode, index, strict=True)][first:]
    return {
        "decode_seconds": statistics.median(decode[first:]),
        "plain_loop_seconds": statistics.median(encode[first:]),
        "index_seconds": statistics.median(index[first:]),
        "index_to_decode_plus_plain_loop": statistics.median(ratios),
        "library_bytes_a_frame": kept / sum(map(len, chunks)),
    }


def measure_overlap(video: Path, fps: float, framing: Framing, rounds: int) -> dict[str, float]:
    """Measure the pipeline with a simulated device, relative to the slower one of decoding and encoding."""
    frames = sum(len(frames) for _, frames in sample_frames(video, fps, framing))
    figures = {}
    for name, share in (("slower", 1.5), ("equal", 1.0), ("faster", 0.5)):
        ratios = []
        for _ in range(max(1, rounds)):
            decode = _seconds(lambda: _consume(sample_frames(video, fps, framing)))
            encoder = SleepingEncoder(framing, share * decode / frames)
            both = _seconds(lambda encoder=encoder: _consume(encode_video(video, encoder, fps)))  # type: ignore[misc]
            ratios.append(both / max(decode, share * decode))
        figures[f"pipeline_to_the_slower_with_an_encoder_{name}"] = statistics.median(ratios)
    return figures


def measure_memory(video: Path, weights: Path, model: str, fps: float) -> dict[str, float]:
    """Run ``vtg index`` in a separate process and measure its resident memory, MB."""
    with tempfile.TemporaryDirectory() as folder:
        command = [
            sys.executable,
            "-m",
            "vtg",
            "index",
            str(video),
            "--library",
            f"{folder}/library",
            "--fps",
            str(fps),
        ]
        command += ["--clip", model, "--pretrained", str(weights), "--device", "cpu"]
        process = psutil.Popen(command, stdout=subprocess.DEVNULL)
        resident, after_first_chunk = [0], [0]

        def watch() -> None:
            while process.is_running() and process.status() != psutil.STATUS_ZOMBIE:
                with contextlib.suppress(psutil.Error, OSError):  # the process ended or the file was renamed
                    own = process.memory_info().rss
                    resident.append(own)
                    written = sum(part.stat().st_size for part in Path(folder).glob("library/features/*.part"))
                    if written > HEADER_BYTES or len(after_first_chunk) > 1:
                        after_first_chunk.append(own)
                time.sleep(POLL_SECONDS)

        watcher = threading.Thread(target=watch)
        watcher.start()
        status = process.wait()
        watcher.join()
        if status:
            raise SystemExit(f"indexing failed with status {status}")
    peak = max(resident)
    return {
        "peak_mb": peak / 2**20,
        "growth_after_first_chunk_mb": (max(after_first_chunk) - after_first_chunk[1]) / 2**20,
    }


def main() -> None:
    """Run the command."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("video", type=Path, help="video to index")
    parser.add_argument("--model", default="ViT-B-32-quickgelu", help="CLIP in open_clip (default: %(default)s)")
    parser.add_argument("--fps", type=float, default=0.5, help="sampled frames a second (default: 0.5)")
    parser.add_argument("--rounds", type=int, default=3, help="rounds after one of warm-up (default: 3)")
    parser.add_argument("--only", choices=["time", "overlap", "memory"], help="measure only this")
    parser.add_argument("--json", action="store_true", help="print one JSON document instead of a table")
    arguments = parser.parse_args()
    figures: dict[str, float] = {}
    with tempfile.TemporaryDirectory() as folder:
        weights = write_random_clip(Path(folder) / "random.safetensors", arguments.model)
        if arguments.only in (None, "memory"):
            figures |= measure_memory(arguments.video, weights, arguments.model, arguments.fps)
        if arguments.only in (None, "overlap"):
            figures |= measure_overlap(arguments.video, arguments.fps, Framing(224), arguments.rounds)
        if arguments.only in (None, "time"):
            figures |= measure_time(arguments.video, weights, arguments.model, arguments.fps, arguments.rounds)
    if arguments.json:
        print(json.dumps(figures))
        return
    print(f"{arguments.video.name}, {arguments.model} with random weights, {torch.get_num_threads()} threads")
    for name, value in figures.items():
        print(f"  {name:48} {value:10.3f}")


if __name__ == "__main__":
    main()
