"""Exports: other programs' own libraries read them, and find the moments where they are."""

from __future__ import annotations

import csv
import json
import os
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from vtg.errors import VideoError, VtgError
from vtg.files.text import table_cell
from vtg.grounding.grounder import Moment
from vtg.library.export import check_export, export_hits
from vtg.library.hits import Hit
from vtg.timespans import TimecodeCount
from vtg.video.process import ffmpeg_binary

QUERY = "a dog, or a “hound”\njumps"


@pytest.fixture
def hits(tmp_path: Path, make_video: Callable[..., Path]) -> list[Hit]:
    first = make_video(tmp_path / "hëllo world.mp4", seconds=12, rate=25)
    second = make_video(tmp_path / "b.mp4", seconds=8, rate=24)
    return [
        Hit(str(first), Moment(2.0, 6.5, 0.9), 4.0, "jump in"),
        Hit(str(second), Moment(0.0, 3.3, 0.5), 0.0),
        Hit(str(first), Moment(10.01, 12.0, 0.25), 10.0),
    ]


def seconds(hits: list[Hit]) -> list[float]:
    return [hit.moment.end - hit.moment.start for hit in hits]


def test_an_edl_is_read_by_opentimelineio(tmp_path: Path, hits: list[Hit]) -> None:
    otio = pytest.importorskip("opentimelineio")
    pytest.importorskip("otio_cmx3600_adapter")
    export_hits(tmp_path / "x.edl", QUERY, hits)
    timeline = otio.adapters.read_from_file(str(tmp_path / "x.edl"), rate=25)
    clips = list(timeline.tracks[0])
    assert [clip.name for clip in clips] == [Path(hit.video).name for hit in hits]
    position = 0.0
    for place, (clip, hit) in enumerate(zip(clips, hits, strict=True)):
        source, record = clip.source_range, clip.range_in_parent()
        assert source.start_time.to_seconds() == pytest.approx(hit.moment.start, abs=0.04)
        assert source.end_time_exclusive().to_seconds() == pytest.approx(hit.moment.end, abs=0.04)
        assert record.start_time.to_seconds() == pytest.approx(position, abs=0.04 * place)  # each lasts whole frames
        position += hit.moment.end - hit.moment.start


def test_a_timeline_is_read_by_opentimelineio(tmp_path: Path, hits: list[Hit]) -> None:
    otio = pytest.importorskip("opentimelineio")
    export_hits(tmp_path / "x.otio", QUERY, hits)
    timeline = otio.adapters.read_from_file(str(tmp_path / "x.otio"))
    clips = list(timeline.find_clips())
    assert timeline.duration().to_seconds() == pytest.approx(sum(seconds(hits)), abs=0.1)
    for clip, hit, rate in zip(clips, hits, (25, 24, 25), strict=True):
        assert clip.source_range.start_time.rate == rate
        assert clip.source_range.start_time.to_seconds() == pytest.approx(hit.moment.start, abs=1 / rate)
        assert clip.source_range.end_time_exclusive().to_seconds() == pytest.approx(hit.moment.end, abs=1 / rate)
        available = clip.media_reference.available_range
        assert available.start_time <= clip.source_range.start_time
        assert clip.source_range.end_time_exclusive() <= available.end_time_exclusive()
        assert clip.media_reference.target_url == Path(hit.video).as_uri()
        assert clip.metadata["vtg"]["score"] == hit.moment.score


def test_captions_are_read_by_pysrt(tmp_path: Path, hits: list[Hit]) -> None:
    pysrt = pytest.importorskip("pysrt")
    export_hits(tmp_path / "x.srt", QUERY, hits)
    position = 0.0
    for item, hit in zip(pysrt.open(str(tmp_path / "x.srt"), encoding="utf-8"), hits, strict=True):
        assert item.start.ordinal / 1000 == pytest.approx(position, abs=0.05)
        position += hit.moment.end - hit.moment.start
        assert item.end.ordinal / 1000 == pytest.approx(position, abs=0.1)
        assert item.text.startswith(Path(hit.video).name)


