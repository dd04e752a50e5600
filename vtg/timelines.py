"""Results in the forms that editors and tables open: the only module that knows EDL, OpenTimelineIO and timecodes."""

from __future__ import annotations

import csv
import io
import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from vtg.errors import VtgError
from vtg.hits import Hit
from vtg.subtitles import captions_in_turn
from vtg.summary.exports import write_text
from vtg.timecode import format_time
from vtg.video import probe

__all__ = ["EXPORTS", "check_export", "export_hits", "results_document"]

# Frames a second that timelines can have; timecodes count in the whole number beside each.
TIMELINE_RATES = {24000 / 1001: 24, 24.0: 24, 25.0: 25, 30000 / 1001: 30, 30.0: 30, 48.0: 48, 50.0: 50}
TIMELINE_RATES |= {60000 / 1001: 60, 60.0: 60}
RATE_TOLERANCE = 0.004  # frames a second between what a file has and what it is meant to have
OTHER_RATE = 30.0  # of the timeline, where a video has none of these
MOST_EVENTS = 999  # that an EDL can number


@dataclass(frozen=True)
class _Event:
    """A moment on the timeline.

    Attributes:
        hit: the moment.
        rate: frames a second of the timeline that it is counted in.
        first: its first frame, in the video.
        frames: how many it has, at least one.
        available: frames of the whole video.
    """

    hit: Hit
    rate: float
    first: int
    frames: int
    available: int

    @property
    def title(self) -> str:
        """The name of the file, and where in it the moment is."""
        moment = self.hit.moment
        return f"{Path(self.hit.video).name} {format_time(moment.start)}-{format_time(moment.end)}"


def check_export(path: Path, force: bool) -> None:
    """Refuse a file that results cannot be written to, before they are looked for.

    Raises:
        VtgError: of a kind that is not known, or it is there already.
    """
    if path.suffix.lower() not in EXPORTS:
        raise VtgError(f"{path}: results are written as {', '.join(EXPORTS)}; name a file that ends in one of these")
    if path.exists() and not force:
        raise VtgError(f"{path}: is there already; name another file, or replace it with --force")


def export_hits(path: Path, query: str, hits: Sequence[Hit]) -> None:
    """Write results as the file's ending says; it appears whole or not at all.

    ``.json`` and ``.csv`` hold times in each video. ``.edl`` (CMX 3600), ``.otio`` (OpenTimelineIO) and ``.srt`` are a
    timeline on which the moments follow each other, best first: two forms of the cut, and its captions.

    Args:
        path: the file.
        query: what was asked.
        hits: the results.

    Raises:
        VtgError: of a kind that is not known.
        VideoError: a video cannot be read any more, so that nobody knows its frames.
    """
    form = EXPORTS.get(path.suffix.lower())
    if form is None:
        check_export(path, force=True)
    else:
        write_text(path, form(query, hits))


def results_document(query: str, hits: Sequence[Hit]) -> dict[str, Any]:
    """Results as JSON knows them: query, results (video, start, end, score; said where words were asked for)."""
    results = [
        {
            "video": hit.video,
            "start": hit.moment.start,
            "end": hit.moment.end,
            "score": hit.moment.score,
            **({"said": hit.said} if hit.said else {}),
        }
        for hit in hits
    ]
    return {"query": query, "results": results}


def _json(query: str, hits: Sequence[Hit]) -> str:
    return json.dumps(results_document(query, hits), ensure_ascii=False, indent=1) + "\n"


def _csv(query: str, hits: Sequence[Hit]) -> str:
    text = io.StringIO()
    table = csv.writer(text, lineterminator="\n")
    table.writerow(("query", "video", "start", "end", "score", "said"))
    for hit in hits:
        moment = hit.moment
        table.writerow((query, hit.video, f"{moment.start:.3f}", f"{moment.end:.3f}", f"{moment.score:.4f}", hit.said))
    return text.getvalue()


def _srt(query: str, hits: Sequence[Hit]) -> str:
    return captions_in_turn(
        (event.frames / event.rate, f"{event.title}\n{_one_line(event.hit.said or query)}") for event in _events(hits)
    )


