"""Cases that do what none may do: with them the harness is tested itself. They are no part of a run of all kinds."""

from __future__ import annotations

import ctypes
import os
import socket
import subprocess
import sys
import time
from collections.abc import Callable

from .cases import Bench, Case

__all__ = ["COUNT", "sins"]


def sins(bench: Bench) -> Case:
    """Each number does another thing that is wrong."""
    deeds = _deeds(bench)
    return Case(deeds[bench.number % len(deeds)], ("film.mp4",))


def _deeds(bench: Bench) -> list[Callable[[], int]]:
    def says(*lines: str) -> int:
        for line in lines:
            print(line, file=sys.stderr)
        return 1

    def opens_natively() -> int:
        ctypes.CDLL(None).fopen(os.fsencode(bench.beside / "secret.mp4"), b"rb")
        return 0

    def opens() -> int:
        (bench.beside / "secret.txt").read_text()
        return 0

    def writes_elsewhere() -> int:
        name = f"/tmp/vtg-hostile-sin-{os.getpid()}"
        with open(name, "w"):  # noqa: PTH123
            os.unlink(name)  # noqa: PTH108
        return 0

    def calls() -> int:
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as any_socket:
            any_socket.connect(("192.0.2.1", 9))
        return 0

    def leaves_a_file() -> int:
        (bench.made / ".vtg-0.part").write_text("half")
        return 0

    def leaves_a_process() -> int:
        subprocess.Popen(["sleep", "30"], start_new_session=True)
        return 0

    def eats() -> int:
        eaten = [b"x" * (1 << 28) for _ in range(9)]
        return len(eaten) - 9

    def hangs() -> int:
        time.sleep(600)
        return 0

    def fails() -> int:
        raise RuntimeError("on purpose")

    return [
        fails,
        lambda: ctypes.string_at(0) and 0,
        opens_natively,
        opens,
        writes_elsewhere,
        calls,
        leaves_a_file,
        leaves_a_process,
        eats,
        hangs,
        lambda: says("vtg: film.mp4: one", "vtg: film.mp4: two"),
        lambda: says("vtg: something is wrong"),
    ]


COUNT = 12
