"""Scores to the last digit of the published evaluators, errors that name the query, and comparisons of files."""

from __future__ import annotations

import gzip
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from vtg.errors import VtgError
from vtg.evaluation.scoring import plot, score_files

DATA = Path(__file__).parent / "data" / "metrics"

MOMENTS = {
    "qid": 1,
    "query": "a dog jumps",
    "duration": 20,
    "vid": "a",
    "relevant_windows": [[2, 8]],
    "relevant_clip_ids": [1, 2],
    "saliency_scores": [[4, 3, 2], [2, 2, 2]],
}
PREDICTION = {
    "qid": 1,
    "pred_relevant_windows": [[2, 8, 0.9]],
    "pred_saliency_scores": [0, 1, 0.5, 0, 0, 0, 0, 0, 0, 0],
}


def write(path: Path, *records: object) -> Path:
    path.write_text("".join(f"{json.dumps(record)}\n" for record in records), encoding="utf-8")
    return path


def score(tmp_path: Path, predictions: list[Any], annotations: list[Any], **options: Any) -> dict[str, Any]:
    files = write(tmp_path / "preds.jsonl", *predictions), write(tmp_path / "truth.jsonl", *annotations)
    return score_files([files[0]], files[1], **options).to_dict()


def failure(tmp_path: Path, predictions: list[Any], annotations: list[Any], **options: Any) -> str:
    with pytest.raises(VtgError) as caught:
        score(tmp_path, predictions, annotations, **options)
    message = str(caught.value)
    assert "\n" not in message
    return message


def assert_equal(scored: dict[str, Any], expected: dict[str, Any]) -> None:
    """Everything that is expected is there; the oldest published files have fewer thresholds."""
    for key, value in expected.items():
        if isinstance(value, dict):
            assert_equal(scored[key], value)
        elif key != "_gt":
            assert scored[key] == value, key


def test_synthetic_moments_and_highlights_score_as_the_published_evaluator_scores_them() -> None:
    report = score_files([DATA / "predictions.jsonl.gz"], DATA / "annotations.jsonl")
    assert_equal(report.to_dict(), json.loads((DATA / "expected.json").read_text(encoding="utf-8")))


@pytest.mark.parametrize(("dataset", "annotations"), [("youtube", "youtube_anno.json"), ("tvsum", "tvsum_val.jsonl")])
def test_synthetic_domains_score_as_the_published_evaluator_scores_them(dataset: str, annotations: str) -> None:
    scored = score_files([DATA / f"{dataset}_predictions.json"], DATA / annotations).to_dict()
    expected = json.loads((DATA / "expected_domains.json").read_text(encoding="utf-8"))[dataset]
    assert_equal(scored, expected)
    assert_equal(scored["brief"], expected)
    assert scored["brief"]["mAP"] == pytest.approx(np.mean(list(expected.values())), abs=1e-5)
    assert scored["dataset"] == dataset


@pytest.mark.parametrize("name", ["qvhighlights_val", "charades_test", "tacos_test"])
def test_reference_predictions_score_as_expected(shared: Path, name: str) -> None:
    expected = json.loads((shared / "eval" / "expected_metrics.json").read_text(encoding="utf-8"))[name]
    predictions = shared / "eval" / f"{name}_preds.jsonl.gz"
    scored = score_files([predictions], shared / "annotations" / expected["_gt"]).to_dict()
    assert_equal(scored, expected)
    assert scored["brief"].keys() == expected["brief"].keys()


@pytest.mark.parametrize(("dataset", "annotations"), [("youtube", "youtube_anno.json"), ("tvsum", "tvsum_val.jsonl")])
def test_reference_domains_score_as_expected(shared: Path, dataset: str, annotations: str) -> None:
    expected = json.loads((shared / "eval" / "expected_metrics.json").read_text(encoding="utf-8"))[dataset]
    truth = shared / "annotations" / dataset / annotations
    assert_equal(score_files([shared / "eval" / f"{dataset}_preds.json.gz"], truth).to_dict(), expected)


@pytest.mark.parametrize("expected", ["moment_detr_val_expected.json", "moment_detr_val_metrics.json"])
def test_published_predictions_score_as_published(shared: Path, expected: str) -> None:
    folder = shared / "eval" / "qvhighlights"
    truth = shared / "annotations" / "qvhighlights" / "highlight_val_release.jsonl"
    scored = score_files([folder / "moment_detr_val_preds.jsonl"], truth).to_dict()
    assert_equal(scored, json.loads((folder / expected).read_text(encoding="utf-8")))


