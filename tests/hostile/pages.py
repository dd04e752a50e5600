"""A running page that is asked what scanners and foreign sites ask."""

from __future__ import annotations

import importlib
import os
import shutil
import signal
import socket
import sys
import time
import traceback
from pathlib import Path
from typing import Any

from .cases import BROKEN, Bench, Case, command

__all__ = ["pages"]

START_SECONDS = 90.0


def pages(bench: Bench) -> Case:
    """All probes against a page of its own."""
    probes: Any = importlib.import_module("hostile_page")
    library = bench.made / "library"
    shutil.copytree(bench.material.library, library)
    log = bench.folder.parent / "page.txt"
    findings: list[str] = []
    own = {"inputs": 0}

    def run() -> int:
        with socket.socket() as any_socket:
            any_socket.bind(("127.0.0.1", 0))
            port = any_socket.getsockname()[1]
        words = ["ui", "--library", library, "--root", bench.material.clips, "--port", port, "--no-browser"]
        server = _started(command(*words, "--device", "cpu"), log)
        create = socket.create_connection

        def counted(*arguments: Any, **options: Any) -> socket.socket:
            own["inputs"] += 1
            return create(*arguments, **options)

        socket.create_connection = counted  # type: ignore[assignment]
        try:
            findings.extend(_waited_for(port, server) or probes.probe_page(f"http://127.0.0.1:{port}"))
        finally:
            os.kill(server, signal.SIGKILL)
            os.waitpid(server, 0)
        said = log.read_text(errors="replace")
        if "Traceback" in said:
            findings.append(f"a traceback: {said[-500:]}")
        return 0

    return Case(run, check=lambda: "; ".join(findings)[:1500], own=own)


def _started(run: Any, log: Path) -> int:
    """The page in a process of its own."""
    pid = os.fork()
    if not pid:
        try:
            file = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o644)
            os.dup2(file, 1)
            os.dup2(file, 2)
            run()
        except BaseException:
            traceback.print_exc()
        finally:
            sys.stderr.flush()
            os._exit(BROKEN)
    return pid


def _waited_for(port: int, server: int) -> list[str]:
    deadline = time.monotonic() + START_SECONDS
    while time.monotonic() < deadline and not os.waitpid(server, os.WNOHANG)[0]:
        try:
            socket.create_connection(("127.0.0.1", port), 1.0).close()
        except OSError:
            time.sleep(0.1)
        else:
            return []
    return ["the page does not start"]
