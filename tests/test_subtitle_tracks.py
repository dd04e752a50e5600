"""Subtitle tracks inside of videos, beside files or without: read as far as they go, timed as frames are."""

from __future__ import annotations

import subprocess
from collections.abc import Callable
from pathlib import Path

import numpy as np

from vtg.video.process import ffmpeg_binary
from vtg.video.subtitles import SubtitleFolders, read_transcript

CASES = Path(__file__).with_name("data") / "cases"
CUE = "1\n00:00:01,000 --> 00:00:02,000\n"
WORDS = f"""{CUE}<i>Hello &amp; welcome</i>
to this

2
00:01:05,040 --> 00:01:06,000
{{\\an8}}Jump in!
"""


def with_tracks(video: Path, out: Path, *tracks: tuple[Path, str], options: tuple[str, ...] = ()) -> Path:
    command = [ffmpeg_binary(), "-v", "error", "-i", str(video)]
    for path, _ in tracks:
        command += ["-i", str(path)]
    command += ["-map", "0", *(part for number in range(len(tracks)) for part in ("-map", f"{number + 1}"))]
    command += ["-c", "copy", *(part for number, (_, codec) in enumerate(tracks) for part in (f"-c:s:{number}", codec))]
    subprocess.run([*command, *options, str(out)], check=True)
    return out


def test_tracks_of_the_video_are_read(tmp_path: Path, make_video: Callable[..., Path]) -> None:
    plain = make_video(tmp_path / "plain.mp4", seconds=70)
    (tmp_path / "words.srt").write_text(WORDS)
    for name, codec in (
        ("a.mkv", "srt"),
        ("b.mp4", "mov_text"),
        ("c.mkv", "ass"),
        ("d.mkv", "webvtt"),
        ("e.mov", "mov_text"),
    ):
        film = with_tracks(plain, tmp_path / name, (tmp_path / "words.srt", codec))
        lines = read_transcript(film, SubtitleFolders())
        assert [(line.start, line.text) for line in lines] == [(1.0, "Hello & welcome to this"), (65.04, "Jump in!")]
    assert read_transcript(plain, SubtitleFolders()) == []


def test_several_tracks_and_a_file_say_the_same_once(tmp_path: Path, make_video: Callable[..., Path]) -> None:
    plain = make_video(tmp_path / "plain.mp4", seconds=10)
    (tmp_path / "en.srt").write_text(f"{CUE}Hello, a < b\n")
    (tmp_path / "ru.srt").write_text(f"{CUE}Привет\n")
    film = with_tracks(plain, tmp_path / "film.mkv", (tmp_path / "en.srt", "srt"), (tmp_path / "ru.srt", "ass"))
    (tmp_path / "film.srt").write_text(f"{CUE}Hello, a < b\n\n2\n00:00:09,000 --> 00:00:12,000\nend\n\n"
                                       "3\n00:00:20,000 --> 00:00:22,000\nbeyond\n")  # fmt: skip
    assert [(line.start, line.end, line.text) for line in read_transcript(film, SubtitleFolders())] == [
        (1.0, 2.0, "Hello, a < b"),
        (1.0, 2.0, "Привет"),
        (9.0, 10.0, "end"),
    ]


def test_times_count_from_the_first_picture_in_tracks_and_files(tmp_path: Path) -> None:
    film = tmp_path / "film.mkv"
    film.write_bytes((CASES / "subtitle-late-pictures.mkv").read_bytes())
    assert [(line.start, line.end, line.text) for line in read_transcript(film, SubtitleFolders())] == [
        (1.0, 2.0, "hello there")
    ]
    (tmp_path / "film.srt").write_text(
        "1\n00:00:01,000 --> 00:00:02,000\nbefore the pictures\n\n2\n00:00:04,000 --> 00:00:05,500\nacross\n\n"
        "3\n00:00:06,000 --> 00:00:07,000\nhello there\n\n4\n00:00:07,500 --> 00:00:08,000\nafter\n"
    )
    assert [(line.start, line.end, line.text) for line in read_transcript(film, SubtitleFolders())] == [
        (0.0, 0.5, "across"),
        (1.0, 2.0, "hello there"),
        (2.5, 3.0, "after"),
    ]


def test_tracks_of_damaged_files_give_what_can_be_read(tmp_path: Path, make_video: Callable[..., Path]) -> None:
    plain = make_video(tmp_path / "plain.mp4", seconds=5)
    (tmp_path / "words.srt").write_text(
        "".join(f"{n}\n00:00:0{n},000 --> 00:00:0{n},900\nword{n}\n\n" for n in range(5))
    )
    film = with_tracks(plain, tmp_path / "film.mkv", (tmp_path / "words.srt", "srt"))
    content = film.read_bytes()
    dice = np.random.default_rng(3)
    for part in range(12):
        damaged = bytearray(content[: len(content) * (part + 4) // 16])
        for place in dice.integers(0, len(damaged), part):
            damaged[place] ^= 1 << int(dice.integers(8))
        film.write_bytes(damaged)
        assert {line.text for line in read_transcript(film, SubtitleFolders())} <= {
            f"word{n}" for n in range(5)
        } or part
