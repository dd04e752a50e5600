"""Progress of long work: the state that is reported, and the type of what it is reported to.

Every function that may take long has a parameter `progress: Reporter = silent` and calls it with a `Progress`; front
ends show that in their own way.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

__all__ = ["Progress", "Reporter", "part_of", "silent"]


@dataclass(frozen=True)
class Progress:
    """How far a long work is.

    Attributes:
        step: what is being done, in a few words for people, such as "indexing".
        done: how much of it is finished, in `unit`.
        total: how much there is; None where that is not known.
        unit: what is counted, such as "videos" or "bytes"; "share" where `done` is a share of 1.
        current: share of the unit at work that is done, 0…1; 0 where that is not known.
        path: the file at work, if there is one.
        detail: what else people may want to know, such as the speed.
    """

    step: str
    done: float
    total: float | None = 1.0
    unit: str = "share"
    current: float = 0.0
    path: Path | None = None
    detail: str = ""

    @property
    def share(self) -> float:
        """How much of the whole is done, 0…1; 0 where the total is not known, 1 where there is nothing to do."""
        if self.total is None:
            return 0.0
        return (self.done + self.current) / self.total if self.total else 1.0


Reporter = Callable[[Progress], None]  # an exception that it raises ends the work


def silent(state: Progress) -> None:
    """Report to nobody."""


def part_of(whole: Reporter, begin: float, end: float) -> Reporter:
    """A reporter for a part of a longer work.

    Args:
        whole: the reporter of the longer work; it gets shares.
        begin: share of the longer work that is done when the part begins, 0…1.
        end: the same when the part is finished.
    """

    def report(state: Progress) -> None:
        # Not beyond the end by a rounding: what comes next begins exactly there.
        share = min(end, begin + (end - begin) * state.share)
        whole(replace(state, done=share, total=1.0, unit="share", current=0.0))

    return report
