"""vtg: ask a video for a moment in plain words, and get it. This module knows only which name lives where."""

from __future__ import annotations

import importlib
import os
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from vtg.clip.encoder import ClipEncoder
    from vtg.errors import VideoError, VtgError
    from vtg.grounding.grounder import Grounder, Grounding, Moment, Saliency, load
    from vtg.library.library import Hit, Library
    from vtg.models.registry import load_head
    from vtg.models.specs import available_models

__version__ = "0.1.0"
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
    "available_models",
    "load",
    "load_head",
]

# Idle threads of torch would spin for their next work and take the cores from the decoder beside them: they sleep
# instead. torch reads this when it is loaded, so it counts where vtg is imported first.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

_HOMES = {
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
}


def __getattr__(name: str) -> Any:
    # torch takes seconds to import: a name is looked up when it is first used, so that `import vtg` stays instant.
    if name not in _HOMES:
        raise AttributeError(f"module 'vtg' has no attribute {name!r}")
    value = getattr(importlib.import_module(f"vtg.{_HOMES[name]}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted([*globals(), *_HOMES])