def _edl(query: str, hits: Sequence[Hit]) -> str:
    events = _events(hits, same_rate=True)
    if len(events) > MOST_EVENTS:
        raise VtgError(f"an EDL has {MOST_EVENTS} events at most, not {len(events)}; ask for fewer with --limit")
    rate = events[0].rate if events else OTHER_RATE
    lines = [f"TITLE: {_one_line(query)}", "FCM: NON-DROP FRAME", ""]
    position = 0
    for number, event in enumerate(events, 1):
        times = (event.first, event.first + event.frames, position, position + event.frames)
        codes = " ".join(_timecode(frame, TIMELINE_RATES[rate]) for frame in times)
        lines.append(f"{number:03d}  AX       V     C        {codes}")
        lines.append(f"* FROM CLIP NAME: {Path(event.hit.video).name}")
        lines.append(f"* SOURCE FILE: {event.hit.video}")
        lines.append(f"* COMMENT: SCORE {event.hit.moment.score:.4f}, {rate:.6g} FRAMES A SECOND")
        lines.append("")
        position += event.frames
    return "\n".join(lines)


def _timecode(frame: int, frames_a_second: int) -> str:
    seconds, frame = divmod(frame, frames_a_second)
    return f"{seconds // 3600:02d}:{seconds // 60 % 60:02d}:{seconds % 60:02d}:{frame:02d}"


def _one_line(text: str) -> str:
    return " ".join(text.split())


def _otio(query: str, hits: Sequence[Hit]) -> str:
    clips = [
        {
            "OTIO_SCHEMA": "Clip.1",
            "name": event.title,
            "metadata": {"vtg": {"query": query, "score": event.hit.moment.score, "said": event.hit.said}},
            "source_range": _range(event.first, event.frames, event.rate),
            "media_reference": {
                "OTIO_SCHEMA": "ExternalReference.1",
                "target_url": Path(event.hit.video).as_uri(),
                "available_range": _range(0, event.available, event.rate),
                "metadata": {},
            },
        }
        for event in _events(hits)
    ]
    track = {"OTIO_SCHEMA": "Track.1", "name": "moments", "kind": "Video", "children": clips, "metadata": {}}
    stack = {"OTIO_SCHEMA": "Stack.1", "name": "tracks", "children": [track], "metadata": {}}
    timeline = {"OTIO_SCHEMA": "Timeline.1", "name": _one_line(query), "tracks": stack, "metadata": {}}
    return json.dumps(timeline, ensure_ascii=False, indent=1) + "\n"


def _range(first: int, frames: int, rate: float) -> dict[str, Any]:
    start, duration = ({"OTIO_SCHEMA": "RationalTime.1", "value": value, "rate": rate} for value in (first, frames))
    return {"OTIO_SCHEMA": "TimeRange.1", "start_time": start, "duration": duration}


def _events(hits: Sequence[Hit], same_rate: bool = False) -> list[_Event]:
    """Moments as whole frames of their videos' rates, or all of the first one's, for an EDL has a single rate."""
    videos = {path: probe(path) for path in dict.fromkeys(hit.video for hit in hits)}
    rates = {path: _timeline_rate(info.fps) for path, info in videos.items()}
    events = []
    for hit in hits:
        rate = rates[hits[0].video if same_rate else hit.video]
        available = max(1, math.floor(videos[hit.video].duration * rate + 1e-6))
        first = min(round(hit.moment.start * rate), available - 1)
        frames = max(1, min(round(hit.moment.end * rate), available) - first)
        events.append(_Event(hit, rate, first, frames, available))
    return events


def _timeline_rate(fps: float) -> float:
    nearest = min(TIMELINE_RATES, key=lambda rate: abs(rate - fps))
    return nearest if abs(nearest - fps) <= RATE_TOLERANCE else OTHER_RATE


EXPORTS: Mapping[str, Any] = {".json": _json, ".csv": _csv, ".srt": _srt, ".edl": _edl, ".otio": _otio}
