"""Chapters: reads those of a video, moves them with what is cut out of it, and writes them down for ffmpeg."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction

from vtg.video.containers import open_container, rational, tag_text
from vtg.video.probing import PictureTrack

__all__ = ["Chapter", "chapters_between", "chapters_text", "read_chapters"]

SHORTEST = Fraction(1, 100)  # seconds of a chapter that are worth keeping at the edge of a cut
TICKS = 1000  # a second, in which chapters are written down


@dataclass(frozen=True)
class Chapter:
    """A titled part of a video; times in seconds from its first picture. The title may be empty."""

    start: Fraction
    end: Fraction
    title: str


def read_chapters(track: PictureTrack) -> list[Chapter]:
    """The chapters of a video in the order of their times, within the video.

    Raises:
        VideoError: it cannot be read.
    """
    origin = track.first * track.clock
    chapters = []
    with open_container(track.info.path) as container:
        for chapter in container.chapters():
            tick = rational(chapter["time_base"])
            if tick:
                title = " ".join(tag_text(chapter["metadata"].get("title", "")).split())
                chapters.append(Chapter(chapter["start"] * tick - origin, chapter["end"] * tick - origin, title))
    return chapters_between(chapters, Fraction(0), track.duration)


def chapters_between(chapters: Sequence[Chapter], start: Fraction, end: Fraction) -> list[Chapter]:
    """What lies between two times of each chapter, counted from the first time; times in seconds."""
    kept = [
        Chapter(max(chapter.start, start) - start, min(chapter.end, end) - start, chapter.title)
        for chapter in sorted(chapters, key=lambda chapter: (chapter.start, chapter.end))
    ]
    return [chapter for chapter in kept if chapter.end - chapter.start >= SHORTEST]


def chapters_text(chapters: Sequence[Chapter]) -> str:
    """Chapters as ffmpeg reads them (ffmetadata)."""
    text = ";FFMETADATA1\n"
    for chapter in chapters:
        start, end = (round(TICKS * time) for time in (chapter.start, chapter.end))
        text += f"[CHAPTER]\nTIMEBASE=1/{TICKS}\nSTART={start}\nEND={end}\ntitle={_escaped(chapter.title)}\n"
    return text


def _escaped(title: str) -> str:
    return "".join(f"\\{sign}" if sign in "=;#\\" else sign for sign in " ".join(title.split()))
