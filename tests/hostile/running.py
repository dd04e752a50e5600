"""Runs cases side by side, each in a process forked from this one, and judges what came of them."""

from __future__ import annotations

import contextlib
import json
import os
import re
import shutil
import signal
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from . import child
from .cases import Kind
from .material import Material
from .watching import Canary, Tracer, adopt_orphans, descendants, end_orphans, largest

__all__ = ["LEFTOVER", "Result", "refusal_faults", "run_all"]

LOOK_SECONDS = 0.02
MEMORY_SECONDS = 0.1  # between two looks at memory
MAX_LINE_CHARACTERS = 2000  # characters, of a refusal
TRACED_FIRST, TRACED_EVERY = 3, 60  # cases of a kind that strace looks at
TRACED_SLOWER = 4.0
# What a command says besides of work that ended well or badly; what is wrong has its own line.
SUMMARY = re.compile(
    r"\S.*: (\d+ added|\d+ videos?|\d+ quer|\d+ files? checked|\d+ indexed|\d+ moments|no problems|\d+ problems)"
    r"|note: |nothing found|nearest, |left out: |made, bundled|predictions: |stopped and saved|\d+ clips"
    r"|no ground truth"
    r"|\S+ \d+/\d+: loss |.*\((not validated|\S+ [-\d.e]+ after epoch \d+)\)$|\S+\.(mp4|png|srt)$"
    r"|.*: (\d+ clips|\d+:\d\d.* of )"
)
TRACES = ("Traceback (most recent call last)", "panicked at", "Segmentation fault", "core dumped", "Fatal Python error")
LEFTOVER = re.compile(r"(?<!\.jsonl)\.part$|^\.vtg-|\.tmp$")  # an evaluation goes on from OUT.jsonl.part


@dataclass(frozen=True)
class Result:
    """What came of a case.

    Attributes:
        kind: of the case.
        number: of the case.
        verdict: "ok", "refused" or "wrong".
        why: what is wrong, or the line of the refusal.
        seconds: that it took.
        megabytes: of its largest process, resident.
        inputs: how many inputs it stands for.
        kills: how many processes it killed at work.
    """

    kind: str
    number: int
    verdict: str
    why: str
    seconds: float
    megabytes: int
    inputs: int = 1
    kills: int = 0

    def line(self) -> str:
        """As a line of the log."""
        return json.dumps(asdict(self)) + "\n"


@dataclass
class _Running:
    kind: Kind
    number: int
    pid: int
    folder: Path
    canary: Canary
    tracer: Tracer | None
    begun: float
    limit: float
    most: int = 0
    stopped: str = ""


def run_all(
    cases: Iterable[tuple[Kind, int]],
    seed: int,
    out: Path,
    material: Material,
    jobs: int,
    told: Callable[[Result], None],
) -> None:
    """Run cases, so many at a time.

    Args:
        cases: kind and number of each.
        seed: of all.
        out: folder for their work, and for what is kept of those that are wrong.
        material: shared.
        jobs: how many at a time.
        told: of each result.
    """
    adopt_orphans()
    waiting, slots = iter(cases), {}
    free = list(range(jobs))
    looked = 0.0
    while True:
        while free and (case := next(waiting, None)) is not None:
            slot = free.pop()
            slots[slot] = _begin(*case, seed, out / "work" / str(slot), material)
        if not slots:
            return
        is_time = time.monotonic() - looked > MEMORY_SECONDS
        looked = time.monotonic() if is_time else looked
        for slot, running in list(slots.items()):
            if is_time:
                _look(running)
            pid, status, usage = os.wait4(running.pid, os.WNOHANG)
            if pid:
                del slots[slot]
                free.append(slot)
                result = _judged(running, status, usage.ru_maxrss * 1024)
                if result.verdict == "wrong":
                    _keep(running, out / "wrong" / f"{result.kind}-{result.number}", result)
                told(result)
        time.sleep(LOOK_SECONDS)


def _begin(kind: Kind, number: int, seed: int, folder: Path, material: Material) -> _Running:
    child.prepare(folder)
    beside = folder / "in" / ".beside"
    for name, content in {
        "secret.mp4": material.small,
        "secret.txt": b"nobody's business\n",
        "secret.ts": b"G" * 188,
    }.items():
        (beside / name).write_bytes(content)
        (beside / name).chmod(0o644)
    is_chosen = number < TRACED_FIRST or number % TRACED_EVERY == 0
    is_traced = is_chosen and Tracer.exists() and not (kind.as_root or kind.has_server)
    reading, writing = os.pipe()
    pid = os.fork()
    if not pid:
        try:
            os.close(writing)
            child.run_case(kind, number, seed, folder, material, lambda: os.read(reading, 1))
        finally:
            os._exit(99)
    os.close(reading)
    tracer = Tracer(pid, folder.parent / f"{folder.name}.strace") if is_traced else None
    # Made after the process: what it writes itself as it begins lies elsewhere.
    canary = Canary(beside)
    os.write(writing, b"x")
    os.close(writing)
    limit = kind.seconds * (TRACED_SLOWER if is_traced else 1)
    return _Running(kind, number, pid, folder, canary, tracer, time.monotonic(), limit)


