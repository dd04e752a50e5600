"""The page of one video: curves of several queries, highlights, a summary with its storyboard, and downloads."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import streamlit as st

from vtg.files.text import csv_text, json_text, one_line, table_cell
from vtg.grounding.grounder import Grounding, Moment
from vtg.library.tables import VideoEntry
from vtg.summary import Plan, plan_document
from vtg.timespans import format_time

from .. import backend as backend_module
from .. import page_state
from ..backend import Backend
from ..charts import JUMP, clicked_time, curve_caption, stacked_chart
from ..components import Card, CardGroup, cards
from ..jobs import DONE
from ..media import media_url, result_url
from ..tasks import make_film
from ..url_state import (
    ID_DIGITS,
    MAX_QUERIES,
    MAX_QUERY_CHARACTERS,
    PARTS,
    OpenMoment,
    SearchState,
    VideoState,
    read_video,
)
from . import library as library_view
from . import search as search_view
from .parts import (
    POLL_SECONDS,
    count,
    empty_state,
    escape,
    jump_target,
    megabytes,
    show_errors,
    show_job,
    show_loading,
    show_player,
    span,
)

__all__ = ["show"]

PAGE = "video"
TITLES = {"curves": "Curves", "highlights": "Highlights", "summary": "Summary"}
LEAVING = "video.leaving"  # whether a click has started a search for similar moments
TOP, CLIP_SECONDS = 6, 8.0  # highlights shown, and how long each is


def show() -> None:
    """Draw the page."""
    backend = backend_module.current()
    entries = backend.indexed()
    if not entries:
        library_view.show_first_steps(backend)
        return
    state = page_state.load_state(PAGE, read_video, _fill)
    names = {entry.video[:ID_DIGITS]: entry for entry in entries}
    named = state.video[:ID_DIGITS]
    if "video.video" in st.session_state and st.session_state["video.video"] not in names:
        st.session_state["video.video"] = None
    start = page_state.widget_default("video.video", named if named in names else None)
    chosen = st.selectbox(
        "Video",
        list(names),
        list(names).index(start) if start else None,
        key="video.video",
        on_change=page_state.mark_widget_change,
        format_func=lambda short: _name(names[short], entries),
        placeholder="Choose a video",
        label_visibility="collapsed",
    )
    if chosen is None:
        _show_none(state, is_removed=bool(named) and named not in names)
        return
    queries = _choose_queries(backend, state)
    part = st.segmented_control(
        "Part",
        PARTS,
        default=page_state.widget_default("video.part", state.part),
        key="video.part",
        on_change=page_state.mark_widget_change,
        format_func=TITLES.__getitem__,
        label_visibility="collapsed",
        required=True,
    )
    state = replace(
        state,
        video=chosen,
        queries=tuple(query for query in queries if len(query) <= MAX_QUERY_CHARACTERS),
        part=part or PARTS[0],
        at=state.at if chosen == named else None,
    )
    page_state.save_state(PAGE, state)
    for query in queries:
        with show_errors():
            backend.check_length(query)
    with show_errors():
        if show_loading(backend):
            st.fragment(_part)(names[chosen], state.queries)


def _choose_queries(backend: Backend, state: VideoState) -> list[str]:
    """The queries of the visitor, without duplicates."""
    queries = st.multiselect(
        "Questions",
        list(dict.fromkeys([*st.session_state.get("video.queries", state.queries), *backend.examples])),
        page_state.widget_default("video.queries", list(state.queries)),
        key="video.queries",
        on_change=page_state.mark_widget_change,
        accept_new_options=True,
        max_selections=MAX_QUERIES,
        placeholder="Ask several questions of this video",
        help="Each gets a curve; highlights and summary answer the first.",
    )
    return list(dict.fromkeys(query.strip() for query in queries if query.strip()))


def _show_none(state: VideoState, is_removed: bool) -> None:
    """Shown while no video is chosen, or after the chosen one was removed."""
    if not is_removed:
        page_state.save_state(PAGE, replace(state, video="", at=None))
    title = "This video is not in the library any more" if is_removed else "Choose a video"
    what = (
        "It was removed from the library; choose another."
        if is_removed
        else "See what it holds for several questions at once, its highlights, and a short version of it."
    )
    with empty_state("movie", title, what):
        pass


def _fill(state: VideoState) -> None:
    st.session_state["video.video"] = state.video[:ID_DIGITS] or None
    st.session_state["video.queries"] = list(state.queries)
    st.session_state["video.part"] = state.part
    st.session_state["video.ratio"] = state.ratio


def _name(entry: VideoEntry, entries: Sequence[VideoEntry]) -> str:
    path = Path(entry.path)
    same_name = sum(Path(other.path).name == path.name for other in entries)
    return one_line(f"{path.name} ({path.parent.name})" if same_name > 1 else path.name)


def _part(entry: VideoEntry, queries: tuple[str, ...]) -> None:
    if st.session_state.pop(LEAVING, False):
        st.switch_page(st.session_state["pages"]["search"], query_params=page_state.url_params(search_view.PAGE))
    backend = backend_module.current()
    state: VideoState = page_state.current_state(PAGE)
    with show_errors():
        groundings = backend.ground(entry.video, queries) if queries else []
        best = groundings[0].moments[0] if groundings and groundings[0].moments else None
        _facts(entry)
        moment = best or Moment(0.0, entry.duration, 0.0)
        jump = jump_target(state.at, entry, st.session_state.get("video.jumps", 0))
        first = backend.with_search_scores(entry.video, groundings[0]) if groundings else None
        with show_errors():
            show_player(backend, "video.player", entry.video, moment, first, jump, clip=best is not None, play=False)
        if state.part == "curves":
            _curves(backend, entry, groundings)
        elif state.part == "highlights":
            _highlights(backend, entry, queries[0] if queries else None)
        else:
            _summary(backend, entry, queries[0] if queries else None)


def _facts(entry: VideoEntry) -> None:
    st.caption(f"{format_time(entry.duration)} · {entry.width}×{entry.height} · {megabytes(entry.size)}")


def _jump_to(time: float) -> None:
    st.session_state["video.jumps"] = st.session_state.get("video.jumps", 0) + 1
    page_state.save_state(PAGE, replace(page_state.current_state(PAGE), at=time))


def _curves(backend: Backend, entry: VideoEntry, groundings: list[Grounding]) -> None:
    if not groundings:
        st.info("Ask a question above: its curve over the whole video is drawn here.", icon=":material/show_chart:")
        return
    key = f"video.curves.{hash((entry.video, tuple(grounding.query for grounding in groundings)))}"

    def jump() -> None:
        at = clicked_time(st.session_state.get(key))
        if at is not None:
            _jump_to(at)

    shown = [backend.with_search_scores(entry.video, grounding) for grounding in groundings]
    chart = stacked_chart(shown, backend.default_threshold)
    st.altair_chart(chart, key=key, on_select=jump, selection_mode=JUMP, width="stretch")
    st.caption(f"One curve a question. {curve_caption(shown[0])} Click to jump.")
    stem = one_line(Path(entry.path).stem)
    with st.container(horizontal=True):
        st.download_button(
            "Moments (CSV)", moments_csv(groundings), f"{stem} moments.csv", "text/csv", icon=":material/download:"
        )
        document = json_text([grounding.to_dict() for grounding in groundings])
        st.download_button(
            "All (JSON)", document, f"{stem} moments.json", "application/json", icon=":material/download:"
        )


def moments_csv(groundings: Sequence[Grounding]) -> str:
    """All moments as CSV: query, start and end in seconds, score; safe for spreadsheets."""
    rows = [("query", "start", "end", "score")]
    for grounding in groundings:
        query = table_cell(grounding.query)
        for moment in grounding.moments:
            rows.append((query, f"{moment.start:.2f}", f"{moment.end:.2f}", f"{moment.score:.4f}"))
    return csv_text(rows)


def _highlights(backend: Backend, entry: VideoEntry, query: str | None) -> None:
    plan = backend.highlights(entry.video, query, TOP, CLIP_SECONDS)
    purpose = f"for “{escape(query)}”" if query else "for no question: what stands out"
    st.caption(f"The {len(plan.clips)} best clips of {CLIP_SECONDS:g} s {purpose}. Choose one to play it.")
    _clips(backend, entry, plan, "highlights")
    _downloads(backend, entry, plan, "highlights", "Make a reel")


def _summary(backend: Backend, entry: VideoEntry, query: str | None) -> None:
    def keep_ratio() -> None:
        page_state.save_state(PAGE, replace(page_state.current_state(PAGE), ratio=st.session_state["video.ratio"]))

    st.session_state.setdefault("video.ratio", page_state.current_state(PAGE).ratio)
    ratio = st.slider("Length, % of the video", 5, 50, step=5, key="video.ratio", on_change=keep_ratio)
    plan = backend.summary(entry.video, query, ratio / 100)
    purpose = f", about “{escape(query)}”" if query else ""
    lengths = f"{format_time(plan.seconds)} of {format_time(plan.duration)}"
    st.caption(f"{count(len(plan.clips), 'clip')}, {lengths}{purpose}: the storyboard.")
    _clips(backend, entry, plan, "summary")
    _downloads(backend, entry, plan, "summary", "Make the summary")


def _clips(backend: Backend, entry: VideoEntry, plan: Plan, key: str) -> None:
    """The clips of a plan as cards; in a summary, in the order of the video, they are its storyboard."""
    ends = {f"{clip.start:.3f}": clip.end for clip in plan.clips}

    def on_find_similar(start: str) -> None:
        moment = OpenMoment(entry.video, float(start), ends[start])
        before = page_state.state_of(search_view.PAGE) or SearchState()
        page_state.preset_state(search_view.PAGE, search_view.state_like(moment, before))
        st.session_state[LEAVING] = True

    made = tuple(
        Card(
            id=f"{clip.start:.3f}",
            name=f"{place}",
            span=span(clip.start, clip.end),
            label=f"clip {place}, {span(clip.start, clip.end)}: jump there",
            poster=media_url(backend, "poster", entry.video, min(clip.peak, entry.duration)),
            preview=media_url(backend, "preview", entry.video, clip.start, clip.end),
            score=clip.score,
            like=f"More like clip {place}, {span(clip.start, clip.end)}",
        )
        for place, clip in enumerate(plan.clips, 1)
    )
    at = page_state.current_state(PAGE).at
    chosen = f"{at:.3f}" if at is not None else ""
    groups = [CardGroup("", "", made)]
    cards(f"video.{key}", groups, plan.query or "", chosen, lambda start: _jump_to(float(start)), on_find_similar)


def _downloads(backend: Backend, entry: VideoEntry, plan: Plan, kind: str, label: str) -> None:
    """Download of a plan: JSON, and a video that is made on request."""
    stem = one_line(Path(entry.path).stem)
    job_key = f"video.reel.{hash((plan.video, tuple((clip.start, clip.end) for clip in plan.clips)))}"

    def make() -> None:
        st.session_state[job_key] = make_film(backend, plan, f"{stem} {kind}.mp4").number

    job = backend.films.find(st.session_state.get(job_key, 0))
    with st.container(horizontal=True, vertical_alignment="center"):
        document = json_text(plan_document(plan) | {"video": backend.shown.path(plan.video)})
        st.download_button("JSON", document, f"{stem} {kind}.json", "application/json", icon=":material/download:")
        if job is None or not (job.active or job.state == DONE):
            st.button(label, icon=":material/movie_edit:", on_click=make, key=f"video.make.{kind}")
        elif job.state == DONE:
            st.link_button("Download the film", result_url(backend, job.number), icon=":material/download:")
    if job is not None and job.state != DONE:

        def follow() -> None:
            if not job.active:
                page_state.rerun()
            show_job(job, lambda each: each.cancel())

        if job.active:
            st.fragment(follow, run_every=POLL_SECONDS)()
        else:
            show_job(job, None)