def test_a_perfect_prediction_is_perfect(tmp_path: Path) -> None:
    brief = score(tmp_path, [PREDICTION], [MOMENTS])["brief"]
    assert brief["MR-full-R1@0.7"] == brief["MR-full-mAP"] == brief["HL-min-VeryGood-Hit1"] == 100.0


def test_queries_without_windows_are_left_out_and_noted(tmp_path: Path) -> None:
    negative = {**MOMENTS, "qid": 2, "relevant_windows": [], "relevant_clip_ids": [], "saliency_scores": []}
    scored = score(tmp_path, [PREDICTION, {**PREDICTION, "qid": 2}], [MOMENTS, negative])
    assert scored["brief"]["MR-full-R1@0.5"] == 100.0
    assert scored["notes"][0] == "1 of 2 queries have no windows and are left out of moment retrieval"
    assert "1 of 2 queries have no rated clips and are left out of highlight detection" in scored["notes"]


def test_an_empty_length_range_is_noted(tmp_path: Path) -> None:
    scored = score(tmp_path, [PREDICTION], [MOMENTS])
    assert "no query has a long window (longer than 30 s): its figures are the full ones" in scored["notes"]


def test_predictions_without_saliency_get_no_highlight_figures(tmp_path: Path) -> None:
    brief = score(tmp_path, [{"qid": 1, "pred_relevant_windows": [[2, 8, 0.9]]}], [MOMENTS])["brief"]
    assert not [name for name in brief if name.startswith("HL")]


def test_gzipped_files_are_read_whatever_their_name(tmp_path: Path) -> None:
    path = tmp_path / "preds.jsonl"
    path.write_bytes(gzip.compress(json.dumps(PREDICTION).encode()))
    assert score_files([path], write(tmp_path / "truth.jsonl", MOMENTS)).scores[0].brief["MR-full-mAP"] == 100.0


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"pred_relevant_windows": [[2, float("nan"), 0.9]]}, "query 1: pred_relevant_windows[0][1] is nan"),
        ({"pred_relevant_windows": [[2, 8, float("inf")]]}, "query 1: pred_relevant_windows[0][2] is inf"),
        ({"pred_relevant_windows": [[8, 2, 0.9]]}, "query 1: window [8, 2] ends before it starts"),
        ({"pred_relevant_windows": [[2, 8]]}, "query 1: pred_relevant_windows[0] has 2 numbers instead of 3"),
        ({"pred_relevant_windows": [[2, "8", 0.9]]}, "query 1: pred_relevant_windows[0][1] must be a number, not '8'"),
        (
            {"pred_relevant_windows": [[2, True, 0.9]]},
            "query 1: pred_relevant_windows[0][1] must be a number, not True",
        ),
        ({"pred_relevant_windows": []}, "query 1: pred_relevant_windows is empty"),
        (
            {"pred_relevant_windows": None},
            "query 1: pred_relevant_windows must be a list of lists of numbers, not None",
        ),
        ({"pred_relevant_windows": [3]}, "query 1: pred_relevant_windows[0] must be a list of numbers, not 3"),
        ({"pred_saliency_scores": []}, "query 1: pred_saliency_scores is empty"),
        ({"pred_saliency_scores": [0.1, None]}, "query 1: pred_saliency_scores[1] must be a number, not None"),
        ({"pred_saliency_scores": "high"}, "query 1: pred_saliency_scores must be a list of numbers, not 'high'"),
        ({"qid": 1.5}, "qid must be a whole number or a text, not 1.5"),
        ({"qid": True}, "qid must be a whole number or a text, not True"),
    ],
)
def test_a_wrong_prediction_is_reported_with_its_line_and_query(tmp_path: Path, changes: Any, message: str) -> None:
    found = failure(tmp_path, [{**PREDICTION, "qid": 7}, {**PREDICTION, **changes}], [MOMENTS])
    assert found.startswith(f"{tmp_path / 'preds.jsonl'}:2: ")
    assert message in found


def test_how_many_more_lines_are_wrong_is_said(tmp_path: Path) -> None:
    wrong = {"qid": 1, "pred_relevant_windows": []}
    assert failure(tmp_path, [wrong, {**wrong, "qid": 2}, {**wrong, "qid": 3}], [MOMENTS]).endswith(
        "(and 2 more invalid)"
    )


