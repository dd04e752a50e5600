"""The command line: its manners, and that it does what the Python API does."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from commands import Result, vtg_in_process

from vtg.video import probe


@pytest.fixture
def run(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Callable[..., Result]:
    """Runs ``vtg`` in this process, on a library of the test's own."""
    monkeypatch.setenv("VTG_LIBRARY", str(tmp_path / "library"))
    return vtg_in_process(capsys, monkeypatch)


@pytest.fixture
def films(tmp_path: Path, make_video: Callable[..., Path]) -> Path:
    folder = tmp_path / "films"
    folder.mkdir()
    make_video(folder / "a.mp4", seconds=12, seed=1)
    make_video(folder / "b.mp4", seconds=8, seed=2)
    return folder


def test_index_then_search(run: Callable[..., Result], films: Path, tiny_clip: Path) -> None:
    result = run("index", films, "-m", "zero-shot", "--pretrained", tiny_clip, "--device", "cpu")
    assert result.status == 0
    assert "2 added" in result.err
    assert result.out == ""
    answer = run("search", "a red circle", "--json", "--limit", 3)
    assert answer.status == 0
    assert answer.json["query"] == "a red circle"
    assert len(answer.json["results"]) == 3
    assert set(answer.json["results"][0]) == {"video", "start", "end", "score"}
    table = run("search", "a red circle", "-n", 3)
    assert len(table.out.splitlines()) == 4
    assert "a.mp4" in table.out


def test_precision_is_accepted_and_changes_nothing(
    run: Callable[..., Result], films: Path, tiny_clip: Path, tiny_head: Path
) -> None:
    words = ("index", films, "-m", tiny_head, "--pretrained", tiny_clip, "--device", "cpu")
    result = run(*words, "--precision", "float16")
    assert result.status == 0
    assert "vtg: --precision has no effect: projections are always stored as int8" in result.err
    assert "--precision" not in run("index", "--help").out
    assert "no such precision" in run(*words, "--precision", "float8").err
    assert run("library", "info", "--json").json["precision"] == "int8"


def test_search_in_one_video_indexes_it_first(run: Callable[..., Result], films: Path, tiny_clip: Path) -> None:
    result = run("search", "a red circle", films / "b.mp4", "-m", "zero-shot", "--pretrained", tiny_clip, "--json")
    assert {Path(hit["video"]).name for hit in result.json["results"]} == {"b.mp4"}


def test_index_says_what_failed_and_exits_with_1(run: Callable[..., Result], films: Path, tiny_clip: Path) -> None:
    (films / "text.mp4").write_text("not a video")
    result = run("index", films, films / "none", "-m", "zero-shot", "--pretrained", tiny_clip, "--json")
    assert result.status == 1
    assert len(result.json["added"]) == 2
    assert {Path(failure["path"]).name for failure in result.json["failed"]} == {"text.mp4", "none"}
    lines = result.err.splitlines()
    assert len(lines) == 2
    assert all(line.startswith("vtg: ") for line in lines)
    assert "Traceback" not in result.err


def test_a_users_mistake_is_one_line(run: Callable[..., Result], tmp_path: Path, films: Path) -> None:
    for words in (
        ("search", "a dog"),
        ("search", ""),
        ("index", films, "--model", "r3-none"),
        ("index", films, "--model", "demo", "--clip", "ViT-B-32"),
        ("index", films, "--pretrained", tmp_path / "none.safetensors"),
        ("index", films, "--fps", "0"),
        ("cut", films / "none.mp4", "0", "1", tmp_path / "x.mp4"),
        ("cut", films / "a.mp4", "zero", "1", tmp_path / "x.mp4"),
        ("cut", films / "a.mp4", "5", "3", tmp_path / "x.mp4"),
    ):
        result = run(*words)
        assert result.status == 1, words
        assert len(result.err.strip().splitlines()) == 1, result.err
        assert result.err.startswith("vtg: ")
        assert result.out == ""
    assert not (tmp_path / "library").exists()
    assert not (tmp_path / "x.mp4").exists()


def test_wrong_use_exits_with_2(run: Callable[..., Result]) -> None:
    assert run("search").status == 2
    assert run("index").status == 2
    assert run("fly").status == 2
    assert run("search", "a dog", "--limit", "0").status == 2


