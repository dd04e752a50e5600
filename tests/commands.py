"""The command line as a test asks it: in this process, with what it said and did."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from typing import Any

import pytest

from vtg.cli import main as cli

__all__ = ["Result", "vtg_in_process"]


class Result:
    """What one run of the command line said and did."""

    def __init__(self, status: int, out: str, err: str) -> None:
        self.status, self.out, self.err = status, out, err

    @property
    def json(self) -> Any:
        return json.loads(self.out)


def vtg_in_process(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, *first: str
) -> Callable[..., Result]:
    """Gives a function that runs ``vtg`` with its words, after those that come first each time."""

    def run_vtg(*words: object) -> Result:
        monkeypatch.setattr(sys, "argv", ["vtg", *first, *map(str, words)])
        try:
            cli.main()
            status = 0
        except SystemExit as stop:
            status = stop.code if isinstance(stop.code, int) else 0
        return Result(status, *capsys.readouterr())

    return run_vtg
