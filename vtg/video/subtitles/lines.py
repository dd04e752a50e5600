"""One line of a video's transcript."""

from __future__ import annotations

from dataclasses import dataclass

__all__ = ["TranscriptLine"]


@dataclass(frozen=True)
class TranscriptLine:
    """One line of a video's transcript.

    Attributes:
        path: the video file.
        start: seconds.
        end: seconds.
        text: one line.
        score: how well it matches a query, higher is better; 0 without a query.
    """

    path: str
    start: float
    end: float
    text: str
    score: float = 0.0
