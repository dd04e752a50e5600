"""Export a plan as JSON, as subtitles, and as the spans of a reel."""

from __future__ import annotations

import os
from collections.abc import Sequence
from itertools import groupby
from typing import Any

from vtg.files.text import caption_line
from vtg.files.whole import write_whole
from vtg.summary.choosing import Clip
from vtg.summary.planning import Plan
from vtg.timespans import format_time
from vtg.video import Span
from vtg.video.subtitles import sequential_captions

__all__ = ["clip_caption", "plan_document", "reel_spans", "subtitles", "write_text"]


def clip_caption(clip: Clip, label: str = "") -> str:
    """Caption of a clip: its label and its times in the video."""
    times = f"{format_time(clip.start)}–{format_time(clip.end)}"
    return f"{caption_line(label)}, {times}" if label else times


def plan_document(plan: Plan, labels: Sequence[str] = ()) -> dict[str, Any]:
    """A plan as a JSON document.

    Args:
        plan: the plan.
        labels: one per clip; empty: without chapters.

    Returns:
        video, query (null without a query), prompts, duration, budget (null for highlights), seconds, shots (their
        number), clips (start, end, score, peak, label), and with labels chapters (title, start, end in the reel), where
        neighbouring clips with the same label form one chapter. All times are seconds.
    """
    clips = [
        {
            "start": clip.start,
            "end": clip.end,
            "score": clip.score,
            "peak": clip.peak,
            **({"label": label} if label else {}),
        }
        for clip, label in zip(plan.clips, labels or [""] * len(plan.clips), strict=True)
    ]
    document = {
        "video": plan.video,
        "query": plan.query,
        "prompts": list(plan.prompts),
        "duration": plan.duration,
        "budget": plan.budget,
        "seconds": plan.seconds,
        "shots": len(plan.shots) - 1,
        "clips": clips,
    }
    return {**document, "chapters": _chapters(plan.clips, labels)} if labels else document


def _chapters(clips: Sequence[Clip], labels: Sequence[str]) -> list[dict[str, Any]]:
    chapters, begin = [], 0.0
    for title, members in groupby(zip(clips, labels, strict=True), key=lambda member: member[1]):
        end = begin + sum(clip.seconds for clip, _ in members)
        chapters.append({"title": title, "start": begin, "end": end})
        begin = end
    return chapters


def reel_spans(plan: Plan, labels: Sequence[str] = (), captions: bool = False) -> list[Span]:
    """The spans of a reel, in the order of the plan's clips.

    Args:
        plan: of a file.
        labels: one per clip, the title of its chapter; empty: no chapters.
        captions: add a caption with the label and the times in the video to each span.
    """
    return [
        Span(plan.video, clip.start, clip.end, clip_caption(clip, label) if captions else "", label)
        for clip, label in zip(plan.clips, labels or [""] * len(plan.clips), strict=True)
    ]


def subtitles(plan: Plan, labels: Sequence[str] = ()) -> str:
    """Subtitles (SRT) for the reel of a plan, with the label of each clip and its times in the video.

    Args:
        plan: the plan, its clips in the order of the reel.
        labels: one per clip, or empty.
    """
    labelled = zip(plan.clips, labels or [""] * len(plan.clips), strict=True)
    return sequential_captions((clip.seconds, clip_caption(clip, label)) for clip, label in labelled)


def write_text(path: str | os.PathLike[str], text: str) -> None:
    """Write a text file atomically, without converting line ends."""
    with write_whole(path) as part:
        part.write_bytes(text.encode("utf-8"))
