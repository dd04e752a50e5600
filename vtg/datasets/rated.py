"""Read the videos with rated clips of YouTube Highlights and TVSum."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

import vtg.datasets.fields as fields
from vtg.datasets.fields import MalformedError
from vtg.datasets.moments import CLIP_SECONDS, clip_grid
from vtg.datasets.samples import Sample
from vtg.datasets.splits import domain_of
from vtg.files.text import short_repr

__all__ = ["rated_dataset", "tvsum_sample", "youtube_sample"]

_TVSUM_RATERS = 20
_TVSUM_MIN, _TVSUM_MAX = 1.0, 5.0
_TITLE_INDEX = 5  # of a video's title in `info` of YouTube Highlights


def rated_dataset(record: Mapping[str, Any]) -> str | None:
    """The data set of an entry, detected by its fields: "youtube", "tvsum", or None for neither."""
    if "match" in record:
        return "youtube"
    ratings = record.get("anno", record.get("label"))
    if not isinstance(ratings, list) or not ratings or not isinstance(ratings[0], list):
        return None
    return "youtube" if len(ratings[0]) == 1 else "tvsum"


def tvsum_sample(record: Mapping[str, Any], line: int, video_id: str | None = None) -> Sample:
    """Read one TVSum video.

    Args:
        record: `anno` or `label`, [clips][20] marks of 1…5 for clips of two seconds; `title` or `query`; in JSON lines
            `vid`. The duration is that of the clips: the `duration` of the JSON lines counts clips, not seconds.
        line: its line number.
        video_id: the key of the entry in a JSON document.

    Raises:
        MalformedError: a field is missing or wrong.
    """
    video_id = fields.text(record, "vid") if video_id is None else video_id
    try:
        name = "anno" if "anno" in record else "label"
        ratings = fields.table(record.get(name), name, columns=_TVSUM_RATERS)
        if not len(ratings):
            raise MalformedError(f"{name} is empty")
        wrong = ratings[(ratings < _TVSUM_MIN) | (ratings > _TVSUM_MAX)]
        if wrong.size:
            raise MalformedError(f"a rating of {wrong[0]:g}; marks go from 1 to 5")
        saliency = (ratings.mean(axis=1) - _TVSUM_MIN) / (_TVSUM_MAX - _TVSUM_MIN)
        domain, split = domain_of("tvsum", video_id)
        return Sample(
            video_id=video_id,
            query_id=video_id,
            query=fields.text(record, "title", "query"),
            duration=CLIP_SECONDS * len(ratings),
            ratings=ratings,
            saliency=saliency,
            clips=clip_grid(len(ratings)),
            domain=domain or record.get("domain"),
            split=split,
            line=line,
        )
    except MalformedError as error:
        raise MalformedError(f"video {video_id}: {error}") from None


def youtube_sample(record: Mapping[str, Any], line: int, video_id: str | None = None) -> Sample:
    """Read one YouTube Highlights video.

    Args:
        record: `match`, [clips] of -1, 0 or 1 (JSON lines may have `label`, [clips][1] of 0 or 1, instead); `clip`,
            [clips][2] first and last frame; `fps` and `frames`; the title in `info`, or a `query`; in JSON lines `vid`.
        line: its line number.
        video_id: the key of the entry in a JSON document.

    Raises:
        MalformedError: a field is missing or wrong.
    """
    video_id = fields.text(record, "vid") if video_id is None else video_id
    try:
        match = _match(record)
        clips = _clips(record, len(match))
        domain, split = domain_of("youtube", video_id)
        return Sample(
            video_id=video_id,
            query_id=video_id,
            query=_title(record),
            duration=_duration(record, clips),
            ratings=match[:, None],
            saliency=(match + 1) / 2,
            clips=clips,
            domain=domain or record.get("domain"),
            split=split,
            line=line,
        )
    except MalformedError as error:
        raise MalformedError(f"video {video_id}: {error}") from None


def _match(record: Mapping[str, Any]) -> NDArray[np.float64]:
    if "match" in record:
        match = fields.numbers(record["match"], "match")
    else:
        # The JSON lines contain only whether a clip matches.
        match = 2 * fields.table(record.get("label"), "label", columns=1)[:, 0] - 1
    if not len(match):
        raise MalformedError("no annotated clip")
    wrong = match[~np.isin(match, (-1, 0, 1))]
    if wrong.size:
        raise MalformedError(f"a match of {wrong[0]:g}; it is -1, 0 or 1")
    return match


def _clips(record: Mapping[str, Any], count: int) -> NDArray[np.float64] | None:
    """[count, 2] the clips in seconds; None if the file does not contain their positions."""
    if "clip" not in record:
        return None
    clips = fields.table(record["clip"], "clip", columns=2)
    if len(clips) != count:
        raise MalformedError(f"{len(clips)} clips but {count} annotations")
    return np.asarray(clips / _positive(record, "fps"))


def _duration(record: Mapping[str, Any], clips: NDArray[np.float64] | None) -> float:
    if "frames" in record and "fps" in record:
        return _positive(record, "frames") / _positive(record, "fps")
    if clips is not None:
        return float(clips[-1, 1])
    return fields.number(record.get("duration"), "duration")


def _positive(record: Mapping[str, Any], name: str) -> float:
    value = record.get(name)
    if isinstance(value, str):  # the published file has the number of frames as a string
        try:
            value = float(value)
        except ValueError:
            raise MalformedError(f"{name} must be a number, not {short_repr(value)}") from None
    value = fields.number(value, name)
    if value <= 0:
        raise MalformedError(f"{name} must be above 0, not {value:g}")
    return value


def _title(record: Mapping[str, Any]) -> str:
    info = record.get("info")
    if (
        isinstance(info, list)
        and len(info) > _TITLE_INDEX
        and isinstance(info[_TITLE_INDEX], str)
        and info[_TITLE_INDEX].strip()
    ):
        return str(info[_TITLE_INDEX])
    return fields.text(record, "title", "query", "domain")
