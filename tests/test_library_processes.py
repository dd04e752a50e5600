"""A library that several processes write and read at once, or whose writers are killed: nothing is lost or twice."""

from __future__ import annotations

import multiprocessing
import os
import sys
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from vtg.errors import VtgError
from vtg.library.library import Library
from vtg.library.tables import LibraryTables
from vtg.models.specs import model_spec

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="processes are forked and killed with a signal")


def open_library(folder: Path, weights: Path) -> Library:
    return Library(folder, model_spec("zero-shot", pretrained=weights), device="cpu")


def index_slowly(folder: Path, weights: Path, films: Path, log: Path, seconds: float) -> None:
    """Runs in a process of its own: notes every video that is decoded, and takes its time."""
    from vtg.features import decoding

    original = decoding.sample_frames

    def noted(path: Path, *options: Any, **more: Any) -> Any:
        with log.open("a") as file:
            file.write(f"{path.name}\n")
        time.sleep(seconds)
        return original(path, *options, **more)

    decoding.sample_frames = noted  # type: ignore[assignment]
    report = open_library(folder, weights).add([films])
    assert not report.failed


def search_until(folder: Path, weights: Path, stop: Any, searches: Any) -> None:
    """Runs in a process of its own: asks one question after the other."""
    library = open_library(folder, weights)
    while not stop.is_set():
        hits = library.search("a red circle", limit=50)
        assert len({(hit.video, hit.moment.start, hit.moment.end) for hit in hits}) == len(hits)
        searches.value += 1


@pytest.fixture
def films(tmp_path: Path, make_video: Callable[..., Path]) -> Callable[[int], Path]:
    def make_films(count: int) -> Path:
        folder = tmp_path / "films"
        folder.mkdir()
        for number in range(count):
            make_video(folder / f"{number:02d}.mp4", seconds=2 + number % 5, seed=number)
        return folder

    return make_films


@pytest.fixture(scope="module")
def context() -> Any:
    context = multiprocessing.get_context("forkserver")  # what takes long to import is imported once
    context.set_forkserver_preload(["vtg.features.pipeline", "vtg.library.library", "open_clip", "numpy"])
    return context


def check_sound(library: Library, films: Path) -> None:
    assert library.verify(checksums=True) == []
    assert [entry.path for entry in library.videos()] == [str(path) for path in sorted(films.iterdir())]
    times = library._tables.frame_times()
    assert {video: len(seconds) for video, seconds in times.items()} == {
        entry.video: len(library.open_features(entry.path)) for entry in library.videos()
    }


def test_two_that_index_and_one_that_searches_get_on(
    tmp_path: Path, films: Callable[[int], Path], tiny_clip: Path, context: Any
) -> None:
    folder, log, place = films(10), tmp_path / "log", tmp_path / "library"
    first = folder / "00.mp4"
    open_library(place, tiny_clip).add([first])  # there is something to search
    stop, searches = context.Event(), context.Value("i", 0)
    searcher = context.Process(target=search_until, args=(place, tiny_clip, stop, searches))
    indexers = [context.Process(target=index_slowly, args=(place, tiny_clip, folder, log, 0.05)) for _ in range(2)]
    for process in (searcher, *indexers):
        process.start()
    for process in indexers:
        process.join()
    stop.set()
    searcher.join()
    assert [process.exitcode for process in (*indexers, searcher)] == [0, 0, 0]
    assert searches.value > 0
    check_sound(open_library(place, tiny_clip), folder)
    assert Counter(log.read_text().split()) == dict.fromkeys(
        (path.name for path in folder.iterdir() if path != first), 1
    )


@pytest.mark.parametrize(
    ("videos", "kills"), [(8, 3), pytest.param(60, 20, marks=pytest.mark.slow)], ids=["three times", "twenty times"]
)
def test_killed_at_random_moments_it_goes_on(
    tmp_path: Path, films: Callable[[int], Path], tiny_clip: Path, context: Any, videos: int, kills: int
) -> None:
    folder, log, place = films(videos), tmp_path / "log", tmp_path / "library"
    moments = np.random.default_rng(0)
    log.touch()
    for _ in range(kills):
        noted = log.stat().st_size
        process = context.Process(target=index_slowly, args=(place, tiny_clip, folder, log, 0.1))
        process.start()
        while process.is_alive() and log.stat().st_size == noted:
            time.sleep(0.005)
        process.join(moments.uniform(0.0, 0.6))
        assert process.exitcode is None, "it has ended before it was killed"
        process.kill()
        process.join()
        library = open_library(place, tiny_clip)
        if library.videos():
            assert library.search("a red circle")
    last = context.Process(target=index_slowly, args=(place, tiny_clip, folder, log, 0.0))
    last.start()
    last.join()
    assert last.exitcode == 0
    check_sound(open_library(place, tiny_clip), folder)
    assert sum(Counter(log.read_text().split()).values()) <= videos + 3 * kills  # at work, and decoded ahead


