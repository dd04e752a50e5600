"""Read Charades-STA in its published format: lines `VIDEO START END##sentence`, and a CSV file of video lengths."""

from __future__ import annotations

import csv
import io
import re
from pathlib import Path

import numpy as np

from vtg.datasets.fields import MalformedError
from vtg.datasets.files import lines_of, read_text
from vtg.datasets.samples import Problem, Sample
from vtg.errors import VtgError
from vtg.files.text import short_repr

__all__ = ["TRAINING_QUERIES", "charades_samples", "find_durations", "looks_like_charades"]

TRAINING_QUERIES = 12404  # first query id of the test file, as in the JSON lines and the published features

_LINE = re.compile(r"(?P<video>\S+)\s+(?P<start>\S+)\s+(?P<end>\S+?)\s*##(?P<query>.*)")
_ID_COLUMNS = ("id", "vid", "video_id", "video")
_LENGTH_COLUMNS = ("length", "duration", "seconds")


def looks_like_charades(text: str) -> bool:
    """Whether the first line has the published format."""
    _, line = next(lines_of(text), (0, ""))
    return _LINE.fullmatch(line) is not None


def charades_samples(path: Path, text: str) -> tuple[list[Sample], list[Problem]]:
    """Read samples from the published text lines.

    Query ids count the lines from 0 in a training file and from `TRAINING_QUERIES` in a file with "test" in its name.
    Windows are clipped to the video, as in the JSON lines.

    Raises:
        VtgError: there is no CSV file of video lengths beside the file, or it is damaged.
    """
    lengths = find_durations(path)
    try:
        durations = _durations(read_text(lengths))
    except csv.Error as error:
        raise VtgError(f"{lengths}: not a CSV file that can be read ({error}); get it again") from None
    first_id = TRAINING_QUERIES if "test" in path.name.lower() else 0
    samples: list[Sample] = []
    problems: list[Problem] = []
    for place, (line, content) in enumerate(lines_of(text)):
        try:
            samples.append(_sample(content, line, first_id + place, durations))
        except MalformedError as error:
            problems.append(Problem(path, line, f"query {first_id + place}: {error}"))
    return samples, problems


def find_durations(path: Path) -> Path:
    """Find the CSV file of video lengths beside the text lines: `Charades_v1_{train,test}.csv` or similar.

    Raises:
        VtgError: there is none.
    """
    part = "test" if "test" in path.name.lower() else "train"
    candidates = sorted(
        path.parent.glob("*.csv"), key=lambda csv_path: (part not in csv_path.name.lower(), csv_path.name)
    )
    for candidate in candidates:
        try:
            if _columns(read_text(candidate)) is not None:
                return candidate
        except csv.Error as error:
            raise VtgError(f"{candidate}: not a CSV file that can be read ({error}); get it again") from None
    raise VtgError(
        f"{path}: the text lines of Charades-STA lack the videos' lengths; put Charades_v1_{part}.csv "
        "(columns id and length) beside it"
    )


def _sample(content: str, line: int, query_id: int, durations: dict[str, float]) -> Sample:
    match = _LINE.fullmatch(content)
    if match is None:
        raise MalformedError(f"expected VIDEO START END##sentence, found {short_repr(content)}")
    video_id, query = match["video"], match["query"].strip()
    if not query:
        raise MalformedError("no sentence after ##")
    try:
        window = np.array([[float(match["start"]), float(match["end"])]])
    except ValueError:
        raise MalformedError(f"start and end must be numbers, not {match['start']} and {match['end']}") from None
    if not np.isfinite(window).all():
        raise MalformedError(f"start and end must be finite, not {match['start']} and {match['end']}")
    if video_id not in durations:
        raise MalformedError(f"the CSV file has no length for the video {video_id}")
    duration = durations[video_id]
    return Sample(video_id, query_id, query, duration, windows=np.minimum(window, duration), line=line)


def _durations(text: str) -> dict[str, float]:
    id_column, length_column = _columns(text) or ("", "")
    durations = {}
    for row in csv.DictReader(io.StringIO(text)):
        try:
            duration = float(row[length_column])
        except (TypeError, ValueError):
            continue
        if 0 < duration < float("inf"):
            durations[row[id_column]] = duration
    return durations


def _columns(text: str) -> tuple[str, str] | None:
    header = csv.DictReader(io.StringIO(text)).fieldnames or []
    by_name = {name.strip().lower(): name for name in header if name}
    id_column = next((by_name[name] for name in _ID_COLUMNS if name in by_name), None)
    length_column = next((by_name[name] for name in _LENGTH_COLUMNS if name in by_name), None)
    return (id_column, length_column) if id_column and length_column else None
