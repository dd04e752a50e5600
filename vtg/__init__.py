"""vtg: ask a video for a moment in plain words, and get it."""

from __future__ import annotations

import importlib
import os
import sys
from collections.abc import Callable, Mapping
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


def lazy_names(package: str, homes: Mapping[str, str]) -> tuple[Callable[[str], Any], Callable[[], list[str]]]:
    """The `__getattr__` and `__dir__` of a package that imports its modules when their names are first used.

    torch takes seconds to import: `import vtg`, and commands that need no model, start without it.

    Args:
        package: the package's `__name__`.
        homes: of each public name, the module of the package that defines it.
    """

    def find(name: str) -> Any:
        if name not in homes:
            raise AttributeError(f"module {package!r} has no attribute {name!r}")
        value = getattr(importlib.import_module(f"{package}.{homes[name]}"), name)
        setattr(sys.modules[package], name, value)
        return value

    return find, lambda: sorted({*vars(sys.modules[package]), *homes})


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
