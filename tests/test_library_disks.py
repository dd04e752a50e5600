"""Libraries on disks that are full or may not be written to: one line, nothing half, and the same command goes on."""

from __future__ import annotations

import json
import os
import shutil
import stat
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import pytest

from vtg.errors import VtgError
from vtg.library.library import Library
from vtg.models.specs import model_spec

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="mounts, users and limits are those of Linux")


@pytest.fixture
def films(tmp_path: Path, make_video: Callable[..., Path]) -> Path:
    folder = tmp_path / "films"
    folder.mkdir()
    for number in range(3):
        make_video(folder / f"{number}.mp4", seconds=4, seed=number)
    (folder / "0.srt").write_text("1\n00:00:01,000 --> 00:00:03,000\nhello world\n")
    return folder


def open_library(folder: Path, weights: Path) -> Library:
    return Library(folder, model_spec("zero-shot", pretrained=weights), device="cpu")


# Another user that may read everything and write nothing: the interpreter may lie in a home of its own.
AS_NOBODY = ["setpriv", "--reuid=65534", "--regid=65534", "--clear-groups"]
AS_NOBODY += ["--inh-caps=+dac_read_search", "--ambient-caps=+dac_read_search"]


def run(*words: object) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "vtg", *map(str, words)]
    return subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)


RUN_EACH = """
import contextlib, io, json, sys
from vtg.cli import main as cli
results = []
for words in json.loads(sys.argv[1]):
    sys.argv = ["vtg", *words]
    outputs = [io.TextIOWrapper(io.BytesIO(), encoding="utf-8") for _ in range(2)]
    status = 0
    with contextlib.redirect_stdout(outputs[0]), contextlib.redirect_stderr(outputs[1]):
        try:
            cli.main()
        except SystemExit as stop:
            status = stop.code or 0
    for output in outputs:
        output.flush()
    results.append([status, *(output.buffer.getvalue().decode() for output in outputs)])
print(json.dumps(results))
"""


