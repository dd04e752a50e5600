"""Paths of the weights in the package."""

from __future__ import annotations

from pathlib import Path

__all__ = ["clip_path", "head_path"]


def clip_path() -> Path:
    """Path of the bundled CLIP weights, trained on the synthetic demo videos."""
    return Path(__file__).with_name("demo-clip.safetensors")


def head_path() -> Path:
    """Path of the bundled R² head, trained on the layers of the bundled CLIP."""
    return Path(__file__).with_name("demo-head.safetensors")
