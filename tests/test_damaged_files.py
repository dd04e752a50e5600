"""Damaged files: `vtg index` says one line of each, finds the good ones, stays within its limits and leaves nothing."""

from __future__ import annotations

import json
import os
import random
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import psutil
import pytest
from damaged_files import GOOD, SOURCES, make_damaged_files, make_sources

from vtg.errors import VideoError
from vtg.video import probe
from vtg.video.limits import MAX_PROCESS_MEMORY

CASES = Path(__file__).parent / "data" / "cases"
ENVIRONMENT = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
SECONDS_A_FILE = 10.0
START_SECONDS = 120.0  # for Python, PyTorch and the model
LOOK_SECONDS = 0.05
END_SECONDS = 1.0  # in which all children have ended after their parent

# `vtg` with a line in a file for each step of indexing: the time, how many files are done, and the file at work.
FOLLOWED = """
import contextlib, sys, time
from vtg.cli import main as cli
from vtg.cli import options as cli_library
log = open(sys.argv.pop(1), "w", buffering=1)
@contextlib.contextmanager
def follow(what):
    yield lambda state: log.write(f"{time.monotonic()} {int(state.done + state.current)} {state.path.name}\\n")
cli_library.progress_bar = follow
cli.main()
"""


@dataclass
class Watched:
    """What a program did: status, output, complaints, and its largest process, with bytes resident."""

    status: int = 0
    out: str = ""
    err: str = ""
    seconds: float = 0.0
    peak: int = 0
    largest: list[str] = field(default_factory=list)


def watch(command: Sequence[object], limit: float) -> Watched:
    """Runs a command and looks at the memory of all its processes every 50 ms.

    Args:
        command: the command line.
        limit: seconds after which it is ended and the test fails.
    """
    seen = Watched()
    begun = time.monotonic()
    with tempfile.TemporaryFile() as out, tempfile.TemporaryFile() as err:
        with subprocess.Popen([*map(str, command)], stdout=out, stderr=err, env=ENVIRONMENT) as parent:
            process = psutil.Process(parent.pid)
            while parent.poll() is None:
                for one in family(process):
                    try:
                        resident = one.memory_info().rss
                        if resident > seen.peak:
                            seen.peak, seen.largest = resident, one.cmdline()
                    except psutil.Error:
                        continue
                if time.monotonic() - begun > limit:
                    parent.kill()
                    pytest.fail(f"has not ended after {limit:.0f} s: {command}")
                time.sleep(LOOK_SECONDS)
        seen.status, seen.seconds = parent.returncode, time.monotonic() - begun
        for file, name in ((out, "out"), (err, "err")):
            file.seek(0)
            setattr(seen, name, file.read().decode())
    return seen


def family(process: psutil.Process) -> list[psutil.Process]:
    """A process and all that it has started; empty once it has ended."""
    try:
        return [process, *process.children(recursive=True)]
    except psutil.Error:
        return []


def seconds_by_file(log: Path) -> dict[str, float]:
    """How long each file took: from the step at which it was first at work to the same of the next."""
    began: dict[int, float] = {}
    names: dict[int, str] = {}
    # The first step of all comes before the model is loaded.
    for line in log.read_text().splitlines()[1:]:
        at, done, name = line.split(" ", 2)
        began.setdefault(int(done), float(at))
        names[int(done)] = name
    return {names[number]: began[number + 1] - began[number] for number in began if number + 1 in began}


@pytest.fixture(scope="module")
def good(tmp_path_factory: pytest.TempPathFactory) -> tuple[list[Path], str]:
    """Undamaged files, and a sentence that is true in each."""
    return make_sources(tmp_path_factory.mktemp("good"))


@pytest.fixture
def folder(good: tuple[list[Path], str], tmp_path: Path) -> Path:
    """A folder with the undamaged files in a folder of their own."""
    films = tmp_path / "films"
    (films / "good").mkdir(parents=True)
    for path in good[0]:
        (films / "good" / path.name).write_bytes(path.read_bytes())
    return films


