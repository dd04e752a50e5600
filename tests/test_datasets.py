"""Annotation files in all the forms that people have them in: what is read, and what is said of malformed ones."""

from __future__ import annotations

import gzip
import json
import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from vtg.datasets import domain_of, domains, load_samples, read_annotations, videos_of
from vtg.errors import VtgError
from vtg.recipes import load_recipe

DATA = Path(__file__).parent / "data" / "metrics"

LINE = {"qid": 5, "query": "a dog jumps", "duration": 9.5, "vid": "a", "relevant_windows": [[2, 8]]}
RATED = {**LINE, "relevant_clip_ids": [1, 3], "saliency_scores": [[4, 3, 2], [1, 0, 1]]}
YOUTUBE = {
    "fps": 25.0,
    "frames": "250",
    "domain": "dog",
    "info": ["", None, [], 0, "", "my dog's title", ""],
    "clip": [[0, 100], [50, 150], [150, 250]],
    "match": [-1, 1, 0],
}
TVSUM = {"title": "a parade", "anno": [[1.0] * 20, [5.0] * 20, [3.0] * 10 + [1.0] * 10]}


def write(path: Path, content: Any) -> Path:
    text = "".join(f"{json.dumps(line)}\n" for line in content) if isinstance(content, list) else json.dumps(content)
    path.write_text(text, encoding="utf-8")
    return path


def only(path: Path, dataset: str | None = None) -> Any:
    (sample,) = load_samples(path, dataset)
    return sample


def test_json_lines_of_queries_and_windows(tmp_path: Path) -> None:
    sample = only(write(tmp_path / "a.jsonl", [LINE]))
    assert (sample.video_id, sample.query_id, sample.query, sample.duration, sample.line) == (
        "a",
        5,
        "a dog jumps",
        9.5,
        1,
    )
    np.testing.assert_array_equal(sample.windows, [[2.0, 8.0]])
    assert sample.ratings is None


def test_ratings_cover_the_whole_video_in_clips_of_two_seconds(tmp_path: Path) -> None:
    sample = only(write(tmp_path / "a.jsonl", [RATED]))
    np.testing.assert_array_equal(sample.ratings, [[0, 0, 0], [4, 3, 2], [0, 0, 0], [1, 0, 1]])
    np.testing.assert_allclose(sample.saliency, [0, 9 / 12, 0, 2 / 12])
    np.testing.assert_array_equal(sample.clips[-1], [6.0, 8.0])


def test_what_a_test_file_does_not_say_is_unknown(tmp_path: Path) -> None:
    sample = only(write(tmp_path / "a.jsonl", [{key: LINE[key] for key in ("qid", "query", "duration", "vid")}]))
    assert (sample.windows, sample.ratings, sample.saliency) == (None, None, None)


def test_a_missing_value_may_be_null_or_nan(tmp_path: Path) -> None:
    line = {**LINE, "relevant_windows": None, "saliency_scores": float("nan"), "relevant_clip_ids": None}
    assert only(write(tmp_path / "a.jsonl", [line])).windows is None


