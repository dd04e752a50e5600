"""A short part of the harness: some inputs of each kind and a few kills; all by `python -m tests.hostile`."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
SECONDS = 540.0
INPUTS = {"media": 50, "headers": 45, "pictures": 24, "playlists": 55, "subtitles": 22, "annotations": 35}
INPUTS |= {"manifests": 25, "recipes": 15, "submissions": 12, "features": 3, "weights": 12, "libraries": 6}

pytestmark = pytest.mark.skipif(
    not sys.platform.startswith("linux"), reason="it watches processes by /proc and inotify"
)


@pytest.fixture(scope="module")
def out(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One folder for all: making what cases share takes a while."""
    return tmp_path_factory.mktemp("hostile")


def run(out: Path, *words: str) -> tuple[subprocess.CompletedProcess[str], list[dict[str, object]]]:
    """The command, and what is in its log."""
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    command = [sys.executable, "-m", "tests.hostile", "--out", str(out), *words]
    done = subprocess.run(command, capture_output=True, text=True, timeout=SECONDS, cwd=ROOT, env=environment)
    return done, [json.loads(line) for line in (out / "log.jsonl").read_text().splitlines()][1:]


def test_nothing_hostile_gets_through(out: Path) -> None:
    cases = [f"{kind}={count}" for kind, count in INPUTS.items()]
    done, results = run(out, "--counts", ",".join([*cases, "kills=1", "disks=4"]))
    assert done.returncode == 0, done.stdout[-5000:] + done.stderr[-2000:]
    results = [result for result in results if result["kind"] != "sins"]
    assert Counter(result["kind"] for result in results) == {**INPUTS, "kills": 1, "disks": 4}
    assert sum(int(str(result["kills"])) for result in results) == 4
    # Neither lets everything through nor refuses all: each verdict is there.
    assert {result["verdict"] for result in results} == {"ok", "refused"}


def test_the_harness_sees_what_is_wrong(out: Path) -> None:
    done, results = run(out, "--kinds", "sins")
    results = [result for result in results if result["kind"] == "sins"]
    wrong = {str(result["why"]).split(":")[0] for result in results if result["verdict"] == "wrong"}
    assert done.returncode == 1
    assert len(results) == len([result for result in results if result["verdict"] == "wrong"]), results
    expected = {
        "a traceback",
        "was ended by signal 11",
        "opens another file",
        "writes elsewhere",
        "contacts the network",
    }
    expected |= {"leaves in/made/.vtg-0.part", "leaves a process behind", "says 2 lines", "names none of film.mp4"}
    assert {why for why in wrong if "memory" not in why and "has not ended" not in why} >= expected, results
    assert any("of memory" in why for why in wrong)
    assert any("has not ended" in why for why in wrong)
    again, _ = run(out, "--kinds", "sins")
    assert "0 cases left" in again.stdout