def test_tables_and_documents_hold_the_times_in_the_videos(tmp_path: Path, hits: list[Hit]) -> None:
    export_hits(tmp_path / "x.csv", QUERY, hits)
    export_hits(tmp_path / "x.JSON", QUERY, hits)
    with (tmp_path / "x.csv").open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    document = json.loads((tmp_path / "x.JSON").read_text("utf-8"))
    assert document["query"] == rows[0]["query"] == QUERY
    for row, result, hit in zip(rows, document["results"], hits, strict=True):
        assert (row["video"], result["video"]) == (hit.video, hit.video)
        assert float(row["start"]) == result["start"] == hit.moment.start
        assert (result["end"], result["score"]) == (hit.moment.end, hit.moment.score)


def test_odd_and_broadcast_rates_stay_within_a_frame(tmp_path: Path, make_video: Callable[..., Path]) -> None:
    otio = pytest.importorskip("opentimelineio")
    slow = make_video(tmp_path / "slow.mp4", seconds=8, rate=7)
    hit = Hit(str(slow), Moment(1.37, 4.9, 1.0), 2.0)
    export_hits(tmp_path / "x.otio", "a", [hit])
    (clip,) = otio.adapters.read_from_file(str(tmp_path / "x.otio")).find_clips()
    assert clip.source_range.start_time.rate == 30
    assert clip.source_range.start_time.to_seconds() == pytest.approx(1.37, abs=1 / 30)


def test_no_results_are_an_empty_timeline(tmp_path: Path) -> None:
    for name in ("x.edl", "x.otio", "x.srt", "x.csv", "x.json"):
        export_hits(tmp_path / name, "a dog", [])
        assert (tmp_path / name).is_file()


def test_what_cannot_be_written_leaves_nothing(tmp_path: Path, hits: list[Hit]) -> None:
    with pytest.raises(VtgError, match=r"\.otio"):
        check_export(tmp_path / "x.doc", force=False)
    (tmp_path / "x.csv").write_text("mine")
    with pytest.raises(VtgError, match="--force"):
        check_export(tmp_path / "x.csv", force=False)
    Path(hits[1].video).unlink()
    with pytest.raises(VideoError, match="no such file"):
        export_hits(tmp_path / "x.edl", QUERY, hits)
    assert not (tmp_path / "x.edl").exists()
    assert not list(tmp_path.glob("*.part"))


def rendered(path: Path, rate: str, seconds: int = 4, timecode: str = "", codec: str = "mpeg2video") -> Path:
    """A film of a rate that starts at a timecode."""
    command = [ffmpeg_binary(), "-v", "error", "-y", "-f", "lavfi", "-i", f"testsrc=s=64x48:r={rate}:d={seconds}"]
    command += [*(["-timecode", timecode] if timecode else []), "-c:v", codec, str(path)]
    subprocess.run(command, check=True)
    return path


def read_edl(path: Path, rate: float) -> list[tuple[int, int, int, int]]:
    """First and last frame (exclusive) of each clip in its source and on the timeline, as a reader of EDLs has them."""
    otio = pytest.importorskip("opentimelineio")
    pytest.importorskip("otio_cmx3600_adapter")
    timeline = otio.adapters.read_from_file(str(path), rate=rate)  # which its clips do not keep
    events = []
    for clip in timeline.tracks[0]:
        source, record = clip.source_range, clip.range_in_parent()
        times = (source.start_time, source.end_time_exclusive(), record.start_time, record.end_time_exclusive())
        events.append(tuple(round(time.value) for time in times))
    return events


def read_otio(path: Path) -> list[tuple[int, int, int, int]]:
    """First and last frame (exclusive) of each clip, and of its whole source."""
    otio = pytest.importorskip("opentimelineio")
    timeline = otio.adapters.read_from_file(str(path))
    events = []
    for clip in timeline.find_clips():
        source, whole = clip.source_range, clip.media_reference.available_range
        times = (source.start_time, source.end_time_exclusive(), whole.start_time, whole.end_time_exclusive())
        events.append(tuple(round(time.value) for time in times))
    return events


def test_the_start_timecode_of_a_source_counts(tmp_path: Path, shared: Path) -> None:
    film = shared / "cases" / "start-timecode.mov"
    hit = Hit(str(film), Moment(0.4, 1.2, 0.9), 0.4)
    for ending in ("edl", "otio"):
        export_hits(tmp_path / f"x.{ending}", "a", [hit])
    hour = 3600 * 25
    assert read_edl(tmp_path / "x.edl", 25) == [(hour + 10, hour + 30, 0, 20)]
    assert "01:00:00:10 01:00:01:05 00:00:00:00 00:00:00:20" in (tmp_path / "x.edl").read_text()
    ((first, end, begin, _),) = read_otio(tmp_path / "x.otio")
    assert (first, end, begin) == (hour + 10, hour + 30, hour)


