"""CLIP weights with random values, for measuring speed without trained weights."""

from __future__ import annotations

from pathlib import Path

import torch
from safetensors.torch import save_file


def write_random_clip(path: Path, model: str = "ViT-B-32-quickgelu", seed: int = 0) -> Path:
    """Write the initial random weights of one of open_clip's models.

    Args:
        path: the safetensors file to write.
        model: name of the model in open_clip.
        seed: random seed of the weights.

    Returns:
        The path.
    """
    import open_clip

    torch.manual_seed(seed)
    weights = open_clip.create_model(model).state_dict()
    save_file({name: tensor.contiguous() for name, tensor in weights.items()}, path)
    return path
