"""How long a reel takes beside one ffmpeg command that cuts the same spans, and how long planning a long video takes.

Run from a checkout:

    python -m tools.bench.reel                          # makes an hour of 1080p H.264 in the temporary folder, keeps it
    python -m tools.bench.reel film.mp4 --spans 12 --repeat 3 --json
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

from tools.bench.decode import make_video
from vtg.summary import choose_highlights, choose_summary, shot_edges
from vtg.video import Span, probe, write_reel
from vtg.video.process import ffmpeg_binary

PLANNED_HOURS = 3
PLANNED_FPS = 0.5  # sampled frames a second
PLANNED_SHOTS = 2000


def main() -> None:
    """Times both and prints what came out."""
    arguments = _arguments()
    plan = {
        "cut": plan_seconds(*made_frames(PLANNED_SHOTS)),
        "still": plan_seconds(*made_frames(1)),
    }
    path = arguments.video or make_video(arguments.source_seconds, arguments.height)
    info = probe(path)
    spans = even_spans(info.duration, arguments.spans, arguments.seconds)
    with tempfile.TemporaryDirectory() as folder:
        theirs, ours, their_work, our_work = [], [], [], []
        for _ in range(arguments.repeat):
            before = work_of_children()
            theirs.append(run_ffmpeg(path, spans, info.audio is not None, Path(folder) / "ffmpeg.mp4"))
            between = work_of_children()
            ours.append(run_ours(path, spans, Path(folder) / "vtg.mp4"))
            their_work.append(between - before)
            our_work.append(work_of_children() - between)
        lengths = {name: probe(Path(folder) / f"{name}.mp4").duration for name in ("ffmpeg", "vtg")}
    result = {
        "video": str(path),
        "duration": round(info.duration, 3),
        "width": info.width,
        "height": info.height,
        "spans": arguments.spans,
        "seconds": arguments.seconds,
        "repeat": arguments.repeat,
        "ffmpeg_seconds": round(statistics.median(theirs), 2),
        "vtg_seconds": round(statistics.median(ours), 2),
        "ratio": round(statistics.median(ours) / statistics.median(theirs), 3),
        "ratios": [round(our / their, 3) for our, their in zip(ours, theirs, strict=True)],
        "ffmpeg_cpu_seconds": round(statistics.median(their_work), 2),
        "vtg_cpu_seconds": round(statistics.median(our_work), 2),
        "ffmpeg_length": round(lengths["ffmpeg"], 3),
        "vtg_length": round(lengths["vtg"], 3),
        "plan_seconds": {name: round(seconds, 3) for name, seconds in plan.items()},
    }
    if arguments.json:
        print(json.dumps(result))
        return
    print(f"{info.path.name}: {info.duration:.0f} s, {info.width}×{info.height}; {arguments.spans} spans\n")
    print(f"{'':<24}{'seconds':>10}{'of processor':>14}{'length':>10}")
    for label, name in (("ffmpeg, one command", "ffmpeg"), ("vtg write_reel", "vtg")):
        cells = (result[f"{name}_{part}"] for part in ("seconds", "cpu_seconds", "length"))
        print("{:<24}{:>10}{:>14}{:>10}".format(label, *cells))
    print(f"\nratio {result['ratio']} (median of {arguments.repeat})")
    print(
        f"planning {PLANNED_HOURS} h: {plan['cut']:.2f} s where it has {PLANNED_SHOTS} shots, "
        f"{plan['still']:.2f} s where it has one"
    )


def work_of_children() -> float:
    """Processor seconds of the ffmpeg processes that have ended; the measure where others work on the machine too."""
    spent = os.times()
    return spent.children_user + spent.children_system


def made_frames(shots: int) -> tuple[np.ndarray, np.ndarray]:
    """Embeddings [T, 512] and miniatures [T, 8, 8, 3] of a long video with so many shots of random lengths."""
    random = np.random.default_rng(0)
    frames = round(PLANNED_HOURS * 3600 * PLANNED_FPS)
    inner = np.sort(random.choice(np.arange(1, frames), shots - 1, replace=False))
    lengths = np.diff([0, *inner, frames])
    centres = np.repeat(random.normal(size=(shots, 512)), lengths, axis=0)
    made = centres / np.linalg.norm(centres, axis=1, keepdims=True) + 0.01 * random.normal(size=(frames, 512))
    pictures = np.repeat(random.integers(0, 256, (shots, 8, 8, 3), np.uint8), lengths, axis=0)
    return np.asarray(made / np.linalg.norm(made, axis=1, keepdims=True), np.float32), pictures


def plan_seconds(embedding: np.ndarray, miniatures: np.ndarray) -> float:
    """Seconds that shots, a summary of 15 % and ten highlights take."""
    scores = np.random.default_rng(1).random(len(embedding))
    duration = len(embedding) / PLANNED_FPS
    began = time.perf_counter()
    edges = shot_edges(embedding, miniatures)
    choose_summary(scores, edges, PLANNED_FPS, duration, 0.15 * duration)
    choose_highlights(scores, edges, PLANNED_FPS, duration, 10, 10.0)
    return time.perf_counter() - began


def even_spans(duration: float, count: int, seconds: float) -> list[tuple[float, float]]:
    """So many spans over a video, together so long; none begins at a keyframe."""
    starts = (np.arange(count) + 0.37) * duration / count
    return [(round(float(start), 2), round(float(start) + seconds / count, 2)) for start in starts]


def run_ffmpeg(path: Path, spans: list[tuple[float, float]], sound: bool, out: Path) -> float:
    """Seconds that the plain ffmpeg command takes, with the same encoders."""
    command = [ffmpeg_binary(), "-hide_banner", "-v", "error", "-nostdin", "-y"]
    for start, end in spans:
        command += ["-ss", str(start), "-t", str(end - start), "-i", str(path)]
    streams = "".join(f"[{i}:v]" + f"[{i}:a]" * sound for i in range(len(spans)))
    command += ["-filter_complex", f"{streams}concat=n={len(spans)}:v=1:a={int(sound)}[v]" + "[a]" * sound]
    command += ["-map", "[v]", *(["-map", "[a]", "-c:a", "aac", "-b:a", "160k"] if sound else [])]
    command += ["-c:v", "libx264", "-preset", "veryfast", "-crf", "20", "-pix_fmt", "yuv420p"]
    began = time.perf_counter()
    subprocess.run([*command, "-movflags", "+faststart", str(out)], check=True)
    return time.perf_counter() - began


def run_ours(path: Path, spans: list[tuple[float, float]], out: Path) -> float:
    """Seconds that writing the reel takes."""
    began = time.perf_counter()
    write_reel([Span(path, *span) for span in spans], out)
    return time.perf_counter() - began


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("video", nargs="?", type=Path, help="a video; without it one is made")
    parser.add_argument("--source-seconds", type=int, default=3600, help="length of the video made")
    parser.add_argument("--height", type=int, default=1080, help="height of the video made")
    parser.add_argument("--spans", type=int, default=12, help="how many")
    parser.add_argument("--seconds", type=float, default=60.0, help="how long they are together")
    parser.add_argument("--repeat", type=int, default=3)
    parser.add_argument("--json", action="store_true", help="one JSON document instead of the table")
    arguments = parser.parse_args()
    if arguments.video is not None and not arguments.video.exists():
        sys.exit(f"{arguments.video}: no such file")
    return arguments


if __name__ == "__main__":
    main()
