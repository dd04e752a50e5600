"""What several tests share: where the reference data lies, and a CLIP small enough to run anywhere."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest
from tiny_models import write_tiny_clip, write_tiny_head

# The tests' models are tiny: threads would wait for each other longer than they work. Read when torch is imported.
os.environ.setdefault("OMP_NUM_THREADS", "1")

SHARED = Path(__file__).resolve().parents[2] / "shared"


@pytest.fixture(scope="session")
def shared() -> Path:
    """The folder of reference data beside the checkout; the test is skipped where it is not."""
    if not SHARED.is_dir():
        pytest.skip("the reference data is not here")
    return SHARED


@pytest.fixture(scope="session")
def tiny_clip(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Random weights under OpenAI's names: image 32, patch 16 (P = 5), width 64, 5 blocks; text 64, 4 blocks."""
    return write_tiny_clip(tmp_path_factory.mktemp("clip") / "tiny.safetensors")


@pytest.fixture(scope="session")
def make_video() -> Callable[..., Path]:
    """Writes a small H.264 file whose picture follows from its seed: a colour each 2 s."""
    import numpy as np

    from vtg.video.process import ffmpeg_binary

    def write(path: Path, seconds: float = 8.0, seed: int = 0, rate: int = 4) -> Path:
        colours = np.random.default_rng(seed).integers(0, 256, (int(seconds // 2) + 1, 3), dtype=np.uint8)
        frames = [np.tile(colours[int(i / rate // 2)], (48, 64, 1)) for i in range(round(seconds * rate))]
        command = [ffmpeg_binary(), "-v", "error", "-y", "-f", "rawvideo", "-pix_fmt", "rgb24", "-s", "64x48"]
        command += [
            "-r",
            str(rate),
            "-i",
            "-",
            "-c:v",
            "libx264",
            "-preset",
            "ultrafast",
            "-pix_fmt",
            "yuv420p",
            str(path),
        ]
        subprocess.run(command, input=b"".join(frame.tobytes() for frame in frames), check=True)
        return path

    return write


@pytest.fixture(scope="session")
def tiny_head(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An R² head with random weights that fits `tiny_clip`; its windows are 20 s long and 12 s apart."""
    return write_tiny_head(tmp_path_factory.mktemp("head") / "tiny.safetensors")