def test_gzipped_lines_with_a_byte_order_mark_and_blank_lines(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl.gz"
    path.write_bytes(gzip.compress(b"\xef\xbb\xbf\r\n" + json.dumps(LINE).encode() + b"\r\n\r\n"))
    assert only(path).line == 2


def test_a_line_separator_inside_a_query_is_part_of_it(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    path.write_text(json.dumps({**LINE, "query": "one\u2028two"}, ensure_ascii=False), encoding="utf-8")
    assert only(path).query == "one\u2028two"


def charades(tmp_path: Path, lines: str, name: str = "charades_sta_train.txt") -> Path:
    (tmp_path / name).write_text(lines, encoding="utf-8")
    return tmp_path / name


def durations(tmp_path: Path, part: str, seconds: float) -> None:
    rows = f'id,script,length\nAO8RW,"a man, then a dog",{seconds}\nBAD,x,\n'
    (tmp_path / f"Charades_v1_{part}.csv").write_text(rows, encoding="utf-8")


def test_charades_text_lines_take_durations_from_the_csv(tmp_path: Path) -> None:
    durations(tmp_path, "train", 33.67)
    first, second = load_samples(charades(tmp_path, "AO8RW 0.0 6.9##a person reads.\nAO8RW 30.0 40.0##they leave.\n"))
    assert (first.video_id, first.query_id, first.query, first.duration) == ("AO8RW", 0, "a person reads.", 33.67)
    np.testing.assert_array_equal(second.windows, [[30.0, 33.67]])


def test_charades_test_queries_count_on_from_the_training_queries(tmp_path: Path) -> None:
    durations(tmp_path, "train", 1.0)
    durations(tmp_path, "test", 20.0)
    sample = only(charades(tmp_path, "AO8RW 0.0 6.9##a person reads.\n", "charades_sta_test.txt"), "charades")
    assert (sample.query_id, sample.duration) == (12404, 20.0)


def test_charades_text_lines_agree_with_the_json_lines_form(shared: Path, tmp_path: Path) -> None:
    form = shared / "annotations" / "charades" / "charades_sta_test_tvr_format.jsonl"
    expected = load_samples(form)
    lines = [
        f"{s.video_id} {s.windows[0, 0]} {s.windows[0, 1]}##{s.query}\n" for s in expected if s.windows is not None
    ]
    table = {sample.video_id: sample.duration for sample in expected}
    csv = "".join(f"{video},{length}\n" for video, length in table.items())
    (tmp_path / "lengths.csv").write_text(f"id,length\n{csv}", encoding="utf-8")
    for sample, other in zip(load_samples(charades(tmp_path, "".join(lines), "sta_test.txt")), expected, strict=True):
        assert (sample.query_id, sample.query, sample.duration) == (other.query_id, other.query, other.duration)
        np.testing.assert_array_equal(sample.windows, other.windows)


def test_charades_without_lengths_says_which_file_is_missing(tmp_path: Path) -> None:
    with pytest.raises(VtgError, match=r"put Charades_v1_train\.csv"):
        load_samples(charades(tmp_path, "AO8RW 0.0 6.9##a person reads.\n"))


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        ("AO8RW 0.0 6.9 a person reads.", "expected VIDEO START END##sentence"),
        ("AO8RW x 6.9##a person reads.", "start and end must be numbers, not x and 6.9"),
        ("AO8RW nan 6.9##a person reads.", "start and end must be finite"),
        ("AO8RW 0.0 6.9##", "no sentence after ##"),
        ("OTHER 0.0 6.9##a person reads.", "no length for the video OTHER"),
        ("BAD 0.0 6.9##a person reads.", "no length for the video BAD"),
    ],
)
def test_a_wrong_charades_line_is_reported(tmp_path: Path, line: str, reason: str) -> None:
    durations(tmp_path, "train", 30.0)
    path = charades(tmp_path, f"AO8RW 0.0 6.9##a person reads.\n{line}\n")
    (problem,) = read_annotations(path).problems
    assert problem.line == 2
    assert reason in problem.reason


def ego4d(**query: Any) -> dict[str, Any]:
    question = {"query": "where is my phone?", "clip_start_sec": 3.5, "clip_end_sec": 9.0, **query}
    annotation = {"annotation_uid": "ann", "language_queries": [{"query": None}, question]}
    clip = {"clip_uid": "clip", "video_start_sec": 100.0, "video_end_sec": 580.0, "annotations": [annotation]}
    return {"version": "v2", "videos": [{"video_uid": "v", "clips": [clip, {"clip_uid": "empty", "annotations": []}]}]}


def test_ego4d_times_count_from_the_clip(tmp_path: Path) -> None:
    sample = only(write(tmp_path / "nlq_val.json", ego4d()), "ego4d")
    assert (sample.video_id, sample.query_id, sample.duration) == ("clip", "ann_1", 480.0)
    np.testing.assert_array_equal(sample.windows, [[3.5, 9.0]])


def test_ego4d_without_answers_has_no_windows(tmp_path: Path) -> None:
    document = ego4d()
    question = document["videos"][0]["clips"][0]["annotations"][0]["language_queries"][1]
    del question["clip_start_sec"], question["clip_end_sec"]
    assert only(write(tmp_path / "nlq_test.json", document)).windows is None


