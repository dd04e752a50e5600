"""Measure training steps and memory, relative to a straightforward implementation of the published algorithm.

    python -m tools.bench.train

Features are random, with the shapes of QVHighlights. The straightforward loop loads each `.npy` file, pads, and runs
the method operator by operator; vtg's loop maps files, reads ahead, and projects tokens in chunks. Both run alternately
in separate processes; the peak memory does not include mapped files.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import AbstractContextManager, nullcontext
from dataclasses import replace
from pathlib import Path

import numpy as np
import psutil
import torch
from torch import Tensor, nn

from vtg.features.store import PublishedFeatures
from vtg.r2 import HeadConfig, R2Head, TrainingBatch, training_losses
from vtg.r2.block import R2Block
from vtg.r2.projection import LayerTokens
from vtg.recipes import Recipe, load_recipe
from vtg.training.batches import BatchPlan, Share, plan_epoch, read_batches
from vtg.training.data import TrainingSet
from vtg.training.preparation import Sources, prepare

FRAMES, LAYERS, TOKENS, WIDTH, TEXT_WIDTH = 75, 4, 50, 768, 512  # of the features
MAX_QUERY_TOKENS, MIN_QUERY_TOKENS = 24, 8
POLL_SECONDS = 0.02  # between two measurements of memory


class PlainBlock(R2Block):
    """The R² block with the operators of the paper applied to complete layers."""

    def map_video(self, layer: Tensor, extent: Tensor, mask: Tensor | None = None) -> Tensor:
        """See `R2Block.map_video`."""
        tokens = layer.float()
        if mask is not None:
            tokens = tokens.masked_fill(~mask[:, :, None, None], 0)
        batch, _, patches, _ = tokens.shape
        tokens = torch.cat((tokens, extent[None, :, None].expand(batch, -1, patches, -1)), dim=-1)
        mapped: Tensor = self.video_map(tokens)
        return mapped

    def pool(self, layer: LayerTokens, query: Tensor, word_mask: Tensor | None) -> Tensor:
        """See `R2Block.pool`."""
        video = layer.values
        words, keys = self.query_key(query), self.video_key(video)
        similarity = words[:, None] @ keys.transpose(2, 3) / math.sqrt(video.shape[-1])  # [B, T, L, P]
        return (similarity.softmax(dim=-1) @ video + query[:, None]).amax(dim=2)


def make_plain(head: R2Head) -> None:
    """Change a head to compute as `PlainBlock`, with PyTorch's dropout."""
    head.block.__class__ = PlainBlock
    for mapping in (head.block.video_map, head.block.query_map):
        mapping.__class__ = nn.Sequential  # type: ignore[assignment]
        for place in (1, 5):
            mapping[place] = nn.Dropout(head.config.dropout)


def write_features(folder: Path, videos: int) -> None:
    """Write random features and annotations of as many samples."""
    random = np.random.default_rng(0)
    published = PublishedFeatures(folder)
    with (folder / "train.jsonl").open("w", encoding="utf-8") as file:
        for number in range(videos):
            shape = (FRAMES, LAYERS, TOKENS, WIDTH)
            published.write_video(f"v{number}", random.standard_normal(shape, dtype=np.float32))
            words = int(random.integers(MIN_QUERY_TOKENS, MAX_QUERY_TOKENS + 1))
            published.write_query(number, random.standard_normal((words, LAYERS, TEXT_WIDTH), dtype=np.float32))
            fields = {"qid": number, "vid": f"v{number}", "query": "a dog", "duration": 2 * FRAMES}
            file.write(json.dumps({**fields, "relevant_windows": [[20, 60]]}) + "\n")


def straightforward_batches(training_set: TrainingSet, plans: list[BatchPlan], folder: Path) -> Iterator[TrainingBatch]:
    """Yield batches: load each file, convert it to float32, and pad."""
    for plan in plans:
        samples = [training_set.samples[index] for index in plan.samples]
        videos, queries = [], []
        for one in samples:
            video = np.load(folder / "clip_b32_vid_k4" / f"{one.sample.video_id}.npy")
            query = np.load(folder / "clip_b32_txt_k4" / f"{one.sample.query_id}.npy")
            videos.append(torch.from_numpy(video).float())
            queries.append(torch.from_numpy(query).float())
        frames, words = (torch.tensor([len(each) for each in several]) for several in (videos, queries))
        video, query = (nn.utils.rnn.pad_sequence(several, batch_first=True) for several in (videos, queries))
        saliency = [torch.from_numpy(one.saliency) for one in samples]
        yield TrainingBatch(
            video=video,
            query=query,
            video_mask=torch.arange(video.shape[1]) < frames[:, None],
            query_mask=torch.arange(query.shape[1]) < words[:, None],
            saliency=nn.utils.rnn.pad_sequence(saliency, batch_first=True),
            positive_frame=torch.tensor([int(one.positives[0]) for one in samples]),
            windows=[one.windows for one in samples if one.windows is not None],
            fps=0.5,
        )


