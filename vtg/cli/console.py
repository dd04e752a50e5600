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

from vtg.files.text import READABLE, json_text, one_line
from vtg.progress import Progress, Reporter, silent
from vtg.timespans import format_time

__all__ = [
    "PIPE_CLOSED_STATUS",
    "Interrupted",
    "JsonOption",
    "LibraryWeightsOption",
    "ResearchDeviceOption",
    "SettingsOption",
    "explain_dashes",
    "flush_output",
    "messages",
    "output",
    "prepare_outputs",
    "print_error",
    "print_json",
    "progress_bar",
    "score_bar",
    "span",
]

BAR_CELLS = 12  # of a score's bar
MAX_ERROR_CHARACTERS = 1600  # of one error line; the middle of a longer one is omitted
# Exit status of a program whose standard output was closed by its reader (`vtg search … | head -1`).
PIPE_CLOSED_STATUS = 128 + getattr(signal, "SIGPIPE", 13)
SHOWN_UNITS = {"bytes": ("kB", 1e-3), "share": ("%", 1e2)}  # and factors; other units are shown unscaled


class _ResultConsole(Console):
    def on_broken_pipe(self) -> None:
        raise BrokenPipeError(errno.EPIPE, os.strerror(errno.EPIPE))


class _MessageConsole(Console):
    def on_broken_pipe(self) -> None:
        # A closed standard error must not end the work.
        self.quiet = True
        _discard(sys.stderr)


messages = _MessageConsole(stderr=True, highlight=False)
# Output to a file or another program is not wrapped at the width of a terminal.
output = _ResultConsole(highlight=False, width=None if sys.stdout is not None and sys.stdout.isatty() else 160)

JsonOption = Annotated[bool, typer.Option("--json", help="One JSON document on standard output.")]
SettingsOption = Annotated[
    list[str] | None,
    typer.Option(
        "--set", metavar="KEY=VALUE", help="Override a value of the recipe, like train.rate=1e-4 or data.fps=1."
    ),
]
LibraryWeightsOption = Annotated[
    str | None,
    typer.Option("--pretrained", help="Weights of a library's CLIP, if they are a file that must be named again."),
]
ResearchDeviceOption = Annotated[
    str | None, typer.Option("--device", help="cuda, mps or cpu; the best there is by default.")
]


class Interrupted(Exception):  # noqa: N818 - not an error
    """Ctrl-C during long work, as typer handles KeyboardInterrupt itself."""


def prepare_outputs() -> None:
    """Make standard output and error accept any text: characters missing in their encoding are replaced.

    Closed streams are replaced by the null device; otherwise the next opened file would get their file descriptor, and
    the printed text.
    """
    for name, mode in (("stdin", "r"), ("stdout", "w"), ("stderr", "w")):
        if getattr(sys, name) is None:  # in this order, each gets its own file descriptor
            setattr(sys, name, Path(os.devnull).open(mode, encoding="utf-8"))  # noqa: SIM115
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors=READABLE)


def flush_output(status: int) -> int:
    """Flush standard output.

    Returns:
        The exit status: `PIPE_CLOSED_STATUS` if its reader has closed it, else `status`.

    Raises:
        OSError: it cannot be written, as on a full disk.
    """
    try:
        sys.stdout.flush()
    except BrokenPipeError:
        _discard(sys.stdout)
        status = PIPE_CLOSED_STATUS
    except OSError:
        _discard(sys.stdout)  # or the interpreter would try again at exit and print a second error
        raise
    with contextlib.suppress(OSError):
        sys.stderr.flush()
    return status


def _discard(stream: Any) -> None:
    """Redirect an output that cannot be written to the null device."""
    with contextlib.suppress(OSError, ValueError, AttributeError):
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, stream.fileno())
        os.close(nowhere)


def print_error(text: str, style: str = "red") -> None:
    """Print one line to standard error, whatever characters are in it."""
    line = one_line(text)
    if len(line) > MAX_ERROR_CHARACTERS:  # quoted from a damaged or malicious file
        line = f"{line[: MAX_ERROR_CHARACTERS * 3 // 4]} … {line[-MAX_ERROR_CHARACTERS // 4 :]}"
    messages.print(line, style=style, markup=False, soft_wrap=True)


def explain_dashes(error: Any, words: list[str]) -> None:
    """Add a hint to a usage error for a sentence or file that begins with a dash and was parsed as an option.

    Args:
        error: any usage error of typer's; its message is changed.
        words: arguments of the command line.
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
    """A progress bar on standard error, which is removed at the end.


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


def score_bar(score: float) -> str:
    """A score, 0…1, as a bar and a number."""
    cells = round(score * BAR_CELLS)
    return f"{'█' * cells}{'░' * (BAR_CELLS - cells)} {score:.2f}"


def span(start: float, end: float) -> str:
    """A time span, as mm:ss-mm:ss."""
    return f"{format_time(start)}-{format_time(end)}"


def print_json(document: object) -> None:
    """Print a JSON document to standard output: UTF-8, or ASCII if the output has another encoding."""
    encoding = codecs.lookup(sys.stdout.encoding or "ascii").name
    sys.stdout.write(json_text(document, ascii_only=encoding != "utf-8"))