def test_ego4d_problems_name_the_query(tmp_path: Path) -> None:
    with pytest.raises(VtgError, match=r"nlq_val\.json: query ann_1: clip_end_sec must be a number, not 'late'"):
        load_samples(write(tmp_path / "nlq_val.json", ego4d(clip_end_sec="late")))
    with pytest.raises(VtgError, match="no language queries"):
        load_samples(write(tmp_path / "nlq_val.json", {"videos": []}))


def test_youtube_as_published(tmp_path: Path) -> None:
    video = videos_of("youtube", "dog", "val")[0]
    sample = only(write(tmp_path / "youtube_anno.json", {video: YOUTUBE}), "youtube")
    assert (sample.video_id, sample.query_id, sample.query) == (video, video, "my dog's title")
    assert (sample.duration, sample.domain, sample.split) == (10.0, "dog", "val")
    np.testing.assert_array_equal(sample.ratings, [[-1], [1], [0]])
    np.testing.assert_array_equal(sample.saliency, [0, 1, 0.5])
    np.testing.assert_array_equal(sample.clips, [[0, 4], [2, 6], [6, 10]])


def test_youtube_as_json_lines(tmp_path: Path) -> None:
    line = {**LINE, "vid": "new", "label": [[0], [1]], "domain": "dog", "relevant_windows": None}
    sample = only(write(tmp_path / "youtube_train.jsonl", [line]))
    assert (sample.query_id, sample.domain, sample.split) == ("new", "dog", None)
    np.testing.assert_array_equal(sample.saliency, [0, 1])
    full = only(write(tmp_path / "full.jsonl", [{**line, **YOUTUBE, "query": "dog"}]))
    np.testing.assert_array_equal(full.saliency, [0, 1, 0.5])


def test_tvsum_as_published(tmp_path: Path) -> None:
    video = videos_of("tvsum", "PR", "train")[0]
    sample = only(write(tmp_path / "tvsum_anno.json", {video: TVSUM}), "tvsum")
    assert (sample.query, sample.duration, sample.domain, sample.split) == ("a parade", 6.0, "PR", "train")
    np.testing.assert_allclose(sample.saliency, [0, 1, (40 - 20) / 80])
    assert sample.ratings.shape == (3, 20)


def test_the_duration_in_tvsums_json_lines_counts_clips(tmp_path: Path) -> None:
    line = {"qid": "v", "vid": "v", "query": "a parade", "duration": 3, "label": TVSUM["anno"], "domain": "PR"}
    sample = only(write(tmp_path / "tvsum_val.jsonl", [line]))
    assert (sample.duration, sample.domain) == (6.0, "PR")


@pytest.mark.parametrize(("dataset", "count", "videos"), [("youtube", 6, 419), ("tvsum", 10, 50)])
def test_the_published_splits_ship_with_the_package(dataset: str, count: int, videos: int) -> None:
    names = domains(dataset)
    assert len(names) == count
    parts = [set(videos_of(dataset, domain, part)) for domain in names for part in ("train", "val")]  # type: ignore[arg-type]
    assert len(set().union(*parts)) == sum(map(len, parts)) == videos
    assert domain_of(dataset, videos_of(dataset, names[0], "train")[0]) == (names[0], "train")
    assert domain_of(dataset, "nowhere") == (None, None)


