"""`vtg extract`: what it prints, what it exits with, and that a mistake is one line."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Sequence
from importlib.util import find_spec
from pathlib import Path

import fsspec
import pytest
from commands import Result, vtg_in_process

from vtg.errors import VtgError
from vtg.extraction import Work


@pytest.fixture
def run(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tiny_clip: Path) -> Callable[..., Result]:
    """Runs ``vtg extract`` in this process, with a tiny CLIP."""
    run_vtg = vtg_in_process(capsys, monkeypatch, "extract")

    def run_extract(*words: object, last: Sequence[object] = ()) -> Result:
        options = [] if "--verify" in words else ["--model", "zero-shot", "--pretrained", tiny_clip, "--device", "cpu"]
        return run_vtg(*words, *options, *last)  # of an option that is there twice the last counts

    return run_extract


@pytest.fixture
def films(tmp_path: Path, make_video: Callable[..., Path]) -> Path:
    folder = tmp_path / "films"
    folder.mkdir()
    make_video(folder / "a.mp4", seconds=4, seed=1)
    make_video(folder / "b.mp4", seconds=6, seed=2)
    return folder


def test_extract_then_again_then_verify(run: Callable[..., Result], films: Path, tmp_path: Path) -> None:
    first = run(films, tmp_path / "out", "--fps", 1, "--json")
    assert first.status == 0
    assert (first.json["videos"], first.json["frames"], first.json["failed"]) == (2, 10, [])
    second = run(films, tmp_path / "out", "--fps", 1)
    assert (second.status, second.out) == (0, "")
    assert "0 videos, 2 done before" in second.err
    assert "2 files checked, 0 wrong\n" in run("--verify", tmp_path / "out").err
    checked = run("--verify", tmp_path / "out", "--json")
    assert checked.status == 0
    assert checked.json == {"out": str(tmp_path / "out"), "checked": 2, "problems": [], "failed": []}
    (tmp_path / "out" / "tiny_vid_k4" / "a.npy").write_bytes(b"")
    checked = run("--verify", tmp_path / "out")
    assert checked.status == 1
    assert "a.npy: has 0 bytes" in checked.err


def test_a_recipes_own_clip_encodes_unless_another_is_named(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, films: Path, tmp_path: Path, tiny_clip: Path
) -> None:
    run = vtg_in_process(capsys, monkeypatch, "extract")
    line = {"qid": 5, "query": "a dog", "vid": "a", "duration": 4, "relevant_windows": [[0, 2]]}
    (tmp_path / "all.jsonl").write_text(json.dumps(line) + "\n")
    recipe = tmp_path / "mine.toml"
    text = '[data]\nvideos = "films"\nannotations = { train = "all.jsonl" }\n[model]\nclip_pretrained = '
    recipe.write_text(text + f'"{tiny_clip}"\n')
    result = run(recipe, tmp_path / "own", "--device", "cpu", "--json")
    assert (result.status, result.json["clip"]) == (0, str(tiny_clip))
    result = run(recipe, tmp_path / "demo", "--device", "cpu", "--model", "demo", "--json")
    assert (result.status, result.json["clip"]) == (0, "the bundled demo CLIP")
    assert (tmp_path / "demo" / "demo_vid_k4" / "a.npy").is_file()
    shutil.copy(tiny_clip, tmp_path / "tiny.bin")
    recipe.write_text(text + f'"{tmp_path / "tiny.bin"}"\n')
    result = run(recipe, tmp_path / "unsafe", "--device", "cpu")
    assert result.status == 1 and "if you trust them, add --pretrained" in result.err


def test_a_video_that_fails_is_named_and_the_status_says_so(
    run: Callable[..., Result], films: Path, tmp_path: Path
) -> None:
    (films / "c.mp4").write_text("not a video")
    result = run(films, tmp_path / "out", "--json")
    assert result.status == 1
    assert [failure["id"] for failure in result.json["failed"]] == ["c"]
    assert "c.mp4: is not a video" in result.err
    assert run(films, tmp_path / "out", "--shard", "1/3").status == 0  # c is in the third


def test_wrong_lines_are_listed_and_nothing_is_begun(run: Callable[..., Result], films: Path, tmp_path: Path) -> None:
    manifest = tmp_path / "list.txt"
    manifest.write_text("films/a.mp4\nfilms/none.mp4\nfilms/b.mp4\ta\n")
    result = run(manifest, tmp_path / "out")
    assert result.status == 1
    lines = result.err.splitlines()
    assert lines[0].startswith(f"{manifest}:3: ")
    assert lines[1].startswith(f"{manifest}:2: ")
    assert "2 things are wrong" in lines[2]
    assert not (tmp_path / "out").exists()
    result = run(manifest, tmp_path / "out", "--skip-wrong", "--json")
    assert (result.status, result.json["videos"], len(result.json["problems"])) == (0, 1, 2)


@pytest.mark.parametrize("layout", ["published", "store"])
@pytest.mark.parametrize(
    ("words", "reason"),
    [
        (["--pretrained", "none"], "has no weights named 'none'"),
        (["--pretrained", "none", "--ray"], "has no weights named 'none'"),
        (["--clip", "none"], "none: not a model of open_clip's catalogue"),
        (["--device", "warp"], "there is no device warp here"),
    ],
)
def test_a_clip_that_cannot_be_had_leaves_nothing_behind(
    run: Callable[..., Result], films: Path, tmp_path: Path, words: list[str], reason: str, layout: str
) -> None:
    if "--ray" in words and find_spec("ray") is None:
        reason = "--ray needs Ray"
    before = sorted(tmp_path.rglob("*"))
    for out in (tmp_path / "out", tmp_path / "deep" / "out", "memory://deep/out"):
        result = run(films, out, "--layout", layout, last=words)
        assert (result.status, result.out) == (1, "")
        assert reason in result.err and result.err.startswith("vtg: ") and result.err.count("\n") == 1
    assert sorted(tmp_path.rglob("*")) == before
    assert not fsspec.filesystem("memory").exists("/deep/out")


def test_a_clip_that_cannot_be_had_leaves_what_was_extracted_before(
    run: Callable[..., Result], films: Path, tmp_path: Path, make_video: Callable[..., Path]
) -> None:
    assert run(films, tmp_path / "out").status == 0
    before = {path: path.read_bytes() for path in (tmp_path / "out").rglob("*") if path.is_file()}
    make_video(films / "c.mp4", seconds=4, seed=3)
    assert run(films, tmp_path / "out", last=["--device", "warp"]).status == 1
    assert before == {path: path.read_bytes() for path in (tmp_path / "out").rglob("*") if path.is_file()}


@pytest.mark.parametrize(
    "words",
    [[], ["films"], ["films", "out", "--shard", "5/4"], ["films", "out", "--layout", "zip"], ["x", "--verify", "out"]],
)
def test_wrong_use_exits_with_two(run: Callable[..., Result], words: list[str]) -> None:
    assert run(*words).status == 2


def test_ray_may_be_named_without_an_address(
    run: Callable[..., Result], films: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = []

    def note(work: Work, out: str, *_: object, ray: str | None, **__: object) -> None:
        asked.append((work.source, out, ray))
        raise VtgError("enough")

    monkeypatch.setattr("vtg.extraction.extract", note)
    out = tmp_path / "out"
    for words in (
        [films, out, "--ray"],
        [films, out, "--ray", "10.0.0.1:6379"],
        [films, out, "--ray=auto"],
        ["--ray", films, out],
        [films, "--ray", "ray://head:10001", out],
        [films, out],
    ):
        run(*words)
    assert [ray for *_, ray in asked] == ["", "10.0.0.1:6379", "auto", "", "ray://head:10001", None]
    assert {(source, place) for source, place, _ in asked} == {(str(films), str(out))}


def test_features_of_queries_come_with_a_benchmarks_videos(
    run: Callable[..., Result], films: Path, tmp_path: Path
) -> None:
    line = {"qid": 5, "query": "a dog", "vid": "a", "duration": 4, "relevant_windows": [[0, 2]]}
    (tmp_path / "mine.jsonl").write_text(json.dumps(line) + "\n")
    result = run(tmp_path / "mine.jsonl", tmp_path / "out", "--dataset", "qvhighlights", "--videos", films, "--json")
    assert (result.status, result.json["videos"], result.json["queries"]) == (0, 1, 1)
    names = sorted(path.relative_to(tmp_path / "out").as_posix() for path in (tmp_path / "out").rglob("*.npy"))
    assert names == ["tiny_txt_k4/5.npy", "tiny_vid_k4/a.npy"]