def _look(running: _Running) -> None:
    """Ends a case that takes too long or too much."""
    running.most = max(running.most, largest(running.pid))
    seconds = time.monotonic() - running.begun
    if seconds > running.limit:
        running.stopped = f"has not ended after {seconds:.0f} s"
    elif running.most > child.MAX_RESIDENT_BYTES * 1.2:
        running.stopped = f"takes {running.most / 1e9:.1f} GB of memory"
    if running.stopped:
        for pid in (*descendants(running.pid), running.pid):
            with contextlib.suppress(OSError):
                os.kill(pid, signal.SIGKILL)


def _judged(running: _Running, status: int, peak: int) -> Result:
    seconds = time.monotonic() - running.begun
    wrong = [running.stopped] if running.stopped else []
    touched = running.canary.touched()
    wrong += [f"opens another file: {', '.join(touched)}"] if touched else []
    wrong += end_orphans(running.folder)
    if running.tracer is not None:
        wrong += running.tracer.findings(running.folder, running.folder / "in" / ".beside")
    told = {}
    with contextlib.suppress(OSError, ValueError):
        told = json.loads((running.folder / "told.json").read_text())
    most = max(peak, running.most)
    if not running.stopped and os.WIFSIGNALED(status):
        wrong.append(f"was ended by signal {os.WTERMSIG(status)}")
    elif not told and not wrong:
        wrong.append(f"told nothing, status {status}")
    elif most > child.MAX_RESIDENT_BYTES:
        wrong.append(f"takes {most / 1e9:.1f} GB of memory")
    wrong += told.get("seen", [])
    wrong += [told["wrong"]] if told.get("wrong") else []
    lines = _lines(running.folder / "err")
    verdict, why = "ok", ""
    if told.get("status") == 1 and not lines:  # some commands answer that something does not fit
        lines = _lines(running.folder / "out")
    if told.get("status") is not None:
        wrong += refusal_faults(told["status"], lines, told.get("names", ()), told.get("lines", 1))
        wrong += _left(running.folder, told.get("given", ()))
        if told["status"]:
            verdict, why = "refused", next((line for line in lines if not SUMMARY.match(line)), "")
    if wrong:
        verdict, why = "wrong", "; ".join(wrong)
    own = told.get("own", {})
    return Result(running.kind.name, running.number, verdict, why[:1500], round(seconds, 2), most >> 20, **own)


def refusal_faults(status: int, lines: Sequence[str], names: Sequence[str], most_lines: int) -> list[str]:
    """What is wrong with how a command ended.

    Args:
        status: its exit status.
        lines: of its standard error.
        names: one of them must be in the line of a refusal; none where any will do.
        most_lines: that say what is wrong.
    """
    text = "\n".join(lines)
    if any(trace in text for trace in TRACES):
        return [f"a traceback: {' | '.join(lines[-3:])[-600:]}"]
    said = [line for line in lines if not SUMMARY.match(line)]
    if status == 0:
        # What it could do in spite of something is a warning, one line each.
        return [] if len(said) <= most_lines else [f"says {len(said)} lines and ends with status 0: {said[0][:200]}"]
    if status not in (1, 2):
        return [f"ends with status {status}: {text[-300:]}"]
    if not said:
        return [f"ends with status {status} and says nothing"]
    if status == 2:  # a usage error: the lines of how it is used, and one of what is wrong
        return []
    if len(said) > most_lines:
        return [f"says {len(said)} lines: {' | '.join(said)[:400]}"]
    if any(len(line) > MAX_LINE_CHARACTERS for line in said):
        return [f"says a line of {max(map(len, said))} characters: {said[0][:200]}"]
    if names and not any(name in line for name in names for line in said):
        return [f"names none of {', '.join(names)}: {said[0][:300]}"]
    return []


def _left(folder: Path, given: Sequence[str]) -> list[str]:
    """Unfinished files that it was not given, and what is left of temporary ones."""
    made = folder / "in" / "made"
    found = [
        path for path in made.rglob("*") if LEFTOVER.search(path.name) and str(path.relative_to(made)) not in given
    ]
    found += [path for path in (folder / "tmp").rglob("*") if path.is_file()]
    return [f"leaves {', '.join(str(path.relative_to(folder)) for path in found[:3])}"] if found else []


def _lines(path: Path) -> list[str]:
    try:
        return [line for line in path.read_text(errors="replace").split("\n") if line.strip()]
    except OSError:
        return []


def _keep(running: _Running, folder: Path, result: Result) -> None:
    """Keeps the inputs and outputs of a case that is wrong."""
    shutil.rmtree(folder, ignore_errors=True)
    with contextlib.suppress(OSError, shutil.Error):
        shutil.copytree(running.folder, folder, symlinks=True, ignore=shutil.ignore_patterns("home", "tmp"))
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "why.txt").write_text(f"{result.why}\n")
