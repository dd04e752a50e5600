"""vtg: ask a video for a moment in plain words, and get it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from vtg.lazy import lazy_names
from vtg.version import __version__

if TYPE_CHECKING:
    from vtg.clip.encoder import ClipEncoder
    from vtg.errors import VideoError, VtgError
    from vtg.grounding.grounder import Grounder, Grounding, Moment, Saliency, load
    from vtg.library.library import Hit, Library
    from vtg.models.registry import load_head
    from vtg.models.specs import available_models

__all__ = [
    "ClipEncoder",
    "Grounder",
    "Grounding",
    "Hit",
    "Library",
    "Moment",
    "Saliency",
    "VideoError",
    "VtgError",
    "__version__",
    "available_models",
    "load",
    "load_head",
]

__getattr__, __dir__ = lazy_names(
    __name__,
    {
        "ClipEncoder": "clip.encoder",
        "Grounder": "grounding.grounder",
        "Grounding": "grounding.grounder",
        "Hit": "library.library",
        "Library": "library.library",
        "Moment": "grounding.grounder",
        "Saliency": "grounding.grounder",
        "VideoError": "errors",
        "VtgError": "errors",
        "available_models": "models.specs",
        "load": "grounding.grounder",
        "load_head": "models.registry",
    },
)
