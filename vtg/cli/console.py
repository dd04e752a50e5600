"""Console output: results to stdout, messages to stderr, progress, exit status."""

from __future__ import annotations

import codecs
import contextlib
import errno
import io
import os
import shlex
import signal
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console

from vtg.progress import Progress, Reporter, silent
from vtg.text import READABLE, json_text, one_line
from vtg.timespans import format_time

__all__ = [
    "READER_GONE",
    "Interrupted",
    "JsonOption",
    "LibraryWeightsOption",
    "ResearchDeviceOption",
    "SettingsOption",
    "answers",
    "complain",
    "end_output",
    "hint_at_dashes",
    "messages",
    "prepare_outputs",
    "print_json",
    "progress_bar",
    "span",
]

LONGEST_COMPLAINT = 1600  # characters of one line of complaint; of a longer one the middle is left out
# What a shell reports of a program that ended because nobody reads its output any more (`vtg search … | head -1`).
READER_GONE = 128 + getattr(signal, "SIGPIPE", 13)
SHOWN_UNITS = {"bytes": ("kB", 1e-3), "share": ("%", 1e2)}  # and factors; other units are counted as they are


class _Answers(Console):
    def on_broken_pipe(self) -> None:
        raise BrokenPipeError(errno.EPIPE, os.strerror(errno.EPIPE))


class _Messages(Console):
    def on_broken_pipe(self) -> None:
        # Work does not end because nobody reads what is said about it.
        self.quiet = True
        _discard(sys.stderr)


messages = _Messages(stderr=True, highlight=False)
# A file or another program that reads the answers is not folded at a terminal's width.
answers = _Answers(highlight=False, width=None if sys.stdout is not None and sys.stdout.isatty() else 160)

JsonOption = Annotated[bool, typer.Option("--json", help="One JSON document on standard output.")]
SettingsOption = Annotated[
    list[str] | None,
    typer.Option("--set", metavar="KEY=VALUE", help="Instead of the recipe's, like train.rate=1e-4 or data.fps=1."),
]
LibraryWeightsOption = Annotated[
    str | None,
    typer.Option("--pretrained", help="Weights of a library's CLIP, where its own file has to be named again."),
]
ResearchDeviceOption = Annotated[
    str | None, typer.Option("--device", help="cuda, mps or cpu; the best there is by default.")
]


class Interrupted(Exception):  # noqa: N818 - not an error
    """Ctrl-C during long work; typer would swallow a plain KeyboardInterrupt."""


def prepare_outputs() -> None:
    """Make standard output and error take any text: what their encoding lacks is written as something readable.

    An output that is closed becomes one that nobody reads; otherwise the next file that is opened would take its
    number, and get what is printed.
    """
    for name, mode in (("stdin", "r"), ("stdout", "w"), ("stderr", "w")):
        if getattr(sys, name) is None:  # opened in this order, each gets its own number, the lowest that is free
            setattr(sys, name, Path(os.devnull).open(mode, encoding="utf-8"))  # noqa: SIM115
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors=READABLE)


def end_output(status: int) -> int:
    """Write out what standard output still holds.

    Returns:
        The exit status: `READER_GONE` where nobody reads it any more, else the one that was given.

    Raises:
        OSError: it cannot be written, as on a full disk.
    """
    try:
        sys.stdout.flush()
    except BrokenPipeError:
        _discard(sys.stdout)
        status = READER_GONE
    except OSError:
        _discard(sys.stdout)  # or the interpreter tries again at its end, and complains once more
        raise
    with contextlib.suppress(OSError):
        sys.stderr.flush()
    return status


def _discard(stream: Any) -> None:
    """Let an output that cannot be written to any more lead nowhere."""
    with contextlib.suppress(OSError, ValueError, AttributeError):
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, stream.fileno())
        os.close(nowhere)


