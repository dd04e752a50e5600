"""The commands on a library: ways to ask, exports and clips, and keeping it in step with the disk."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest
from commands import Result, vtg_in_process
from PIL import Image

from vtg.library.library import Library
from vtg.models.calibration import Calibration
from vtg.video import probe


@pytest.fixture
def run(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Callable[..., Result]:
    monkeypatch.setenv("VTG_LIBRARY", str(tmp_path / "library"))
    return vtg_in_process(capsys, monkeypatch)


@pytest.fixture
def films(tmp_path: Path, make_video: Callable[..., Path], tiny_clip: Path, run: Callable[..., Result]) -> Path:
    folder = tmp_path / "films"
    folder.mkdir()
    make_video(folder / "a.mp4", seconds=12, seed=1, rate=25)
    make_video(folder / "b.mp4", seconds=8, seed=2, rate=25)
    (folder / "b.srt").write_text("1\n00:00:01,000 --> 00:00:02,000\nInto the water!\n")
    assert run("index", folder, "-m", "zero-shot", "--pretrained", tiny_clip, "--device", "cpu").status == 0
    return folder


def test_pictures_stretches_and_sums_are_asked_for(run: Callable[..., Result], films: Path, tmp_path: Path) -> None:
    Image.new("RGB", (64, 48), (200, 30, 30)).save(tmp_path / "red.png")
    for words in (
        ("--image", tmp_path / "red.png"),
        ("--like", f"{films / 'a.mp4'}@0:02-0:04"),
        ("a red circle", "--plus", "snow", "--minus", "people*0.5"),
        ("--plus", "a red circle", "--in", films / "b.mp4"),
    ):
        result = run("search", *words, "--json", "--per-video", 1)
        assert result.status == 0, result.err
        assert result.json["results"]
        assert len({hit["video"] for hit in result.json["results"]}) == len(result.json["results"])
    assert run("search", "a red circle", "--plus", "snow", "--json").json["query"] == "a red circle + snow"


def test_said_words_are_asked_for(run: Callable[..., Result], films: Path) -> None:
    (hit,) = run("search", "--said", "water", "--json").json["results"]
    assert hit["video"] == str(films / "b.mp4")
    assert (hit["start"], hit["end"], hit["said"]) == (1.0, 2.0, "Into the water!")
    assert "Into the water!" in run("search", "a red circle", "--said", "water").out


def test_a_subtitle_file_that_cannot_be_read_is_named_and_fails_nothing(
    run: Callable[..., Result], films: Path
) -> None:
    noise = bytes(range(128, 256)) * 2
    (films / "a.srt").write_bytes(b"1\n00:00:01,000 --> 00:00:02,000\n" + noise + b"\n")
    (films / "a.en.srt").write_text("1\n00:00:03,000 --> 00:00:04,000\nOut of the water!\n")
    result = run("index", films, "--json")
    assert result.status == 0
    assert result.json["warnings"] == [f"{films / 'a.srt'}: the encoding of its text is unknown: save it as UTF-8"]
    assert [line for line in result.err.splitlines() if "a.srt" in line] == [f"vtg: {result.json['warnings'][0]}"]
    assert len(run("search", "--said", "water", "--json").json["results"]) == 2


def test_what_is_below_the_threshold_is_not_found_but_can_be_seen(
    run: Callable[..., Result], films: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Library, "calibration", Calibration(threshold=0.999))
    result = run("search", "a red circle")
    assert result.status == 0
    assert result.out == ""
    assert "nothing found for 'a red circle'" in result.err
    assert "nearest, with a score of" in result.err
    assert run("search", "a red circle", "--json").json["results"] == []
    assert run("search", "a red circle", "--nearest", "--json").json["results"]
    assert run("search", "a red circle", "--min-score", 0, "--json").json["results"]


@pytest.mark.parametrize("name", ["x.json", "x.csv", "x.srt", "x.edl", "x.otio"])
def test_results_are_exported(run: Callable[..., Result], films: Path, tmp_path: Path, name: str) -> None:
    out = tmp_path / name
    result = run("search", "a red circle", "-n", 3, "--export", out, "--json")
    assert result.status == 0, result.err
    assert len(result.json["results"]) == 3
    assert "a.mp4" in out.read_text("utf-8")
    before = out.read_bytes()
    again = run("search", "a red circle", "--export", out)
    assert again.status == 1
    assert "--force" in again.err
    assert out.read_bytes() == before
    assert run("search", "a red circle", "--export", out, "--force").status == 0


def test_results_are_cut_into_clips(run: Callable[..., Result], films: Path, tmp_path: Path) -> None:
    hits = run("search", "a red circle", "-n", 2, "--clips", tmp_path / "clips", "--json").json["results"]
    clips = sorted((tmp_path / "clips").iterdir())
    assert [path.name[:3] for path in clips] == ["01 ", "02 "]
    for clip, hit in zip(clips, hits, strict=True):
        assert probe(clip).duration == pytest.approx(hit["end"] - hit["start"], abs=0.05)
    assert "--force" in run("search", "a red circle", "-n", 2, "--clips", tmp_path / "clips").err


def test_clips_of_a_video_with_the_longest_name_are_named_after_it(
    run: Callable[..., Result], films: Path, tmp_path: Path
) -> None:
    longest = films / ("映" * 83 + "xy.mp4")
    assert len(os.fsencode(longest.name)) == 255
    (films / "a.mp4").rename(longest)
    assert run("index", films).status == 0
    for _ in range(2):
        found = run("search", "a red circle", "-n", 9, "--clips", tmp_path / "clips", "--force", "--json")
        assert found.status == 0, found.err
        names = sorted(path.name for path in (tmp_path / "clips").iterdir())
        assert len(names) == len(found.json["results"]) and [name[:2] for name in names] == [
            f"{place:02d}" for place in range(1, len(names) + 1)
        ]
        assert any(name[3:8] == "映" * 5 and "… " in name for name in names)
        assert all(len(os.fsencode(name)) <= 255 and name.endswith(".mp4") for name in names)


def test_a_library_is_seen_and_kept(run: Callable[..., Result], films: Path) -> None:
    rows = run("library", "list", "--json").json
    assert [(Path(row["video"]).name, row["state"]) for row in rows] == [("a.mp4", "indexed"), ("b.mp4", "indexed")]
    assert "a.mp4" in run("library", "list").out
    facts = run("library", "info", "--json").json
    assert (facts["videos"], facts["frames"], facts["said_lines"]) == (2, 10, 1)
    assert "2 (00:20)" in run("library", "info").out
    assert run("library", "verify", "--json").json["problems"] == []
    (films / "a.mp4").rename(films / "c.mp4")
    assert run("library", "verify").status == 1
    report = run("library", "refresh", "--json")
    assert report.status == 0
    assert report.json["moved"] == [{"from": str(films / "a.mp4"), "to": str(films / "c.mp4")}]
    assert report.json["added"] == []
    (films / "b.mp4").unlink()
    assert "b.mp4: is not there any more, and forgotten" in run("library", "refresh").err
    assert run("library", "remove", films, "--json").json["removed"] == [str(films / "c.mp4")]
    assert run("library", "remove", films).status == 1


def test_mistakes_are_one_line(run: Callable[..., Result], films: Path, tmp_path: Path) -> None:
    for words in (
        ("search", "a dog", "--export", tmp_path / "x.doc"),
        ("search", "--like", films / "a.mp4"),
        ("search", "--like", f"{tmp_path / 'none.mp4'}@1-2"),
        ("search", "--image", tmp_path / "none.jpg"),
        ("search", "a dog", "--in", tmp_path / "none"),
        ("search", "a dog", "--until", "1990-01-01"),
        ("search", "--plus", "a dog", "--explain", tmp_path / "why"),
        ("search", "a dog", "--plus", "snow", "--explain", tmp_path / "why"),
        ("library", "list", "--library", tmp_path / "none"),
        ("library", "watch", tmp_path / "none"),
    ):
        result = run(*words)
        assert result.status == 1, (words, result.err)
        assert len(result.err.strip().splitlines()) == 1, result.err
        assert result.err.startswith("vtg: ")
        assert result.out == ""
    assert not (tmp_path / "why").exists()


def test_wrong_use_exits_with_2(run: Callable[..., Result], films: Path) -> None:
    assert run("search", "--limit", 3).status == 2
    assert run("search", "--minus", "a dog").status == 2
    assert run("search", "a dog", "--since", "yesterday").status == 2
    assert run("library").status == 2


@pytest.mark.parametrize("command", ["list", "info", "verify", "remove", "refresh", "watch"])
def test_help_teaches_by_an_example(run: Callable[..., Result], command: str) -> None:
    assert f"Example: vtg library {command}" in " ".join(run("library", command, "--help").out.split())