@pytest.mark.parametrize("ending", ["mov", "mxf"])
@pytest.mark.parametrize(
    ("rate", "fps", "timecode", "start"),
    [
        ("30000/1001", 30000 / 1001, "00:59:58;00", 107892 - 60),
        ("30000/1001", 30000 / 1001, "00:59:58:00", 3600 * 30 - 60),
        ("60000/1001", 60000 / 1001, "10:00:00;00", 10 * 215784),
        ("24000/1001", 24000 / 1001, "01:00:00:12", 86412),
        ("50", 50.0, "00:00:59:49", 59 * 50 + 49),
    ],
)
def test_source_times_are_exact_to_the_frame(
    tmp_path: Path, ending: str, rate: str, fps: float, timecode: str, start: int
) -> None:
    film = rendered(tmp_path / f"film.{ending}", rate, timecode=timecode)
    hits = [Hit(str(film), Moment(1.0, 3.5, 0.9), 1.0), Hit(str(film), Moment(0.0, 1.5, 0.5), 0.0)]
    for kind in ("edl", "otio"):
        export_hits(tmp_path / f"x.{kind}", "a", hits)
    spans = [(round(1.0 * fps), round(3.5 * fps)), (0, round(1.5 * fps))]
    lengths = [end - first for first, end in spans]
    places = [(0, lengths[0]), (lengths[0], sum(lengths))]
    expected = [(start + first, start + end, *place) for (first, end), place in zip(spans, places, strict=True)]
    assert read_edl(tmp_path / "x.edl", fps) == expected
    text = (tmp_path / "x.edl").read_text()
    assert f"FCM: {'DROP' if ';' in timecode else 'NON-DROP'} FRAME\n" in text
    assert timecode in text, "the second moment begins with the first picture"
    assert [event[:3] for event in read_otio(tmp_path / "x.otio")] == [
        (start + first, start + end, start) for first, end in spans
    ]


def test_sources_of_other_rates_keep_their_hours_minutes_and_seconds(tmp_path: Path) -> None:
    first = rendered(tmp_path / "first.mov", "25")
    others = [
        rendered(tmp_path / "film.mov", "24000/1001", timecode="01:00:00:12"),
        rendered(tmp_path / "drop.mov", "30000/1001", timecode="01:00:00;15"),
        rendered(tmp_path / "odd.mov", "12", timecode="02:00:00:06"),
    ]
    hits = [Hit(str(path), Moment(1.0, 2.0, 0.5), 1.0) for path in (first, *others)]
    export_hits(tmp_path / "x.edl", "a", hits)
    events = read_edl(tmp_path / "x.edl", 25)
    seconds = [source / 25 for source, *_ in events]
    assert seconds == pytest.approx([1.0, 3601.5, 3601.5, 7201.5], abs=0.04)
    assert [end - begin for begin, end, *_ in events] == [25] * 4


def test_timecode_begins_anew_after_a_day(tmp_path: Path) -> None:
    film = rendered(tmp_path / "night.mov", "25", timecode="23:59:59:00")
    hits = [Hit(str(film), Moment(0.0, 3.0, 0.9), 0.0), Hit(str(film), Moment(2.0, 3.0, 0.5), 2.0)]
    export_hits(tmp_path / "x.edl", "a", hits)
    day = 24 * 3600 * 25
    assert [event[:2] for event in read_edl(tmp_path / "x.edl", 25)] == [(day - 25, day + 50), (25, 50)]
    export_hits(tmp_path / "x.otio", "a", hits)
    assert [event[:2] for event in read_otio(tmp_path / "x.otio")] == [(day - 25, day + 50), (day + 25, day + 50)]


