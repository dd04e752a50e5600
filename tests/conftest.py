"""What several tests share: where the reference data lies, and a CLIP small enough to run anywhere."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

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
    import torch
    from open_clip.model import CLIP, CLIPTextCfg, CLIPVisionCfg
    from safetensors.torch import save_file

    torch.manual_seed(0)
    clip = CLIP(
        32,
        CLIPVisionCfg(layers=5, width=64, head_width=64, patch_size=16, image_size=32),
        CLIPTextCfg(context_length=77, vocab_size=49408, width=64, heads=1, layers=4),
        quick_gelu=True,
    )
    path = tmp_path_factory.mktemp("clip") / "tiny.safetensors"
    save_file({name: tensor.contiguous() for name, tensor in clip.state_dict().items()}, path)
    return path


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
    import torch

    from vtg.r2 import HeadConfig, R2Head, save_head

    torch.manual_seed(1)
    config = HeadConfig(
        name="tiny", hidden_width=32, video_width=64, query_width=64, tokens=5, nms="normal", unit=2.0, clip_model=None,
        clip_pretrained=None, window_seconds=20.0, step_seconds=12.0,
    )  # fmt: skip
    head = R2Head(config)
    with torch.no_grad():  # the gates begin at 0, where the query's pooling would have no part
        head.block.scale.uniform_(0.5, 1.0)
        head.block.gate.uniform_(-1.0, 1.0)
    path = tmp_path_factory.mktemp("head") / "tiny.safetensors"
    save_head(head, path)
    return path
