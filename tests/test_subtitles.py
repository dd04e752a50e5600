"""Subtitles: what is said is read from files as people have them, and from the tracks of the video itself."""

from __future__ import annotations

import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from vtg.subtitles import SubtitleFolders, parse_subtitles, said_lines
from vtg.video.process import ffmpeg_binary

SUBRIP = """1
00:00:01,000 --> 00:00:02,500
<i>Hello &amp; welcome</i>
to this

2
00:01:05,040 --> 00:01:06,000
{\\an8}Jump in!
"""
WEBVTT = """WEBVTT - made by hand

NOTE the times of a note: none

STYLE
::cue { color: white }

intro
00:05.000 --> 00:06.250 line:0 align:start
<v Anna>Ça va très bien</v>

1:00:07.000 --> 1:00:08.000
我喜欢猫
"""


def test_subrip_is_read_without_its_markup() -> None:
    lines = parse_subtitles(SUBRIP.replace("\n", "\r\n"), "f.mp4")
    assert [(line.start, line.end, line.text) for line in lines] == [
        (1.0, 2.5, "Hello & welcome to this"),
        (65.04, 66.0, "Jump in!"),
    ]


def test_webvtt_is_read_without_notes_and_styles() -> None:
    lines = parse_subtitles(WEBVTT, "f.mp4")
    assert [(line.start, line.end, line.text) for line in lines] == [
        (5.0, 6.25, "Ça va très bien"),
        (3607.0, 3608.0, "我喜欢猫"),
    ]


def test_what_is_no_subtitle_says_nothing() -> None:
    assert parse_subtitles("", "f.mp4") == []
    assert parse_subtitles("a letter\n\nwithout --> times", "f.mp4") == []
    assert parse_subtitles("00:00:05,000 --> 00:00:04,000\nbackwards", "f.mp4") == []


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "cp1252"])
def test_files_beside_a_video_are_read_in_any_encoding(tmp_path: Path, encoding: str) -> None:
    (tmp_path / "film.srt").write_bytes("1\n00:00:01,000 --> 00:00:02,000\nÇa va\n".encode(encoding))
    (tmp_path / "film.mp4").write_bytes(b"no video")
    assert [line.text for line in said_lines(tmp_path / "film.mp4", SubtitleFolders())] == ["Ça va"]


def test_subtitles_belong_to_the_video_of_their_name(tmp_path: Path) -> None:
    for name in ("film.srt", "Film.en.VTT", "film 2.srt", "film.part.en.srt", "other.srt", "film.txt"):
        (tmp_path / name).write_text("")
    folders = SubtitleFolders()
    assert [path.name for path in folders.beside(tmp_path / "film.mp4")] == ["Film.en.VTT", "film.srt"]
    name = folders.name(tmp_path / "film.mp4")
    (tmp_path / "film.srt").write_text("more")
    assert SubtitleFolders().name(tmp_path / "film.mp4") != name
    assert SubtitleFolders().name(tmp_path / "nothing.mp4")


def test_tracks_of_the_video_are_read(tmp_path: Path, make_video: Callable[..., Path]) -> None:
    plain = make_video(tmp_path / "plain.mp4", seconds=70)
    (tmp_path / "words.srt").write_text(SUBRIP)
    for name, codec in (("film.mkv", "srt"), ("film.mp4", "mov_text")):
        command = [ffmpeg_binary(), "-v", "error", "-i", str(plain), "-i", str(tmp_path / "words.srt")]
        subprocess.run([*command, "-c:v", "copy", "-c:s", codec, str(tmp_path / name)], check=True)
        lines = said_lines(tmp_path / name, SubtitleFolders())
        assert [(line.start, line.text) for line in lines] == [(1.0, "Hello & welcome to this"), (65.04, "Jump in!")]
    assert said_lines(plain, SubtitleFolders()) == []
