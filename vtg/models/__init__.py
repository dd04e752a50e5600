"""List, describe, download and load models.

Input is a model name or a checkpoint; output is a `ModelSpec` (head, CLIP and sampling rate, without loading them) or a
loaded head. Read `registry` (published heads in `registry.toml`, and their download), `encoders` (recommended CLIPs for
grounding without a head), `specs`, and `calibration`, which converts scores to probabilities.
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
