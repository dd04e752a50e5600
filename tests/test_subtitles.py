"""Subtitles: what is said is read from files as people have them, and from the tracks of the video itself."""

from __future__ import annotations

import tempfile
import time
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from vtg.video.subtitles import SubtitleFolders, parse_subtitles, said_lines

CASES = Path(__file__).with_name("data") / "cases"
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
    assert [path.name for path in folders.subtitle_files(tmp_path / "film.mp4")] == ["Film.en.VTT", "film.srt"]
    name = folders.fingerprint(tmp_path / "film.mp4")
    (tmp_path / "film.srt").write_text("more")
    assert SubtitleFolders().fingerprint(tmp_path / "film.mp4") != name
    assert SubtitleFolders().fingerprint(tmp_path / "nothing.mp4")


def said(text: str, rate: float | None = None) -> list[tuple[float, float, str]]:
    return [(line.start, line.end, line.text) for line in parse_subtitles(text, "f.mp4", rate)]


def read(folder: Path, name: str, content: bytes) -> tuple[list[str], list[str]]:
    """What is said in a video that such a file lies beside, and what is warned of."""
    (folder / "film.mkv").write_bytes(b"no video")
    (folder / name).write_bytes(content)
    warnings: list[str] = []
    lines = said_lines(folder / "film.mkv", SubtitleFolders(), warnings.append)
    return [line.text for line in lines], warnings


@pytest.mark.parametrize(
    ("name", "lines"),
    [
        ("subtitles-cp1251.srt", [(1.0, 2.0, "привет мир world"), (3.0, 4.0, "bye")]),
        ("subtitles-cp1252.srt", [(1.0, 2.0, "größe déjà world"), (3.0, 4.0, "bye")]),
        ("subtitles-utf-16-le.srt", [(1.0, 2.0, "größe привет world"), (3.0, 4.0, "bye")]),
        ("subtitles-utf-8-sig.srt", [(1.0, 2.0, "größe привет world"), (3.0, 4.0, "bye")]),
        ("subtitles-rrn.srt", [(1.0, 2.0, "hello")]),
        ("subtitles-rolling.vtt", [(0.16, 3.41, "we open boxes"), (3.41, 5.7, "and paint")]),
    ],
)
def test_cases_of_real_tools(tmp_path: Path, name: str, lines: list[tuple[float, float, str]]) -> None:
    (tmp_path / "film.mkv").write_bytes(b"no video")
    (tmp_path / f"film{Path(name).suffix}").write_bytes((CASES / name).read_bytes())
    warnings: list[str] = []
    found = said_lines(tmp_path / "film.mkv", SubtitleFolders(), warnings.append)
    assert [(line.start, line.end, line.text) for line in found] == lines
    assert warnings == []


@pytest.mark.parametrize(
    ("times", "start", "end"),
    [
        ("00:00:01 --> 00:00:02", 1.0, 2.0),
        ("0:0:1,5 --> 0:0:2.25", 1.5, 2.25),
        ("00:00:01:500 --> 00:00:02:000", 1.5, 2.0),
        ("00:00:01,1234567 --> 00:00:02,", 1.123, 2.0),
        ("00:01.000 --> 00:02.000 align:start position:0%", 1.0, 2.0),
        ("00:00:01, 500 -> 00:00:02, 000", 1.5, 2.0),
        ("00:00:01;500-->00:00:02;000  X1:10 X2:20 Y1:1 Y2:2", 1.5, 2.0),
        (" 1 00:00:01.500 —> 00:00:02.000", 1.5, 2.0),
        ("00:00:01.50,00:00:02.00", 1.5, 2.0),
        ("00:00:01,000 -->", 1.0, 6.0),
        ("-00:00:01,000 --> 00:00:02,000", 0.0, 2.0),
    ],
)
def test_times_are_read_however_they_are_written(times: str, start: float, end: float) -> None:
    assert said(f"1\n{times}\nhello\n") == [(start, end, "hello")]


