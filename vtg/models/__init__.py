"""Which models there are, where they come from, and how sure their answers are.

`registry` knows the published heads (`registry.toml`) and downloads them; `specs` says what a model is made of, head
and CLIP, without loading either; `calibration` makes probabilities of scores.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from vtg.lazy import lazy_names

if TYPE_CHECKING:
    from vtg.models.registry import load_head
    from vtg.models.specs import ModelSpec, available_models, describe_models, model_spec

__all__ = [
    "ModelSpec",
    "available_models",
    "describe_models",
    "load_head",
    "model_spec",
]

__getattr__, __dir__ = lazy_names(
    __name__,
    {
        "ModelSpec": "specs",
        "available_models": "specs",
        "describe_models": "specs",
        "load_head": "registry",
        "model_spec": "specs",
    },
)