@pytest.mark.parametrize("nominal", [30, 60])
def test_drop_frame_timecode_leaves_numbers_out(nominal: int) -> None:
    opentime = pytest.importorskip("opentimelineio").opentime
    count = TimecodeCount(nominal, drop=True)
    rate = nominal * 1000 / 1001
    minute, ten, hour = 60 * nominal, 600 * nominal - 9 * nominal // 15, 3600 * nominal - 54 * nominal // 15
    frames = {frame + offset for frame in (0, minute, 2 * minute, ten, hour, count.day) for offset in range(-9, 10)}
    for frame in sorted(frame for frame in frames if 0 <= frame < count.day):
        text = count.format(frame)
        assert count.parse(text) == frame
        assert text == opentime.to_timecode(opentime.RationalTime(frame, rate), rate, True)
    assert count.format(minute) == f"00:01:00;{nominal // 15:02d}"
    assert count.format(hour) == "01:00:00;00"
    assert count.parse("00:01:00;00") == minute, "a number that is left out"


def test_timecodes_are_refused_where_there_are_none() -> None:
    with pytest.raises(ValueError, match="drop-frame"):
        TimecodeCount(25, drop=True)
    for text in ("", "1:2:3", "aa:bb:cc:dd", "01:00:00:00:00"):
        with pytest.raises(ValueError, match="timecode"):
            TimecodeCount(25).parse(text)


BREAKS = ["\n", "\r", "\r\n", "\x0b", "\x0c", "\x1c", "\x85", "\u2028", "\u2029", "\x00", "\x1b", "\t"]


@pytest.mark.parametrize("sign", BREAKS)
def test_no_name_breaks_a_line(tmp_path: Path, make_video: Callable[..., Path], sign: str) -> None:
    pysrt = pytest.importorskip("pysrt")
    film = make_video(tmp_path / "plain.mp4", seconds=4, rate=25)
    query = f"first{sign}002  AX  V  C  00:00:00:00 00:00:01:00 00:00:00:00 00:00:01:00{sign}* x"
    if sign != "\x00" and os.name != "nt":  # which no name may have
        film = film.rename(tmp_path / f"a{sign}TITLE: b{sign}1 --> 2.mp4")
    hits = [Hit(str(film), Moment(0.0, 2.0, 0.9), 0.0, f"said{sign}{sign}this"), Hit(str(film), Moment(1, 2, 0.5), 1.0)]
    for ending in ("edl", "otio", "srt", "csv", "json"):
        export_hits(tmp_path / f"x.{ending}", query, hits)
    lines = (tmp_path / "x.edl").read_text("utf-8").splitlines()
    assert [line[:3] for line in lines if line] == [
        "TIT",
        "FCM",
        *["001", *["* F", "* S", "* C"]],
        *["002", *["* F", "* S", "* C"]],
    ]
    assert read_edl(tmp_path / "x.edl", 25) == [(0, 50, 0, 50), (25, 50, 50, 75)]
    assert len(read_otio(tmp_path / "x.otio")) == 2
    document = json.loads((tmp_path / "x.otio").read_text("utf-8"))
    assert document["name"].isprintable()
    assert all(clip["name"].isprintable() for clip in document["tracks"]["children"][0]["children"])
    subtitles = pysrt.open(str(tmp_path / "x.srt"), encoding="utf-8")
    assert [len(item.text.splitlines()) for item in subtitles] == [2, 2]
    assert json.loads((tmp_path / "x.json").read_text("utf-8"))["query"] == query
    with (tmp_path / "x.csv").open(encoding="utf-8", newline="") as file:
        assert len(list(csv.DictReader(file))) == 2


@pytest.mark.parametrize(
    "text",
    [
        "=1+1",
        "+1",
        "-1",
        "@SUM(A1)",
        "\t=1",
        "\r=1",
        "\n=1",
        "＝1",
        "＋1",
        "－1",
        "＠a",
        "−1",
        "﹣1",
        " =1",
        "\ufeff=1",
        "\u200b@x",
    ],
)
def test_a_spreadsheet_runs_no_cell(tmp_path: Path, text: str) -> None:
    hits = [Hit(f"{text}.mp4", Moment(1.5, 2.0, 0.25), 1.5, text)]
    export_hits(tmp_path / "x.csv", text, hits)
    with (tmp_path / "x.csv").open(encoding="utf-8", newline="") as file:
        _, row = csv.reader(file)
    assert row == [f"'{text}", f"'{text}.mp4", "1.500", "2.000", "0.2500", f"'{text}"]


@pytest.mark.parametrize("text", ["a dog", "", "1 - 1", "/home/=a.mp4", "'quoted'", "日本", "a=b", "3 dogs"])
def test_other_cells_stay_as_they_are(text: str) -> None:
    assert table_cell(text) == text
