"""Export results for editors and spreadsheets: EDL, OpenTimelineIO, captions, CSV and JSON."""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import quote

from vtg.errors import VtgError
from vtg.files.text import caption_line, csv_text, json_text, one_line, table_cell
from vtg.library.hits import Hit
from vtg.summary.exports import write_text
from vtg.timespans import DROP_RATES, TimecodeCount, format_time
from vtg.video import VideoInfo, probe
from vtg.video.subtitles import sequential_captions

__all__ = ["EXPORTS", "check_export", "export_hits", "results_document"]

# Frame rates that timelines can have, each with the nominal rate that its timecodes count in.
TIMELINE_RATES = {24000 / 1001: 24, 24.0: 24, 25.0: 25, 30000 / 1001: 30, 30.0: 30, 48.0: 48, 50.0: 50}
TIMELINE_RATES |= {60000 / 1001: 60, 60.0: 60}
RATE_TOLERANCE = 0.004  # frames a second between a file's measured and its nominal rate
FALLBACK_RATE = 30.0  # frames a second of the timeline for videos of other rates
MAX_EDL_EVENTS = 999  # event numbers have three digits


@dataclass(frozen=True)
class _Source:
    """A source video of a timeline.

    Attributes:
        info: from `probe`.
        count: its own timecode; starts at 00:00:00:00 if the file has none.
        start: number of its first frame in that timecode.
    """

    info: VideoInfo
    count: TimecodeCount
    start: int

    @classmethod
    def of(cls, path: str) -> _Source:
        info = probe(path)
        # Timecodes count in the nearest whole frame rate: 24 for 23.976 frames a second.
        nominal = max(1, round(info.fps))
        is_slower = abs(info.fps - nominal / 1.001) < abs(info.fps - nominal)
        count = TimecodeCount(nominal, ";" in (info.timecode or "") and is_slower and nominal in DROP_RATES)
        return cls(info, count, 0 if info.timecode is None else count.parse(info.timecode))

    @property
    def rate(self) -> float:
        """Frame rate of a timeline of this video alone."""
        return _timeline_rate(self.info.fps)

    def count_at(self, rate: float) -> TimecodeCount:
        """The timecode of this video on a timeline of a frame rate."""
        is_own = rate == self.rate and TIMELINE_RATES[rate] == self.count.nominal
        return self.count if is_own else TimecodeCount(TIMELINE_RATES[rate])

    def frame(self, seconds: float, rate: float) -> int:
        """Number of the frame at a time, counted from the source's start timecode, at a timeline's frame rate.

        If the video's own rate differs, hours, minutes and seconds of its timecode are kept, as editors use them to
        find the source, and only the frames are converted.
        """
        if self.count_at(rate) is self.count:
            return self.start + round(seconds * rate)
        source_seconds = self.count.seconds(self.start + round(seconds * self.info.fps))
        return round(source_seconds * TIMELINE_RATES[rate])


@dataclass(frozen=True)
class _Event:
    """A moment on the timeline.

    Attributes:
        hit: the moment.
        source: its video.
        rate: frame rate of the timeline.
        first: number of its first frame, counted from the first frame of the video.
        frames: number of its frames, at least one.
        available: number of frames of the whole video.
    """

    hit: Hit
    source: _Source
    rate: float
    first: int
    frames: int
    available: int

    @property
    def name(self) -> str:
        """The name of the file, on one line."""
        return one_line(Path(self.hit.video).name)

    @property
    def title(self) -> str:
        """The name of the file with the start and end of the moment."""
        moment = self.hit.moment
        return f"{self.name} {format_time(moment.start)}-{format_time(moment.end)}"


def check_export(path: Path, force: bool) -> None:
    """Check, before a search, that results can be written to a file.

    Args:
        path: the file.
        force: whether an existing file may be replaced.

    Raises:
        VtgError: the format is unknown, or the file exists.
    """
    if path.suffix.lower() not in EXPORTS:
        raise VtgError(f"{path}: results are written as {', '.join(EXPORTS)}; name a file that ends in one of these")
    if path.exists() and not force:
        raise VtgError(f"{path}: is there already; name another file, or replace it with --force")


def export_hits(path: Path, query: str, hits: Sequence[Hit]) -> None:
    """Write results in the format of the file's suffix, atomically.

    ``.json`` and ``.csv`` hold times in each video. ``.edl`` (CMX 3600) and ``.otio`` (OpenTimelineIO) are timelines
    of the moments in order, best first, and ``.srt`` has captions for that timeline. Source times count from the start
    timecode of each file, drop-frame if it is. Names are written on one line, and texts in a ``.csv`` that a
    spreadsheet would run as a formula get an apostrophe in front.

    Args:
        path: the file.
        query: the query.
        hits: the results.

    Raises:
        VtgError: the format is unknown.
        VideoError: a video cannot be read any more.
    """
    form = EXPORTS.get(path.suffix.lower())
    if form is None:
        check_export(path, force=True)
    else:
        write_text(path, form(query, hits))


def results_document(query: str, hits: Sequence[Hit], shown: Callable[[str], str] = str) -> dict[str, Any]:
    """The JSON document of results: query, results (video, start, end, score; said if the transcript was searched).

    Args:
        query: the query.
        hits: the results.
        shown: converts the path of a video to the text that is written.
    """
    results = [
        {
            "video": shown(hit.video),
            "start": hit.moment.start,
            "end": hit.moment.end,
            "score": hit.moment.score,
            **({"said": hit.said} if hit.said else {}),
        }
        for hit in hits
    ]
    return {"query": query, "results": results}


