"""What is said in a video, line by line."""

from __future__ import annotations

from dataclasses import dataclass

__all__ = ["TranscriptLine"]


@dataclass(frozen=True)
class TranscriptLine:
    """Words that are said in a video.

    Attributes:
        path: the file.
        start: seconds.
        end: seconds.
        text: one line.
        score: how well they fit a question, higher is better; 0 where nothing was asked.
    """

    path: str
    start: float
    end: float
    text: str
    score: float = 0.0
