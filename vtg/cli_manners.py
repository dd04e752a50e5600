"""The command line's manners: where answers and messages go, how long work and its end are shown."""

from __future__ import annotations

import json
import sys
from typing import Annotated, Any

import typer
from rich.console import Console

from vtg.timecode import format_time

__all__ = ["Interrupted", "JsonOption", "answers", "messages", "print_json", "progress_bar", "span"]

messages = Console(stderr=True, highlight=False)
# A file or another program that reads the answers is not folded at a terminal's width.
answers = Console(highlight=False, width=None if sys.stdout.isatty() else 160)

JsonOption = Annotated[bool, typer.Option("--json", help="One JSON document on standard output.")]


class Interrupted(Exception):  # noqa: N818 - not an error
    """Ctrl-C during long work; typer would swallow a plain KeyboardInterrupt."""


class progress_bar:  # noqa: N801 - used as a statement, as its name reads
    """A line on standard error that follows long work, and goes when the work is done."""

    def __init__(self, label: str) -> None:
        from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

        self._label = label
        self._bar = Progress(
            TextColumn("{task.description}", markup=False),
            BarColumn(),
            TextColumn("{task.fields[count]}"),
            TimeRemainingColumn(),
            console=messages,
            transient=True,
            disable=not messages.is_terminal,
        )

    def __enter__(self) -> Any:
        self._bar.start()
        task = self._bar.add_task(self._label, total=None, count="")

        def step(label: str, done: float, total: float) -> None:
            self._bar.update(task, description=label, completed=done, total=total, count=f"{int(done)}/{int(total)}")

        return step

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        self._bar.stop()
        if kind is KeyboardInterrupt:
            raise Interrupted from None


def span(start: float, end: float) -> str:
    """Two times as people read them."""
    return f"{format_time(start)}-{format_time(end)}"


def print_json(document: object) -> None:
    """The one document on standard output."""
    sys.stdout.write(json.dumps(document, ensure_ascii=False, indent=1) + "\n")
