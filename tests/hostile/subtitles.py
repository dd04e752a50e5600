"""Subtitle files beside a good video: of no format, of several at once, without end, in any encoding."""

from __future__ import annotations

from .cases import Bench, Case, command, function
from .material import CASES
from .texts import flipped, write

__all__ = ["subtitles"]


def subtitles(bench: Bench) -> Case:
    """A subtitle file beside a good video."""
    from vtg.video.subtitles.folders import SubtitleFolders
    from vtg.video.subtitles.reading import read_transcript

    video = bench.folder / "film.mp4"
    video.write_bytes(bench.material.small)
    ending = bench.chance.choice((".srt", ".vtt", ".ass", ".ssa", ".sub", ".en.srt"))
    path = bench.folder / f"film{ending}"
    write(path, _subtitle_bytes(bench), bench.chance)
    if bench.number % 12 == 0:
        words = ["index", video, "--library", bench.made / "library", "--model", "demo", "--device", "cpu"]
        return Case(command(*words), ("film",))

    def read() -> None:
        warnings: list[str] = []
        lines = read_transcript(video, SubtitleFolders(), warnings.append)
        if len(warnings) > 1 or any(path.name not in line or "\n" in line for line in warnings):
            raise AssertionError(f"warns in {len(warnings)} lines: {warnings[:2]}")
        if any(not 0 <= line.start <= line.end <= 1e9 for line in lines):
            raise AssertionError("a line is said at no time of the video")

    return Case(function(read), (path.name,))


def _subtitle_bytes(bench: Bench) -> bytes:
    chance = bench.chance
    blocks = []
    for number in range(chance.choice((1, 3, 20, 3000))):
        start = chance.choice((number, -number, 10**6, 99 * 3600 + 3599, 10**12))
        text = chance.choice(
            (
                "hello",
                "<i>a</i>" * 50,
                "{\\an8}" * 200,
                "<" * 3000,
                "&" * 500,
                "a\0b",
                "-->",
                "\u202e",
                "{" * 2000,
                "\ud7ff",
                "[" * 2000,
            )
        )
        form = chance.randrange(6)
        if form == 0:
            blocks.append(f"{number}\n{_clock(start)} --> {_clock(start + 2)}\n{text}\n\n")
        elif form == 1:
            blocks.append(
                f"{_clock(start)[:-4]}.{number:03d} --> {'9' * chance.choice((1, 10, 400))}:00:00.000\n{text}\n\n"
            )
        elif form == 2:
            blocks.append(f"{{{start}}}{{{start + 50}}}{text}|{text}\n")
        elif form == 3:
            blocks.append(f"[{start}][{start + 5}]{text}\n")
        elif form == 4:
            blocks.append(f"Dialogue: 0,{_clock(start)[1:-1]},{_clock(start + 1)[1:-1]},Default,,0,0,0,,{text}\n")
        else:
            blocks.append(
                chance.choice(
                    ("\n" * 500, "NOTE x\n\n", "STYLE\n::cue{}\n\n", "\r\r\n", "1\n" * 100, "00:00:00,000 --> \n")
                )
            )
    head = chance.choice(
        (
            "",
            "",
            "WEBVTT\n\n",
            "[Script Info]\n[Events]\nFormat: Layer, Start, End, Style, Text\n",
            "{1}{1}25\n",
            "{1}{1}1e308\n",
            "{1}{1}0\n",
        )
    )
    text = head + "".join(blocks)
    content = text.encode(chance.choice(("utf-8", "utf-16", "utf-8", "cp037", "utf-7", "utf-8")), "replace")
    damage = chance.randrange(6)
    if damage == 0:
        content = flipped(content, chance)
    elif damage == 1:
        content = content[: chance.randrange(len(content) + 1)]
    elif damage == 2:
        content = chance.choice(
            (
                chance.randbytes(5000),
                b"\0" * 5000,
                b"\xff" * 5000,
                b"\0\0\1\xba" * 10,
                b"",
                b"\n" * 10**6,
                b"\x1f\x8b" + bytes(9),
            )
        )
    elif damage == 3:
        known = sorted(CASES.glob("subtitles-*"))
        content = flipped(chance.choice(known).read_bytes(), chance) if known else content
    return content


def _clock(seconds: int) -> str:
    return f"{seconds // 3600:02d}:{seconds // 60 % 60:02d}:{seconds % 60:02d},000"