def run_each(*commands: Sequence[object]) -> list[subprocess.CompletedProcess[str]]:
    """The results of commands that another user runs one after the other in one process, as imports take longest."""
    texts = [[str(word) for word in words] for words in commands]
    command = [*AS_NOBODY, sys.executable, "-c", RUN_EACH, json.dumps(texts)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0, done.stderr
    return [
        subprocess.CompletedProcess(words, status, out, err)
        for words, (status, out, err) in zip(texts, json.loads(done.stdout), strict=True)
    ]


def assert_one_line(result: subprocess.CompletedProcess[str], *words: str) -> None:
    assert result.returncode == 1, result.stderr
    assert "Traceback" not in result.stderr
    lines = [line for line in result.stderr.splitlines() if line.startswith("vtg: ")]
    assert len(lines) == 1, result.stderr
    assert all(word in lines[0] for word in words), lines[0]


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A disk of 20 MB."""
    place = tmp_path / "disk"
    place.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=20m", "tmpfs", str(place)]
    if os.geteuid() != 0 or subprocess.run(mount, capture_output=True, check=False).returncode:
        pytest.skip("nothing may be mounted here")
    try:
        yield place
    finally:
        subprocess.run(["umount", "-l", str(place)], check=True)


def fill(disk: Path, leave: int) -> Path:
    """A file that takes all room of a disk but some bytes."""
    ballast = disk / "ballast"
    with ballast.open("wb") as file:
        file.write(bytes(shutil.disk_usage(disk).free - leave))
    return ballast


@pytest.mark.parametrize("leave", [0, 4_096, 16_384, 40_960, 81_920])
def test_a_full_disk_is_one_line_and_the_same_call_finishes(
    small_disk: Path, films: Path, tiny_clip: Path, leave: int
) -> None:
    place = small_disk / "library"
    open_library(place, tiny_clip).add([films / "0.mp4"])
    ballast = fill(small_disk, leave)
    full = open_library(place, tiny_clip)
    with pytest.raises((VtgError, OSError), match="No space left") as caught:
        full.add([films])
    assert str(place) in str(caught.value) and "\n" not in str(caught.value)
    assert [path.name for path in full.features.root.iterdir() if path.suffix == ".part"] == []
    assert open_library(place, tiny_clip).search("a red circle")
    ballast.unlink()
    full.add([films])
    again = open_library(place, tiny_clip)
    assert again.verify(checksums=True) == []
    assert len(again.videos()) == 3


def test_a_full_disk_is_one_line_of_the_command(small_disk: Path, films: Path, tiny_clip: Path) -> None:
    place = small_disk / "library"
    open_library(place, tiny_clip).add([films / "0.mp4"])
    fill(small_disk, 0)
    named = ("--model", "zero-shot", "--pretrained", tiny_clip, "--device", "cpu")
    assert_one_line(run("index", films, "--library", place, *named), str(place), "No space left")


def all_below(folder: Path) -> list[Path]:
    return [folder, *folder.rglob("*")]


@pytest.fixture
def for_nobody(films: Path, tiny_clip: Path) -> Iterator[Path]:
    """A library of the demo's model that another user may read and not write, in a place within reach of others."""
    if os.geteuid() != 0 or shutil.which("setpriv") is None:
        pytest.skip("only root becomes another user")
    # Not below pytest's own folder, which every run of pytest that begins meanwhile closes to others.
    with tempfile.TemporaryDirectory() as folder:
        place = Path(folder) / "library"
        library = Library(place, "demo", device="cpu")
        library.add([films])
        for path in all_below(place):
            path.chmod(0o555 if path.is_dir() else 0o444)
        for above in [films, *films.iterdir(), *place.parents, *films.parents]:
            needed = 0o055 if above.is_dir() else 0o044
            if above.stat().st_mode & needed != needed:
                above.chmod(above.stat().st_mode | needed)
        yield place


def test_a_library_that_may_only_be_read_is_searched(for_nobody: Path, films: Path) -> None:
    before = {path: path.stat().st_mtime_ns for path in all_below(for_nobody)}
    at = ("--library", for_nobody)
    for result in run_each(
        ("search", "a red circle", "--nearest", "--device", "cpu", *at),
        ("search", "--said", "hello", *at),
        ("library", "list", *at),
        ("library", "info", *at),
        ("library", "verify", "--checksums", *at),
    ):
        assert result.returncode == 0, (result.args, result.stderr)
        assert "Traceback" not in result.stderr
    assert {path: path.stat().st_mtime_ns for path in all_below(for_nobody)} == before
    (films / "4.mp4").write_bytes((films / "0.mp4").read_bytes() + b"\0\0\0\x08free")
    (films / "1.mp4").touch()
    for result in run_each(("index", films, *at), ("library", "remove", films, *at), ("library", "refresh", *at)):
        assert_one_line(result, str(for_nobody), "ermission denied")


def test_tables_that_may_not_be_written_to_are_one_line(for_nobody: Path, films: Path) -> None:
    for path in all_below(for_nobody):
        if ".lance" not in str(path):
            path.chmod(path.stat().st_mode | stat.S_IWOTH)
    (films / "4.mp4").write_bytes((films / "0.mp4").read_bytes() + b"\0\0\0\x08free")
    at = ("--library", for_nobody, "--device", "cpu")
    indexed, searched = run_each(("index", films, *at), ("search", "a red circle", "--nearest", *at))
    assert_one_line(indexed, str(for_nobody), ".lance", "ermission denied")
    assert searched.returncode == 0, searched.stderr


def test_a_library_that_vanishes_at_work_is_one_line(tmp_path: Path, films: Path, tiny_clip: Path) -> None:
    place = tmp_path / "library"
    library = open_library(place, tiny_clip)
    library.add([films / "0.mp4"])

    def take_away(step: object) -> None:
        if place.exists():
            place.rename(tmp_path / "elsewhere")

    with pytest.raises((VtgError, OSError)) as caught:
        library.add([films], take_away)
    assert "\n" not in str(caught.value)
    shutil.rmtree(place, ignore_errors=True)
    (tmp_path / "elsewhere").rename(place)
    again = open_library(place, tiny_clip)
    assert len(again.add([films]).added) == 2
    assert again.verify(checksums=True) == []