def test_a_write_is_tried_again_only_where_another_has_committed_meanwhile(tmp_path: Path) -> None:
    tables, others = LibraryTables(tmp_path), LibraryTables(tmp_path)
    tables.put_folders(["/films"])
    tried: list[bool] = []

    def conflict(table: Any) -> None:
        tried.append(True)
        if len(tried) < 3:
            others.put_folders([f"/films {len(tried)}"])
            raise RuntimeError("lance error: somebody was quicker")
        table.delete("path = '/films'")

    def fail(table: Any) -> None:
        tried.append(True)
        raise OSError("no space")

    tables._write("folders", None, conflict)
    assert len(tried) == 3 and tables.folders() == ["/films 1", "/films 2"]
    tried.clear()
    with pytest.raises(VtgError, match=r"folders\.lance: .*no space"):
        tables._write("folders", None, fail)
    assert len(tried) == 1


def at_work(role: str, folder: Path, weights: Path, films: Path, stop: Any, rounds: Any) -> None:
    """Runs in a process of its own: does one thing with a library again and again."""
    library = open_library(folder, weights)
    chance = np.random.default_rng(hash(role) % 1000)
    kept = {str(path) for path in (films / "kept").iterdir()}
    while not stop.is_set():
        if role.startswith("index"):
            report = library.add([films])
            assert not report.failed, report.failed
        elif role == "remove":
            time.sleep(float(chance.uniform(0.0, 0.5)))
            library.remove([films / "churned"])
        elif role == "refresh":
            report = library.refresh()
            assert not report.failed, report.failed
            assert not report.removed, report.removed
        else:
            hits = library.search("a red circle", limit=50)
            assert len({(hit.video, hit.moment.start, hit.moment.end) for hit in hits}) == len(hits)
            paths = [entry.path for entry in library.videos()]
            assert kept <= set(paths), "a video is lost"
            assert len(set(paths)) == len(paths), "a video is there twice"
        with rounds.get_lock():
            rounds.value += 1


ROLES = ("index", "index too", "remove", "refresh", "search", "search too")


@pytest.mark.parametrize(
    "seconds",
    [20.0, pytest.param(float(os.environ.get("VTG_TEST_SECONDS", "600")), marks=pytest.mark.slow)],
    ids=["short", "long"],
)
def test_six_processes_neither_lose_nor_double_a_video(
    tmp_path: Path, films: Callable[[int], Path], tiny_clip: Path, context: Any, seconds: float
) -> None:
    folder, place = films(12), tmp_path / "library"
    for number, path in enumerate(sorted(folder.iterdir())):
        part = folder / ("churned" if number % 3 == 0 else "kept")
        part.mkdir(exist_ok=True)
        path.rename(part / path.name)
    open_library(place, tiny_clip).add([folder])
    stop = context.Event()
    rounds = {role: context.Value("i", 0) for role in ROLES}
    processes = {
        role: context.Process(target=at_work, args=(role, place, tiny_clip, folder, stop, rounds[role]))
        for role in ROLES
    }
    for process in processes.values():
        process.start()
    until = time.monotonic() + 120  # for all to have begun
    begun = False
    while time.monotonic() < until and all(process.is_alive() for process in processes.values()):
        time.sleep(0.2)
        if not begun and all(count.value > 0 for count in rounds.values()):
            begun, until = True, time.monotonic() + seconds
    stop.set()
    for process in processes.values():
        process.join(60)
    print({role: count.value for role, count in rounds.items()})
    assert {role: process.exitcode for role, process in processes.items()} == dict.fromkeys(ROLES, 0)
    assert begun
    library = open_library(place, tiny_clip)
    library.add([folder])
    assert library.verify(checksums=True) == []
    assert [entry.path for entry in library.videos()] == [str(path) for path in sorted(folder.rglob("*.mp4"))]
