"""Charts: knows how saliency curves are drawn with Altair, and how a click on one becomes a time."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from vtg.timecode import format_time

from .look import CURVES

if TYPE_CHECKING:
    import altair as alt

    from vtg.grounding import Grounding

__all__ = ["JUMP", "clicked_time", "curve_chart", "stacked_chart"]

JUMP = "jump"  # the name of the selection that a click makes
MOST_POINTS = 1500  # of a curve; more are narrower than a pixel
SHADED = 12  # moments shaded; the others are too weak to be seen
ROW_PIXELS, CURVE_PIXELS = 76, 190  # of the whole chart, with its axis
AROUND_PIXELS = 90  # for axis and legend
NEUTRAL = "#8b8378"  # of lines that belong to no question
ROW_HEIGHT = 0.86  # of a curve's row, so that rows do not touch
# Vega's language, for 1:23 and 1:02:03.
_CLOCK = (
    "(datum.value >= 3600 ? floor(datum.value / 3600) + ':' : '')"
    " + format(floor(datum.value / 60) % 60, '02') + ':' + format(floor(datum.value) % 60, '02')"
)


def curve_chart(grounding: Grounding, accent: str) -> alt.LayerChart:
    """One curve with its moments shaded; a click gives a time.

    Args:
        grounding: what is drawn.
        accent: colour of the moments.
    """
    import altair as alt

    times, scores = _thinned(grounding)
    axis = _time_axis(grounding.duration)
    steps, shares = _to_the_end(times, _shares(scores), grounding.duration)
    area = (
        alt.Chart(_rows(time=steps, score=shares))
        .mark_area(line={"strokeWidth": 1.6, "color": NEUTRAL}, opacity=0.3, interpolate="step-after", color=NEUTRAL)
        .encode(x=axis, y=_height(1.0))
    )
    return alt.layer(_shading(grounding, accent, 0.0, 1.0), area, *_pointers(times, 1.0)).properties(
        height=CURVE_PIXELS
    )


def stacked_chart(groundings: Sequence[Grounding]) -> alt.LayerChart:
    """Curves of several queries on one video, one above the other, with a legend; a click gives a time.

    Args:
        groundings: of the same video, at most as many as there are colours.
    """
    import altair as alt

    top = float(len(groundings))
    names = [grounding.query for grounding in groundings]
    colours = list(CURVES[: len(names)])
    layers: list[Any] = []
    for row, grounding in enumerate(groundings):
        base = top - 1 - row
        layers.append(_shading(grounding, colours[row], base, base + ROW_HEIGHT))
    rows: list[dict[str, Any]] = []
    for row, grounding in enumerate(groundings):
        base = top - 1 - row
        times, scores = _thinned(grounding)
        steps, shares = _to_the_end(times, _shares(scores), grounding.duration)
        rows += [
            {"time": float(time), "base": base, "score": base + ROW_HEIGHT * float(share), "query": grounding.query}
            for time, share in zip(steps, shares, strict=True)
        ]
    legend = alt.Legend(title=None, orient="top", columns=3, labelLimit=320, symbolType="square")
    layers.append(
        alt.Chart(alt.Data(values=rows))
        .mark_area(line={"strokeWidth": 1.6}, opacity=0.3, interpolate="step-after")
        .encode(
            x=_time_axis(groundings[0].duration),
            y=_height(top),
            y2="base:Q",
            color=alt.Color("query:N", scale=alt.Scale(domain=names, range=colours), legend=legend, sort=names),
        )
    )
    times, _ = _thinned(groundings[0])
    return alt.layer(*layers, *_pointers(times, top)).properties(height=ROW_PIXELS * len(groundings) + AROUND_PIXELS)


def clicked_time(event: Mapping[str, Any] | None) -> float | None:
    """The time that a click on a chart chose, seconds; None where nothing is chosen."""
    points = ((event or {}).get("selection") or {}).get(JUMP) or []
    return float(points[0]["time"]) if points and "time" in points[0] else None


def _shading(grounding: Grounding, colour: str, bottom: float, top: float) -> alt.Chart:
    import altair as alt

    rows = [
        {
            "time": moment.start,
            "end": moment.end,
            "bottom": bottom,
            "top": top,
            "strength": 0.05 + 0.4 * moment.score,
            "moment": f"{format_time(moment.start)}–{format_time(moment.end)}",
            "score": f"{moment.score:.2f}",
        }
        for moment in grounding.moments[:SHADED]
        if moment.score > 0
    ]
    return (
        alt.Chart(alt.Data(values=rows))
        .mark_rect(color=colour, cornerRadius=3)
        .encode(
            x="time:Q",
            x2="end:Q",
            y=alt.Y("bottom:Q", axis=None),
            y2="top:Q",
            opacity=alt.Opacity("strength:Q", scale=None, legend=None),
            tooltip=[alt.Tooltip("moment:N"), alt.Tooltip("score:N")],
        )
    )


def _pointers(times: np.ndarray, top: float) -> list[alt.Chart]:
    """A line that follows the pointer, and where a click falls: the nearest time, wherever above or below the curve."""
    import altair as alt

    rows = _rows(time=times, at=[format_time(time) for time in times])
    hover = alt.selection_point(
        name="hover", fields=["time"], nearest=True, on="pointermove", empty=False, clear="pointerout"
    )
    jump = alt.selection_point(name=JUMP, fields=["time"], nearest=True, on="click", empty=False)
    targets = (
        alt.Chart(rows)
        .mark_point(opacity=0, size=80)
        .encode(x="time:Q", y=alt.datum(top / 2), tooltip=[alt.Tooltip("at:N", title="jump to")])
        .add_params(hover, jump)
    )
    line = (
        alt.Chart(rows)
        .mark_rule(strokeWidth=1.5, color=NEUTRAL)
        .encode(x="time:Q", opacity=alt.when(hover).then(alt.value(0.9)).otherwise(alt.value(0.0)))
    )
    chosen = (
        alt.Chart(rows)
        .mark_rule(strokeWidth=2, color=NEUTRAL)
        .encode(x="time:Q", opacity=alt.when(jump).then(alt.value(1.0)).otherwise(alt.value(0.0)))
    )
    return [line, chosen, targets]


def _time_axis(duration: float) -> alt.X:
    import altair as alt

    axis = alt.Axis(title=None, labelExpr=_CLOCK, grid=False, tickCount=8, labelOverlap=True)
    return alt.X("time:Q", scale=alt.Scale(domain=[0.0, duration], nice=False), axis=axis)


def _height(top: float) -> alt.Y:
    import altair as alt

    return alt.Y("score:Q", scale=alt.Scale(domain=[0.0, top], nice=False), axis=None)


def _rows(**columns: Any) -> alt.Data:
    import altair as alt

    names = list(columns)
    lists = [[value.item() if isinstance(value, np.generic) else value for value in columns[name]] for name in names]
    return alt.Data(values=[dict(zip(names, values, strict=True)) for values in zip(*lists, strict=True)])


def _thinned(grounding: Grounding) -> tuple[np.ndarray, np.ndarray]:
    """At most `MOST_POINTS` of a curve: of each stretch its first time and its highest score."""
    times, scores = grounding.saliency.times, np.asarray(grounding.saliency.scores, float)
    step = -(-len(times) // MOST_POINTS)
    starts = np.arange(0, len(times), step)
    return times[starts], np.maximum.reduceat(scores, starts)


def _to_the_end(times: np.ndarray, shares: np.ndarray, duration: float) -> tuple[np.ndarray, np.ndarray]:
    """A curve of steps, with the last one drawn as long as it lasts."""
    return np.append(times, max(duration, times[-1])), np.append(shares, shares[-1])


def _shares(scores: np.ndarray) -> np.ndarray:
    """Scores of any scale as 0…1; those of CLIP alone are that already."""
    if scores.min() >= 0 and scores.max() <= 1:
        return scores
    return (scores - scores.min()) / max(float(scores.max() - scores.min()), 1e-9)