@pytest.mark.parametrize("count", [24, pytest.param(300, marks=pytest.mark.slow)])
def test_a_folder_of_damaged_files_is_indexed(
    good: tuple[list[Path], str], folder: Path, tmp_path: Path, count: int
) -> None:
    sources, sentence = good
    damaged = make_damaged_files(folder, sources, count, seed=1)
    library, log = tmp_path / "library", tmp_path / "log"
    words = ["--library", library, "--model", "demo", "--device", "cpu", "--json"]
    limit = START_SECONDS + SECONDS_A_FILE * (count + len(sources))
    seen = watch([sys.executable, "-c", FOLLOWED, log, "index", folder, *words], limit)
    print(f"{seen.seconds:.0f} s, {seen.peak / 1e6:.0f} MB: {' '.join(seen.largest)[-100:]}")
    assert seen.status in (0, 1)
    assert "Traceback" not in seen.err
    assert seen.peak <= MAX_PROCESS_MEMORY, seen.largest
    seconds = seconds_by_file(log)
    assert {path.name for path in damaged} <= set(seconds)
    slow = {name: taken for name, taken in seconds.items() if taken > SECONDS_A_FILE}
    assert slow == {}
    report = json.loads(seen.out)
    for failure in report["failed"]:
        assert GOOD not in failure["path"], failure
        assert "\n" not in failure["reason"]
        assert f"vtg: {failure['path']}: {failure['reason']}\n" in seen.err
    # Among themselves: what is damaged shows the same scene, hundreds of times.
    search = [sys.executable, "-m", "vtg", "search", sentence, "-n", 10, "--per-video", 1, "--in", folder / "good"]
    found = json.loads(watch([*search, *words[:2], "--json"], START_SECONDS).out)["results"]
    assert {str(folder / "good" / path.name) for path in sources} == {result["video"] for result in found}


ENDLESS = ["damaged-endless.avi", "damaged-129-days.mp4"]


@pytest.mark.parametrize("name", ENDLESS)
def test_a_file_that_claims_years_is_one_line_in_the_index(folder: Path, tmp_path: Path, name: str) -> None:
    (folder / name).write_bytes((CASES / name).read_bytes())
    library, log = tmp_path / "library", tmp_path / "log"
    command = [sys.executable, "-c", FOLLOWED, log, "index", folder, "--library", library, "--model", "demo"]
    seen = watch([*command, "--device", "cpu"], START_SECONDS + SECONDS_A_FILE * 10)
    assert seen.status == 1
    assert seen.peak <= MAX_PROCESS_MEMORY, seen.largest
    assert seconds_by_file(log)[name] <= SECONDS_A_FILE
    lines = [line for line in seen.err.splitlines() if line.startswith("vtg: ")]
    assert len(lines) == 1
    assert str(folder / name) in lines[0]
    assert len(list(library.glob("features/*"))) <= len(SOURCES)


# One use of a file after the other, each with the seconds it took; the last word is a folder to write to.
USES = """
import sys, time
from pathlib import Path
from vtg.errors import VtgError
from vtg.video import concat, cut, probe, sample_frames, thumbnail, write_reel, Span
from vtg.video.preview import write_poster, write_preview, write_proxy
path, out = Path(sys.argv[1]), Path(sys.argv[2])
uses = {
    "probe": lambda: probe(path),
    "sample": lambda: sum(len(frames) for _, frames in sample_frames(path, 0.5, 64)),
    "thumbnail": lambda: thumbnail(path, 3.0, 64),
    "cut": lambda: cut(path, 1.0, 3.0, out / "a.mp4"),
    "copy": lambda: cut(path, 1.0, 3.0, out / "b.mp4", copy=True),
    "concat": lambda: concat([path], out / "c.mp4"),
    "reel": lambda: write_reel([Span(path, 1.0, 3.0)], out / "d.mp4"),
    "poster": lambda: write_poster(path, 3.0, out / "e.jpg"),
    "preview": lambda: write_preview(path, 1.0, 3.0, out / "f.mp4"),
    "proxy": lambda: write_proxy(path, out / "g.mp4"),
}
for name, use in uses.items():
    begun = time.monotonic()
    try:
        use()
        said = "worked"
    except VtgError as error:
        said = f"refused: {error}"
    print(name, f"{time.monotonic() - begun:.2f}", said, sep="\\t", flush=True)
"""


