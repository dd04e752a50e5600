"""The process of one case: limits, what it opens and whom it calls, what it was given and what it left."""

from __future__ import annotations

import ctypes
import json
import os
import random
import resource
import shutil
import sys
import traceback
from pathlib import Path
from typing import Any

from .cases import Bench, Case, Kind
from .material import Material

__all__ = ["CASE_VARIABLE", "MAX_RESIDENT_BYTES", "NOBODY", "drop_rights", "prepare", "run_case"]

CASE_VARIABLE = "VTG_HOSTILE_CASE"  # of the environment: tells whose a process is that was left behind
NOBODY = 65534
MAX_RESIDENT_BYTES = 2_000_000_000  # bytes resident, of any one process
MAX_DATA_BYTES = 8_000_000_000  # bytes asked for, so that a machine survives what is wrong
SET_DUMPABLE = 4
PYTHON_FOLDERS = tuple(
    {str(Path(folder).resolve()) for folder in (sys.prefix, sys.base_prefix, *filter(None, sys.path))}
)
SYSTEM_FOLDERS = (
    "/dev/",
    "/proc/",
    "/sys/",
    "/usr/",
    "/lib",
    "/etc/",
    "/opt/",
    "/var/cache/fontconfig",
    "/bin",
    "/run/",
)
SECRETS = ("/etc/passwd", "/etc/shadow", "/etc/hosts")


class _Watch:
    """An audit hook that notes what this process opens, removes and connects to where it should not.

    Args:
        folder: of the case, where all is allowed but what lies in `beside`.
        beside: files that are none of its business.
        readable: folders that may be read.
        has_server: whether it may ask this machine.
    """

    def __init__(self, folder: Path, beside: Path, readable: tuple[str, ...], has_server: bool) -> None:
        self.seen: list[str] = []
        self._folder, self._beside, self._readable = f"{folder}/", f"{beside}/", readable
        self._has_server = has_server
        self._is_on = False

    def start(self) -> None:
        """From now on; it cannot be taken away again."""
        self._is_on = True
        sys.addaudithook(self._note)

    def stop(self) -> None:
        """Notes nothing any more."""
        self._is_on = False

    def _note(self, event: str, arguments: tuple[Any, ...]) -> None:
        if not self._is_on:
            return
        if event == "open":
            self._opened(*arguments)
        elif event in ("os.rename", "os.remove", "os.rmdir", "os.mkdir", "os.truncate", "os.link", "os.symlink"):
            self._changed(event, arguments)
        elif event in ("socket.connect", "socket.getaddrinfo", "socket.gethostbyname", "socket.sendto"):
            address = arguments[1] if event == "socket.connect" else arguments
            is_own = self._has_server and isinstance(address, tuple) and "127.0.0.1" in address
            if not is_own and not isinstance(address, (str, bytes)):  # a socket of this machine's file system
                self.seen.append(f"contacts the network: {event} {address!r}")
        elif event in ("os.system", "pty.spawn", "os.exec"):
            self.seen.append(f"runs a program: {event} {arguments!r}"[:200])

    def _opened(self, path: Any, mode: Any, flags: Any) -> None:
        place = _absolute(path)
        if place is None:
            return
        if place.startswith(self._beside) or place in SECRETS:
            self.seen.append(f"opens another file: {place}")
        is_writing = bool((flags or 0) & (os.O_WRONLY | os.O_RDWR)) or any(sign in (mode or "r") for sign in "wax+")
        if place.startswith(self._folder) or place.startswith(("/dev/null", "/dev/shm/", "/proc/")):
            return
        if is_writing:
            self.seen.append(f"writes elsewhere: {place}")
        elif not place.startswith(self._readable):
            self.seen.append(f"opens another file: {place}")

    def _changed(self, event: str, arguments: tuple[Any, ...]) -> None:
        if event == "os.mkdir" and os.path.isdir(arguments[0]):  # noqa: PTH112 - nothing comes of it
            return
        for argument in arguments[:2]:
            if (place := _absolute(argument)) is not None and not place.startswith(self._folder):
                self.seen.append(f"changes what lies elsewhere: {event} {place}")


def _absolute(path: Any) -> str | None:
    if isinstance(path, int) or path is None:
        return None
    try:
        # Not what links lead to: that is told by what lies beside.
        return os.path.normpath(os.path.join(os.getcwd(), os.fsdecode(path)))  # noqa: PTH109, PTH118
    except (OSError, TypeError, ValueError):
        return None


