"""Damaged libraries and those of strangers: one line that names the file, and the other videos are still searched."""

from __future__ import annotations

import json
import multiprocessing
import os
import resource
import shutil
import sys
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hostile_libraries import DAMAGES, damage_library

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="processes are forked and measured as Unix does it")

SECONDS = 60.0  # for all commands on one library
MEMORY = 2_000_000  # kB
COMMANDS = (
    ["search", "a red circle", "-n", "10", "--nearest", "--json"],
    ["search", "--said", "hello", "--json"],
    ["library", "list", "--json"],
    ["library", "info", "--json"],
    ["library", "verify", "--checksums"],
    ["index", "FILMS"],
    ["library", "refresh"],
    ["search", "a red circle", "-n", "10", "--nearest", "--json"],
)


def run_commands(library: Path, films: Path, seed: int, log: Path) -> None:
    """Runs in a process of its own: damages a library and runs each command on it, all that it says in files."""
    what = damage_library(library, seed)
    _say(log / "damage", what)
    run_all(library, films, log)


def run_all(library: Path, films: Path, log: Path) -> None:
    """Runs in a process of its own: every command, one after the other, what each says and its status in files."""
    from vtg.cli import main as cli

    for number, command in enumerate(COMMANDS):
        words = [str(films) if word == "FILMS" else word for word in command]
        sys.argv = ["vtg", *words, "--library", str(library)]
        with (log / f"{number}.out").open("w") as out, (log / f"{number}.err").open("w") as err:
            sys.stdout, sys.stderr = out, err
            status: object = 0
            try:
                cli.main()
            except SystemExit as stop:
                status = stop.code
            except BaseException:
                traceback.print_exc(file=err)
                status = "crash"
            print(status, file=err)
    _say(log / "memory", str(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss))


def _say(path: Path, text: str) -> None:
    path.write_text(ascii(text))


@pytest.fixture(scope="module")
def context() -> Any:
    context = multiprocessing.get_context("forkserver")  # what takes long to import is imported once
    context.set_forkserver_preload(
        ["vtg.features.pipeline", "vtg.library.library", "vtg.cli.main", "open_clip", "numpy"]
    )
    return context


@pytest.fixture(scope="module")
def films(tmp_path_factory: pytest.TempPathFactory) -> Path:
    from vtg.demo import make_videos

    folder = tmp_path_factory.mktemp("films")
    make_videos(folder, count=3, sentences=3, seconds=12.0, width=96, height=64)
    (folder / "demo_00000.srt").write_text("1\n00:00:01,000 --> 00:00:03,000\nhello world\n")
    return folder


def make_library(folder: Path, films: Path) -> None:
    """Runs in a process of its own, for LanceDB's threads do not live on in a forked one."""
    from vtg.library.library import Library

    library = Library(folder, "demo", device="cpu")
    assert len(library.add([films]).added) == 3


@pytest.fixture(scope="module")
def sound(tmp_path_factory: pytest.TempPathFactory, films: Path, context: Any) -> Path:
    folder = tmp_path_factory.mktemp("sound") / "library"
    in_process(context, make_library, folder, films)
    return folder


def in_process(context: Any, target: Callable[..., None], *arguments: Any) -> None:
    process = context.Process(target=target, args=arguments)
    process.start()
    process.join(SECONDS)
    if process.is_alive():
        process.kill()
        process.join()
        pytest.fail(f"{arguments}: takes more than {SECONDS:g} s")
    assert process.exitcode == 0


def contents(folder: Path) -> dict[str, tuple[int, int]]:
    return {str(path): (path.stat().st_size, path.stat().st_mtime_ns) for path in folder.rglob("*")}


def found(log: Path, number: int) -> set[str]:
    """The videos that a search has found."""
    text = (log / f"{number}.out").read_text()
    return {Path(result["video"]).name for result in json.loads(text)["results"]} if text else set()


# Consecutive seeds take the kinds of damage in turn: always each kind once, by hand six times.
SEEDS = [
    pytest.param(seed, marks=[] if seed < len(DAMAGES) else pytest.mark.slow)
    for seed in range(int(os.environ.get("VTG_TEST_LIBRARIES", "96")))
]


@pytest.mark.parametrize("seed", SEEDS)
def test_a_damaged_library_is_one_line(tmp_path: Path, sound: Path, films: Path, context: Any, seed: int) -> None:
    library, log = tmp_path / "work" / "library", tmp_path / "log"
    shutil.copytree(sound, library)
    log.mkdir()
    before = contents(films)
    in_process(context, run_commands, library, films, seed, log)
    damage = (log / "damage").read_text()
    said = [(log / f"{number}.err").read_text() for number in range(len(COMMANDS))]
    for command, text in zip(COMMANDS, said, strict=True):
        *lines, status = text.splitlines()
        assert status in ("0", "1"), (damage, command, text)
        assert "Traceback" not in text, (damage, command, text)
        if status == "1":
            assert lines, (damage, command)
        assert max(map(len, lines), default=0) < 2000, (damage, command, text)
    assert int((log / "memory").read_text().strip("'")) < MEMORY, damage
    assert contents(films) == before, damage
    assert [path.name for path in (tmp_path / "work").iterdir()] == ["library"], damage
    if damage.split()[1].startswith(("features", "stray")):
        assert len(found(log, 0)) >= 2, (damage, said[0])
        assert len(found(log, len(COMMANDS) - 1)) >= 2, (damage, said[-1])
