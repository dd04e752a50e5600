"""Full and read-only disks, files of other users, folders that vanish: one line, nothing half, then it finishes."""

from __future__ import annotations

import os
import shutil
import tempfile
import threading
import time
from collections.abc import Callable
from pathlib import Path

from .cases import Bench, Case, command
from .child import NOBODY, drop_rights
from .kills import Job, forked, half_files, jobs
from .namespaces import READ_ONLY, REMOUNT, have_own_mounts, mount, unmount
from .running import LEFTOVER, refusal_faults

__all__ = ["disks"]

COMMANDS = (
    "index",
    "extract",
    "train",
    "cut",
    "summarize",
    "highlights",
    "export",
    "store",
    "refresh",
    "evaluate",
    "plot",
    "preview",
    "page",
)
WAYS = ("full", "full", "full", "read only", "foreign", "vanishing", "full temporary", "unreadable", "searchable")
ROOM = 200_000_000  # bytes, once there is space again
BLOCK = 4096


def disks(bench: Bench) -> Case:
    """One command on a disk with something wrong, and again without."""
    name = COMMANDS[bench.number % len(COMMANDS)]
    way = WAYS[bench.number // len(COMMANDS) % len(WAYS)]
    problems: list[str] = []

    def run() -> int:
        if not have_own_mounts():
            print("vtg: no rights to mount: left out")
            return 0
        problem = {"unreadable": _unreadable, "searchable": _searchable}.get(way, _Disk(way, name, bench).run)(bench)
        problems.extend([f"{name}, {way}: {problem}"] if problem else [])
        return 0

    return Case(run, check=lambda: "; ".join(problems)[:1500])


class _Disk:
    """A small disk that a command works on.

    Args:
        way: what is wrong with it.
        name: of the command.
        bench: of the case.
    """

    def __init__(self, way: str, name: str, bench: Bench) -> None:
        self.way, self.name, self.bench = way, name, bench
        self.place = bench.folder.parent / "disk"
        self.folder = self.place / "work"
        self.log = bench.folder.parent / "said.txt"

    def run(self, bench: Bench) -> str:
        """What is wrong; "" if nothing is."""
        self.place.mkdir()
        mount(self.place, options=f"size={ROOM},mode=755")
        job = self._fresh()
        before = _bytes(self.folder)
        status, said = self._forked(job.run)
        if status:
            return f"fails on a good disk: {said[-300:]}"
        needed = _bytes(self.folder) - before
        job = self._fresh()
        restore = self._damage(before, needed)
        status, said = self._forked(job.run)
        problem = self._after(status, said)
        restore()
        if problem or not status:
            return problem
        status, again = self._forked(job.again)
        if status:
            return f"said {said.strip()[-200:]!r}; then, on a good disk, ends with {status}: {again[-300:]}"
        left = [path for path in self.folder.rglob("*") if LEFTOVER.search(path.name)]
        return f"then leaves {left[0].relative_to(self.folder)}" if left else self._forked_check(job)

    def _fresh(self) -> Job:
        shutil.rmtree(self.folder, ignore_errors=True)
        job = jobs(self.name, self.bench, self.folder)
        for path in (self.folder, *self.folder.rglob("*")):
            os.chown(path, NOBODY, NOBODY)
        return job

    def _forked(self, run: Callable[[], int]) -> tuple[int, str]:
        return forked(run, self.log, prepare=drop_rights)

    def _forked_check(self, job: Job) -> str:
        answer = self.log.with_name("answer.txt")
        forked(lambda: min(0, answer.write_text(job.check())), self.log)
        return answer.read_text()

    def _damage(self, before: int, needed: int) -> Callable[[], None]:
        """Makes the disk wrong; gives what makes it right again."""
        chance = self.bench.chance
        if self.way == "full":
            room = before + max(BLOCK, int(needed * chance.uniform(0.0, 1.0)))
            mount(self.place, flags=REMOUNT, options=f"size={_bytes(self.place) - before + room}")
            return lambda: mount(self.place, flags=REMOUNT, options=f"size={ROOM}")
        if self.way == "full temporary":
            temporary = Path(tempfile.gettempdir())
            mount(temporary, options=f"size={BLOCK},mode=777")
            (temporary / "filler").write_bytes(bytes(BLOCK))
            return lambda: unmount(temporary)
        if self.way == "read only":
            mount(self.place, flags=REMOUNT | READ_ONLY)
            return lambda: mount(self.place, flags=REMOUNT)
        if self.way == "foreign":
            owned = [self.folder, *self.folder.rglob("*")]
            for path in owned:
                os.chown(path, 0, 0)
            return lambda: [os.chown(path, NOBODY, NOBODY) for path in owned if path.exists()]  # type: ignore[return-value]
        moment = chance.uniform(0.0, 3.0)

        def vanish() -> None:
            time.sleep(moment)
            shutil.rmtree(self.folder, ignore_errors=True)

        vanishing = threading.Thread(target=vanish)
        vanishing.start()

        def come_back() -> None:
            vanishing.join()
            self._fresh()

        return come_back

    def _after(self, status: int, said: str) -> str:
        """What is wrong right after the failure."""
        if status:
            names = (self.folder.name, "work", "disk", tempfile.gettempdir())
            faults = refusal_faults(status, [line for line in said.split("\n") if line.strip()], names, 8)
            if faults:
                return faults[0]
        if self.way == "vanishing":
            return ""
        left = [path for path in self.folder.rglob("*") if LEFTOVER.search(path.name)]
        if left and self.way != "read only":
            return f"ends with {status} and leaves {left[0].relative_to(self.folder)}: {said[-200:]}"
        return half_files(self.folder)


def _unreadable(bench: Bench) -> str:
    """Files that this user may not read."""
    folder = bench.folder.parent / "films"
    shutil.copytree(bench.material.clips, folder)
    for path in folder.iterdir():
        path.chmod(0o600)
    folder.chmod(0o755)
    runs = [
        command("index", folder / "0.mp4", "--library", bench.made / "library", "--model", "demo", "--device", "cpu"),
        command("cut", folder / "0.mp4", "0", "1", bench.made / "a.mp4"),
        command(
            "extract", folder / "0.mp4", bench.made / "out", "--pretrained", bench.material.clip, "--device", "cpu"
        ),
    ]
    status, said = forked(runs[bench.number % len(runs)], bench.folder.parent / "said.txt", prepare=drop_rights)
    lines = [line for line in said.split("\n") if line.strip()]
    if not status:
        return f"reads what it may not: {said[-200:]}"
    return "; ".join(refusal_faults(status, lines, ("0.mp4",), 1))


def _searchable(bench: Bench) -> str:
    """A library on a disk that cannot be written to."""
    library = bench.folder.parent / "library"
    shutil.copytree(bench.material.library, library)
    mount(library, "", library, READ_ONLY)
    words = ["search", bench.material.sentence, "--library", library, "--nearest", "--json", "--device", "cpu"]
    status, said = forked(command(*words), bench.folder.parent / "said.txt", prepare=drop_rights)
    said += (bench.folder.parent / "said.out").read_text()
    return (
        ""
        if not status and '"start"' in said
        else f"cannot be searched where it is read-only, status {status}: {said[-300:]}"
    )


def _bytes(folder: Path) -> int:
    """What a folder takes of a disk that gives whole blocks."""
    return sum(
        -(-path.lstat().st_size // BLOCK) * BLOCK + (BLOCK if path.is_dir() else 0) for path in folder.rglob("*")
    )
