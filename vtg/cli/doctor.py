"""The command `vtg doctor`."""

from __future__ import annotations

from itertools import groupby
from typing import TYPE_CHECKING

import typer

from vtg.cli.console import JsonOption, output, print_json, progress_bar
from vtg.cli.options import LibraryOption

if TYPE_CHECKING:
    from vtg.doctor import Check, Report

__all__ = ["add_doctor_command"]

COLOURS = {"ok": "green", "absent": "", "warning": "yellow", "error": "red"}


def add_doctor_command(app: typer.Typer) -> None:
    """Give the command line `vtg doctor`."""
    app.command(epilog="Example: vtg doctor --library holidays.vtg")(doctor)


def doctor(library: LibraryOption = None, as_json: JsonOption = False) -> None:
    """Report what is installed and in use, and what to do about what is missing or wrong.

    Nothing is downloaded or written. Exit status 1 where vtg cannot be used.
    """
    from vtg.doctor import examine

    with progress_bar("examining") as progress:
        report = examine(library, progress)
    if as_json:
        print_json(report.to_dict())
    else:
        _print(report)
    if not report.usable:
        raise typer.Exit(1)


def _print(report: Report) -> None:
    for section, members in groupby(report.checks, lambda check: check.section):
        output.print(section, style="bold")
        checks = list(members)
        if section == "packages":
            sound = [check for check in checks if check.state == "ok"]
            checks = [check for check in checks if check.state != "ok"]
            _print_line("ok", "", ", ".join(f"{check.name} {check.found}" for check in sound))
        for check in checks:
            _print_check(check)
    if report.usable:
        wrong = sum(check.state == "warning" for check in report.checks)
        output.print(f"vtg can be used; {wrong or 'no'} warnings", markup=False)
    else:
        output.print("vtg cannot be used; see the lines marked error", markup=False)


def _print_check(check: Check) -> None:
    _print_line(check.state, check.name, check.found)
    if check.advice:
        output.print(f"{'':<10}→ {check.advice}", markup=False, soft_wrap=True)


def _print_line(state: str, name: str, found: str) -> None:
    output.print(f"  {state:<8}", style=COLOURS[state], end="", markup=False)
    output.print(f"{name:<20} {found}" if name else found, markup=False, soft_wrap=True)