def test_cut_writes_one_clip(run: Callable[..., Result], films: Path, tmp_path: Path) -> None:
    out = tmp_path / "clip.mp4"
    result = run("cut", films / "a.mp4", "0:02", "4.5", out, "--json")
    assert result.status == 0
    assert result.json["start"] == pytest.approx(2.0)
    assert result.json["end"] == pytest.approx(4.5)
    assert probe(out).duration == pytest.approx(2.5, abs=0.01)
    before = out.read_bytes()
    again = run("cut", films / "a.mp4", "0", "1", out)
    assert again.status == 1
    assert "--force" in again.err
    assert out.read_bytes() == before
    assert run("cut", films / "a.mp4", "0", "1", out, "--force").status == 0
    assert probe(out).duration == pytest.approx(1.0, abs=0.01)


def test_models_are_listed(run: Callable[..., Result]) -> None:
    rows = {row["name"]: row for row in run("models", "--json").json}
    assert rows["demo"]["present"] is True
    assert "ViT-B-32" in rows["zero-shot"]["clip"]
    assert "zero-shot" in run("models").out


@pytest.mark.parametrize("command", ["index", "search", "cut", "models", "demo"])
def test_help_teaches_by_an_example(run: Callable[..., Result], command: str) -> None:
    result = run(command, "--help")
    assert result.status == 0
    assert f"Example: vtg {command}" in " ".join(result.out.split())


def test_importing_and_help_wait_for_no_model() -> None:
    heavy = {"torch", "open_clip", "lancedb", "av", "matplotlib"}
    code = f"import sys, vtg, vtg.cli.main; assert not {heavy} & set(sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True)


def test_interrupting_says_how_to_go_on(run: Callable[..., Result], monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupted(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("vtg.library.library.Library.add", interrupted)
    result = run("index", "anything")
    assert result.status == 130
    assert "run the same command to continue" in result.err


def test_explaining_writes_a_picture_a_moment(
    run: Callable[..., Result], films: Path, tiny_clip: Path, tiny_head: Path, tmp_path: Path
) -> None:
    from PIL import Image

    run("index", films, "--model", tiny_head, "--pretrained", tiny_clip)
    result = run("search", "a red circle", "--limit", 2, "--explain", tmp_path / "why", "--json")
    assert result.status == 0
    assert len(result.json["results"]) == 2
    pictures = sorted((tmp_path / "why").iterdir())
    assert [path.name[:3] for path in pictures] == ["01 ", "02 "]
    assert all(Image.open(path).size == (448, 448) for path in pictures)


def test_pictures_of_a_video_with_the_longest_name_are_named_after_it(
    run: Callable[..., Result], films: Path, tiny_clip: Path, tiny_head: Path, tmp_path: Path
) -> None:
    longest = "映" * 83 + "xy.mp4"  # 255 bytes
    folder = tmp_path / "long"
    folder.mkdir()
    (folder / longest).write_bytes(next(films.glob("*.mp4")).read_bytes())
    run("index", folder, "--model", tiny_head, "--pretrained", tiny_clip)
    result = run("search", "a red circle", "--limit", 2, "--explain", tmp_path / "why")
    assert result.status == 0, result.err
    names = sorted(path.name for path in (tmp_path / "why").iterdir())
    assert names[0].startswith("01 映") and "… " in names[0] and names[0].endswith(".png")
    assert all(len(name.encode()) <= 255 for name in names)


def test_the_published_heads_are_listed(run: Callable[..., Result]) -> None:
    heads = [row for row in run("models", "--json").json if row["name"].startswith("r2-")]
    assert len(heads) == 20
    assert heads[0]["figures"]["R1@0.5"] == 67.74


def test_pulling_an_unknown_model_is_one_line(run: Callable[..., Result]) -> None:
    result = run("models", "pull", "r2-none")
    assert result.status == 1
    assert len(result.err.strip().splitlines()) == 1


def test_a_full_disk_is_one_line(
    run: Callable[..., Result], films: Path, tiny_clip: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("vtg.features.store.FeatureWriter.append", full)
    result = run("index", films, "-m", "zero-shot", "--pretrained", tiny_clip)
    assert result.status == 1
    assert result.err == "vtg: No space left on device\n"
    assert list((tmp_path / "library" / "features").iterdir()) == []
