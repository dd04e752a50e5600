"""How long sampling a video's frames takes beside ffmpeg doing the same: the ratio, and how far memory grows.

Run from a checkout:

    python tools/bench/decode.py                      # makes an hour of 1080p H.264 in the temporary folder, keeps it
    python tools/bench/decode.py film.mp4 --repeat 3 --json
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path

import psutil

from vtg.video import probe, sample_frames
from vtg.video.process import ffmpeg_binary

MADE_MINUTE = 60  # seconds encoded; longer videos repeat them without encoding again
WARM_UP = 20.0  # seconds of video decoded by both before anything is timed
RSS_INTERVAL = 0.2  # seconds


def main() -> None:
    """Times both and prints what came out."""
    arguments = _arguments()
    path = arguments.video or make_video(arguments.seconds, arguments.height)
    info = probe(path)
    fps, size = arguments.fps, arguments.size
    _read_through(path)
    run_ffmpeg(path, fps, size, WARM_UP)
    run_ours(path, fps, size, min(WARM_UP, info.duration))
    theirs, ours, growths = [], [], []
    for _ in range(arguments.repeat):
        theirs.append(run_ffmpeg(path, fps, size, None))
        seconds, growth = run_ours(path, fps, size, None)
        ours.append(seconds)
        growths.append(growth)
    result = {
        "video": str(path),
        "duration": round(info.duration, 3),
        "width": info.width,
        "height": info.height,
        "codec": info.codec,
        "fps": fps,
        "size": size,
        "repeat": arguments.repeat,
        "ffmpeg_seconds": round(statistics.median(theirs), 2),
        "vtg_seconds": round(statistics.median(ours), 2),
        "ratio": round(statistics.median(ours) / statistics.median(theirs), 3),
        "ratios": [round(our / their, 3) for our, their in zip(ours, theirs, strict=True)],
        "memory_growth_mb": round(max(growths), 1),
    }
    if arguments.json:
        print(json.dumps(result))
        return
    print(f"{info.path.name}: {info.duration:.0f} s, {info.width}×{info.height}, {info.codec}; {fps} fps, {size} px\n")
    print(f"{'':<34}{'seconds':>10}{'× real time':>14}")
    for name, key in (
        (f"ffmpeg -vf fps={fps},scale=-2:{size}", "ffmpeg_seconds"),
        ("vtg sample_frames", "vtg_seconds"),
    ):
        print(f"{name:<34}{result[key]:>10}{info.duration / float(str(result[key])):>14.1f}")
    print(
        f"\nratio {result['ratio']} (median of {arguments.repeat}); memory grew {result['memory_growth_mb']} MB at most"
    )


def make_video(seconds: int, height: int) -> Path:
    """A moving, noisy test picture as H.264 with the usual keyframe distance (250); made once, then found again."""
    folder = Path(tempfile.gettempdir()) / "vtg-bench"
    folder.mkdir(exist_ok=True)
    out = folder / f"noise-{height}p-{seconds}s.mp4"
    if out.exists():
        return out
    minute = folder / f"noise-{height}p-minute.mp4"
    width = height * 16 // 9 // 2 * 2
    quiet = [ffmpeg_binary(), "-hide_banner", "-v", "error", "-nostdin", "-y"]
    source = f"testsrc2=size={width}x{height}:rate=30:duration={MADE_MINUTE},noise=alls=8:allf=t,format=yuv420p"
    encode = ["-c:v", "libx264", "-preset", "veryfast", "-crf", "26", "-g", "250"]
    subprocess.run([*quiet, "-f", "lavfi", "-i", source, *encode, str(minute)], check=True)
    times = -(-seconds // MADE_MINUTE)
    listing = folder / "minutes.txt"
    listing.write_text(f"file '{minute.name}'\n" * times, encoding="utf-8")
    beside = out.with_suffix(".part.mp4")
    join = ["-f", "concat", "-safe", "0", "-i", str(listing), "-t", str(seconds), "-c", "copy", str(beside)]
    subprocess.run([*quiet, *join], check=True)
    return beside.replace(out)


def run_ffmpeg(path: Path, fps: float, size: int, until: float | None) -> float:
    """Seconds that the plain ffmpeg command takes."""
    limit = [] if until is None else ["-t", str(until)]
    command = [ffmpeg_binary(), "-hide_banner", "-v", "error", "-nostdin", *limit, "-i", str(path)]
    command += ["-vf", f"fps={fps},scale=-2:{size}", "-f", "null", "-"]
    began = time.perf_counter()
    subprocess.run(command, check=True)
    return time.perf_counter() - began


def run_ours(path: Path, fps: float, size: int, until: float | None) -> tuple[float, float]:
    """Seconds that sampling takes, and by how many MB this process and its children grew after the first chunk."""
    peak = _Peak()
    began = time.perf_counter()
    for number, _ in enumerate(sample_frames(path, fps, size, end=until)):
        if number == 0:
            peak.start()
    took = time.perf_counter() - began
    return took, peak.stop()


class _Peak:
    """Watches the memory of this process and its children from one moment on."""

    def __init__(self) -> None:
        self._process = psutil.Process()
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._watch, daemon=True)
        self._first = self._highest = 0

    def start(self) -> None:
        self._first = self._highest = self._memory()
        self._thread.start()

    def stop(self) -> float:
        self._stopping.set()
        if self._thread.is_alive():
            self._thread.join()
        return (self._highest - self._first) / 1e6

    def _watch(self) -> None:
        while not self._stopping.wait(RSS_INTERVAL):
            self._highest = max(self._highest, self._memory())

    def _memory(self) -> int:
        total = 0
        for process in (self._process, *self._process.children(recursive=True)):
            try:
                # Between its birth and becoming ffmpeg a child shows the memory of its parent as its own.
                if process.pid == self._process.pid or process.name() != self._process.name():
                    total += process.memory_info().rss
            except psutil.NoSuchProcess:
                continue
        return total


def _read_through(path: Path) -> None:
    # The first to read would otherwise pay for the disk.
    with path.open("rb") as file:
        while file.read(1 << 24):
            pass


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("video", nargs="?", type=Path, help="a video; without it one is made")
    parser.add_argument("--seconds", type=int, default=3600, help="length of the video made")
    parser.add_argument("--height", type=int, default=1080, help="height of the video made")
    parser.add_argument("--fps", type=float, default=0.5)
    parser.add_argument("--size", type=int, default=224)
    parser.add_argument("--repeat", type=int, default=3)
    parser.add_argument("--json", action="store_true", help="one JSON document instead of the table")
    arguments = parser.parse_args()
    if arguments.video is not None and not arguments.video.exists():
        sys.exit(f"{arguments.video}: no such file")
    return arguments


if __name__ == "__main__":
    main()
