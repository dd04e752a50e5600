"""What SOURCE can be: every kind becomes the right jobs, and everything wrong is told with its line."""

from __future__ import annotations

import json
import os
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from vtg.clip.specs import EncoderSpec
from vtg.errors import VtgError
from vtg.extraction import Work, WrongWorkError, extract, read_source
from vtg.extraction.jobs import why_no_file_name
from vtg.extraction.output import Output
from vtg.extraction.records import OutputSettings, QueryRecord, VideoRecord, to_json
from vtg.extraction.sources import missing_files, source_sizes


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Files that look like videos to whoever does not open them."""
    for name in ("videos/a.mp4", "videos/deep/a.mkv", "videos/deep/b.mp4", "videos/notes.txt", "videos/.hidden.mp4"):
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
    return tmp_path


def ids(work: Work) -> list[str]:
    return [job.id for job in work.videos]


def test_a_folder_names_videos_by_their_path(folder: Path) -> None:
    work = read_source(str(folder / "videos"), fps=2.0)
    assert sorted(ids(work)) == ["a", "deep/a", "deep/b"]
    assert {job.fps for job in work.videos} == {2.0}
    assert all(Path(job.source).is_file() for job in work.videos)


def test_a_single_video_and_a_pattern(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert ids(read_source(str(folder / "videos" / "a.mp4"))) == ["a"]
    assert ids(read_source(str(folder / "videos" / "*" / "*.m*"))) == ["deep/a", "deep/b"]
    assert ids(read_source(str(folder / "videos" / "**" / "*.mp4"))) == ["a", "deep/b"]
    monkeypatch.chdir(folder)
    assert ids(read_source("videos/*.mp4")) == ["a"]
    assert ids(read_source((folder / "videos" / "deep").as_uri())) == ["a", "b"]


@pytest.mark.skipif(os.name == "nt", reason="links need a right there that few have")
def test_a_link_gives_its_own_name(folder: Path, tmp_path: Path) -> None:
    links = tmp_path / "links"
    (links / "deep").mkdir(parents=True)
    (links / "one.mp4").symlink_to(folder / "videos" / "a.mp4")
    (links / "deep" / "two.mp4").symlink_to(folder / "videos" / "deep" / "b.mp4")
    assert sorted(ids(read_source(str(links)))) == ["deep/two", "one"]
    assert ids(read_source(str(links / "one.mp4"))) == ["one"]
    assert ids(read_source(str(links / "**" / "*.mp4"))) == ["deep/two", "one"]
    assert read_source(str(links / "**" / "*.mp4")).problems == ()


def test_a_video_may_have_any_ending(folder: Path, make_video: Callable[..., Path]) -> None:
    made = make_video(folder / "holiday.mp4", seconds=2)
    made.rename(folder / "holiday.dat")
    assert ids(read_source(str(folder / "holiday.dat"))) == ["holiday"]
    (folder / "list").write_text("holiday.dat\n")
    assert ids(read_source(str(folder / "list"))) == ["holiday"]
    (folder / "wide.txt").write_text("holiday.dat\n", encoding="utf-16")
    with pytest.raises(VtgError, match="not a text file"):
        read_source(str(folder / "wide.txt"))


def test_two_videos_of_one_name_are_told(folder: Path) -> None:
    (folder / "videos" / "a.avi").touch()
    (problem,) = read_source(str(folder / "videos")).problems
    assert "'a' is there twice" in problem
    assert "a.avi" in problem


def test_there_must_be_something(tmp_path: Path) -> None:
    (tmp_path / "empty.txt").touch()
    for source, reason in (
        (tmp_path, "no videos there"),
        (tmp_path / "none", "no such file"),
        (tmp_path / "*.mp4", "no videos there"),
        (tmp_path / "empty.txt", "is empty"),
        ("nofilesystem://bucket/x", "nofilesystem"),
    ):
        with pytest.raises(VtgError, match=reason):
            read_source(str(source))


def test_a_text_manifest(folder: Path) -> None:
    manifest = folder / "list.txt"
    lines = [
        "# mine",
        "",
        "videos/a.mp4",
        "videos/deep/a.mkv\tother",
        f"{folder / 'videos' / 'deep' / 'b.mp4'}\tclip\t1.5\t9",
    ]
    manifest.write_text("\n".join(lines))
    work = read_source(str(manifest), fps=1.0)
    assert work.problems == ()
    assert [(job.id, job.start, job.end, job.line) for job in work.videos] == [
        ("a", 0.0, None, 3),
        ("other", 0.0, None, 4),
        ("clip", 1.5, 9.0, 5),
    ]
    assert all(Path(job.source).is_file() for job in work.videos)


def test_a_json_manifest(folder: Path) -> None:
    manifest = folder / "list.jsonl"
    records = [
        {"path": "videos/a.mp4", "id": 7, "start": 2, "end": None, "title": "passed over"},
        {"path": "memory://bucket/x.mp4"},
    ]
    manifest.write_text("".join(json.dumps(record) + "\n" for record in records))
    work = read_source(str(manifest), default_fps=0.25)
    assert [(job.id, job.start, job.end, job.fps) for job in work.videos] == [
        ("7", 2.0, None, 0.25),
        ("x", 0, None, 0.25),
    ]
    assert work.videos[1].source == "memory://bucket/x.mp4"


def test_everything_wrong_in_a_manifest_is_told_with_its_line(folder: Path) -> None:
    manifest = folder / "list.jsonl"
    lines = [
        '{"path": "videos/a.mp4"}',
        '{"path": "videos/a.mp4"',
        '{"id": "x"}',
        '{"path": "videos/deep/b.mp4", "start": 5, "end": 4}',
        '{"path": "videos/deep/b.mp4", "start": "soon"}',
        '{"path": "videos/deep/a.mkv", "id": "a"}',
        '{"path": "videos/gone.mp4"}',
        '{"path": "videos/deep/b.mp4", "id": "../b"}',
        '{"path": "videos/deep/b.mp4", "id": [1]}',
        '{"path": "videos/deep/b.mp4", "start": NaN}',
        '{"path": 5}',
        '{"path": "videos/deep", "id": "z"}',
    ]
    manifest.write_text("\n".join(lines))
    work = read_source(str(manifest))
    problems = [*work.problems, *missing_files(work, source_sizes(work.videos))]
    reasons = {int(problem.removeprefix(f"{manifest}:").split(":")[0]): problem for problem in problems}
    assert sorted(reasons) == list(range(2, 13))
    for line, words in (
        (2, "not valid JSON"),
        (3, "no path"),
        (4, "the end, 4 s, is not after the start, 5 s"),
        (5, "start must be seconds"),
        (6, "'a' is there twice, first on line 1"),
        (7, "gone.mp4: no such file"),
        (8, "dotted part"),
        (9, "the id must be"),
        (10, "start must be seconds"),
        (11, "the path must be a text, not 5"),
        (12, "a folder, not a video"),
    ):
        assert words in reasons[line]


def test_what_may_name_a_file() -> None:
    assert why_no_file_name("deep/NUsG9BgSes0_210.0_360.0") == ""
    for name in ("", "/a", "a//b", "a/../b", ".", "a\\b", "a\nb", "a" * 201):
        assert why_no_file_name(name)
    assert bool(why_no_file_name("what?")) == (os.name == "nt")


def write_lines(path: Path, *records: dict[str, object]) -> Path:
    path.write_text("".join(json.dumps(record) + "\n" for record in records))
    return path


@pytest.fixture
def annotations(folder: Path) -> Path:
    return write_lines(
        folder / "mine.jsonl",
        {"qid": 1, "query": "a dog", "vid": "a", "duration": 10, "relevant_windows": [[0, 2]]},
        {"qid": 2, "query": "a cat", "vid": "b", "duration": 10, "relevant_windows": [[0, 2]]},
        {"qid": 3, "query": "a cow", "vid": "a", "duration": 10, "relevant_windows": [[4, 6]]},
    )


def test_annotations_give_videos_queries_and_the_rate_of_their_benchmark(annotations: Path) -> None:
    work = read_source(str(annotations), dataset="charades")
    assert [(job.id, job.fps, job.line) for job in work.videos] == [("a", 1.0, 1), ("b", 1.0, 2)]
    assert [(job.id, job.text) for job in work.queries] == [("1", "a dog"), ("2", "a cat"), ("3", "a cow")]
    assert read_source(str(annotations), fps=3.0).videos[0].fps == 3.0
    with pytest.raises(VtgError, match="--dataset"):
        read_source(str(annotations))
    with pytest.raises(VtgError, match="--videos"):
        read_source(str(annotations), dataset="charades", videos=str(annotations.parent / "elsewhere"))


def test_a_benchmarks_own_names_are_used(folder: Path) -> None:
    (folder / "videos" / "s13-d21-cam-002.avi").touch()
    path = write_lines(
        folder / "test.jsonl",
        {"qid": 4, "query": "she cuts", "vid": "s13-d21", "duration": 10, "relevant_windows": [[0, 2]]},
        {"qid": 5, "query": "he cuts", "vid": "s99-d99", "duration": 10, "relevant_windows": [[0, 2]]},
        {"qid": 6, "query": "he eats", "vid": "s99-d99", "duration": 10, "relevant_windows": [[0, 2]]},
        {"qid": 7, "vid": "s13-d21", "duration": 10},
    )
    work = read_source(str(path), dataset="tacos")
    assert ids(work) == ["s13-d21-cam-002"]
    assert len(work.problems) == 2
    assert any(problem.startswith(f"{path}:2: no video s99-d99-cam-002") for problem in work.problems)
    assert any(problem.startswith(f"{path}:4: ") for problem in work.problems)


def test_rated_clips_give_as_many_frames(folder: Path) -> None:
    entry = {
        "match": [1, -1, 0],
        "clip": [[0, 100], [50, 150], [100, 200]],
        "fps": 25,
        "frames": "200",
        "info": [0] * 5,
    }
    entry["info"] = ["", "", "", "", "", "a dog"]
    (folder / "youtube_anno.json").write_text(json.dumps({"a": entry}))
    work = read_source(str(folder / "youtube_anno.json"))
    (job,) = work.videos
    assert (job.fps, job.clips) == (None, 3)
    assert job.rate(8.0) == 3 / 8
    assert [(query.id, query.text) for query in work.queries] == [("a", "a dog")]


def test_a_recipe_gives_all_its_parts(annotations: Path) -> None:
    folder = annotations.parent
    write_lines(
        folder / "more.jsonl",
        {"qid": 3, "query": "a cow again", "vid": "a", "duration": 10},
        {"qid": 4, "query": "a hen", "vid": "a", "duration": 10},
    )
    (folder / "own.toml").write_text('[data]\nfps = 2.0\nannotations = { val = "mine.jsonl", test = "more.jsonl" }\n')
    work = read_source(str(folder / "own.toml"))
    assert [job.fps for job in work.videos] == [2.0, 2.0]
    assert [query.id for query in work.queries] == ["1", "2", "3", "4"]
    (problem,) = work.problems
    assert "query 3: is there twice, with different words" in problem
    assert len(read_source(str(folder / "own.toml"), split="val").queries) == 3
    with pytest.raises(VtgError, match="no part"):
        read_source(str(folder / "own.toml"), split="train")


def test_the_annotations_of_the_benchmarks_are_understood(shared: Path, tmp_path: Path) -> None:
    path = shared / "annotations" / "qvhighlights" / "highlight_val_release.jsonl"
    with path.open() as file:
        names = {json.loads(line)["vid"] for line in file}
    for name in names:
        (tmp_path / f"{name}.mp4").touch()
    work = read_source(str(path), dataset="qvhighlights", videos=str(tmp_path))
    assert work.problems == ()
    assert (len(work.videos), len(work.queries)) == (len(names), 1550)
    assert {job.fps for job in work.videos} == {0.5}


def test_ten_thousand_lines_are_planned_and_found_done_in_seconds(
    tmp_path: Path, tiny_clip: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    count = 10_000
    for number in range(count):
        (tmp_path / f"{number}.mp4").touch()
    manifest = tmp_path / "list.jsonl"
    write_lines(manifest, *({"path": f"{number}.mp4", "start": 0, "end": 8} for number in range(count)))
    began = time.process_time()
    work = read_source(str(manifest), 0.5)
    encoder = EncoderSpec(pretrained=str(tiny_clip))
    output = Output(str(tmp_path / "out"), OutputSettings(encoder.fingerprint, str(encoder)))
    output.begin()
    assert (len(work.videos), work.problems) == (count, ())
    assert time.process_time() - began < 5
    pretend_finished(output, work)
    began = time.process_time()
    report = extract(work, str(tmp_path / "out"), encoder)
    assert report.finished == count
    assert time.process_time() - began < 10


def pretend_finished(output: Output, work: Work) -> None:
    """Leaves what extraction leaves, but for the values."""
    features = Path(output.out) / output.settings.videos
    records = Path(output.out) / "extraction" / "videos"
    for folder in (features, records):
        folder.mkdir(parents=True)
    for job in work.videos:
        file = f"{output.settings.videos}/{job.id}.npy"
        record = VideoRecord.of(
            job, 0, rate=0.5, duration=8.0, file=file, file_bytes=4, sha256="0" * 64, shape=(4, 4, 5, 64)
        )
        (features / f"{job.id}.npy").write_bytes(b"1234")
        (records / f"{job.id}.json").write_bytes(to_json(record))


def test_a_query_record_is_read_as_it_was_written() -> None:
    from vtg.extraction.records import from_json

    record = QueryRecord("1", "ein Hund – läuft", "clip_b32_txt_k4/1.npy", 10, "0" * 64, "1" * 64, (5, 4, 64))
    assert from_json(QueryRecord, to_json(record)) == record
    assert from_json(QueryRecord, to_json(record)[:-5]) is None
    assert from_json(QueryRecord, None) is None


def test_a_manifest_elsewhere(make_video: Callable[..., Path], tmp_path: Path, tiny_clip: Path) -> None:
    import fsspec

    memory = fsspec.filesystem("memory")
    try:
        memory.pipe_file("/vtg-list/videos/a.mp4", make_video(tmp_path / "a.mp4", seconds=2).read_bytes())
        memory.pipe_file("/vtg-list/list.txt", b"videos/a.mp4\tx\nvideos/b.mp4\n")
        work = read_source("memory://vtg-list/list.txt", fps=1.0)
        encoder = EncoderSpec(pretrained=str(tiny_clip))
        with pytest.raises(WrongWorkError) as caught:
            extract(work, str(tmp_path / "out"), encoder, device="cpu")
        assert caught.value.problems == ("memory://vtg-list/list.txt:2: memory://vtg-list/videos/b.mp4: no such file",)
        assert extract(work, str(tmp_path / "out"), encoder, device="cpu", skip_wrong=True).videos == 1
        assert ids(read_source("memory://vtg-list/videos/*.mp4")) == ["a"]
        assert ids(read_source("memory://vtg-list")) == ["videos/a"]
    finally:
        memory.rm("/vtg-list", recursive=True)


@pytest.mark.skipif(os.name == "nt", reason="pipes as Unix has them")
def test_pipes_are_refused_and_folders_behind_links_are_walked(folder: Path) -> None:
    os.mkfifo(folder / "pipe.mp4")
    with pytest.raises(VtgError, match="is a pipe"):
        read_source(str(folder / "pipe.mp4"))
    (folder / "list.txt").write_text("pipe.mp4\n")
    work = read_source(str(folder / "list.txt"))
    assert ["is a pipe" in line for line in missing_files(work, source_sizes(work.videos))] == [True]
    before = ids(read_source(str(folder / "videos")))
    (folder / "others").mkdir()
    (folder / "others" / "x.mp4").write_bytes(b"x")
    (folder / "videos" / "linked").symlink_to(folder / "others")
    (folder / "videos" / "loop").symlink_to(folder / "videos")
    assert ids(read_source(str(folder / "videos"))) == [*before, "linked/x"]


@pytest.mark.skipif(sys.platform != "linux", reason="where names are bytes")
def test_an_id_that_is_not_utf8_is_one_line(folder: Path) -> None:
    (folder / "videos" / os.fsdecode(b"caf\xe9.mp4")).write_bytes(b"x")
    work = read_source(str(folder / "videos"))
    assert len(work.problems) == 1
    assert "not UTF-8" in work.problems[0]