def train_steps(loop: str, folder: Path, batch: int, steps: int, precision: str, device: str) -> Iterator[float]:
    """Train, and yield the seconds of each step including reading, after one step of warm-up.

    Args:
        loop: "straightforward" or "vtg".
        folder: folder written by `write_features`.
        batch: batch size.
        steps: steps after the warm-up.
        precision: "float32" or "bf16".
        device: "cpu" or "cuda".
    """
    recipe: Recipe = load_recipe("qvhighlights", ["train.validation=none"])
    prepared = prepare(recipe, Sources(folder, folder / "train.jsonl"), device)
    torch.manual_seed(0)
    config: HeadConfig = replace(prepared.config, name="bench")
    head = R2Head(config).to(device)
    if loop == "straightforward":
        make_plain(head)
    optimizer = torch.optim.AdamW(head.parameters(), lr=1e-4, weight_decay=1e-4)
    samples = prepared.training_set.samples
    epochs = range(-(-(steps + 1) * batch // len(samples)))
    plans = [plan for epoch in epochs for plan in plan_epoch(samples, batch, 1, 1, 0, epoch)][: steps + 1]
    source: AbstractContextManager[Iterator[TrainingBatch]]
    if loop == "vtg":
        seeds = [(0, number) for number in range(len(plans))]
        source = read_batches(prepared.training_set, plans, seeds, LAYERS, TOKENS, 1, Share(), device == "cuda")
    else:
        source = nullcontext(straightforward_batches(prepared.training_set, plans, folder))
    with source as batches:
        begun = time.perf_counter()
        for number, one in enumerate(batches):
            with torch.autocast(device, torch.bfloat16, enabled=precision == "bf16"):
                losses = training_losses(head, one.to(device))
            loss = torch.stack([*losses.values()]).sum()
            loss.backward()
            nn.utils.clip_grad_norm_(head.parameters(), 35.0)
            optimizer.step()
            optimizer.zero_grad()
            if device == "cuda":
                torch.cuda.synchronize()
            now = time.perf_counter()
            if number:
                yield now - begun
            begun = now


def measure_child(loop: str, folder: Path, arguments: argparse.Namespace) -> tuple[list[float], float, float]:
    """Run a loop in a separate process: seconds of each step, peak memory in MB, and processor seconds of a step."""
    command = [sys.executable, "-m", "tools.bench.train", "--loop", loop, "--folder", str(folder)]
    for name in ("batch", "steps", "precision", "device"):
        command += [f"--{name}", str(getattr(arguments, name))]
    with psutil.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        peak = 0
        finished = threading.Event()

        def watch() -> None:
            nonlocal peak
            while not finished.wait(POLL_SECONDS):
                try:
                    memory = process.memory_info()
                except psutil.Error:
                    return
                peak = max(peak, memory.rss - getattr(memory, "shared", 0))  # the system can reclaim mapped files

        watcher = threading.Thread(target=watch)
        watcher.start()
        output = process.stdout.read()
        process.wait()
        finished.set()
        watcher.join()
    if process.returncode:
        raise SystemExit(f"the {loop} loop failed with status {process.returncode}")
    figures = json.loads(output)
    return figures["seconds"], peak / 1e6, figures["processor"]


def compare(arguments: argparse.Namespace) -> dict[str, float]:
    """Measure both loops alternately in each round."""
    seconds: dict[str, list[float]] = {"straightforward": [], "vtg": []}
    memory = dict.fromkeys(seconds, 0.0)
    processor: dict[str, list[float]] = {loop: [] for loop in seconds}
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        write_features(folder, max(2 * arguments.batch, 16))
        for _ in range(arguments.rounds):
            for loop in seconds:
                step_seconds, peak, step_processor_seconds = measure_child(loop, folder, arguments)
                seconds[loop] += step_seconds
                memory[loop] = max(memory[loop], peak)
                processor[loop].append(step_processor_seconds)
    samples_per_second = {loop: arguments.batch / statistics.median(steps) for loop, steps in seconds.items()}
    step = {loop: statistics.median(rounds) for loop, rounds in processor.items()}
    return {
        "vtg_samples_per_second": samples_per_second["vtg"],
        "straightforward_samples_per_second": samples_per_second["straightforward"],
        "ratio": samples_per_second["vtg"] / samples_per_second["straightforward"],
        "vtg_processor_seconds_per_step": step["vtg"],
        "straightforward_processor_seconds_per_step": step["straightforward"],
        "processor_ratio": step["straightforward"] / step["vtg"],
        "vtg_peak_megabytes": memory["vtg"],
        "straightforward_peak_megabytes": memory["straightforward"],
    }


def main() -> None:
    """Run the command."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--batch", type=int, default=8, help="batch size (default: 8)")
    parser.add_argument("--steps", type=int, default=4, help="steps in a round, after one of warm-up (default: 4)")
    parser.add_argument("--rounds", type=int, default=3, help="rounds of both loops (default: 3)")
    parser.add_argument("--precision", choices=("float32", "bf16"), default="float32", help="default: float32")
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cpu", help="default: cpu")
    parser.add_argument("--json", action="store_true", help="print one JSON document instead of a table")
    parser.add_argument("--loop", choices=("straightforward", "vtg"), help=argparse.SUPPRESS)
    parser.add_argument("--folder", type=Path, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.loop:
        steps = train_steps(
            arguments.loop,
            arguments.folder,
            arguments.batch,
            arguments.steps,
            arguments.precision,
            arguments.device,
        )
        step_seconds, processor_times = [], []
        for seconds in steps:
            step_seconds.append(seconds)
            processor_times.append(time.process_time())
        count = len(processor_times) - 1
        processor_seconds = (processor_times[-1] - processor_times[0]) / count if count > 0 else math.nan
        print(json.dumps({"seconds": step_seconds, "processor": processor_seconds}))
        return
    figures = compare(arguments)
    if arguments.json:
        print(json.dumps(figures))
        return
    threads = f"{os.environ.get('OMP_NUM_THREADS', torch.get_num_threads())} threads"
    where = torch.cuda.get_device_name() if arguments.device == "cuda" else threads
    shape = f"{FRAMES} frames, {TOKENS} tokens, {WIDTH} wide"
    print(f"batch {arguments.batch}, {shape}, {arguments.precision}, {where}")
    for name, value in figures.items():
        print(f"  {name:44} {value:9.2f}")


if __name__ == "__main__":
    main()
