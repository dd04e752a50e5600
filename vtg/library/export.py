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
from vtg.library.hits import Hit
from vtg.summary.exports import write_text
from vtg.text import caption_line, csv_text, json_text, one_line, table_cell
from vtg.timespans import DROP_RATES, TimecodeCount, format_time
from vtg.video import VideoInfo, probe
from vtg.video.subtitles import sequential_captions

__all__ = ["EXPORTS", "check_export", "export_hits", "results_document"]

# Frames a second that timelines can have; timecodes count in the whole number beside each.
TIMELINE_RATES = {24000 / 1001: 24, 24.0: 24, 25.0: 25, 30000 / 1001: 30, 30.0: 30, 48.0: 48, 50.0: 50}
TIMELINE_RATES |= {60000 / 1001: 60, 60.0: 60}
RATE_TOLERANCE = 0.004  # frames a second between what a file has and what it is meant to have
OTHER_RATE = 30.0  # of the timeline, where a video has none of these
MOST_EVENTS = 999  # that an EDL can number


@dataclass(frozen=True)
class _Source:
    """A video as a timeline counts it.

    Attributes:
        info: what the file says.
        count: how its own timecode numbers pictures; from 00:00:00:00 on where it has none.
        start: number of its first picture in that count.
    """

    info: VideoInfo
    count: TimecodeCount
    start: int

    @classmethod
    def of(cls, path: str) -> _Source:
        info = probe(path)
        # A timecode counts in the whole number next to the rate of its pictures: 24 for 23.976 frames a second.
        nominal = max(1, round(info.fps))
        is_slower = abs(info.fps - nominal / 1.001) < abs(info.fps - nominal)
        count = TimecodeCount(nominal, ";" in (info.timecode or "") and is_slower and nominal in DROP_RATES)
        return cls(info, count, 0 if info.timecode is None else count.parse(info.timecode))

    @property
    def rate(self) -> float:
        """Frames a second of a timeline of its own."""
        return _timeline_rate(self.info.fps)

    def count_at(self, rate: float) -> TimecodeCount:
        """How timecodes of this video are written on a timeline of a rate."""
        is_own = rate == self.rate and TIMELINE_RATES[rate] == self.count.nominal
        return self.count if is_own else TimecodeCount(TIMELINE_RATES[rate])

    def frame(self, seconds: float, rate: float) -> int:
        """Number of the picture at a time, from the source's start timecode on, in the frames of a timeline.

        A video of another rate has timecodes that count in its own one, and readers of a timeline look for hours,
        minutes and seconds as the video says them: so these are kept, and only the frames are converted.
        """
        if self.count_at(rate) is self.count:
            return self.start + round(seconds * rate)
        said = self.count.seconds(self.start + round(seconds * self.info.fps))
        return round(said * TIMELINE_RATES[rate])


@dataclass(frozen=True)
class _Event:
    """A moment on the timeline.

    Attributes:
        hit: the moment.
        source: its video.
        rate: frames a second of the timeline that it is counted in.
        first: its first frame, from the first picture of the video on.
        frames: how many it has, at least one.
        available: frames of the whole video.
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
        """The name of the file, and where in it the moment is."""
        moment = self.hit.moment
        return f"{self.name} {format_time(moment.start)}-{format_time(moment.end)}"


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
    timeline on which the moments follow each other, best first: two forms of the cut, and its captions. Times in a
    source count from the start timecode that its file has, drop-frame where that is. Names are on one line whatever is
    in them, and texts in a ``.csv`` that a spreadsheet would run as a formula begin with an apostrophe.

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


def results_document(query: str, hits: Sequence[Hit], shown: Callable[[str], str] = str) -> dict[str, Any]:
    """Results as JSON knows them: query, results (video, start, end, score; said where words were asked for).

    Args:
        query: what was asked.
        hits: the results.
        shown: how the path of a video is written.
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
    if len(events) > MOST_EVENTS:
        raise VtgError(f"an EDL has {MOST_EVENTS} events at most, not {len(events)}; ask for fewer with --limit")
    # An EDL has one rate, and its own timecode is drop-frame where that of its first source is. Sources say by their
    # separator what they are, as they may be of both kinds.
    rate = events[0].rate if events else OTHER_RATE
    record = events[0].source.count_at(rate) if events else TimecodeCount(TIMELINE_RATES[rate])
    lines = [f"TITLE: {one_line(query)}", f"FCM: {'DROP' if record.drop else 'NON-DROP'} FRAME", ""]
    position = 0
    for number, event in enumerate(events, 1):
        count = event.source.count_at(rate)
        begin = event.source.frame(event.first / rate, rate) % count.day  # a day of timecode, and it begins anew
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
    """The address of a file; one that is not absolute is found beside the timeline."""
    return Path(path).as_uri() if Path(path).is_absolute() else quote(os.fsencode(path))


def _range(first: int, frames: int, rate: float) -> dict[str, Any]:
    start, duration = ({"OTIO_SCHEMA": "RationalTime.1", "value": value, "rate": rate} for value in (first, frames))
    return {"OTIO_SCHEMA": "TimeRange.1", "start_time": start, "duration": duration}


def _events(hits: Sequence[Hit], same_rate: bool = False) -> list[_Event]:
    """Moments as whole frames of their videos' rates, or all of the first one's, for an EDL has a single rate."""
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
    return next((rate for rate in TIMELINE_RATES if abs(rate - fps) <= RATE_TOLERANCE), OTHER_RATE)


EXPORTS: Mapping[str, Any] = {".json": _json, ".csv": _csv, ".srt": _srt, ".edl": _edl, ".otio": _otio}
