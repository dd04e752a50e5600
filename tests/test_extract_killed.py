"""Extraction that is killed at any moment: nothing is lost, nothing half is left, nothing finished is done again."""

from __future__ import annotations

import multiprocessing
import sys
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from vtg.clip.specs import EncoderSpec
from vtg.extraction import VideoJob, extract, read_source
from vtg.extraction.verify import verify

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="processes are forked and killed with a signal")

DECODERS = 2  # videos in flight at a time


@pytest.fixture
def films(tmp_path: Path, make_video: Callable[..., Path]) -> Callable[[int], Path]:
    """Makes so many videos of a few seconds."""

    def make_films(count: int) -> Path:
        folder = tmp_path / "films"
        folder.mkdir()
        for number in range(count):
            make_video(folder / f"{number:02d}.mp4", seconds=2 + number % 5, seed=number)
        return folder

    return make_films


def extract_slowly(films: Path, out: Path, weights: Path, log: Path, seconds: float) -> None:
    """Runs in a process of its own: notes every video that is begun, and takes its time."""
    from vtg.extraction import machine

    original = machine.open_job

    def noted(job: VideoJob, size: int, with_content: bool, threads: int) -> Any:
        with log.open("a") as file:
            file.write(f"{job.id}\n")
        time.sleep(seconds)
        return original(job, size, with_content, threads)

    machine.open_job = noted  # type: ignore[assignment]
    extract(read_source(str(films), 1.0), str(out), EncoderSpec(pretrained=str(weights)), device="cpu", workers=2)


def contents(out: Path) -> dict[str, bytes]:
    return {path.relative_to(out).as_posix(): path.read_bytes() for path in out.rglob("*") if path.is_file()}


def wait_for_growth(file: Path, size: int) -> None:
    deadline = time.monotonic() + 60
    while (not file.exists() or file.stat().st_size == size) and time.monotonic() < deadline:
        time.sleep(0.005)


@pytest.mark.parametrize(
    ("videos", "kills"), [(12, 3), pytest.param(80, 20, marks=pytest.mark.slow)], ids=["three times", "twenty times"]
)
def test_killed_at_random_moments_it_ends_as_if_undisturbed(
    tmp_path: Path, films: Callable[[int], Path], tiny_clip: Path, videos: int, kills: int
) -> None:
    folder = films(videos)
    context = multiprocessing.get_context("forkserver")  # what takes long to import is imported once
    context.set_forkserver_preload(["vtg.extraction.machine", "vtg.extraction.cluster", "open_clip"])
    undisturbed, out, log = tmp_path / "undisturbed", tmp_path / "out", tmp_path / "log"

    def start(target: Path, notes: Path, seconds: float) -> Any:
        process = context.Process(target=extract_slowly, args=(folder, target, tiny_clip, notes, seconds))
        process.start()
        return process

    whole = start(undisturbed, tmp_path / "other-log", 0.0)
    whole.join()
    assert whole.exitcode == 0
    moments = np.random.default_rng(0)
    killed = 0
    while killed < kills:
        noted = log.stat().st_size if log.exists() else 0
        process = start(out, log, 0.25)
        if killed % 2 == 0:  # while it works; the others anywhere, also before that
            wait_for_growth(log, noted)
        process.join(moments.uniform(0.0, 0.6))
        assert process.exitcode is None, "it has ended before it was killed"
        process.kill()
        process.join()
        killed += 1
        finals = list(out.rglob("*.npy"))
        assert all(path.read_bytes() == (undisturbed / path.relative_to(out)).read_bytes() for path in finals)
    last = start(out, log, 0.0)
    last.join()
    assert last.exitcode == 0
    assert contents(out) == contents(undisturbed)
    assert verify(str(out)).problems == []
    begun = Counter(log.read_text().split())
    assert set(begun) == {path.stem for path in folder.iterdir()}
    assert sum(begun.values()) <= videos + DECODERS * killed


def test_processes_on_the_same_output_share_the_work(
    tmp_path: Path, films: Callable[[int], Path], tiny_clip: Path
) -> None:
    folder = films(12)
    context = multiprocessing.get_context("forkserver")
    out, log = tmp_path / "out", tmp_path / "log"
    processes = [context.Process(target=extract_slowly, args=(folder, out, tiny_clip, log, 0.1)) for _ in range(3)]
    for process in processes:
        process.start()
    for process in processes:
        process.join()
    assert [process.exitcode for process in processes] == [0, 0, 0]
    assert Counter(log.read_text().split()) == dict.fromkeys((path.stem for path in folder.iterdir()), 1)
    assert len(list((out / "tiny_vid_k4").iterdir())) == 12
    assert not list(out.rglob("*.part"))
