"""From a video and a sentence to moments and a saliency curve.

`grounder` puts the steps in order; `windows` asks a head about a video in windows (`window_layout`) and joins their
answers; `zero_shot` does without a head; `projections` keeps the query-independent half of a head's work; `results` are
the answers.
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