@pytest.mark.parametrize("dataset", ["youtube", "tvsum"])
def test_the_splits_are_those_of_the_reference(shared: Path, dataset: str) -> None:
    expected = json.loads((shared / "annotations" / dataset / "splits.json").read_text(encoding="utf-8"))
    for domain, parts in expected.items():
        assert {part: list(videos_of(dataset, domain, part)) for part in parts} == parts  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("file", "count", "dataset"),
    [
        ("qvhighlights/highlight_train_release.jsonl", 7218, None),
        ("qvhighlights/highlight_test_release.jsonl", 1542, None),
        ("charades/charades_sta_train_tvr_format.jsonl", 12404, None),
        ("tacos/val.jsonl", 4436, None),
        ("tvsum/tvsum_train.jsonl", 40, "tvsum"),
        ("youtube/youtube_anno.json", 422, "youtube"),
    ],
)
def test_the_real_files_are_read_without_a_problem(shared: Path, file: str, count: int, dataset: str | None) -> None:
    annotations = read_annotations(shared / "annotations" / file)
    assert (len(annotations.samples), annotations.dataset, annotations.problems) == (count, dataset, ())


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"qid": None}, "qid must be a whole number or a text, not None"),
        ({"vid": 3}, "query 5: vid must be a text, not 3"),
        ({"query": " "}, "query 5: query must be a text"),
        ({"duration": 0}, "query 5: duration must be above 0 seconds"),
        ({"duration": "9"}, "query 5: duration must be a number, not '9'"),
        ({"duration": float("nan")}, "query 5: duration is nan"),
        ({"relevant_windows": [[1, 2, 3]]}, "query 5: relevant_windows[0] has 3 numbers instead of 2"),
        ({"relevant_windows": [[1, "2"]]}, "query 5: relevant_windows[0][1] must be a number, not '2'"),
        ({"relevant_windows": {"a": 1}}, "query 5: relevant_windows must be a list of lists"),
        ({"saliency_scores": None}, "query 5: relevant_clip_ids and saliency_scores must be given together"),
        ({"relevant_clip_ids": [1]}, "query 5: 1 relevant_clip_ids but 2 saliency_scores"),
        ({"relevant_clip_ids": [1, 4]}, "query 5: clip 4 is not one of the 4 clips of a video of 9.5 s"),
        ({"relevant_clip_ids": [-1, 1]}, "query 5: clip -1 is not one of the 4 clips"),
        ({"relevant_clip_ids": [0.5, 1]}, "query 5: clip 0.5 is not one of the 4 clips"),
        ({"saliency_scores": [[4, 3], [1, 0]]}, "query 5: saliency_scores[0] has 2 numbers instead of 3"),
        ({"saliency_scores": [[4, 3, 5], [1, 0, 1]]}, "query 5: a saliency score of 5; marks go from 0 to 4"),
    ],
)
def test_a_wrong_line_is_reported_with_its_number_and_query(
    tmp_path: Path, changes: dict[str, Any], reason: str
) -> None:
    path = write(tmp_path / "a.jsonl", [{**LINE, "qid": 1}, {**RATED, **changes}])
    with pytest.raises(VtgError) as caught:
        load_samples(path)
    assert str(caught.value).startswith(f"{path}:2: {reason}")
    assert len(read_annotations(path).samples) == 1


@pytest.mark.parametrize(
    ("dataset", "entry", "reason"),
    [
        ("youtube", {**YOUTUBE, "match": [-1, 2, 0]}, "a match of 2; it is -1, 0 or 1"),
        ("youtube", {**YOUTUBE, "match": []}, "no annotated clip"),
        ("youtube", {**YOUTUBE, "match": [1]}, "3 clips but 1 annotations"),
        ("youtube", {**YOUTUBE, "fps": 0}, "fps must be above 0"),
        ("youtube", {**YOUTUBE, "frames": "many"}, "frames must be a number, not 'many'"),
        ("tvsum", {**TVSUM, "anno": [[1.0] * 19]}, "anno[0] has 19 numbers instead of 20"),
        ("tvsum", {**TVSUM, "anno": [[0.0] * 20]}, "a rating of 0; marks go from 1 to 5"),
        ("tvsum", {"anno": TVSUM["anno"]}, "no title or query"),
    ],
)
def test_a_wrong_video_is_reported_by_its_id(tmp_path: Path, dataset: str, entry: dict[str, Any], reason: str) -> None:
    right = YOUTUBE if dataset == "youtube" else TVSUM
    path = write(tmp_path / "anno.json", {"first": right, "second": entry})
    with pytest.raises(VtgError) as caught:
        load_samples(path, dataset)
    assert str(caught.value).startswith(f"{path}: video second: {reason}")


def test_a_repeated_query_is_reported(tmp_path: Path) -> None:
    with pytest.raises(VtgError, match=r":2: query 5: duplicate id, first on line 1"):
        load_samples(write(tmp_path / "a.jsonl", [LINE, LINE]))


