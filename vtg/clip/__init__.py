"""CLIP through open_clip: frames and sentences in, the last K layers of both towers and both embeddings out.

`ClipEncoder` (`encoder`) is what everything else uses. `specs` names a CLIP and its fingerprint without loading it;
`building` makes one from open_clip's catalogue (`catalogue` finds or downloads the weights) or from a file of tensors
(`checkpoints`); `precision` decides whether a CPU computes in bfloat16.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from vtg.lazy import lazy_names

if TYPE_CHECKING:
    from vtg.clip.encoder import ClipEncoder
    from vtg.clip.outputs import FrameFeatures, TextFeatures
    from vtg.clip.specs import EncoderSpec

__all__ = [
    "ClipEncoder",
    "EncoderSpec",
    "FrameFeatures",
    "TextFeatures",
]

__getattr__, __dir__ = lazy_names(
    __name__,
    {
        "ClipEncoder": "encoder",
        "EncoderSpec": "specs",
        "FrameFeatures": "outputs",
        "TextFeatures": "outputs",
    },
)
