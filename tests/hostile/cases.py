"""What a case is: inputs of one kind, what is run on them, and what may come of it."""

from __future__ import annotations

import random
import sys
import traceback
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from .material import Material

__all__ = ["Bench", "Case", "Kind", "command", "function"]

BROKEN = 70  # the exit status that stands for a traceback


@dataclass(frozen=True)
class Bench:
    """Where a case works.

    Attributes:
        folder: its own; what it is given lies here, and here it is run.
        made: the folder in it for what it writes.
        beside: a folder with files that it may not open.
        material: what all cases share, and none may change.
        number: of the case.
        chance: random numbers that depend on seed, kind and number alone.
    """

    folder: Path
    made: Path
    beside: Path
    material: Material
    number: int
    chance: random.Random


@dataclass(frozen=True)
class Case:
    """A case that is ready to run.

    Attributes:
        run: does it, and gives the exit status: 0, or 1 and 2 where it is refused.
        names: one of them must be in a refusal's line.
        lines: how many lines a refusal may have at most: one for each thing that is wrong.
        check: looks at what was written; gives what is wrong with it, or "".
        own: fields of the result that only the case knows, such as how many processes it killed.
    """

    run: Callable[[], int]
    names: Sequence[str] = ()
    lines: int = 1
    check: Callable[[], str] = lambda: ""
    own: dict[str, int] = field(default_factory=dict)


@dataclass(frozen=True)
class Kind:
    """Cases of one kind.

    Attributes:
        name: as in the table.
        count: of cases in the whole harness.
        make: writes the inputs of a case.
        seconds: that one may take.
        as_root: whether it needs rights (to mount), which it gives up itself before it runs anything.
        has_server: whether it asks a server of its own, on this machine.
    """

    name: str
    count: int
    make: Callable[[Bench], Case]
    seconds: float = 60.0
    as_root: bool = False
    has_server: bool = False


def command(*words: object) -> Callable[[], int]:
    """A run of `vtg` with these words, in this process."""

    def run() -> int:
        from vtg.cli import main as cli

        sys.argv = ["vtg", *map(str, words)]
        try:
            cli.main()
        except SystemExit as stop:
            return stop.code if isinstance(stop.code, int) else BROKEN
        return 0

    return run


def function(*calls: Callable[[], object]) -> Callable[[], int]:
    """Runs functions of the library one after the other; refused if one is, with the line of the first that was.

    Errors that are none of a user's are shown as Python shows them.
    """

    def run() -> int:
        from vtg.cli.console import print_error
        from vtg.errors import VtgError

        refusals: list[str] = []
        for call in calls:
            try:
                call()
            except VtgError as error:
                refusals.append(str(error))
            except Exception:
                traceback.print_exc()
                return BROKEN
        if refusals:
            print_error(f"vtg: {refusals[0]}")
            if any("\n" in refusal for refusal in refusals):
                print("a message has several lines", file=sys.stderr)
        return 1 if refusals else 0

    return run