def test_a_query_predicted_twice_is_reported(tmp_path: Path) -> None:
    assert "preds.jsonl:2: query 1: predicted twice, first on line 1" in failure(tmp_path, [PREDICTION] * 2, [MOMENTS])


def test_a_missing_query_is_reported_with_the_line_of_its_annotation(tmp_path: Path) -> None:
    found = failure(tmp_path, [PREDICTION], [MOMENTS, {**MOMENTS, "qid": 2}])
    assert f"preds.jsonl: no prediction for query 2 of {tmp_path / 'truth.jsonl'}:2; predict every query" in found


def test_an_unknown_query_is_reported_with_its_line(tmp_path: Path) -> None:
    found = failure(tmp_path, [PREDICTION, {**PREDICTION, "qid": 99}], [MOMENTS])
    assert "preds.jsonl:2: query 99 is not in" in found


def test_ids_that_differ_only_in_type_are_explained(tmp_path: Path) -> None:
    assert "ids are a number, not text" in failure(tmp_path, [{**PREDICTION, "qid": "1"}], [MOMENTS])


def test_windows_for_some_queries_only_are_reported(tmp_path: Path) -> None:
    partial = {"qid": 2, "pred_saliency_scores": [1.0]}
    found = failure(tmp_path, [PREDICTION, partial], [MOMENTS, {**MOMENTS, "qid": 2}])
    assert "preds.jsonl:2: query 2 has no pred_relevant_windows, others have" in found


def test_a_reversed_true_window_is_reported_with_its_line(tmp_path: Path) -> None:
    found = failure(tmp_path, [PREDICTION], [{**MOMENTS, "relevant_windows": [[8, 2]]}])
    assert "truth.jsonl:1: query 1: the true window [8, 2] ends before it starts" in found


def test_annotations_without_truth_are_reported(tmp_path: Path) -> None:
    bare = {key: MOMENTS[key] for key in ("qid", "query", "duration", "vid")}
    assert "has no ground truth for these predictions" in failure(tmp_path, [PREDICTION], [bare])


def test_lines_that_are_not_json_are_reported(tmp_path: Path) -> None:
    truth = write(tmp_path / "truth.jsonl", MOMENTS)
    path = tmp_path / "preds.jsonl"
    path.write_text(f"{json.dumps(PREDICTION)}\n{{broken\n", encoding="utf-8")
    with pytest.raises(VtgError, match=r"preds\.jsonl:2: not valid JSON"):
        score_files([path], truth)


