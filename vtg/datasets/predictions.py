"""Read prediction files: JSON lines with windows and saliency per query, or saliency by video."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

import vtg.datasets.fields as fields
from vtg.datasets.fields import MalformedError
from vtg.datasets.files import json_document, json_records, read_text
from vtg.datasets.samples import QueryId
from vtg.errors import VtgError

__all__ = ["Prediction", "load_predictions"]


@dataclass(frozen=True, eq=False)
class Prediction:
    """Prediction of a model for one query.

    Attributes:
        query_id: as in the file; the video's id in files of saliency by video.
        windows: [N, 3] start s, end s and score, in the order of the file; None if the file has none.
        saliency: [clips] any scale; None if the file has none.
        line: line number in the file, from 1; 0 for a file without lines.
    """

    query_id: QueryId
    windows: NDArray[np.float64] | None = None
    saliency: NDArray[np.float64] | None = None
    line: int = 0


def load_predictions(path: Path) -> list[Prediction]:
    """Read the predictions of a file, plain or gzipped.

    Args:
        path: JSON lines with `qid` (or, where a video has one query, `vid`), `pred_relevant_windows` [[start, end,
            score], …] and `pred_saliency_scores` [clips], at least one of the two; or one JSON object of saliency by
            video id.

    Returns:
        In the order of the file.

    Raises:
        VtgError: the file cannot be read, or is invalid: with the first invalid line, its query, and the number of
            others.
    """
    path = Path(path)
    predictions: list[Prediction] = []
    reasons: list[tuple[int, str]] = []
    lines: dict[QueryId, int] = {}
    for line, record in _records(read_text(path)):
        if isinstance(record, str):
            reasons.append((line, record))
            continue
        try:
            prediction = _prediction(record, line)
        except MalformedError as error:
            reasons.append((line, str(error)))
            continue
        if prediction.query_id in lines:
            first = f", first on line {lines[prediction.query_id]}" if line else ""
            reasons.append((line, f"query {prediction.query_id}: predicted twice{first}"))
        lines.setdefault(prediction.query_id, line)
        predictions.append(prediction)
    if reasons:
        line, reason = reasons[0]
        more = f" (and {len(reasons) - 1} more invalid)" if len(reasons) > 1 else ""
        raise VtgError(f"{path}{f':{line}' if line else ''}: {reason}{more}")
    if not predictions:
        raise VtgError(f"{path}: contains no predictions; expected JSON lines with qid and pred_relevant_windows")
    return predictions


def _records(text: str) -> Iterator[tuple[int, Mapping[str, Any] | str]]:
    document = json_document(text)
    if document is None:
        yield from json_records(text)
        return
    for video_id, saliency in document.items():
        yield 0, {"vid": video_id, "pred_saliency_scores": saliency}


def _prediction(record: Mapping[str, Any], line: int) -> Prediction:
    query_id = fields.query_id(record, "qid", "vid")
    try:
        windows = _windows(record["pred_relevant_windows"]) if "pred_relevant_windows" in record else None
        saliency = None
        if "pred_saliency_scores" in record:
            saliency = fields.numbers(record["pred_saliency_scores"], "pred_saliency_scores")
            if not len(saliency):
                raise MalformedError("pred_saliency_scores is empty")
        if windows is None and saliency is None:
            raise MalformedError("neither pred_relevant_windows nor pred_saliency_scores")
    except MalformedError as error:
        raise MalformedError(f"query {query_id}: {error}") from None
    return Prediction(query_id, windows, saliency, line)


def _windows(rows: object) -> NDArray[np.float64]:
    windows = fields.table(rows, "pred_relevant_windows", columns=3)
    if not len(windows):
        raise MalformedError(
            "pred_relevant_windows is empty; every query needs at least one window, which may have a score of 0"
        )
    reversed_rows = np.flatnonzero(windows[:, 1] < windows[:, 0])
    if reversed_rows.size:
        start, end = windows[reversed_rows[0], :2]
        raise MalformedError(f"window [{start:g}, {end:g}] ends before it starts")
    return windows