def _json(query: str, hits: Sequence[Hit], shown: Callable[[str], str] = str) -> str:
    return json_text(results_document(query, hits, shown))


def _csv(query: str, hits: Sequence[Hit], shown: Callable[[str], str] = str) -> str:
    rows = [("query", "video", "start", "end", "score", "said")]
    for hit in hits:
        moment = hit.moment
        numbers = f"{moment.start:.3f}", f"{moment.end:.3f}", f"{moment.score:.4f}"
        rows.append((table_cell(query), table_cell(shown(hit.video)), *numbers, table_cell(hit.said)))
    return csv_text(rows)


def _srt(query: str, hits: Sequence[Hit], shown: Callable[[str], str] = str) -> str:
    return sequential_captions(
        (event.frames / event.rate, f"{caption_line(event.title)}\n{caption_line(event.hit.said or query)}")
        for event in _events(hits)
    )


def _edl(query: str, hits: Sequence[Hit], shown: Callable[[str], str] = str) -> str:
    events = _events(hits, same_rate=True)
    if len(events) > MAX_EDL_EVENTS:
        raise VtgError(f"an EDL has {MAX_EDL_EVENTS} events at most, not {len(events)}; ask for fewer with --limit")
    # An EDL has one rate, and its record timecode is drop-frame if that of its first source is. Source timecodes show
    # by their separator which kind they are, as both may occur.
    rate = events[0].rate if events else FALLBACK_RATE
    record = events[0].source.count_at(rate) if events else TimecodeCount(TIMELINE_RATES[rate])
    lines = [f"TITLE: {one_line(query)}", f"FCM: {'DROP' if record.drop else 'NON-DROP'} FRAME", ""]
    position = 0
    for number, event in enumerate(events, 1):
        count = event.source.count_at(rate)
        begin = event.source.frame(event.first / rate, rate) % count.day  # timecodes wrap after a day
        codes = [count.format(frame) for frame in (begin, begin + event.frames)]
        codes += [record.format(frame) for frame in (position, position + event.frames)]
        lines.append(f"{number:03d}  AX       V     C        {' '.join(codes)}")
        lines.append(f"* FROM CLIP NAME: {event.name}")
        lines.append(f"* SOURCE FILE: {one_line(shown(event.hit.video))}")
        lines.append(f"* COMMENT: SCORE {event.hit.moment.score:.4f}, {rate:.6g} FRAMES A SECOND")
        lines.append("")
        position += event.frames
    return "\n".join(lines)


def _otio(query: str, hits: Sequence[Hit], shown: Callable[[str], str] = str) -> str:
    clips = [
        {
            "OTIO_SCHEMA": "Clip.1",
            "name": event.title,
            "metadata": {"vtg": {"query": query, "score": event.hit.moment.score, "said": event.hit.said}},
            "source_range": _range(event.source.frame(0.0, event.rate) + event.first, event.frames, event.rate),
            "media_reference": {
                "OTIO_SCHEMA": "ExternalReference.1",
                "target_url": _url(shown(event.hit.video)),
                "available_range": _range(event.source.frame(0.0, event.rate), event.available, event.rate),
                "metadata": {},
            },
        }
        for event in _events(hits)
    ]
    track = {"OTIO_SCHEMA": "Track.1", "name": "moments", "kind": "Video", "children": clips, "metadata": {}}
    stack = {"OTIO_SCHEMA": "Stack.1", "name": "tracks", "children": [track], "metadata": {}}
    timeline = {"OTIO_SCHEMA": "Timeline.1", "name": one_line(query), "tracks": stack, "metadata": {}}
    return json_text(timeline)


def _url(path: str) -> str:
    """The URL of a file; a relative path is relative to the timeline."""
    return Path(path).as_uri() if Path(path).is_absolute() else quote(os.fsencode(path))


def _range(first: int, frames: int, rate: float) -> dict[str, Any]:
    start, duration = ({"OTIO_SCHEMA": "RationalTime.1", "value": value, "rate": rate} for value in (first, frames))
    return {"OTIO_SCHEMA": "TimeRange.1", "start_time": start, "duration": duration}


def _events(hits: Sequence[Hit], same_rate: bool = False) -> list[_Event]:
    """Moments in whole frames at their videos' rates, or all at the first video's, as an EDL has a single rate."""
    sources = {path: _Source.of(path) for path in dict.fromkeys(hit.video for hit in hits)}
    events = []
    for hit in hits:
        source = sources[hit.video]
        rate = sources[hits[0].video].rate if same_rate else source.rate
        available = max(1, math.floor(source.info.duration * rate + 1e-6))
        first = min(round(hit.moment.start * rate), available - 1)
        frames = max(1, min(round(hit.moment.end * rate), available) - first)
        events.append(_Event(hit, source, rate, first, frames, available))
    return events


def _timeline_rate(fps: float) -> float:
    return next((rate for rate in TIMELINE_RATES if abs(rate - fps) <= RATE_TOLERANCE), FALLBACK_RATE)


EXPORTS: Mapping[str, Any] = {".json": _json, ".csv": _csv, ".srt": _srt, ".edl": _edl, ".otio": _otio}
