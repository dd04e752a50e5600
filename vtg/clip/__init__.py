"""Encode frames and sentences with CLIP models of open_clip.

Inputs are uint8 frames [N, H, W, 3] and sentences; outputs (`outputs`) are the last K layers and the embedding of the
image tower and of the text tower. Read `specs` (names and fingerprint of a CLIP, without loading it), `encoder`
(`ClipEncoder`, used by all other packages) and `text`. `building` loads models, with weights from open_clip's catalogue
(`catalogue`) or from a file (`checkpoints`); `devices` and `precision` select device and CPU arithmetic.
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