@pytest.mark.parametrize("line_end", ["\n", "\r\n", "\r", "\r\r\n"])
def test_empty_lines_and_numbers_in_cues_are_kept_and_those_of_cues_are_not(line_end: str) -> None:
    text = (
        "1\n00:00:01,000 --> 00:00:02,000\nhi\n\nyou there\n\n\nand 42\n\n2\n00:00:03,000 --> 00:00:04,000\n42\n\n"
        "3\n00:00:05,000 --> 00:00:06,000\nmissing line\n4\n00:00:07,000 --> 00:00:08,000\n10:30\n1984\n"
    )
    words = ["hi you there and 42", "42", "missing line", "10:30 1984"]
    assert [line[2] for line in said(text.replace("\n", line_end))] == words


def test_words_between_signs_that_are_no_markup_are_kept() -> None:
    text = (
        '1\n00:00:01,000 --> 00:00:02,000\na < b and c > d, x<3 <3\n<font color="#ff0000">red</font> <b>bold</b>, '
        "{laughs} <i>it\n\n2\n00:00:03,000 --> 00:00:04,000\n5 &lt; 6 &amp;&nbsp;you&#39;re <Anna> &#99999999; &amp\n\n"
        "3\n00:00:05,000 --> 00:00:06,000\nfrom 00:00:01,000 to 00:00:05,000 it is\n"
    )
    assert [line[2] for line in said(text)] == [
        "a < b and c > d, x<3 <3 red bold, {laughs} it",
        "5 < 6 & you're <Anna> &",
        "from 00:00:01 000 to 00:00:05 000 it is",
    ]


def test_names_notes_and_styles_of_webvtt_are_not_said() -> None:
    text = (
        "WEBVTT\nKind: captions\nLanguage: en\n\nSTYLE\n::cue{}\n\nNOTE hello\nnot said\n\n"
        "id-1\n00:01.000 --> 00:02.000\n<v Bob>Hi <c.yellow>you</c>\n\nNOTE another\n\n"
        "00:03.000 --> 00:04.000\n<ruby>漢<rt>kan</rt></ruby>字\n\n"
        "REGION\nid:x\n\nlast one\n00:00:05.000 --> 00:00:06.000\n- one\n- two\n"
    )
    assert [line[2] for line in said(text)] == ["Hi you", "漢字", "- one - two"]


ROLLED = [(0.0, 2.0, "one two"), (2.0, 4.0, "three four"), (4.0, 6.0, "five six")]


@pytest.mark.parametrize(
    ("cues", "lines"),
    [
        ([(0, 2, "one two"), (2, 4, "one two\nthree four"), (4, 6, "three four\nfive six")], ROLLED),
        ([(0, 4, "one two"), (2, 6, "one two\nthree four"), (4, 6, "three four\nfive six")], None),
        ([(0, 1, "one"), (1, 2, "one two"), (2, 3, "one two\nthree"), (3, 4, "one two\nthree four"), (4, 6, "five six")]
         , ROLLED),
        ([(0, 2, "one two"), (2, 4, "one two\nthree four"), (4, 6, "one two\nthree four\nfive six")], ROLLED),
        ([(0, 1, "one two"), (1, 2, "one two"), (2, 4, "three four"), (4, 6, "five six")], ROLLED),
        ([(0, 1, "No!"), (3, 4, "No!")], [(0.0, 1.0, "No!"), (3.0, 4.0, "No!")]),
        ([(0, 1, "Oh\nno"), (1, 2, "Oh dear me")], [(0.0, 1.0, "Oh no"), (1.0, 2.0, "Oh dear me")]),
        ([(0, 1, "- Yes.\n- No."), (1, 2, "- No.\n- Yes?")], [(0.0, 1.0, "- Yes. - No."), (1.0, 2.0, "- Yes?")]),
    ],
)  # fmt: skip
def test_captions_that_roll_or_grow_are_said_once(cues: list, lines: list | None) -> None:
    text = "".join(f"{n}\n00:00:0{s},000 --> 00:00:0{e},000\n{w}\n\n" for n, (s, e, w) in enumerate(cues, 1))
    found = said(text)
    if lines is None:
        assert [(start, words) for start, _, words in found] == [(start, words) for start, _, words in ROLLED]
    else:
        assert found == lines


