"""HTML for notebooks: moments as a table with thumbnails, and a saliency curve as SVG."""

from __future__ import annotations

import base64
import html
import io
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from vtg.errors import VtgError
from vtg.files.text import one_line
from vtg.timespans import TimeSpan, format_time

__all__ = ["MAX_ROWS", "Row", "curve_html", "table_html"]

MAX_ROWS = 10  # of a table; a cell of a notebook with more is no help
THUMBNAIL_SIDE = 160  # pixels, the longer side
JPEG_QUALITY = 80
CURVE_WIDTH, CURVE_HEIGHT = 640, 80  # units of the SVG
CELL = 'style="text-align:left;vertical-align:middle;padding:2px 12px 2px 0"'


@dataclass(frozen=True)
class Row:
    """One row of a table of moments.

    Attributes:
        video: path of the file.
        span: the moment.
        score: 0…1.
        peak: seconds, the time of the thumbnail.
        said: words that are spoken there; "" for none.
    """

    video: str
    span: TimeSpan
    score: float
    peak: float
    said: str = ""


def table_html(rows: Sequence[Row], limit: int = MAX_ROWS) -> str:
    """A table of moments with thumbnails, at most `limit` of them; the rest is counted below it."""
    if not rows:
        return "<p>no moments</p>"
    has_words = any(row.said for row in rows)
    heads = ["", "moment", "score", "video", *(["said"] if has_words else [])]
    lines = ["<tr>" + "".join(f"<th {CELL}>{head}</th>" for head in heads) + "</tr>"]
    for row in rows[:limit]:
        cells = [
            _thumbnail_html(row.video, row.peak),
            f"{format_time(row.span.start)}–{format_time(row.span.end)}",
            f'<meter min="0" max="1" value="{row.score:.3f}"></meter> {row.score:.2f}',
            html.escape(one_line(Path(row.video).name)),
            *([html.escape(one_line(row.said))] if has_words else []),
        ]
        lines.append("<tr>" + "".join(f"<td {CELL}>{cell}</td>" for cell in cells) + "</tr>")
    more = len(rows) - limit
    return f"<table>{''.join(lines)}</table>" + (f"<p>and {more} more</p>" if more > 0 else "")


def _thumbnail_html(video: str, time: float) -> str:
    """An `img` element with the frame inside it; nothing where the file cannot be read any more."""
    from PIL import Image

    from vtg.video import thumbnail

    try:
        picture = thumbnail(video, time, THUMBNAIL_SIDE)
    except (VtgError, OSError):  # features without their file, or a file that was moved
        return ""
    data = io.BytesIO()
    Image.fromarray(picture).save(data, format="jpeg", quality=JPEG_QUALITY)
    source = f"data:image/jpeg;base64,{base64.b64encode(data.getvalue()).decode()}"
    return f'<img src="{source}" alt="frame at {format_time(time)}" style="margin:0">'


def curve_html(times: np.ndarray, scores: np.ndarray, duration: float, spans: Iterable[TimeSpan]) -> str:
    """A saliency curve over the whole video as SVG, from its lowest to its highest score, with spans shaded.

    Args:
        times: [T] seconds, the start of each sampled interval.
        scores: [T], any scale; what is not finite is left out.
        duration: of the video, seconds.
        spans: what to shade.
    """
    ends = np.append(times[1:], duration)
    across = (times + ends) / 2 / max(duration, 1e-9) * CURVE_WIDTH
    kept = np.isfinite(scores)
    low, high = (float(scores[kept].min()), float(scores[kept].max())) if kept.any() else (0.0, 1.0)
    up = (1 - (scores - low) / max(high - low, 1e-9)) * (CURVE_HEIGHT - 4) + 2
    points = " ".join(f"{x:.1f},{y:.1f}" for x, y in zip(across[kept], up[kept], strict=True))
    boxes = "".join(
        f'<rect x="{span.start / max(duration, 1e-9) * CURVE_WIDTH:.1f}" y="0" height="{CURVE_HEIGHT}" '
        f'width="{span.seconds / max(duration, 1e-9) * CURVE_WIDTH:.1f}" fill="#f2a541" fill-opacity="0.4"/>'
        for span in spans
    )
    line = f'<polyline points="{points}" fill="none" stroke="currentColor" stroke-width="1.5"/>'
    size = f'viewBox="0 0 {CURVE_WIDTH} {CURVE_HEIGHT}" width="{CURVE_WIDTH}" height="{CURVE_HEIGHT}"'
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" {size} role="img" aria-label="saliency">{boxes}{line}</svg>'
        f'<div style="width:{CURVE_WIDTH}px;display:flex;justify-content:space-between">'
        f"<small>00:00</small><small>saliency {low:.2f} to {high:.2f}</small>"
        f"<small>{format_time(duration)}</small></div>"
    )
