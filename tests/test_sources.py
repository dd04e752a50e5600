"""Which files are found below folders: links, endings, files of other kinds, names that are not UTF-8."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
import tempfile
import textwrap
from collections.abc import Callable
from pathlib import Path

import pytest
from commands import Result, vtg_in_process

from vtg.errors import VideoError
from vtg.features.store import content_key
from vtg.files.paths import why_no_file
from vtg.files.text import from_utf8, to_utf8
from vtg.library.library import Library
from vtg.video.sources import VIDEO_SUFFIXES, below, find_videos, list_videos

NOT_UTF8 = os.fsdecode(b"caf\xe9")

needs_links = pytest.mark.skipif(os.name == "nt", reason="links and special files as Unix has them")


def names(folder: Path) -> list[str]:
    files, unreadable = find_videos([folder])
    assert not unreadable
    return [file.relative_to(folder).as_posix() for file in files]


ENDINGS = (
    *("3gp", "3G2", "avi", "divx", "f4v", "flv", "insv", "M2TS", "m4v", "MKV", "MOV", "mp4", "mpeg", "mpg", "MXF"),
    *("ogv", "rmvb", "webm", "wmv", "m2v", "h264", "dav", "two.Mp4"),
)


@pytest.mark.parametrize("ending", ENDINGS)
def test_a_video_is_found_by_its_ending(tmp_path: Path, ending: str) -> None:
    (tmp_path / f"a.{ending}").write_bytes(b"anything")
    (tmp_path / "a.txt").write_bytes(b"anything")
    assert names(tmp_path) == [f"a.{ending}"]


def packets(step: int, before: bytes = b"") -> bytes:
    return before + (b"\x47\x40\x00\x10" + b"\xff" * (step - 4)) * 20


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("a.ts", packets(188)),
        ("a.TS", packets(204)),
        ("a.mts", packets(192, before=b"\x11\x22\x33\x44")),
        ("joined-in-the-middle.ts", packets(188, before=b"x" * 100)),
        ("a.mod", b"\x00\x00\x01\xba" + bytes(100)),
        ("a.tod", packets(188)),
        ("a.dv", b"\x1f\x07\x00" + bytes(100)),
        ("a.asf", b"\x30\x26\xb2\x75\x8e\x66\xcf\x11\xa6\xd9\x00\xaa"),
        ("damaged.ts", bytes(1000)),  # whoever opens it says why it cannot be read
    ],
)
def test_a_file_with_a_shared_ending_is_found_where_it_may_be_a_video(
    tmp_path: Path, name: str, content: bytes
) -> None:
    (tmp_path / name).write_bytes(content)
    assert names(tmp_path) == [name]


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("index.ts", b"export const x: number = 47;\n" * 500),
        ("empty.d.ts", b""),
        ("utf16.ts", "export {}".encode("utf-16")),
        ("latin.ts", "// caf\xe9\n".encode("latin-1")),
        ("tab.mts", b"G" * 4 + b"export"),
        ("app_de.ts", b'<?xml version="1.0"?><!DOCTYPE TS>'),
        ("go.mod", b"module example.org/x\n\ngo 1.22\n"),
        ("song.mod", b"song".ljust(1080, b"\0") + b"M.K." + bytes(5000)),
        ("fortran.mod", b"\x1f\x8b\x08\x00\x00\x00\x00\x00"),
        ("notes.tod", b"to do"),
        ("walk.asf", b"# AST/ASF file generated using VICON BODY LANGUAGE\n"),
        ("script.nut", b"function main() {}\n"),
        ("x.dv", b"design view"),
    ],
)
def test_text_and_music_with_the_ending_of_a_video_are_passed_over(tmp_path: Path, name: str, content: bytes) -> None:
    (tmp_path / name).write_bytes(content)
    assert names(tmp_path) == []
    assert find_videos([tmp_path / name]) == ([tmp_path / name], {}), "named itself it is tried"


@needs_links
def test_links_to_folders_are_followed_once(tmp_path: Path) -> None:
    films, disk = tmp_path / "films", tmp_path / "disk"
    (films / "inner").mkdir(parents=True)
    (disk / "deep").mkdir(parents=True)
    for file in (films / "inner" / "a.mp4", disk / "b.mkv", disk / "deep" / "c.avi"):
        file.write_bytes(b"x")
    (films / "0-first").symlink_to("inner")
    (films / "disk").symlink_to(disk)
    (films / "again").symlink_to(disk / "deep")
    (films / "inner" / "loop").symlink_to("../..")
    (disk / "deep" / "back").symlink_to(films)
    (films / "self").symlink_to("self")
    (films / "best.mp4").symlink_to("inner/a.mp4")
    assert find_videos([films])[0] == [films / "inner" / "a.mp4", disk / "deep" / "c.avi", disk / "b.mkv"]
    assert find_videos([films, films / "disk", disk])[0] == find_videos([films])[0]
    # Whoever wants names gets what is really there under its own, and links under theirs.
    named, unreadable = list_videos(films)
    assert not unreadable
    assert [path.relative_to(films).as_posix() for path in named] == [
        "best.mp4", "inner/a.mp4", "again/c.avi", "disk/b.mkv",
    ]  # fmt: skip


@needs_links
def test_what_lies_below_a_folder_by_a_link_belongs_to_it(tmp_path: Path) -> None:
    (tmp_path / "films").mkdir()
    (tmp_path / "disk").mkdir()
    (tmp_path / "films" / "disk").symlink_to("../disk")
    files = [str(tmp_path / "disk" / "a.mp4"), str(tmp_path / "films" / "b.mp4"), str(tmp_path / "c.mp4")]
    assert below(files, [tmp_path / "films"]) == files[:2]
    assert below(files, [tmp_path / "disk"]) == files[:1]
    assert below(files, [tmp_path / "c.mp4"]) == files[2:]


@needs_links
def test_pipes_sockets_and_devices_are_never_opened(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    os.mkfifo(tmp_path / "pipe.mp4")
    os.mkfifo(tmp_path / "pipe.ts")
    (tmp_path / "null.mp4").symlink_to(os.devnull)
    monkeypatch.chdir(tmp_path)  # the path of a socket must be short
    with socket.socket(socket.AF_UNIX) as server:
        server.bind("socket.mkv")
        assert names(tmp_path) == []
        files, refused = find_videos(["pipe.mp4", "socket.mkv", os.devnull, "null.mp4"])
    assert not files
    assert [reason.split(",")[0] for reason in refused.values()] == ["is a pipe", "is a socket", *["is a device"] * 2]
    with pytest.raises(VideoError, match="pipe"):
        content_key(tmp_path / "pipe.mp4")


@needs_links
def test_links_to_nothing_are_named(tmp_path: Path) -> None:
    (tmp_path / "a.mp4").symlink_to("gone.mp4")
    (tmp_path / "notes").symlink_to("gone")
    (tmp_path / "b.mp4").write_bytes(b"x")
    files, unreadable = find_videos([tmp_path])
    assert files == [tmp_path / "b.mp4"]
    assert list(unreadable) == [str(tmp_path / "a.mp4")]
    assert "link" in why_no_file(tmp_path / "a.mp4")
    assert find_videos(["x" * 5000, "a\0b"])[0] == []


@needs_links
def test_a_folder_that_cannot_be_read_is_one_line() -> None:
    code = """
        import os, sys
        from vtg.video.sources import find_videos
        if os.getuid() == 0:  # who may read everything: somebody else looks
            os.setuid(65534)
        files, unreadable = find_videos([sys.argv[1]])
        print(len(files), list(unreadable.values()))
    """
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        (folder / "closed").mkdir()
        (folder / "closed" / "a.mp4").write_bytes(b"x")
        (folder / "open.mp4").write_bytes(b"x")
        folder.chmod(0o755)
        (folder / "closed").chmod(0o000)
        done = subprocess.run(
            [sys.executable, "-c", textwrap.dedent(code), name], env=environment, capture_output=True, text=True
        )
        (folder / "closed").chmod(0o755)
    assert done.stdout == "1 ['cannot be read: Permission denied']\n", done.stderr


def test_endings_are_in_lower_case() -> None:
    assert all(suffix == suffix.lower() and suffix.startswith(".") for suffix in VIDEO_SUFFIXES)


@pytest.mark.parametrize(
    "name", ["/a/b.mp4", "/a/" + NOT_UTF8, "/\udce9", "/\udce9\udcff/x//y", "//udce9/host", "/ü/日"]
)
def test_paths_are_kept_without_loss(name: str) -> None:
    kept = to_utf8(name)
    kept.encode("utf-8")
    assert from_utf8(kept) == name


@pytest.fixture
def run(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Callable[..., Result]:
    monkeypatch.setenv("VTG_LIBRARY", str(tmp_path / "library"))
    return vtg_in_process(capsys, monkeypatch)


@pytest.mark.skipif(sys.platform != "linux", reason="where names are bytes")
def test_names_that_are_not_utf8_go_all_the_way(
    run: Callable[..., Result], tmp_path: Path, make_video: Callable[..., Path], tiny_clip: Path
) -> None:
    folder = tmp_path / NOT_UTF8
    folder.mkdir()
    odd = folder / os.fsdecode(b"film \xe9\xff.mp4")
    make_video(tmp_path / "plain.mp4", seconds=8).rename(odd)
    make_video(folder / "other.mp4", seconds=6, seed=1)
    odd.with_suffix(".srt").write_text("1\n00:00:01,000 --> 00:00:02,000\nInto the water!\n")

    indexed = run("index", folder, "-m", "zero-shot", "--pretrained", tiny_clip, "--device", "cpu", "--json")
    assert indexed.status == 0, indexed.err
    indexed.out.encode("utf-8")  # valid, though the names are not
    assert set(indexed.json["added"]) == {str(odd), str(folder / "other.mp4")}
    assert run("index", folder, "--json").json["unchanged"] == sorted(indexed.json["added"], key=os.fsencode)

    library = Library(tmp_path / "library")
    assert str(odd) in {entry.path for entry in library.videos()}
    assert library.verify() == []
    (hit,) = run("search", "--said", "water", "--json").json["results"]
    assert hit["video"] == str(odd)
    assert run("search", "a red circle", "--in", odd, "--json").json["results"]
    for ending in ("json", "csv", "srt", "edl", "otio"):
        out = tmp_path / f"x.{ending}"
        assert run("search", "a red circle", "--in", odd, "--export", out).status == 0
        out.read_text("utf-8")
    document = json.loads((tmp_path / "x.otio").read_text("utf-8"))
    reference = document["tracks"]["children"][0]["children"][0]["media_reference"]
    assert reference["target_url"].endswith("/caf%E9/film%20%E9%FF.mp4")
    assert "caf\\xe9" in (tmp_path / "x.csv").read_text("utf-8")
    clips = tmp_path / "clips"
    assert run("search", "a red circle", "--in", odd, "-n", 1, "--clips", clips).status == 0
    assert next(path.name for path in clips.iterdir()).isprintable()
    moved = odd.rename(folder / os.fsdecode(b"\xfe.mp4"))
    odd.with_suffix(".srt").unlink()
    assert run("library", "refresh", "--json").json["moved"] == [{"from": str(odd), "to": str(moved)}]
    assert run("library", "remove", moved, "--json").json["removed"] == [str(moved)]


@needs_links
def test_a_folder_with_everything_in_it_is_indexed(
    run: Callable[..., Result], tmp_path: Path, make_video: Callable[..., Path], tiny_clip: Path
) -> None:
    films, disk = tmp_path / "films", tmp_path / "disk"
    films.mkdir()
    disk.mkdir()
    make_video(films / "a.mp4", seconds=8)
    make_video(disk / "b.mp4", seconds=8, seed=2)
    (films / "disk").symlink_to(disk)
    (films / "loop").symlink_to(films)
    (films / "code.ts").write_text("export {}\n")
    os.mkfifo(films / "pipe.mp4")
    result = run("index", films, "-m", "zero-shot", "--pretrained", tiny_clip, "--device", "cpu", "--json")
    assert result.status == 0, result.err
    assert result.json["added"] == [str(films / "a.mp4"), str(disk / "b.mp4")]
    found = run("search", "a red circle", "--in", films, "--json", "-n", 20).json["results"]
    assert {hit["video"] for hit in found} == set(result.json["added"])
    assert run("library", "refresh").status == 0
    named = run("index", films / "pipe.mp4", films / "code.ts", "--json")
    assert [failure["path"] for failure in named.json["failed"]] == [str(films / "pipe.mp4"), str(films / "code.ts")]
    removed = run("library", "remove", films, "--json").json["removed"]
    assert removed == [str(disk / "b.mp4"), str(films / "a.mp4"), str(films / "code.ts")]