def drop_rights() -> None:
    """Become a user without rights, if this one has any."""
    if os.getuid() == 0:
        os.setgroups([])
        os.setresgid(NOBODY, NOBODY, NOBODY)
        os.setresuid(NOBODY, NOBODY, NOBODY)
        ctypes.CDLL(None).prctl(SET_DUMPABLE, 1, 0, 0, 0)  # or it may not look at its own /proc


def prepare(folder: Path) -> None:
    """Make the empty folders of a case, which belong to the user that it runs as."""
    shutil.rmtree(folder, ignore_errors=True)
    for name in ("", "in", "in/made", "in/.beside", "home", "tmp"):
        (folder / name).mkdir(parents=True)
        if os.getuid() == 0:
            os.chown(folder / name, NOBODY, NOBODY)


def run_case(kind: Kind, number: int, seed: int, folder: Path, material: Material, wait: Any) -> None:
    """Run a case in this process, which ends with it; what came of it is written to the case's `told.json`.

    Args:
        kind: of the case.
        number: of the case.
        seed: of all.
        folder: that `prepare` made.
        material: shared by all.
        wait: called before the case begins, for whoever wants to look at this process.
    """
    os.setsid()
    place = folder / "in"
    for name, value in {"HOME": folder / "home", "TMPDIR": folder / "tmp", CASE_VARIABLE: folder}.items():
        os.environ[name] = str(value)
    for name in [name for name in os.environ if name.startswith(("XDG_", "VTG_LIBRARY"))]:
        del os.environ[name]
    import tempfile

    tempfile.tempdir = None
    if not kind.as_root:
        drop_rights()
    os.umask(0o022)
    os.chdir(place)
    told: dict[str, Any] = {"status": None}
    status = 0
    try:
        chance = random.Random(f"{seed}/{kind.name}/{number}")  # noqa: S311 - not for secrets
        bench = Bench(place, place / "made", place / ".beside", material, number, chance)
        case = kind.make(bench)
        before = _snapshot(place)
        given = [str(path.relative_to(bench.made)) for path in bench.made.rglob("*")]
        told = _watched(kind, case, bench, folder, wait)
        told["names"], told["lines"], told["own"] = list(case.names), case.lines, case.own
        told["given"] = given
        told["seen"] += [f"changed its input: {name}" for name in _changes(before, _snapshot(place))]
        if told["status"] is not None and not told["seen"]:
            told["wrong"] = case.check()
    except BaseException:
        told["seen"] = [*told.get("seen", []), f"the harness fails: {traceback.format_exc()[-1500:]}"]
        status = 1
    (folder / "told.json").write_text(json.dumps(told))
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(status)


def _watched(kind: Kind, case: Case, bench: Bench, folder: Path, wait: Any) -> dict[str, Any]:
    """Runs it with its output going to files; says how it ended and what it did that it should not."""
    for name, stream in (("out", sys.stdout), ("err", sys.stderr)):
        stream.flush()
        file = os.open(folder / name, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o644)
        os.dup2(file, 1 if name == "out" else 2)
        os.close(file)
    with open(os.devnull) as nothing:  # noqa: PTH123
        os.dup2(nothing.fileno(), 0)
    sys.stdout = os.fdopen(1, "w", encoding="utf-8", closefd=False)
    sys.stderr = os.fdopen(2, "w", encoding="utf-8", closefd=False)
    resource.setrlimit(resource.RLIMIT_DATA, (MAX_DATA_BYTES, MAX_DATA_BYTES))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    readable = (*SYSTEM_FOLDERS, *PYTHON_FOLDERS, str(bench.material.folder))
    watch = _Watch(folder, bench.beside, readable, kind.has_server)
    wait()
    watch.start()
    try:
        status = case.run()
    except BaseException:
        traceback.print_exc()
        status = 70
    watch.stop()
    sys.stdout.flush()
    sys.stderr.flush()
    return {"status": status, "seen": list(dict.fromkeys(watch.seen))[:5]}


def _snapshot(place: Path) -> dict[str, tuple[int, int]]:
    """Size and time of change of all files but those in `made`."""
    found = {}
    for root, folders, names in os.walk(place):
        if Path(root) == place:
            folders.remove("made")
        for name in names:
            status = os.lstat(os.path.join(root, name))  # noqa: PTH118
            found[os.path.relpath(os.path.join(root, name), place)] = status.st_size, status.st_mtime_ns  # noqa: PTH118
    return found


def _changes(before: dict[str, tuple[int, int]], after: dict[str, tuple[int, int]]) -> list[str]:
    return sorted(name for name in before.keys() | after.keys() if before.get(name) != after.get(name))[:3]