def complain(text: str, style: str = "red") -> None:
    """Say what is wrong, on one line of standard error whatever names are in it."""
    line = one_line(text)
    if len(line) > LONGEST_COMPLAINT:  # what a hostile file is quoted with
        line = f"{line[: LONGEST_COMPLAINT * 3 // 4]} … {line[-LONGEST_COMPLAINT // 4 :]}"
    messages.print(line, style=style, markup=False, soft_wrap=True)


def hint_at_dashes(error: Any, words: list[str]) -> None:
    """Add to a usage error what to do with a sentence or a file that begins with a dash and was taken for an option.

    Args:
        error: any usage error of typer's; its message is changed.
        words: of the command line.
    """
    given = words[: words.index("--")] if "--" in words else words
    dashed = [word for word in given if word.startswith("-") and len(word) > 2]
    suspects = [word for word in dashed if " " in word.partition("=")[0]]
    unknown = getattr(error, "option_name", None)
    if unknown and not getattr(error, "possibilities", None):
        suspects += [word for word in dashed if unknown.lstrip("-") in word]
    parameters = error.ctx.command.params if getattr(error, "ctx", None) else []
    if suspects and any(parameter.param_type_name == "argument" for parameter in parameters):
        hint = f"what begins with a dash goes after --, as in: {error.ctx.command_path} -- {shlex.quote(suspects[0])}"
        error.message = f"{error.message}; {hint}" if error.message else hint.capitalize()


@contextlib.contextmanager
def progress_bar(label: str, line_seconds: float | None = None) -> Iterator[Reporter]:
    """A bar on standard error that follows long work, and goes when the work is done.

    Args:
        label: shown until the first report.
        line_seconds: seconds between two lines that are printed instead where there is no terminal, as in the log of a
            job; None prints none.
    """
    from rich.progress import BarColumn, TextColumn, TimeRemainingColumn
    from rich.progress import Progress as Bar

    bar = Bar(
        TextColumn("{task.description}", markup=False),
        BarColumn(),
        TextColumn("{task.fields[count]}"),
        TimeRemainingColumn(),
        console=messages,
        transient=True,
        disable=not messages.is_terminal,
    )
    print_line = silent if line_seconds is None or messages.is_terminal else _line_printer(line_seconds)

    def show(state: Progress) -> None:
        name, factor = SHOWN_UNITS.get(state.unit, ("", 1.0))
        text = state.detail or (state.path.name if state.path else state.step)
        done, total = factor * (state.done + state.current), state.total and factor * state.total
        bar.update(
            task,
            description=one_line(f"{text}, {name}" if name else text),
            completed=done,
            total=total,
            count=f"{int(done)}" if total is None else f"{int(done)}/{int(total)}",
        )
        print_line(state)

    try:
        with bar:
            task = bar.add_task(label, total=None, count="")
            yield show
    except KeyboardInterrupt:
        raise Interrupted from None


def _line_printer(seconds: float) -> Reporter:
    """A reporter that prints a line every so many seconds."""
    printed = time.monotonic()
    begun: float | None = None

    def show(state: Progress) -> None:
        nonlocal printed, begun
        now = time.monotonic()
        begun = now if begun is None else begun
        if now - printed > seconds and state.total is not None:
            printed = now
            left = (now - begun) / state.done * (state.total - state.done) if state.done else None
            parts = [f"{state.done:.0f} of {state.total:.0f} done", *([state.detail] if state.detail else [])]
            parts += [] if left is None else [f"{format_time(left)} left"]
            messages.print(", ".join(parts), markup=False)

    return show


def span(start: float, end: float) -> str:
    """Two times as people read them."""
    return f"{format_time(start)}-{format_time(end)}"


def print_json(document: object) -> None:
    """The one document on standard output: UTF-8, or ASCII where the output has another encoding."""
    encoding = codecs.lookup(sys.stdout.encoding or "ascii").name
    sys.stdout.write(json_text(document, ascii_only=encoding != "utf-8"))
