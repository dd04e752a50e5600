"""Measures extraction: frames a second against encoding alone from memory, memory over many videos, and planning.

    python -m tools.bench.extract --pretrained clip.safetensors

Without --pretrained the weights are random and of full size. Videos are made: 480x270, 15 pictures a second, H.264.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import psutil
import torch

from tools.bench.random_clip import write_random_clip
from vtg.clip.encoder import ClipEncoder
from vtg.clip.specs import EncoderSpec
from vtg.extraction import extract, read_source
from vtg.extraction.encoders import EncoderPool
from vtg.files.hashing import file_sha256
from vtg.video import sample_frames
from vtg.video.process import ffmpeg_binary

POLL_SECONDS = 0.1
WARM_VIDEOS = 25  # finished before memory is first looked at
SHORT_SECONDS = 8  # of the many videos that memory is measured over


def make_videos(folder: Path, count: int, seconds: int) -> list[Path]:
    """Make one video with a moving picture, and copies of it."""
    folder.mkdir(parents=True)
    first = folder / "0000.mp4"
    picture = f"testsrc2=size=480x270:rate=15:duration={seconds}"
    command = [ffmpeg_binary(), "-v", "error", "-f", "lavfi", "-i", picture, "-c:v", "libx264"]
    subprocess.run([*command, "-pix_fmt", "yuv420p", str(first)], check=True)
    copies = [folder / f"{number:04d}.mp4" for number in range(1, count)]
    for copy in copies:
        shutil.copy(first, copy)
    return [first, *copies]


class _Clock:
    """Wall and processor seconds of a stretch of work, child processes included."""

    wall = 0.0
    processor = 0.0


@contextmanager
def _timed() -> Iterator[_Clock]:
    clock = _Clock()
    wall, processor = time.perf_counter(), _processor_seconds()
    yield clock
    clock.wall, clock.processor = time.perf_counter() - wall, _processor_seconds() - processor


def _processor_seconds() -> float:
    used = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return sum(usage.ru_utime + usage.ru_stime for usage in used)


def measure_throughput(spec: EncoderSpec, videos: int, seconds: int, fps: float, rounds: int) -> dict[str, float]:
    """Time encoding alone, with frames in memory, and extraction without the loading of the model, in turn.

    Args:
        spec: the CLIP.
        videos: how many.
        seconds: of each.
        fps: frames a second.
        rounds: counted, after one of warm-up.

    Returns:
        Medians of frames a second and of the ratios, by wall time and by processor time.
    """
    encoder = ClipEncoder(spec.clip, spec.weights, layers=spec.layers, device="cpu")
    alone, whole, ratios, shares = [], [], [], []
    with tempfile.TemporaryDirectory() as folder:
        paths = make_videos(Path(folder) / "videos", videos, seconds)
        chunks = [frames for path in paths for _, frames in sample_frames(path, fps, encoder.image_size)]
        frames = sum(map(len, chunks))
        for number in range(rounds + 1):
            with _timed() as encoding:
                for chunk in chunks:
                    encoder.encode_frames(chunk)
            with _timed() as loading:
                file_sha256(spec.weights)  # a part of what features are known by
                with EncoderPool(spec, "cpu"):
                    pass
            work = read_source(str(Path(folder) / "videos"), fps)
            with _timed() as extraction:
                extract(work, f"{folder}/out{number}", spec, device="cpu")
            shutil.rmtree(f"{folder}/out{number}")
            alone.append(frames / encoding.wall)
            whole.append(frames / (extraction.wall - loading.wall))
            ratios.append(whole[-1] / alone[-1])
            shares.append(encoding.processor / (extraction.processor - loading.processor))
    first = 1 if rounds else 0
    return {
        "frames": frames,
        "encoding_frames_per_second": statistics.median(alone[first:]),
        "extraction_frames_per_second": statistics.median(whole[first:]),
        "extraction_to_encoding": statistics.median(ratios[first:]),
        "encoding_to_extraction_processor_time": statistics.median(shares[first:]),
    }


def measure_short(spec: EncoderSpec, rounds: int) -> dict[str, float]:
    """Frames a second on one core when every video has one frame, against batches of 32."""
    encoder = ClipEncoder(spec.clip, spec.weights, layers=spec.layers, device="cpu")
    size = encoder.image_size
    pictures = np.random.default_rng(0).integers(0, 256, (32, size, size, 3), dtype=np.uint8)
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        ratios = []
        for _ in range(rounds + 1):
            with _timed() as together:
                encoder.encode_frames(pictures)
            with _timed() as apart:
                for picture in pictures:
                    encoder.encode_frames(picture[None])
            ratios.append(together.processor / apart.processor)
    finally:
        torch.set_num_threads(threads)
    return {"single_frames_to_batches_of_32": statistics.median(ratios[1:] or ratios)}


def measure_memory(spec: EncoderSpec, videos: int, fps: float) -> dict[str, float]:
    """Run ``vtg extract`` over many short videos in a process of its own and watch its resident memory, MB."""
    with tempfile.TemporaryDirectory() as folder:
        make_videos(Path(folder) / "videos", videos, SHORT_SECONDS)
        out = Path(folder) / "out"
        command = [sys.executable, "-m", "vtg", "extract", f"{folder}/videos", str(out), "--fps", str(fps)]
        command += ["--model", "zero-shot", "--device", "cpu", "--pretrained", spec.weights]
        command += ["--clip", spec.clip] if spec.clip else []
        process = psutil.Popen(command)
        resident: list[tuple[int, int]] = []
        records = out / "extraction" / "videos"
        while process.poll() is None:
            done = len(os.listdir(records)) if records.is_dir() else 0  # noqa: PTH208 - hundreds of names, ten times a second
            resident.append((done, process.memory_info().rss))
            time.sleep(POLL_SECONDS)
        if process.returncode:
            raise SystemExit(f"extraction failed with status {process.returncode}")
    early = [rss for done, rss in resident if WARM_VIDEOS <= done < 2 * WARM_VIDEOS]
    later = [rss for done, rss in resident if done >= 2 * WARM_VIDEOS]
    return {
        "videos": videos,
        "peak_mb": max(rss for _, rss in resident) / 2**20,  # while the model is loaded
        "after_25_videos_mb": statistics.median(early) / 2**20,
        "growth_from_there_to_the_highest_mb": (max(later) - statistics.median(early)) / 2**20,
        "growth_from_there_to_the_end_mb": (resident[-2][1] - statistics.median(early)) / 2**20,
    }


def measure_planning(spec: EncoderSpec, lines: int) -> dict[str, float]:
    """Time reading a manifest of files that are there, and a run that finds everything done."""
    from vtg.extraction.output import Output
    from vtg.extraction.plan import make_plan
    from vtg.extraction.records import OutputSettings, VideoRecord, to_json
    from vtg.extraction.sources import missing_files, source_sizes

    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        for number in range(lines):
            (folder / f"{number}.mp4").touch()
        (folder / "list.txt").write_text("".join(f"{number}.mp4\n" for number in range(lines)))
        output = Output(str(folder / "out"), OutputSettings(spec.fingerprint, str(spec)))
        output.begin()
        with _timed() as planning:
            work = read_source(str(folder / "list.txt"), 0.5)
            sizes = source_sizes(work.videos)
            missing_files(work, sizes)
            plan = make_plan(work, output, {source: size or 0 for source, size in sizes.items()}, False)
        assert len(plan.videos) == lines
        for job in work.videos:
            file = f"{output.settings.videos}/{job.id}.npy"
            output.place.write(file, b"1234")
            record = VideoRecord.of(job, 0, rate=0.5, duration=8.0, file=file, file_bytes=4, shape=(4, 4, 50, 768))
            output.place.write(f"extraction/videos/{job.id}.json", to_json(record))
        output.place.claims.close()
        with _timed() as resuming:
            report = extract(read_source(str(folder / "list.txt"), 0.5), str(folder / "out"), spec)
        assert report.finished == lines
    return {"lines": lines, "planning_seconds": planning.wall, "no_op_resume_seconds": resuming.wall}


def main() -> None:
    """Run from a shell."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--pretrained", type=Path, help="weights of a CLIP; random ones of ViT-B/32 by default")
    parser.add_argument("--fps", type=float, default=0.5)
    parser.add_argument("--videos", type=int, default=4, help="how many, for the throughput")
    parser.add_argument("--seconds", type=int, default=150, help="length of each")
    parser.add_argument("--rounds", type=int, default=3, help="counted rounds after one of warm-up")
    parser.add_argument("--many", type=int, default=500, help="how many videos, for the memory")
    parser.add_argument("--only", choices=["throughput", "short", "memory", "planning"], help="measure just this")
    parser.add_argument("--json", action="store_true", help="one JSON document instead of a table")
    arguments = parser.parse_args()
    figures: dict[str, float] = {}
    with tempfile.TemporaryDirectory() as folder:
        weights = arguments.pretrained or write_random_clip(Path(folder) / "random.safetensors")
        spec = EncoderSpec(None if arguments.pretrained else "ViT-B-32-quickgelu", str(weights))
        if arguments.only in (None, "planning"):
            figures |= measure_planning(spec, 10_000)
        if arguments.only in (None, "short"):
            figures |= measure_short(spec, arguments.rounds)
        if arguments.only in (None, "throughput"):
            figures |= measure_throughput(spec, arguments.videos, arguments.seconds, arguments.fps, arguments.rounds)
        if arguments.only in (None, "memory"):
            figures |= measure_memory(spec, arguments.many, arguments.fps)
    if arguments.json:
        print(json.dumps(figures))
        return
    print(f"{torch.get_num_threads()} cores, float32, load {os.getloadavg()[0]:.1f}")
    for name, value in figures.items():
        print(f"  {name:44} {value:10.3f}")


if __name__ == "__main__":
    main()