@pytest.mark.parametrize("content", [b"", b"\n\n"])
def test_an_empty_prediction_file_is_reported(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "preds.jsonl"
    path.write_bytes(content)
    with pytest.raises(VtgError, match="contains no predictions"):
        score_files([path], write(tmp_path / "truth.jsonl", MOMENTS))


@pytest.mark.parametrize(
    ("content", "reason"), [(b"\xff\xfe\x00\x01", "not a text file"), (b"\x1f\x8b\x08\x00\x01", "gzip")]
)
def test_a_file_that_is_not_text_is_reported(tmp_path: Path, content: bytes, reason: str) -> None:
    path = tmp_path / "preds.jsonl"
    path.write_bytes(content)
    with pytest.raises(VtgError, match=reason):
        score_files([path], write(tmp_path / "truth.jsonl", MOMENTS))


def test_files_that_are_not_there_and_unknown_data_sets_are_reported(tmp_path: Path) -> None:
    truth = write(tmp_path / "truth.jsonl", MOMENTS)
    with pytest.raises(VtgError, match="there is no such file"):
        score_files([tmp_path / "nothing.jsonl"], truth)
    with pytest.raises(VtgError, match="unknown data set 'qvh'"):
        score_files([write(tmp_path / "preds.jsonl", PREDICTION)], truth, dataset="qvh")
    with pytest.raises(VtgError, match="holds queries with windows, not of tvsum"):
        score_files([tmp_path / "preds.jsonl"], truth, dataset="tvsum")


def test_a_domain_without_predictions_is_noted_and_one_with_some_is_refused(tmp_path: Path) -> None:
    every = json.loads((DATA / "youtube_predictions.json").read_text(encoding="utf-8"))
    entries = json.loads((DATA / "youtube_anno.json").read_text(encoding="utf-8"))
    dogs = {video: scores for video, scores in every.items() if entries[video]["domain"] == "dog"}
    path = tmp_path / "dogs.json"
    path.write_text(json.dumps(dogs), encoding="utf-8")
    scored = score_files([path], DATA / "youtube_anno.json").to_dict()
    assert list(scored["brief"]) == ["mAP", "dog"]
    assert scored["notes"] == ["no predictions for the domains surfing: mAP is the mean over the others"]
    dogs.popitem()
    path.write_text(json.dumps(dogs), encoding="utf-8")
    with pytest.raises(VtgError, match="no prediction for query"):
        score_files([path], DATA / "youtube_anno.json")


@pytest.mark.parametrize("change", [-1, 1])
def test_a_saliency_of_the_wrong_length_is_reported_with_its_video(tmp_path: Path, change: int) -> None:
    predictions = json.loads((DATA / "youtube_predictions.json").read_text(encoding="utf-8"))
    video, scores = next(iter(predictions.items()))
    predictions[video] = scores[:-1] if change < 0 else [*scores, 0.5]
    path = tmp_path / "preds.json"
    path.write_text(json.dumps(predictions), encoding="utf-8")
    with pytest.raises(VtgError, match=f"video {video} has {len(scores) + change} scores for {len(scores)} clips"):
        score_files([path], DATA / "youtube_anno.json")


def several(tmp_path: Path, bootstrap: int | None = None) -> Any:
    """Three files: good, a little worse in one query of many, and bad."""
    generator = np.random.default_rng(0)
    truth, good, near, bad = [], [], [], []
    for qid in range(60):
        start = 2 * int(generator.integers(0, 20))
        truth.append({**MOMENTS, "qid": qid, "duration": 100, "relevant_windows": [[start, start + 20]]})
        hit = qid % 2 == 0
        window = [start, start + 20, 0.9] if hit else [start + 25, start + 30, 0.9]
        good.append({"qid": qid, "pred_relevant_windows": [window]})
        near.append({"qid": qid, "pred_relevant_windows": [[90, 95, 0.9] if qid == 0 else window]})
        bad.append({"qid": qid, "pred_relevant_windows": [[90, 95, 0.9]]})
    files = [
        write(tmp_path / f"{name}.jsonl", *lines) for name, lines in (("good", good), ("near", near), ("bad", bad))
    ]
    return score_files(files, write(tmp_path / "truth.jsonl", *truth), bootstrap=bootstrap)


def test_the_best_of_several_files_is_marked(tmp_path: Path) -> None:
    row = next(row for row in several(tmp_path).table() if row.figure == "MR-full-R1@0.5")
    assert [cell.text for cell in row.cells] == ["50.00", "48.33", "0.00"]
    assert [cell.is_best for cell in row.cells] == [True, False, False]


def test_the_only_file_is_not_marked_best(tmp_path: Path) -> None:
    report = score_files([write(tmp_path / "p.jsonl", PREDICTION)], write(tmp_path / "truth.jsonl", MOMENTS))
    assert not any(cell.is_best for row in report.table() for cell in row.cells)


def test_the_bootstrap_tells_noise_from_difference(tmp_path: Path) -> None:
    report = several(tmp_path, bootstrap=400)
    differences = {(d.first, d.second): d for d in report.differences if d.figure == "MR-full-R1@0.5"}
    assert differences["good.jsonl", "near.jsonl"].within_noise
    assert not differences["good.jsonl", "bad.jsonl"].within_noise
    assert differences["good.jsonl", "bad.jsonl"].value == -50.0
    row = next(row for row in report.table() if row.figure == "MR-full-R1@0.5")
    assert [cell.is_near for cell in row.cells] == [False, True, False]
    assert row.cells[0].text.startswith("50.00 [")


def test_intervals_hold_their_figure_and_repeat(tmp_path: Path) -> None:
    first, second = several(tmp_path, bootstrap=200), several(tmp_path, bootstrap=200)
    for scores in first.scores:
        for figure, (low, high) in scores.intervals.items():
            assert low <= scores.brief[figure] <= high
    assert first.to_dict() == second.to_dict()


def test_the_mean_over_domains_has_an_interval_of_its_own() -> None:
    report = score_files([DATA / "youtube_predictions.json"], DATA / "youtube_anno.json", bootstrap=300)
    low, high = report.scores[0].intervals["mAP"]
    assert low < report.scores[0].brief["mAP"] < high


def test_every_brief_figure_is_the_mean_of_its_queries() -> None:
    for predictions, truth in (
        ("predictions.jsonl.gz", "annotations.jsonl"),
        ("youtube_predictions.json", "youtube_anno.json"),
        ("tvsum_predictions.json", "tvsum_val.jsonl"),
    ):
        report = score_files([DATA / predictions], DATA / truth)
        scores = report.scores[0]
        for figure, value in scores.brief.items():
            assert np.nanmean(scores.per_query[figure]) == pytest.approx(value, abs=0.51 * 10.0**-report.decimals)


def test_files_that_predict_different_things_are_not_compared(tmp_path: Path) -> None:
    one = write(tmp_path / "one.jsonl", PREDICTION)
    other = write(tmp_path / "other.jsonl", {"qid": 1, "pred_relevant_windows": [[2, 8, 0.9]]})
    with pytest.raises(VtgError, match="score them separately"):
        score_files([one, other], write(tmp_path / "truth.jsonl", MOMENTS))


def test_files_of_the_same_name_are_told_apart(tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    (tmp_path / "b").mkdir()
    files = [write(tmp_path / folder / "preds.jsonl", PREDICTION) for folder in "ab"]
    names = [scores.name for scores in score_files(files, write(tmp_path / "truth.jsonl", MOMENTS)).scores]
    assert names == [str(path) for path in files]
    again = [scores.name for scores in score_files([files[0]] * 2, tmp_path / "truth.jsonl").scores]
    assert len(set(again)) == 2


@pytest.mark.parametrize("rounds", [0, -3])
def test_a_bootstrap_without_rounds_is_refused(tmp_path: Path, rounds: int) -> None:
    with pytest.raises(VtgError, match="at least 1 round"):
        score(tmp_path, [PREDICTION], [MOMENTS], bootstrap=rounds)


def is_picture(path: Path) -> bool:
    from PIL import Image

    with Image.open(path) as picture:
        return picture.format == "PNG" and np.asarray(picture.convert("L")).std() > 5


def test_plots_are_written(tmp_path: Path) -> None:
    report = score_files([DATA / "predictions.jsonl.gz"], DATA / "annotations.jsonl")
    files = plot(report, tmp_path / "new" / "plots")
    assert [path.name for path in files] == ["recall_by_iou.png", "recall_by_length.png", "worst_queries.png"]
    assert all(is_picture(path) for path in files)
    assert sorted(path.name for path in (tmp_path / "new" / "plots").iterdir()) == sorted(path.name for path in files)


def test_several_files_get_a_page_of_worst_queries_each(tmp_path: Path) -> None:
    files = plot(several(tmp_path), tmp_path / "plots")
    assert [path.name for path in files[2:]] == ["worst_queries_1.png", "worst_queries_2.png", "worst_queries_3.png"]


def test_domains_are_drawn_as_bars(tmp_path: Path) -> None:
    report = score_files([DATA / "tvsum_predictions.json"], DATA / "tvsum_val.jsonl")
    assert [path.name for path in plot(report, tmp_path)] == ["precision_by_domain.png"]


def test_a_query_that_looks_like_a_formula_is_drawn(tmp_path: Path) -> None:
    truth = write(tmp_path / "truth.jsonl", {**MOMENTS, "query": r"it costs $5 \frac{ and $"})
    assert plot(score_files([write(tmp_path / "p.jsonl", PREDICTION)], truth), tmp_path)


def test_predictions_without_windows_cannot_be_drawn(tmp_path: Path) -> None:
    path = write(tmp_path / "p.jsonl", {"qid": 1, "pred_saliency_scores": [1.0]})
    with pytest.raises(VtgError, match="no windows to draw"):
        plot(score_files([path], write(tmp_path / "truth.jsonl", MOMENTS)), tmp_path / "plots")


def test_a_plot_folder_that_cannot_be_made_is_reported(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("", encoding="utf-8")
    report = score_files([write(tmp_path / "p.jsonl", PREDICTION)], write(tmp_path / "truth.jsonl", MOMENTS))
    with pytest.raises(VtgError, match="cannot write the plots"):
        plot(report, tmp_path / "file" / "plots")
