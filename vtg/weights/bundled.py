"""The weights that come with the package."""

from __future__ import annotations

from pathlib import Path

__all__ = ["clip_path", "head_path"]


def clip_path() -> Path:
    """The bundled CLIP weights, which know the demo world's shapes and words."""
    return Path(__file__).with_name("demo-clip.safetensors")


def head_path() -> Path:
    """The bundled R² head, which reads the bundled CLIP's layers."""
    return Path(__file__).with_name("demo-head.safetensors")
