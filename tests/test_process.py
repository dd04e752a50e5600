"""Child processes: their limits on memory, output and time, their end with their parent's, and which ffmpeg is run."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from vtg.errors import VtgError
from vtg.video import process
from vtg.video.limits import MAX_PROCESS_MEMORY
from vtg.video.process import Pipe, explain, feed, ffmpeg_binary, run

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="the commands are those of a POSIX shell")

SHELL = ("sh", "-c")
LINUX = sys.platform.startswith("linux")


@pytest.fixture(autouse=True)
def fresh_binary() -> Iterator[None]:
    ffmpeg_binary.cache_clear()
    yield
    ffmpeg_binary.cache_clear()


def python(code: str, *words: object) -> list[str]:
    return [sys.executable, "-c", code, *map(str, words)]


def alive(pid: int) -> bool:
    try:
        return psutil.Process(pid).status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


def wait_until_gone(pids: list[int], seconds: float) -> list[int]:
    end = time.monotonic() + seconds
    while (left := [pid for pid in pids if alive(pid)]) and time.monotonic() < end:
        time.sleep(0.02)
    return left


# What comes back


def test_status_output_and_complaints_come_back() -> None:
    assert run([*SHELL, "echo out; echo no >&2; exit 3"]) == (3, b"out\n", "no\n")


def test_lines_are_followed() -> None:
    lines: list[str] = []
    assert run([*SHELL, "echo one; echo two; echo no >&2"], lines.append) == (0, b"", "no\n")
    assert lines == ["one", "two"]


def test_input_is_fed_and_its_early_end_is_no_error(tmp_path: Path) -> None:
    copy = tmp_path / "copy"
    assert feed([*SHELL, f"cat > '{copy}'"], [b"x" * 100_000] * 30) == (0, "")
    assert copy.stat().st_size == 3_000_000
    asked = []
    chunks = (asked.append(n) or b"x" * 100_000 for n in range(1000))
    assert feed([*SHELL, "head -c 10 > /dev/null; exit 4"], chunks)[0] == 4
    assert len(asked) < 1000


def test_a_command_that_does_not_exist_or_crashes_says_so() -> None:
    status, _, said = run(["/nowhere/ffmpeg"])
    assert (status, said) == (127, "/nowhere/ffmpeg cannot be started: No such file or directory\n")
    status, _, said = run([*SHELL, "kill -SEGV $$"])
    assert status == 128 + signal.SIGSEGV
    assert "signal 11" in explain(said)


def test_long_complaints_are_kept_in_part() -> None:
    status, _, said = run(python("import sys\nfor n in range(100_000): print(n, 'x' * 20, file=sys.stderr)"))
    assert status == 0
    assert said.startswith("0 x")
    assert said.endswith(f"99999 {'x' * 20}\n")
    assert len(said) < 2 << 20


def test_defaults_of_signals_are_restored() -> None:
    ignored = int(Path("/proc/self/status").read_text().split("SigIgn:")[1].split()[0], 16) if LINUX else 0
    _, output, _ = run([*SHELL, "grep SigIgn /proc/self/status || echo 0 0"])
    assert not int(output.split()[1], 16) & 1 << (signal.SIGPIPE - 1)
    assert ignored & 1 << (signal.SIGPIPE - 1) or not LINUX  # Python ignores it, so that there was something to restore


# Limits


@pytest.mark.skipif(not LINUX, reason="macOS has no such limit: there the supervisor looks every 0.1 s")
def test_memory_is_limited() -> None:
    take = "import sys; b = bytearray(int(sys.argv[1])); print(len(b))"
    assert run(python(take, 1_000_000_000))[:2] == (0, b"1000000000\n")
    status, output, said = run(python(take, MAX_PROCESS_MEMORY))
    assert status == 1
    assert output == b""
    assert "MemoryError" in said


@pytest.mark.skipif(not LINUX, reason="as above")
def test_an_ffmpeg_that_needs_too_much_gives_one_line_that_says_the_limit(tmp_path: Path) -> None:
    out = tmp_path / "out.mp4"
    command = [ffmpeg_binary(), "-v", "error", "-nostdin", "-f", "lavfi", "-i", "color=s=16000x16000:d=2:r=10"]
    status, _, said = run([*command, "-c:v", "libx264", "-preset", "veryfast", "-threads", "2", str(out)])
    assert status != 0
    assert "1.5 GB of memory" in explain(said)
    assert "\n" not in explain(said)


def test_output_is_limited() -> None:
    status, output, said = run(["cat", "/dev/zero"])
    assert status != 0
    assert len(output) == process.MAX_OUTPUT_BYTES
    assert "64 MiB" in explain(said)


def test_what_makes_no_progress_is_stopped() -> None:
    for code in ("sleep 100", "while :; do :; done", "while :; do echo no >&2; sleep 0.1; done"):
        begun = time.monotonic()
        status, _, said = run([*SHELL, code], stall_seconds=1.0)
        assert status != 0
        assert "no progress for 1 s" in explain(said)
        assert time.monotonic() - begun < 5


def test_progress_reports_that_say_nothing_new_are_no_progress() -> None:
    code = "while :; do echo frame={}; echo speed=$SECONDS; n=$((n+1)); sleep 0.1; [ $n = 30 ] && exit 0; done"
    stuck = ["bash", "-c", code.replace("{}", "7"), "ffmpeg", "-progress", "pipe:1"]
    assert run(stuck, lambda line: None, stall_seconds=1.0)[0] != 0
    moving = ["bash", "-c", code.replace("{}", "$n"), "ffmpeg", "-progress", "pipe:1"]
    assert run(moving, lambda line: None, stall_seconds=1.0)[0] == 0


@pytest.mark.parametrize(
    "step",
    [
        pytest.param("given.read(50_000)", marks=pytest.mark.skipif(not LINUX, reason="not told on macOS"), id="read"),
        pytest.param("print('step', flush=True)", id="print"),
        pytest.param("given.write(b'step'); given.flush()", id="write"),
    ],
)
def test_slow_work_goes_on_as_long_as_it_makes_progress(tmp_path: Path, step: str) -> None:
    file = tmp_path / "file"
    file.write_bytes(bytes(1_000_000))
    code = f"import sys, time; given = open(sys.argv[1], 'r+b', 0)\nfor _ in range(12): {step}; time.sleep(0.25)"
    assert run(python(code, file), stall_seconds=1.0)[0] == 0


def test_time_in_which_nobody_waits_does_not_count() -> None:
    with Pipe([*SHELL, "head -c 1000000 /dev/zero"], stall_seconds=1.0) as pipe:
        assert pipe.output.read(10) == bytes(10)
        time.sleep(3)
        assert len(pipe.output.read()) == 999_990
        assert pipe.finish() == 0


def test_leaving_ends_the_command_and_what_it_has_started(tmp_path: Path) -> None:
    with Pipe([*SHELL, "sleep 100 & echo $!; wait"]) as pipe:
        pid = int(pipe.output.readline())
        assert alive(pid)
    assert wait_until_gone([pid], 2) == []


def test_threads_may_start_many_commands_and_end_before_them() -> None:
    pipes: list[Pipe] = []
    for _ in range(8):
        thread = threading.Thread(target=lambda: pipes.append(Pipe([*SHELL, "echo begun; sleep 1; echo done"])))
        thread.start()
        thread.join()
    assert [pipe.output.read() for pipe in pipes] == [b"begun\ndone\n"] * 8
    assert [pipe.finish() for pipe in pipes] == [0] * 8
    for pipe in pipes:
        pipe.__exit__()


# The end of the parent

START = """
import sys, threading, time
from vtg.video.process import Pipe
def start():
    pipe = Pipe(["sh", "-c", "sleep 100 & echo $! $$; sleep 100"])
    print(pipe.output.readline().decode().strip(), flush=True)
    kept.append(pipe)