def test_words_with_times_of_their_own_are_said_then() -> None:
    cue = "one<00:00:00.500> two\n<00:00:10.000>thr<00:00:10.200>ee<00:00:11.000> four\n"
    text = f"WEBVTT\n\n00:00.000 --> 00:30.000\n{cue}"
    assert said(text) == [(0.0, 10.0, "one two"), (10.0, 30.0, "three four")]


SUBSTATION = r"""[Script Info]
Title: x
[V4+ Styles]
Format: Name, Fontname, Fontsize, PrimaryColour
Style: Default,Arial,not a number,&HZZ
[Events]
Format: Layer, Start, End, Style, Name, MarginL, MarginR, MarginV, Effect, Text
Dialogue: 0,0:00:01.00,0:00:02.50,Default,Anna,0,0,0,,{\i1}Hello,{\i0} you\Nthere{a comment}
Comment: 0,0:00:01.00,0:00:02.50,Default,,0,0,0,,not said
Dialogue: 0,0:00:03.00,0:00:04.00,Default,,0,0,0,,{\p1}m 0 0 l 100 0{\p0}{\k20}ka{\k30}ra{\pos(1,2)}o\hke a < b
Dialogue: 1,0:00:03.00,0:00:04.00,Default,,0,0,0,,{\blur5}karao ke a < b
Dialogue: 0,bad,0:00:04.00,Default,,0,0,0,,not said
"""


def test_substation_is_read_in_any_order_of_its_fields() -> None:
    assert said(SUBSTATION) == [(1.0, 2.5, "Hello, you there"), (3.0, 4.0, "karao ke a < b")]
    marked = "[V4 Styles]\n[Events]\nDialogue: Marked=0,0:00:01.00,0:00:02.50,Default,NTP,0000,0000,0000,,Hi, there\n"
    assert said(marked) == [(1.0, 2.5, "Hi, there")]
    assert said("[Events]\nFormat: Start, End, Text\nDialogue: 0:00:01.00,0:00:02.50,Hi, there\n") == [
        (1.0, 2.5, "Hi, there")
    ]


def test_frame_numbers_are_times_at_the_rate_of_the_file_or_the_video() -> None:
    text = "{25}{50}{y:i}Hello|you\n{100}{}no end\n[bad\n{200}{250}{c:$0000ff}x {y} z\n"
    lines = [(1.0, 2.0, "Hello you"), (4.0, 6.0, "no end"), (8.0, 10.0, "x (y) z")]
    assert said(f"{{1}}{{1}}25.000\n{text}", 50.0) == lines
    assert said(text, 25.0) == lines
    assert said("{24000}{24048}hello")[0][0] == pytest.approx(1001.0)
    assert said("[10][20]/Hello|you\n") == [(1.0, 2.0, "Hello you")]


CUE = "1\n00:00:01,000 --> 00:00:02,000\n"
HOSTILE = {
    "tags": CUE + "<b" * 5_000_000,
    "overrides": CUE + "{\\" * 5_000_000,
    "entities": CUE + "&#" * 5_000_000,
    "digits": CUE + "&#" + "1" * 10_000_000,
    "line ends": CUE + "\n" * 10_000_000,
    "spaces": CUE + " \n" * 5_000_000,
    "lines": CUE + "a\n" * 5_000_000,
    "times": "00:00:00,000 --> \n" * 600_000,
    "cues": f"{CUE}x\n\n" * 250_000,
    "times inside": f"WEBVTT\n\n{CUE}" + "<00:00:01.000>" * 700_000,
    "drawings": "[Events]\n" + "Dialogue: 0,0:00:01.00,0:00:02.00,Default,,0,0,0,,{\\p1}{\\{\\{\\\n" * 150_000,
    "frames": "{1}{2}{y:{y:{y:\n" * 600_000,
    "frame codes": "{1}{2}" + "{y:" * 3_000_000,
    "large frames": "{1" + "1" * 10_000_000,
    "nothing": "1" * 10_000_000,
}


