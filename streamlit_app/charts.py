"""Draw saliency curves with Altair, and read a click on one as a time."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from vtg.timespans import format_time

from .theme import CURVES

if TYPE_CHECKING:
    import altair as alt

    from vtg.grounding.grounder import Grounding

__all__ = ["JUMP", "clicked_time", "curve_caption", "curve_chart", "curve_heights", "stacked_chart"]

JUMP = "jump"  # the name of the selection that a click makes
MAX_POINTS = 1500  # of a curve; more would be narrower than a pixel
MAX_SHADED_MOMENTS = 12  # the others have too low scores to be visible
ROW_PIXELS, CURVE_PIXELS = 76, 190  # of the whole chart, with its axis
AROUND_PIXELS = 70  # for the axis and around the legend
LEGEND_PIXELS = 18  # of one line; narrow screens need one line per query
NEUTRAL = "#8b8378"  # colour of lines that do not belong to a query
LABEL_SHARE = 0.12  # of a row's height, per row, that a label takes
ROW_HEIGHT = 0.86  # of a curve's row, so that rows do not touch
# Vega's language, for 1:23 and 1:02:03.
_CLOCK = (
    "(datum.value >= 3600 ? floor(datum.value / 3600) + ':' : '')"
    " + format(floor(datum.value / 60) % 60, '02') + ':' + format(floor(datum.value) % 60, '02')"
)


def curve_chart(grounding: Grounding, threshold: float, accent: str) -> alt.LayerChart:
    """Chart of one curve with its moments shaded and an axis of scores from 0 to 1; a click selects a time.

    Args:
        grounding: what is drawn, with the scores of a search (`Backend.with_search_scores`).
        threshold: minimum score of a result, which is marked.
        accent: colour of the moments.
    """
    import altair as alt

    times, scores = _thinned(grounding)
    steps, heights = _to_the_end(times, curve_heights(grounding, scores), grounding.duration)
    thresholds = [threshold] if grounding.moments else []
    area = (
        alt.Chart(_rows(time=steps, score=heights))
        .mark_area(line={"strokeWidth": 1.6, "color": NEUTRAL}, opacity=0.3, interpolate="step-after", color=NEUTRAL)
        .encode(x=_time_axis(grounding.duration), y=_height(1.0, [0.0], 1.0, thresholds))
    )
    layers = [_shading(grounding, accent, 0.0, 1.0), area, _rules(thresholds), *_pointers(times, 1.0)]
    return alt.layer(*layers).properties(height=CURVE_PIXELS)


def stacked_chart(groundings: Sequence[Grounding], threshold: float) -> alt.LayerChart:
    """Chart of the curves of several queries on one video, stacked, with a legend; a click selects a time.

    Args:
        groundings: of the same video, with the scores of a search, at most as many as there are colours.
        threshold: minimum score of a result, which is marked in each row.
    """
    import altair as alt

    top = float(len(groundings))
    names = [grounding.query for grounding in groundings]
    colours = list(CURVES[: len(names)])
    bases = [top - 1 - row for row in range(len(groundings))]
    thresholds = [threshold] if groundings[0].moments else []
    layers: list[Any] = []
    rows: list[dict[str, Any]] = []
    for grounding, colour, base in zip(groundings, colours, bases, strict=True):
        layers.append(_shading(grounding, colour, base, base + ROW_HEIGHT))
        times, scores = _thinned(grounding)
        steps, heights = _to_the_end(times, curve_heights(grounding, scores), grounding.duration)
        rows += [
            {"time": float(time), "base": base, "score": base + ROW_HEIGHT * float(height), "query": grounding.query}
            for time, height in zip(steps, heights, strict=True)
        ]
    legend = alt.Legend(title=None, orient="top", columns=1, labelLimit=300, symbolType="square")
    layers.append(
        alt.Chart(alt.Data(values=rows))
        .mark_area(line={"strokeWidth": 1.6}, opacity=0.3, interpolate="step-after")
        .encode(
            x=_time_axis(groundings[0].duration),
            y=_height(top, bases, ROW_HEIGHT, thresholds),
            y2="base:Q",
            color=alt.Color("query:N", scale=alt.Scale(domain=names, range=colours), legend=legend, sort=names),
        )
    )
    times, _ = _thinned(groundings[0])
    marked = [base + ROW_HEIGHT * score for base in bases for score in thresholds]
    layers += [_rules(marked), *_pointers(times, top)]
    return alt.layer(*layers).properties(height=(ROW_PIXELS + LEGEND_PIXELS) * len(groundings) + AROUND_PIXELS)


def curve_caption(grounding: Grounding) -> str:
    """Explanation of the chart of a grounding."""
    if not grounding.moments:
        return "Height: saliency, 0 to 1."
    return (
        "Height: saliency, scaled so that the peak has the best moment's score. "
        "Shaded: the moments. Dashed: the minimum score of a result."
    )


def clicked_time(event: Mapping[str, Any] | None) -> float | None:
    """The time selected by a click on a chart, seconds; None without a selection."""
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
            "strength": 0.45 * moment.score,
            "moment": f"{format_time(moment.start)}–{format_time(moment.end)}",
            "score": f"{moment.score:.2f}",
        }
        for moment in grounding.moments[:MAX_SHADED_MOMENTS]
        if moment.score > 0
    ]
    return (
        alt.Chart(alt.Data(values=rows))
        .mark_rect(color=colour, cornerRadius=3)
        .encode(
            x="time:Q",
            x2="end:Q",
            y=alt.Y("bottom:Q", title=None),
            y2="top:Q",
            opacity=alt.Opacity("strength:Q", scale=None, legend=None),
            tooltip=[alt.Tooltip("moment:N"), alt.Tooltip("score:N")],
        )
    )


def _pointers(times: np.ndarray, top: float) -> list[alt.Chart]:
    """A line that follows the pointer, and the click targets: the nearest time, at any height."""
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


def _height(top: float, bases: Sequence[float], height: float, thresholds: Sequence[float]) -> alt.Y:
    """The axis of scores from 0 to 1 in each row, with a mark at the threshold (at most one)."""
    import altair as alt

    marks = {base + height * score: f"found ≥ {score:.2f}" for base in bases for score in thresholds}
    room = LABEL_SHARE * height * len(bases)
    for base in bases:
        for score in (0.0, 1.0):
            place = base + height * score
            if all(abs(place - other) > room for other in marks):  # else labels would overlap
                marks[place] = f"{score:g}"
    labels = " : ".join(f"abs(datum.value - {place}) < 1e-6 ? '{label}'" for place, label in marks.items())
    axis = alt.Axis(title=None, values=sorted(marks), labelExpr=f"{labels} : ''", grid=False, domain=False)
    return alt.Y("score:Q", scale=alt.Scale(domain=[0.0, top], nice=False), axis=axis)


def _rules(heights: Sequence[float]) -> alt.Chart:
    """A dashed line across the chart at each height."""
    import altair as alt

    return (
        alt.Chart(alt.Data(values=[{"threshold": height} for height in heights]))
        .mark_rule(strokeDash=[5, 4], strokeWidth=1.2, color=NEUTRAL)
        .encode(y=alt.Y("threshold:Q", title=None))
    )


def _rows(**columns: Any) -> alt.Data:
    import altair as alt

    names = list(columns)
    lists = [[value.item() if isinstance(value, np.generic) else value for value in columns[name]] for name in names]
    return alt.Data(values=[dict(zip(names, values, strict=True)) for values in zip(*lists, strict=True)])


def _thinned(grounding: Grounding) -> tuple[np.ndarray, np.ndarray]:
    """At most `MAX_POINTS` of a curve: the first time and the highest score of each bin."""
    times, scores = grounding.saliency.times, np.asarray(grounding.saliency.scores, float)
    step = -(-len(times) // MAX_POINTS)
    starts = np.arange(0, len(times), step)
    return times[starts], np.maximum.reduceat(scores, starts)


def _to_the_end(times: np.ndarray, shares: np.ndarray, duration: float) -> tuple[np.ndarray, np.ndarray]:
    """Extend a step curve to the end of the video."""
    return np.append(times, max(duration, times[-1])), np.append(shares, shares[-1])


def curve_heights(grounding: Grounding, saliency: np.ndarray) -> np.ndarray:
    """Scale saliency to the scores of the moments, so that the score threshold can be drawn in the same chart.

    The saliency of a head that retrieves moments is a probability times a cosine: it ranks the parts of one video for
    one query, and is not comparable across videos and queries. So its peak is scaled to the best moment's score, and
    negative values are drawn as 0. Without moments (a highlight-only head), saliency is a probability itself.

    Args:
        grounding: with the scores of a search.
        saliency: [N] of its curve.

    Returns:
        [N] 0…1.
    """
    above = np.clip(saliency, 0.0, None)
    peak = max(float(np.max(grounding.saliency.scores)), 0.0)
    if not grounding.moments:
        return np.clip(above, 0.0, 1.0)
    return above / peak * grounding.moments[0].score if peak else above
