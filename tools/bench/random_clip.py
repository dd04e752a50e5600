"""CLIP weights of the right shape with random values, for measuring where no trained ones can be had."""

from __future__ import annotations

from pathlib import Path

import torch
from safetensors.torch import save_file


def write_random_clip(path: Path, model: str = "ViT-B-32-quickgelu", seed: int = 0) -> Path:
    """Write the freshly initialised weights of a model of open_clip's catalogue.

    Args:
        path: the safetensors file to write.
        model: the catalogue's name.
        seed: of the initial values.

    Returns:
        The path.
    """
    import open_clip

    torch.manual_seed(seed)
    weights = open_clip.create_model(model).state_dict()
    save_file({name: tensor.contiguous() for name, tensor in weights.items()}, path)
    return path