@pytest.mark.parametrize("kind", HOSTILE)
def test_hostile_text_takes_time_in_proportion(tmp_path: Path, kind: str) -> None:
    began = time.process_time()
    lines, warnings = read(tmp_path, "film.srt", HOSTILE[kind].encode())
    assert time.process_time() - began < 10  # about 1 s
    assert len(lines) <= 1
    assert all(message.count("\n") == 0 and "film.srt" in message for message in warnings)


def test_what_cannot_be_read_is_named_in_one_line(tmp_path: Path) -> None:
    noise = CUE.encode() + bytes(range(128, 256)) * 3 + b"\n"
    for number, (name, content, reason) in enumerate(
        [
            ("film.srt", noise, "encoding"),
            ("film.en.srt", b"a letter, not subtitles\n", "no subtitles"),
            ("film.sub", b"\0\0\1\xba" + bytes(2000), "images"),
            ("film.vtt", b"\0" * 5000, "encoding"),
            ("film.ass", b"[Events]\n" + (SUBSTATION.splitlines()[-3] + "\n").encode() * 70_000, "more than 60,000"),
        ]
    ):
        folder = tmp_path / str(number)
        folder.mkdir()
        lines, (warning,) = read(folder, name, content)
        assert lines == []
        assert warning.startswith(f"{folder / name}: ")
        assert reason in warning


PIECES = [
    *("1\n", "\n", "00:00:01,000 --> 00:00:02,000", "99:99:99,999", " --> ", "-", "{1}{2}", "{1}{1}25", "[1][2]"),
    *("WEBVTT\n\n", "NOTE", "[Events]\n", "Format: Text, Start, End\n"),
    *(
        "Dialogue: 0,0:00:01.00,0:00:02.00,a,b,0,0,0,,",
        "{\\p1}",
        "\\N",
        "<i>",
        "<",
        ">",
        "&#",
        ";",
        "<00:00:01.500>",
        "hello",
        "Привет",
        "日本",
        "\0",
        "\r",
        "٣",
        "²",
        "\x1e",
    ),
    *("\u2028", "9" * 5000),
]


@given(
    pieces=st.lists(st.one_of(st.sampled_from(PIECES), st.text(max_size=4)), max_size=30),
    encoding=st.sampled_from(["utf-8", "utf-16", "utf-16-le", "cp1251", "shift_jis", "latin1"]),
    noise=st.binary(max_size=3),
)
@settings(max_examples=300, deadline=None)
def test_any_bytes_give_lines_or_one_warning(pieces: list[str], encoding: str, noise: bytes) -> None:
    content = "".join(pieces).encode(encoding, "ignore") + noise
    with tempfile.TemporaryDirectory() as folder:
        lines, warnings = read(Path(folder), "film.srt", content)
    assert len(warnings) <= (not lines)
    assert all(line.strip() == line != "" and "\n" not in line for line in lines)


def test_a_file_larger_than_any_subtitles_is_passed_over(tmp_path: Path) -> None:
    (tmp_path / "film.mkv").write_bytes(b"no video")
    with (tmp_path / "film.srt").open("wb") as file:
        file.truncate(51 << 20)
    warnings: list[str] = []
    assert said_lines(tmp_path / "film.mkv", SubtitleFolders(), warnings.append) == []
    assert len(warnings) == 1
    assert "larger" in warnings[0]


@pytest.mark.parametrize("content", [b"", b"\n\n", b"WEBVTT\n\n", b"[Script Info]\n\n[Events]\n", b"\xef\xbb\xbf"])
def test_empty_subtitles_say_nothing(tmp_path: Path, content: bytes) -> None:
    assert read(tmp_path, "film.srt", content) == ([], [])
