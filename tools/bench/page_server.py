"""Start `vtg ui` in a separate process, and find a browser to open it with."""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import subprocess
import sys
import threading
from collections import deque
from collections.abc import Iterator
from pathlib import Path
from typing import Any

__all__ = ["BROWSER_OPTIONS", "PageServer", "find_chromium", "open_browser"]

START_TIMEOUT_SECONDS = 120
STOP_TIMEOUT_SECONDS = 15
BROWSER_NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable", "chrome", "msedge")
BROWSER_OPTIONS = [
    "--no-sandbox",
    "--disable-gpu",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--autoplay-policy=no-user-gesture-required",
]


def find_chromium() -> str | None:
    """Path of a Chromium on this machine, or the value of ``CHROMIUM`` if it is set."""
    chosen = os.environ.get("CHROMIUM")
    return chosen or next((path for name in BROWSER_NAMES if (path := shutil.which(name))), None)


@contextlib.contextmanager
def open_browser() -> Iterator[Any]:
    """Start a Chromium with playwright and a new profile.

    Raises:
        RuntimeError: there is no Chromium on this machine.
    """
    from playwright.sync_api import sync_playwright

    path = find_chromium()
    if path is None:
        raise RuntimeError("no Chromium found: install one, or set CHROMIUM to its path")
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=path, args=BROWSER_OPTIONS)
        try:
            yield browser
        finally:
            browser.close()


class PageServer:
    """A running `vtg ui`; leaving the `with` block ends it.

    Args:
        library: folder of the library.
        options: additional command-line arguments.
        environment: environment variables in addition to those of this process.

    Attributes:
        address: URL of the page; "" before the `with` block.
        process: process of the server.
    """

    def __init__(self, library: Path, *options: object, environment: dict[str, str] | None = None) -> None:
        self._command = [sys.executable, "-m", "vtg", "ui", "--library", str(library), "--port", "0", "--no-browser"]
        self._command += [str(option) for option in options]
        self._environment = {**os.environ, **(environment or {})}
        self._output: deque[str] = deque(maxlen=200)
        self._ready = threading.Event()
        self.address = ""

    def __enter__(self) -> PageServer:
        self.process = subprocess.Popen(
            self._command,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
            encoding="utf-8",
            errors="replace",
            env=self._environment,
            cwd=Path(__file__).resolve().parents[2],
        )
        threading.Thread(target=self._read_output, daemon=True).start()
        if not self._ready.wait(START_TIMEOUT_SECONDS) or not self.address:
            self.__exit__()
            raise RuntimeError(f"the page did not start: {self.output}")
        return self

    def _read_output(self) -> None:
        assert self.process.stderr is not None
        for line in self.process.stderr:
            self._output.append(line)
            if found := re.search(r" at (http://\S+?),", line):
                self.address = found[1]
                self._ready.set()
        self._ready.set()

    @property
    def output(self) -> str:
        """The last lines of the server's standard error."""
        return "".join(self._output)

    def __exit__(self, *_: object) -> None:
        self.process.terminate()
        try:
            self.process.wait(STOP_TIMEOUT_SECONDS)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
