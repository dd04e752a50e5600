"""What all cases share: good videos in many containers, a small CLIP and head, cached features, a library."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

TESTS = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(TESTS))  # the helpers of the other tests

from damaged_files import SOURCES, make_sources  # noqa: E402
from tiny_models import write_tiny_clip, write_tiny_head  # noqa: E402
from training_sets import write_data_set  # noqa: E402

__all__ = ["CASES", "Material", "make_material"]

CASES = TESTS / "data" / "cases"
SHORT = ["-t", "4", "-an", "-threads", "1", "-bitexact"]
# More containers, each of a few seconds: what is written by the ffmpeg that is there; others are left out.
OTHERS = {
    "flv": ["-c:v", "flv1"],
    "mov": ["-c:v", "mjpeg", "-q:v", "8"],
    "m4v": ["-c:v", "mpeg4"],
    "wmv": ["-c:v", "wmv2"],
    "mpg": ["-c:v", "mpeg1video", "-r", "25"],
    "vob": ["-c:v", "mpeg2video", "-r", "25"],
    "mxf": ["-c:v", "mpeg2video", "-r", "25"],
    "ogv": ["-c:v", "libtheora"],
    "nut": ["-c:v", "ffv1"],
    "gif": ["-vf", "scale=80:60"],
    "apng": ["-vf", "scale=80:60", "-plays", "0"],
    "webp": ["-c:v", "libwebp_anim", "-vf", "scale=80:60"],
    "y4m": ["-pix_fmt", "yuv420p", "-vf", "scale=64:48", "-t", "1"],
    "ivf": ["-c:v", "libvpx", "-deadline", "realtime"],
    "h264": ["-c:v", "libx264", "-preset", "ultrafast"],
    "hevc": ["-c:v", "libx265", "-preset", "ultrafast", "-x265-params", "log-level=error"],
    "mts": ["-c:v", "mpeg2video", "-r", "25", "-f", "mpegts"],
    "3gp": ["-c:v", "h263", "-s", "176x144"],
    "dv": ["-target", "pal-dv"],
    "avi": ["-c:v", "rawvideo", "-pix_fmt", "yuv420p", "-vf", "scale=64:48", "-t", "2"],
}
CODECS = {
    "prores.mov": ["-c:v", "prores_ks", "-pix_fmt", "yuv422p10le", "-vf", "scale=64:48"],
    "vp8.webm": ["-c:v", "libvpx", "-deadline", "realtime"],
    "ffv1.mkv": ["-c:v", "ffv1", "-pix_fmt", "gbrp16le", "-vf", "scale=64:48"],
    "png.mov": ["-c:v", "png", "-pix_fmt", "rgba", "-vf", "scale=64:48"],
    "high10.mp4": ["-c:v", "libx264", "-preset", "ultrafast", "-pix_fmt", "yuv444p10le"],
    "fragmented.mp4": ["-c:v", "libx264", "-preset", "ultrafast", "-movflags", "frag_keyframe+empty_moov"],
}


@dataclass(frozen=True)
class Material:
    """The shared files.

    Attributes:
        folder: of all of them.
        sentence: that is true somewhere in the first good videos.
    """

    folder: Path
    sentence: str

    @cached_property
    def videos(self) -> list[Path]:
        """Undamaged videos, one of each container and codec."""
        return sorted((self.folder / "videos").iterdir())

    @cached_property
    def contents(self) -> dict[str, bytes]:
        """The bytes of each, by name without what comes before the first letter of its codec."""
        return {path.name.removeprefix("00-good-"): path.read_bytes() for path in self.videos}

    @cached_property
    def small(self) -> bytes:
        """A small good H.264 file in an MP4."""
        return self.contents["h264.mp4"]

    @property
    def clip(self) -> Path:
        """Weights of a tiny CLIP with random values."""
        return self.folder / "clip.safetensors"

    @property
    def head(self) -> Path:
        """A head that fits it."""
        return self.folder / "head.safetensors"

    @property
    def features(self) -> Path:
        """A data set in the published layout with its recipe, `mine.toml`."""
        return self.folder / "features"

    @property
    def clips(self) -> Path:
        """A folder with four videos of a few seconds."""
        return self.folder / "clips"

    @property
    def library(self) -> Path:
        """A library of `clips` made with the demo model."""
        return self.folder / "library"


def make_material(folder: Path) -> Material:
    """Make the shared files where they are not there yet; the same each time."""
    mark = folder / "sentence.json"
    if mark.exists():
        return Material(folder, json.loads(mark.read_text()))
    shutil.rmtree(folder, ignore_errors=True)
    (folder / "videos").mkdir(parents=True)
    _, sentence = make_sources(folder / "videos", tuple(SOURCES))
    first = folder / "videos" / "00-good-h264.mp4"
    wanted = {f"{codec}.{ending}": options for ending, options in OTHERS.items() for codec in ["other"]}
    for name, options in {**wanted, **CODECS}.items():
        _convert(first, folder / "videos" / f"00-good-{name}", options)
    (folder / "clips").mkdir()
    for number in range(4):
        start = ["-ss", str(4 * number)]
        options = ["-vf", "scale=64:48", "-c:v", "libx264", "-preset", "ultrafast", "-g", "10"]
        _convert(first, folder / "clips" / f"{number}.mp4", options, start)
    write_tiny_clip(folder / "clip.safetensors")
    write_tiny_head(folder / "head.safetensors")
    (folder / "features").mkdir()
    write_data_set(folder / "features")
    write_head_of_features(folder / "features" / "head.safetensors")
    _write_library(folder)
    for path in folder.rglob("*"):  # safetensors writes files that only their owner may read
        path.chmod(0o755 if path.is_dir() else 0o644)
    mark.write_text(json.dumps(sentence))
    return Material(folder, sentence)


def _convert(source: Path, target: Path, options: list[str], start: list[str] | None = None) -> None:
    """Writes a video in another container; leaves none where this ffmpeg cannot."""
    from vtg.video.process import ffmpeg_binary

    words = [ffmpeg_binary(), "-v", "error", "-y", "-nostdin", *(start or []), "-i", str(source), *SHORT, *options]
    done = subprocess.run([*words, str(target)], capture_output=True, timeout=120)
    if done.returncode:
        target.unlink(missing_ok=True)


def _write_library(folder: Path) -> None:
    """In a process of its own: LanceDB starts threads, and this one is to be forked."""
    words = ["index", str(folder / "clips"), "--library", str(folder / "library"), "--model", "demo"]
    subprocess.run([sys.executable, "-m", "vtg", *words, "--device", "cpu"], check=True, capture_output=True)


def write_head_of_features(path: Path) -> None:
    """A head with random weights for the features of `Material.features`."""
    from vtg.r2 import HeadConfig, R2Head, save_head

    config = HeadConfig(name="own", hidden_width=32, video_width=16, query_width=12, tokens=5, nms="normal", unit=2.0)
    save_head(R2Head(config), path)
