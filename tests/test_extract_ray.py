"""Extraction on a Ray cluster: the same bytes as one process, and a worker that is lost loses nothing."""

from __future__ import annotations

import contextlib
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from vtg.clip.specs import EncoderSpec
from vtg.errors import VtgError
from vtg.extraction import QueryJob, Work, extract, read_source
from vtg.extraction.run import ExtractionReport
from vtg.extraction.verify import verify

pytestmark = [
    pytest.mark.skipif(sys.platform == "win32", reason="Ray's workers are told apart by /proc or ps"),
    pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning"),
]


STAGES = ("_decode", "_Encode", "_write")  # as Ray names the processes at work on them


@pytest.fixture(scope="module", autouse=True)
def _ray() -> None:
    pytest.importorskip("ray.data")


@pytest.fixture(scope="module")
def films(tmp_path_factory: pytest.TempPathFactory, make_video: Callable[..., Path]) -> Path:
    """Videos of few frames, one of three stretches, one that has none."""
    folder = tmp_path_factory.mktemp("films")
    for number, seconds in enumerate((2, 8, 300, 14)):
        make_video(folder / f"{number}.mp4", seconds=seconds, seed=number, rate=2)
    (folder / "notes.mp4").write_text("not a video")
    return folder


def contents(out: Path) -> dict[str, bytes]:
    return {path.relative_to(out).as_posix(): path.read_bytes() for path in out.rglob("*") if path.is_file()}


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory, tiny_clip: Path, films: Path) -> dict[str, bytes]:
    out = tmp_path_factory.mktemp("undisturbed")
    run(films, out, tiny_clip)
    return contents(out)


def run(films: Path, out: Path, weights: Path, ray: str | None = None, layout: str = "published") -> ExtractionReport:
    work = read_source(str(films), 1.0)
    work = Work(work.source, work.videos, (QueryJob("q", "a dog"),))
    assert layout in ("published", "store")
    encoder = EncoderSpec(pretrained=str(weights))
    return extract(work, str(out), encoder, layout, device="cpu", workers=2, ray=ray)  # type: ignore[arg-type]


def test_a_cluster_gives_the_same_bytes(
    tmp_path: Path, films: Path, tiny_clip: Path, undisturbed: dict[str, bytes]
) -> None:
    report = run(films, tmp_path, tiny_clip, ray="")
    assert (report.videos, report.queries, len(report.failed), report.frames) == (4, 1, 1, 324)
    assert contents(tmp_path) == undisturbed
    assert run(films, tmp_path, tiny_clip, ray="").finished == 5


@pytest.mark.slow
def test_a_worker_that_is_killed_loses_nothing(
    tmp_path: Path, films: Path, tiny_clip: Path, undisturbed: dict[str, bytes]
) -> None:
    killed: list[str] = []
    ended = threading.Event()

    def kill() -> None:
        import psutil

        while not ended.is_set() and len(killed) < len(STAGES):
            for process in psutil.Process().children(recursive=True):
                with contextlib.suppress(psutil.Error, IndexError):
                    title = process.cmdline()[0]
                    stage = next((stage for stage in STAGES if stage in title and stage not in killed), None)
                    if title.startswith("ray::") and stage:
                        process.kill()
                        killed.append(stage)
            time.sleep(0.02)

    killer = threading.Thread(target=kill)
    killer.start()
    try:
        report = run(films, tmp_path, tiny_clip, ray="")
    finally:
        ended.set()
        killer.join()
    assert set(killed) >= {"_decode", "_Encode"}
    assert (report.videos, len(report.failed)) == (4, 1)
    assert contents(tmp_path) == undisturbed


@pytest.mark.slow
def test_a_cluster_fills_a_store(tmp_path: Path, films: Path, tiny_clip: Path) -> None:
    run(films, tmp_path / "one", tiny_clip, layout="store")
    run(films, tmp_path / "many", tiny_clip, ray="", layout="store")
    assert contents(tmp_path / "many") == contents(tmp_path / "one")
    assert verify(str(tmp_path / "many")).problems == []


def test_a_cluster_that_is_not_there_is_told(tmp_path: Path, films: Path, tiny_clip: Path) -> None:
    with pytest.raises(VtgError, match="no cluster there"):
        run(films, tmp_path, tiny_clip, ray="127.0.0.1:1")
