"""Read the chapters of a video, clip them to a time range, and write them as ffmetadata for ffmpeg."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction

from vtg.video.containers import open_container, rational, tag_text
from vtg.video.probing import VideoTrack

__all__ = ["Chapter", "chapters_between", "chapters_text", "read_chapters"]

MIN_CHAPTER_SECONDS = Fraction(1, 100)  # a shorter remainder of a chapter is dropped
TICKS_PER_SECOND = 1000  # of the chapter times in ffmetadata


@dataclass(frozen=True)
class Chapter:
    """A titled part of a video; times in seconds from its first frame. The title may be empty."""

    start: Fraction
    end: Fraction
    title: str


def read_chapters(track: VideoTrack) -> list[Chapter]:
    """Read the chapters of a video, ordered by time and clipped to the video's duration.

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
    """Clip chapters to a time range (seconds); the results count from the start of the range."""
    kept = [
        Chapter(max(chapter.start, start) - start, min(chapter.end, end) - start, chapter.title)
        for chapter in sorted(chapters, key=lambda chapter: (chapter.start, chapter.end))
    ]
    return [chapter for chapter in kept if chapter.end - chapter.start >= MIN_CHAPTER_SECONDS]


def chapters_text(chapters: Sequence[Chapter]) -> str:
    """Chapters in ffmpeg's ffmetadata format."""
    text = ";FFMETADATA1\n"
    for chapter in chapters:
        start, end = (round(TICKS_PER_SECOND * time) for time in (chapter.start, chapter.end))
        text += f"[CHAPTER]\nTIMEBASE=1/{TICKS_PER_SECOND}\nSTART={start}\nEND={end}\ntitle={_escaped(chapter.title)}\n"
    return text


def _escaped(title: str) -> str:
    return "".join(f"\\{sign}" if sign in "=;#\\" else sign for sign in " ".join(title.split()))