kept = []
for _ in range(2):
    thread = threading.Thread(target=start)
    thread.start()
    thread.join()
time.sleep(float(sys.argv[1]))
"""


@pytest.mark.parametrize("end", ["kill", "exit", "terminate"])
def test_children_end_when_their_parent_ends_however_it_ends(end: str) -> None:
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    wait = 0 if end == "exit" else 100
    with subprocess.Popen(python(START, wait), stdout=subprocess.PIPE, env=environment) as parent:
        assert parent.stdout is not None
        pids = [int(word) for _ in range(2) for word in parent.stdout.readline().split()]
        if end != "exit":
            assert all(alive(pid) for pid in pids)
            (parent.kill if end == "kill" else parent.terminate)()
        parent.wait(20)
        assert len(pids) == 4
        assert wait_until_gone(pids, 1) == []


@pytest.mark.skipif(not hasattr(os, "fork"), reason="there is no fork here")
def test_a_forked_process_starts_commands_of_its_own() -> None:
    code = (
        "import os, warnings\nfrom vtg.video.process import run\nwarnings.simplefilter('ignore')\n"
        "assert run(['true'])[0] == 0\npid = os.fork()\nstatus = run(['sh', '-c', 'exit 5'])[0]\n"
        "if not pid: os._exit(status)\nprint(status, os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]))"
    )
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    done = subprocess.run(python(code), capture_output=True, text=True, timeout=60, env=environment, check=True)
    assert done.stdout == "5 5\n"


# Which ffmpeg

BUILDS = {
    "ffmpeg version 4.4.2-0ubuntu0.22.04.1 Copyright (c) 2000-2021": False,
    "ffmpeg version 5.0.3": False,
    "ffmpeg version 5.1.9-0+deb12u1 Copyright (c) 2000-2026": True,
    "ffmpeg version 6.0": True,
    "ffmpeg version n7.1-3-gabcdef": True,
    "ffmpeg version 10.0": True,
    "ffmpeg version N-12345-gabcdef\nlibavutil      55. 78.100 / 55. 78.100": False,
    "ffmpeg version N-115000-gabcdef\nbuilt with gcc\nlibavutil      59.  8.100 / 59.  8.100": True,
    "ffmpeg version 2024-05-13-git-37db0454e4-full_build\nlibavutil      59. 17.102 / 59. 17.102": True,
    "ffmpeg version git-2019-01-01-abcdef\nlibavutil      56. 26.100 / 56. 26.100": False,
    "ffmpeg version of my own": False,
    "avconv version 12": False,
    "": False,
}


def put_on_path(folder: Path, script: str, monkeypatch: pytest.MonkeyPatch) -> Path:
    fake = folder / "ffmpeg"
    fake.write_text(f"#!/bin/sh\n{script}\n")
    fake.chmod(0o755)
    monkeypatch.setenv("PATH", str(folder), prepend=os.pathsep)
    return fake


@pytest.mark.parametrize("build", BUILDS)
def test_an_old_ffmpeg_on_the_path_is_passed_over(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, build: str) -> None:
    import imageio_ffmpeg

    fake = put_on_path(tmp_path, f"cat <<'END'\n{build}\nEND", monkeypatch)
    assert ffmpeg_binary() == (str(fake) if BUILDS[build] else imageio_ffmpeg.get_ffmpeg_exe())


@pytest.mark.parametrize("script", ["exit 1", "kill -ABRT $$", "sleep 100", "echo 'ffmpeg version 7.0'; exit 127"])
def test_a_broken_ffmpeg_on_the_path_is_passed_over(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, script: str
) -> None:
    import imageio_ffmpeg

    monkeypatch.setattr(process, "VERSION_TIMEOUT_SECONDS", 1.0)
    put_on_path(tmp_path, script, monkeypatch)
    assert ffmpeg_binary() == imageio_ffmpeg.get_ffmpeg_exe()


def test_no_usable_ffmpeg_is_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fake = put_on_path(tmp_path, "echo ffmpeg version 4.1.4", monkeypatch)
    monkeypatch.setattr(process, "_bundled_ffmpeg", lambda: None)
    with pytest.raises(VtgError, match=r"5\.1 or newer") as raised:
        ffmpeg_binary()
    assert f"{fake} is version 4.1.4" in str(raised.value)
    assert "\n" not in str(raised.value)