@pytest.mark.parametrize("name", ENDLESS)
def test_a_file_that_claims_years_is_refused_by_every_use(tmp_path: Path, name: str) -> None:
    seen = watch([sys.executable, "-c", USES, CASES / name, tmp_path], START_SECONDS + 10 * SECONDS_A_FILE)
    assert (seen.status, seen.err) == (0, "")
    assert seen.peak <= MAX_PROCESS_MEMORY, seen.largest
    uses = [line.split("\t") for line in seen.out.splitlines()]
    assert len(uses) == 10
    assert [use for use in uses if float(use[1]) > SECONDS_A_FILE] == []
    assert [use for use in uses if not use[2].startswith(f"refused: {CASES / name}: ")] == []
    assert list(tmp_path.iterdir()) == []


# Samples the files of a folder again and again, with many frames a second, so that an ffmpeg runs most of the time.
SAMPLING = """
import sys
from pathlib import Path
from vtg.errors import VtgError
from vtg.video import sample_frames
print("begun", flush=True)
while True:
    for path in sorted(Path(sys.argv[1]).iterdir()):
        try:
            for _ in sample_frames(path, 20, 64):
                pass
        except VtgError:
            pass
"""


@pytest.fixture(params=["sampling", pytest.param("index", marks=pytest.mark.slow)])
def parents(request: pytest.FixtureRequest, good: tuple[list[Path], str], folder: Path, tmp_path: Path) -> list[str]:
    """A command that works on damaged files for long."""
    make_damaged_files(folder, good[0], 24 if request.param == "sampling" else 300, seed=2)
    if request.param == "sampling":
        return [sys.executable, "-c", SAMPLING, str(folder)]
    words = [str(folder), "--library", str(tmp_path / "library"), "--model", "demo", "--device", "cpu"]
    return [sys.executable, "-m", "vtg", "index", *words]


def test_no_child_lives_on_after_its_parent_was_killed(parents: list[str]) -> None:
    moments = random.Random(1)  # noqa: S311
    with_ffmpeg = 0
    for _ in range(6):
        with started(parents) as parent:
            deadline = time.monotonic() + START_SECONDS
            while not (children := family(psutil.Process(parent.pid))[1:]):
                assert time.monotonic() < deadline
                time.sleep(LOOK_SECONDS)
            time.sleep(moments.uniform(0.0, 1.5))
            children = family(psutil.Process(parent.pid))[1:]
            assert parent.poll() is None
            parent.kill()
            parent.wait()
        with_ffmpeg += bool(children)
        _, left = psutil.wait_procs(children, timeout=END_SECONDS)
        assert [one for one in left if one.is_running() and one.status() != psutil.STATUS_ZOMBIE] == []
    assert with_ffmpeg


def started(command: Sequence[str]) -> subprocess.Popen[bytes]:
    return subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, env=ENVIRONMENT)


def test_a_few_kilobytes_do_not_ask_for_days_of_work(tmp_path: Path) -> None:
    frame = b"!\xf9\x04\0\xff\xff\0\0,\0\0\0\0\x07\0\x07\0\0\x02\x02\x44\x01\0"  # for 11 min
    path = tmp_path / "slides.gif"
    path.write_bytes(b"GIF89a\x07\0\x07\0\xf0\0\0\0\0\0\xff\xff\xff" + frame * 500 + b";")
    with pytest.raises(VideoError, match="damaged"):
        probe(path)
    path.write_bytes(b"GIF89a\x07\0\x07\0\xf0\0\0\0\0\0\xff\xff\xff" + frame * 12 + b";")
    assert probe(path).duration > 7000
