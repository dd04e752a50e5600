"""Results of grounding: moments, saliency curve and attention maps."""

from __future__ import annotations

import html
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from vtg.errors import VtgError
from vtg.files.text import one_line
from vtg.timespans import TimeSpan

__all__ = ["Grounding", "Moment", "Saliency"]

SHOWN_MOMENTS = 5  # of a grounding in a notebook


@dataclass(frozen=True)
class Moment(TimeSpan):
    """A span of a video with a score.

    Attributes:
        start: seconds.
        end: seconds.
        score: 0…1, higher for a better match with the query.
    """

    score: float


@dataclass(frozen=True)
class Saliency:
    """How well each part of a video matches the query, over time.

    Attributes:
        times: [T] seconds, the start of each sampled interval.
        scores: [T], higher for a better match; the scale depends on the model.
    """

    times: np.ndarray
    scores: np.ndarray


@dataclass(frozen=True)
class Grounding:
    """The result of one query on one video.

    Attributes:
        query: the sentence.
        video: the file or id; "" if unknown.
        duration: of the video, seconds.
        moments: best first; none from a highlight-only head. The last ones may have a score of 0: duplicates after
            suppression.
        saliency: over the whole video.
    """

    query: str
    video: str
    duration: float
    moments: list[Moment]
    saliency: Saliency
    _attention: Callable[[int, int | None, int | None], np.ndarray] | None = field(
        default=None, repr=False, compare=False
    )

    def attention(self, time: float, layer: int | None = None, word: int | None = None) -> np.ndarray:
        """Attention map of the head for the query at a time (R²-Tuning, Sec. 3.2: query-modulated spatial pooling).

        Args:
            time: seconds.
            layer: one of the K layers, 0 is the earliest; None averages them.
            word: one of the query's tokens, 0 is the first; None takes the maximum over them at each patch.

        Returns:
            [h, w] float32 in 0…1, over the square crop of the frame: attention weight of each patch.

        Raises:
            VtgError: a grounding without a head, or a time, layer or word that does not exist.
        """
        if self._attention is None:
            raise VtgError("zero-shot: has no attention maps; use a model with an R² head, such as r2-qvhighlights")
        if not 0 <= time <= self.duration:
            raise VtgError(
                f"{self.video or 'video'}: {time:g} s is outside the video, which is {self.duration:.2f} s long"
            )
        times = self.saliency.times
        frame = min(len(times) - 1, int(np.searchsorted(times, time, side="right")) - 1)
        try:
            return self._attention(frame, layer, word)
        except ValueError as error:
            raise VtgError(f"{self.query!r}: {error}") from None

    def to_dict(self, qid: int | str | None = None, vid: str | None = None) -> dict[str, Any]:
        """The fields of a QVHighlights submission.

        Args:
            qid: the query's id in the data set; omitted if None.
            vid: the video's id; if None, the name of the file.
        """
        fields = {
            "query": self.query,
            "vid": Path(self.video).stem if vid is None else vid,
            "pred_relevant_windows": [[moment.start, moment.end, moment.score] for moment in self.moments],
            "pred_saliency_scores": [float(score) for score in self.saliency.scores],
        }
        return fields if qid is None else {"qid": qid, **fields}

    def _repr_html_(self) -> str:
        """Show the grounding in a notebook: the saliency curve with the best moment shaded, and the moments."""
        from vtg.grounding.notebook import Row, curve_html, table_html

        moments = [moment for moment in self.moments if moment.score > 0]
        rows = [Row(self.video, one, one.score, (one.start + one.end) / 2) for one in moments]
        title = f"<p><b>{html.escape(one_line(self.query))}</b> in {html.escape(one_line(Path(self.video).name))}</p>"
        curve = curve_html(self.saliency.times, self.saliency.scores, self.duration, moments[:1])
        return title + curve + (table_html(rows, SHOWN_MOMENTS) if rows else "")
