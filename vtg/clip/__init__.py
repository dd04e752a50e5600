"""Frames and sentences in, the last layers of a frozen CLIP and their embeddings out."""

from __future__ import annotations

from typing import TYPE_CHECKING

from vtg.lazy import lazy_names

if TYPE_CHECKING:
    from vtg.clip.encoder import ClipEncoder
    from vtg.clip.specs import EncoderSpec

__all__ = [
    "ClipEncoder",
    "EncoderSpec",
]

__getattr__, __dir__ = lazy_names(
    __name__,
    {
        "ClipEncoder": "encoder",
        "EncoderSpec": "specs",
    },
)
