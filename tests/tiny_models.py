"""A CLIP and a head with random weights, small enough to run anywhere."""

from __future__ import annotations

from pathlib import Path

__all__ = ["write_tiny_clip", "write_tiny_head"]


def write_tiny_clip(path: Path) -> Path:
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
    save_file({name: tensor.contiguous() for name, tensor in clip.state_dict().items()}, path)
    return path


def write_tiny_head(path: Path, layers: int = 4) -> Path:
    """A head that fits it; its windows are 20 s long and 12 s apart."""
    import torch

    from vtg.r2 import HeadConfig, R2Head, save_head

    torch.manual_seed(1)
    config = HeadConfig(
        name="tiny", layers=layers, hidden_width=32, video_width=64, query_width=64, tokens=5, nms="normal", unit=2.0,
        clip_model=None, clip_pretrained=None, window_seconds=20.0, step_seconds=12.0,
    )  # fmt: skip
    head = R2Head(config)
    with torch.no_grad():  # the gates begin at 0, where the query's pooling would have no part
        head.block.scale.uniform_(0.5, 1.0)
        head.block.gate.uniform_(-1.0, 1.0)
    save_head(head, path)
    return path
