"""A QVHighlights submission: what the server would refuse is found before it is packed."""

from __future__ import annotations

import json
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tools.make_submission import pack
from vtg.errors import VtgError

QUERIES = {"val": [1, 2], "test": [3]}


def prediction(qid: int, /, **changes: Any) -> dict[str, Any]:
    windows, saliency = [[0, 10, 0.9], [140, 150, 0.1]], [0.5] * 75
    fields = {
        "qid": qid,
        "query": "a dog",
        "vid": "v",
        "pred_relevant_windows": windows,
        "pred_saliency_scores": saliency,
    }
    return {**fields, **changes}


def write(path: Path, lines: list[dict[str, Any]]) -> Path:
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    return path


@pytest.fixture
def files(tmp_path: Path) -> Callable[..., dict[str, Path]]:
    for part, qids in QUERIES.items():
        lines = [{"qid": qid, "query": "a dog", "vid": "v", "duration": 150} for qid in qids]
        write(tmp_path / f"highlight_{part}_release.jsonl", lines)

    def make(**changes: Any) -> dict[str, Path]:
        return {
            "val": write(tmp_path / "val.jsonl", [prediction(1), prediction(2, **changes)]),
            "test": write(tmp_path / "test.jsonl", [prediction(3)]),
        }

    return make


def test_both_parts_are_packed_under_the_servers_names(files: Callable[..., dict[str, Path]], tmp_path: Path) -> None:
    pack(files(), tmp_path, tmp_path / "out.zip")
    with zipfile.ZipFile(tmp_path / "out.zip") as archive:
        assert sorted(archive.namelist()) == ["hl_test_submission.jsonl", "hl_val_submission.jsonl"]
        lines = archive.read("hl_val_submission.jsonl").decode().splitlines()
    assert [json.loads(line)["qid"] for line in lines] == [1, 2]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"qid": 9}, "no prediction for query 2"),
        ({"pred_relevant_windows": [[0, 190, 1]]}, "outside its video"),
        ({"pred_saliency_scores": [0.5] * 40}, "40 saliency scores for 75"),
    ],
)
def test_what_the_server_would_refuse_is_not_packed(
    files: Callable[..., dict[str, Path]], tmp_path: Path, changes: dict[str, Any], message: str
) -> None:
    with pytest.raises(VtgError, match=message):
        pack(files(**changes), tmp_path, tmp_path / "out.zip")
    assert not list(tmp_path.glob("out.zip*"))


def test_missing_annotations_are_named(files: Callable[..., dict[str, Path]], tmp_path: Path) -> None:
    with pytest.raises(VtgError, match="has none of qvhighlights_val"):
        pack(files(), tmp_path / "none", tmp_path / "out.zip")
