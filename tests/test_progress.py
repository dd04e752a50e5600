"""The one type of progress, and the bar and the lines that the command line shows of it."""

from __future__ import annotations

import io
from pathlib import Path

import pytest
from rich.console import Console

from vtg.cli import console
from vtg.progress import Progress, part_of


def output(monkeypatch: pytest.MonkeyPatch, terminal: bool) -> io.StringIO:
    """What is written to standard error, as if it were a terminal or a file."""
    written = io.StringIO()
    monkeypatch.setattr(console, "messages", Console(file=written, force_terminal=terminal, width=100))
    return written


def test_share_counts_the_part_of_the_unit_at_work() -> None:
    assert Progress("indexing", 1, 4, "files", current=0.5).share == 0.375
    assert Progress("downloading", 100, None, "bytes").share == 0.0
    assert Progress("looking for cuts", 0, 0, "ends").share == 1.0


def test_part_of_a_longer_work_ends_exactly_where_the_next_begins() -> None:
    states: list[Progress] = []
    first, second = part_of(states.append, 0.0, 0.7), part_of(states.append, 0.7, 1.0)
    first(Progress("rendering", 30, 60, "frames"))
    first(Progress("rendering", 60, 60, "frames"))
    second(Progress("indexing", 0, 3, "files", path=Path("a.mp4")))
    second(Progress("indexing", 2, 3, "files", current=1.0))
    assert [state.share for state in states] == [0.35, 0.7, 0.7, 1.0]
    assert [state.unit for state in states] == ["share"] * 4
    assert (states[2].step, states[2].path) == ("indexing", Path("a.mp4"))


@pytest.mark.parametrize(
    ("state", "label", "count"),
    [
        (Progress("indexing", 1, 4, "files", current=0.5, path=Path("films/a.mp4")), "a.mp4", "1/4"),
        (Progress("extracting", 2, 5, "videos", detail="8 frames, 4.0/s"), "8 frames, 4.0/s", "2/5"),
        (Progress("downloading", 2_500, 10_000, "bytes", detail="r2-tiny"), "r2-tiny, kB", "2/10"),
        (Progress("downloading", 2_500, None, "bytes"), "downloading, kB", "2 "),
        (Progress("writing", 0.25), "writing, %", "25/100"),
    ],
)
def test_bar_shows_what_is_done_and_how_much(
    monkeypatch: pytest.MonkeyPatch, state: Progress, label: str, count: str
) -> None:
    written = output(monkeypatch, terminal=True)
    with console.progress_bar("looking") as show:
        show(state)
    last = written.getvalue().split("looking")[-1]
    assert label in last and count in last


def test_without_a_terminal_a_line_is_printed_now_and_then(monkeypatch: pytest.MonkeyPatch) -> None:
    written = output(monkeypatch, terminal=False)
    seconds = iter([0.0, 10.0, 50.0, 70.0, 80.0])  # of the start, then of each report
    monkeypatch.setattr(console.time, "monotonic", lambda: next(seconds, 80.0))
    lines = console._line_printer(60.0)
    for done in (0, 1, 2, 3):
        lines(Progress("extracting", done, 8, "videos", detail=f"{done} frames"))
    assert written.getvalue().splitlines() == ["2 of 8 done, 2 frames, 03:00 left"]


def test_nothing_is_shown_without_a_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    written = output(monkeypatch, terminal=False)
    with console.progress_bar("looking") as show:
        show(Progress("indexing", 1, 4, "files"))
    assert written.getvalue() == ""


def test_an_interrupt_during_long_work_is_told_apart(monkeypatch: pytest.MonkeyPatch) -> None:
    output(monkeypatch, terminal=False)
    with pytest.raises(console.Interrupted), console.progress_bar("looking"):
        raise KeyboardInterrupt
