"""Train a head on cached features by a recipe.

Inputs are a `Recipe` and `Sources` (annotations and features); output is a folder with checkpoints, a log and the state
to resume from. Read `train` (the training loop and its public functions), then `preparation` (checks inputs; uses
`features` and `data`, which computes the targets), `batches` (batch plans, and reading in a thread), `processes`
(devices and interrupts), `validation`, `log` and `state`. `overfitting` is the check of `vtg train --check`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from vtg.lazy import lazy_names

if TYPE_CHECKING:
    from vtg.training.overfitting import CheckResult
    from vtg.training.preparation import Sources
    from vtg.training.train import TrainingResult, TrainingStep, check, member_recipes

__all__ = ["CheckResult", "Sources", "TrainingResult", "TrainingStep", "check", "member_recipes"]

__getattr__, __dir__ = lazy_names(
    __name__,
    {
        "CheckResult": "overfitting",
        "Sources": "preparation",
        "TrainingResult": "train",
        "TrainingStep": "train",
        "check": "train",
        "member_recipes": "train",
    },
)
