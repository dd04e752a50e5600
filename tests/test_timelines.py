"""Exports: other programs' own libraries read them, and find the moments where they are."""

from __future__ import annotations

import csv
import json
from collections.abc import Callable
from pathlib import Path

import pytest

from vtg.errors import VideoError, VtgError
from vtg.grounding import Moment
from vtg.hits import Hit
from vtg.timelines import check_export, export_hits

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
