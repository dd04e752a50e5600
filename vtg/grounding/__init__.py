"""Find the moments of a video that a sentence describes.

Inputs are a video (a file, or its features) and sentences; outputs are moments and a saliency curve per sentence
(`results`). Read `grounder` (the whole sequence), then `windows`, which runs a head on the windows of a video
(`window_layout`) and merges the results, or `zero_shot`, which uses CLIP's embeddings only. `projections` stores the
query-independent part of a head's computation.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from vtg.lazy import lazy_names

if TYPE_CHECKING:
    from vtg.grounding.grounder import Grounder, load
    from vtg.grounding.results import Grounding, Moment, Saliency

__all__ = [
    "Grounder",
    "Grounding",
    "Moment",
    "Saliency",
    "load",
]

__getattr__, __dir__ = lazy_names(
    __name__,
    {
        "Grounder": "grounder",
        "Grounding": "results",
        "Moment": "results",
        "Saliency": "results",
        "load": "grounder",
    },
)