@pytest.mark.parametrize("window", [[8, 2], [3, 3], [20, 30], [-1, 3]])
def test_odd_windows_are_kept_and_reported(tmp_path: Path, window: list[float]) -> None:
    annotations = read_annotations(write(tmp_path / "a.jsonl", [{**LINE, "relevant_windows": [window]}]))
    np.testing.assert_array_equal(annotations.samples[0].windows, [window])
    (problem,) = annotations.problems
    assert problem.is_repaired
    assert str(problem).startswith(f"{annotations.path}:1: query 5: window [{window[0]}, {window[1]}] ")


def test_broken_files_are_reported_in_one_line(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    for content, reason in (
        ("", "contains no annotations"),
        ("not json", ":1: not valid JSON"),
        ("[1]\n", ":1: expected a JSON object, found list"),
        ('{"a": 1}', "not the annotations of a known data set"),
    ):
        path.write_text(content, encoding="utf-8")
        with pytest.raises(VtgError) as caught:
            load_samples(path)
        assert reason in str(caught.value)
        assert "\n" not in str(caught.value)


def test_the_wrong_data_set_is_refused(tmp_path: Path) -> None:
    path = write(tmp_path / "tvsum_anno.json", {"v": TVSUM})
    with pytest.raises(
        VtgError, match="holds annotations of tvsum, not of youtube; give the other file or --dataset tvsum"
    ):
        load_samples(path, "youtube")
    with pytest.raises(VtgError, match="unknown data set 'nothing'"):
        load_samples(path, "nothing")


def test_the_example_of_ones_own_data_in_the_readme_works(tmp_path: Path) -> None:
    text = (Path(__file__).parents[1] / "data" / "README.md").read_text(encoding="utf-8")
    blocks = [block.split("```")[0] for block in text.split("```\n")[1:]]
    annotation = next(block for block in blocks if '"relevant_windows"' in block)
    recipe = text.split("```toml\n")[1].split("```")[0]
    prediction = next(block for block in blocks if '"pred_relevant_windows"' in block)
    for name, content in (("val.jsonl", annotation), ("mine.toml", recipe), ("preds.jsonl", prediction)):
        (tmp_path / name).write_text(content, encoding="utf-8")
    loaded = load_recipe(tmp_path / "mine.toml")
    sample = only(loaded.data.annotation_file("val"))
    assert (loaded.data.dataset, loaded.data.videos, sample.video_id) == ("own", "clips", "holiday")

    from vtg.evaluation.scoring import score_files

    brief = score_files([tmp_path / "preds.jsonl"], loaded.data.annotation_file("val")).scores[0].brief
    assert brief["MR-full-R1@0.7"] == 100.0


@pytest.mark.parametrize(
    "content",
    [b"[" * 100_000, b'{"qid": 1, "vid": ' + b"[" * 100_000, gzip.compress(b" " * (1 << 24)) * 9],
    ids=["a deep list", "a deep record", "a few KB that are 144 MB"],
)
def test_texts_that_exhaust_a_reader_are_refused_in_one_line(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "train.jsonl"
    path.write_bytes(content)
    with pytest.raises(VtgError, match=r"train\.jsonl.*(nested too deeply|more than 128 MiB)"):
        load_samples(path)


def test_an_unreadable_file_of_lengths_is_named(tmp_path: Path) -> None:
    (tmp_path / "charades_sta_train.txt").write_text("v0 0.0 5.0##a person opens a door.\n")
    (tmp_path / "Charades_v1_train.csv").write_text(f"id,length\nv0,{'9' * 200_000}\n")
    with pytest.raises(VtgError, match=r"Charades_v1_train\.csv: not a CSV file"):
        load_samples(tmp_path / "charades_sta_train.txt")


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="there are no named pipes")
def test_a_pipe_in_place_of_a_text_is_not_waited_for(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "train.jsonl")
    with pytest.raises(VtgError, match=r"train\.jsonl: is a folder, device or pipe"):
        load_samples(tmp_path / "train.jsonl")
