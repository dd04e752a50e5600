"""Files appear whole or not at all, and what a killed process left is removed by the next."""

from __future__ import annotations

import errno
import os
import signal
import subprocess
import sys
import threading
from pathlib import Path

import numpy as np
import pytest

from vtg.errors import VtgError
from vtg.files.whole import (
    WORKING_FOLDER,
    WholeFileWriter,
    check_name,
    fitted_name,
    remove_abandoned_parts,
    working_folder,
    write_whole,
)

WRITER = """
import sys, time
from pathlib import Path
from vtg.files.whole import write_whole
with write_whole(Path(sys.argv[1])) as beside:
    beside.write_bytes(b"half")
    beside.with_name("more").mkdir()
    print("begun", flush=True)
    time.sleep(60)
"""


@pytest.fixture
def writer(tmp_path: Path) -> subprocess.Popen[str]:
    """Another process in the middle of writing ``out.mp4``."""
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    process = subprocess.Popen(
        [sys.executable, "-c", WRITER, str(tmp_path / "out.mp4")], stdout=subprocess.PIPE, text=True, env=environment
    )
    assert process.stdout is not None and process.stdout.readline() == "begun\n"
    yield process
    process.kill()
    process.wait()
    process.stdout.close()


def names(folder: Path) -> list[str]:
    return [path.name for path in folder.iterdir()]


def hidden(folder: Path) -> list[Path]:
    return [path for path in folder.iterdir() if path.name.startswith(".")]


def test_a_file_gets_its_name_when_it_is_whole(tmp_path: Path) -> None:
    out = tmp_path / "out.mp4"
    with write_whole(out) as beside:
        beside.write_bytes(b"whole")
        assert beside.suffix == ".mp4" and not out.exists()
    assert out.read_bytes() == b"whole"
    with pytest.raises(RuntimeError), write_whole(out) as beside:
        beside.write_bytes(b"half")
        raise RuntimeError
    assert out.read_bytes() == b"whole" and names(tmp_path) == ["out.mp4"]


def test_what_a_killed_process_left_is_removed_by_the_next(tmp_path: Path, writer: subprocess.Popen[str]) -> None:
    (left,) = hidden(tmp_path)
    writer.send_signal(signal.SIGKILL if hasattr(signal, "SIGKILL") else signal.SIGTERM)
    writer.wait()
    assert left.is_dir()
    with write_whole(tmp_path / "other.txt") as beside:
        beside.write_bytes(b"")
    assert names(tmp_path) == ["other.txt"]


def test_what_a_living_process_writes_is_left_alone(tmp_path: Path, writer: subprocess.Popen[str]) -> None:
    (theirs,) = hidden(tmp_path)
    with working_folder(tmp_path) as ours:
        with working_folder(tmp_path):  # in the same process, too
            pass
        assert ours.is_dir() and sorted(hidden(tmp_path)) == sorted([ours, theirs])
    assert sorted(path.name for path in theirs.iterdir()) == ["lock", "more", "whole.mp4"]


def test_what_is_not_ours_is_left_alone(tmp_path: Path) -> None:
    others = [".vtg-notes.part", ".film.123-456.part.mp4", ".vtg-0123456789ab.part.bak"]
    for name in others:
        (tmp_path / name).mkdir()
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    (elsewhere / "precious").touch()
    link = tmp_path / ".vtg-0123456789ab.part"
    link.symlink_to(elsewhere, target_is_directory=True)
    (tmp_path / ".vtg-aaaaaaaaaaaa.part").write_text("a file")
    with working_folder(tmp_path):
        pass
    kept = {*others, "elsewhere", link.name, ".vtg-aaaaaaaaaaaa.part"}
    assert set(names(tmp_path)) == kept and (elsewhere / "precious").exists()


def test_many_threads_write_to_one_folder(tmp_path: Path) -> None:
    def write(number: int) -> None:
        for turn in range(20):
            with write_whole(tmp_path / f"{number}.txt") as beside:
                beside.write_text(str(turn))

    threads = [threading.Thread(target=write, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert {path.name: path.read_text() for path in tmp_path.iterdir()} == {f"{n}.txt": "19" for n in range(8)}


def test_a_folder_that_cannot_be_written_to_is_named(tmp_path: Path) -> None:
    with pytest.raises(VtgError, match="cannot be written to") as caught, write_whole(tmp_path / "no" / "a.txt"):
        pass
    assert str(tmp_path / "no") in str(caught.value) and "\n" not in str(caught.value)


def test_the_name_of_a_working_folder_is_known() -> None:
    assert WORKING_FOLDER.fullmatch(".vtg-0123456789ab.part")


@pytest.mark.parametrize("letter", ["x", "é", "映", "🎬", "e\N{COMBINING ACUTE ACCENT}"])
def test_names_made_from_names_fit(letter: str) -> None:
    for length in (10, 84, 240, 255, 500):
        name = fitted_name("01 ", letter * length, " 0.12.34.mp4")
        size = len(os.fsencode(name))
        assert size <= 255 and name.startswith("01 " + letter) and name.endswith(" 0.12.34.mp4")
        whole = f"01 {letter * length} 0.12.34.mp4"
        if len(os.fsencode(whole)) <= 255:
            assert name == whole
        else:
            assert size > 245 and name.endswith("… 0.12.34.mp4")
        check_name(name)
    with pytest.raises(VtgError, match="more than 255 bytes"):
        check_name("x" * 256)


def test_a_disk_that_is_full_is_told_of_the_final_file(tmp_path: Path) -> None:
    full = pytest.raises(VtgError, match=r"film\.mp4: cannot be written \(No space left on device\)")
    with full, write_whole(tmp_path / "film.mp4") as beside:
        beside.write_bytes(b"half")
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
    assert list(tmp_path.iterdir()) == []


def test_what_cannot_be_read_keeps_its_own_name(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError), write_whole(tmp_path / "out.txt"):
        (tmp_path / "source.txt").read_bytes()


def test_an_array_that_is_about_to_get_its_name_is_not_taken_for_abandoned(tmp_path: Path) -> None:
    with WholeFileWriter(tmp_path / "a.bin", 4) as writer:
        writer.write(np.arange(4, dtype=np.uint8))
        writer.complete(b"head", check=lambda part: remove_abandoned_parts(tmp_path))
    assert (tmp_path / "a.bin").read_bytes() == b"head\0\1\2\3"
    assert names(tmp_path) == ["a.bin"]
