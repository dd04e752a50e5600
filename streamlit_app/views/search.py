"""The search page: a question, its moments as cards, and the one that is open in the player."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import streamlit as st

from vtg.errors import VtgError
from vtg.grounding import Grounding, Moment
from vtg.library import Hit
from vtg.tables import VideoEntry

from .. import backend as backend_room
from .. import visit
from ..address import LIMITS, SHORTEST_ID, OpenMoment, SearchState, read_search
from ..backend import Backend
from ..charts import JUMP, clicked_time, curve_chart
from ..components import Card, CardGroup, cards, questions
from ..look import ACCENT
from ..media import media_url
from . import library as library_view
from .parts import count, empty_state, errors_shown, escape, show_loading, show_player, span

__all__ = ["show"]

PAGE = "search"
FOLDER = "folder: "  # before the names of folders among the places that can be searched


def show() -> None:
    """Draw the page."""
    backend = backend_room.current()
    if not backend.indexed():
        library_view.show_first_steps(backend)
        return
    state = visit.begin(PAGE, read_search, _fill)
    with st.container(key="ask"):
        query = st.text_input(
            "Ask for a moment",
            key="search.query",
            placeholder="Ask for a moment in plain words",
            label_visibility="collapsed",
            icon=":material/search:",
        ).strip()
    state = _toolbar(backend, replace(state, query=query), state)
    if state.query != visit.current(PAGE).query:
        state = replace(state, open=None, at=None)
    if len(state.query) <= backend_room.LONGEST_QUERY:
        visit.keep(PAGE, state)
    _questions(backend, visit.current(PAGE).query)
    st.fragment(_answer)()


def _fill(state: SearchState) -> None:
    st.session_state["search.query"] = state.query
    st.session_state["search.places"] = list(state.places)
    st.session_state["search.min"] = state.min_score
    st.session_state["search.limit"] = state.limit
    st.session_state["search.shortest"] = state.shortest
    st.session_state["search.longest"] = state.longest
    st.session_state["search.grouped"] = state.grouped
    st.session_state["search.why"] = state.why


def _toolbar(backend: Backend, state: SearchState, before: SearchState) -> SearchState:
    """Filters and switches; gives the state that they say."""
    with st.container(horizontal=True, vertical_alignment="center"):
        label = f"Filters · {before.filters}" if before.filters else "Filters"
        with st.popover(label, icon=":material/tune:"):
            names = _place_names(backend.indexed())
            kept = [place for place in st.session_state.get("search.places", []) if place in names]
            st.session_state["search.places"] = kept
            places = st.multiselect(
                "Look in", list(names), key="search.places", format_func=names.__getitem__, placeholder="all videos"
            )
            min_score = st.slider("Score at least", 0.0, 1.0, step=0.05, key="search.min")
            left, right = st.columns(2)
            shortest = left.number_input("Seconds at least", 0.0, step=1.0, key="search.shortest")
            longest = right.number_input("Seconds at most (0: any)", 0.0, step=1.0, key="search.longest")
            limit = st.select_slider("Moments at most", LIMITS, key="search.limit")
        grouped = st.toggle("Group by video", key="search.grouped")
        head = backend.library.model.head is not None
        why = st.toggle(
            "Show why",
            key="search.why",
            disabled=not head,
            help="Where the model looked, painted over each picture."
            if head
            else "This library is asked by CLIP alone, which looks at whole pictures; an R² head shows where.",
        )
    return replace(
        state,
        places=tuple(places),
        min_score=min_score,
        limit=limit,
        shortest=shortest,
        longest=longest,
        grouped=grouped,
        why=why and head,
    )


def _place_names(entries: Sequence[VideoEntry]) -> dict[str, str]:
    """What can be searched, by its name in the address: folders where there are several, and videos."""
    folders = sorted({str(Path(entry.path).parent) for entry in entries})
    names = {f"{FOLDER}{folder}": f"📁 {folder}" for folder in folders} if len(folders) > 1 else {}
    return names | {entry.video[:SHORTEST_ID]: Path(entry.path).name for entry in entries}


def _answer() -> None:
    """Everything below the question: it is drawn anew without the rest when a card or a curve is clicked."""
    backend = backend_room.current()
    state: SearchState = visit.current(PAGE)
    query = st.session_state.get("search.query", "").strip()
    with errors_shown():
        if len(query) > backend_room.LONGEST_QUERY:
            backend.search(query, 1)
        hits: list[Hit] = []
        if state.query and show_loading(backend):
            hits = _ask(backend, state)
        if state.open is not None:
            _show_open(backend, state)
        if backend.readiness.state == backend_room.FAILED:
            raise VtgError(backend.readiness.message)
        if not state.query:
            show_loading(backend)
        elif backend.readiness.state == backend_room.READY:
            _show_hits(backend, state, hits)


def _ask(backend: Backend, state: SearchState) -> list[Hit]:
    by_id = {entry.video[:SHORTEST_ID]: entry.path for entry in backend.indexed()}
    places = [
        place.removeprefix(FOLDER) if place.startswith(FOLDER) else by_id[place]
        for place in state.places
        if place.startswith(FOLDER) or place in by_id
    ]
    lengths = (state.shortest, state.longest or None)
    return backend.search(state.query, state.limit, state.min_score, places, lengths)


def _questions(backend: Backend, asked: str) -> None:
    def ask(question: str) -> None:
        st.session_state["search.query"] = question[: backend_room.LONGEST_QUERY]

    examples = () if asked else backend.examples
    library = hashlib.sha256(str(backend.library.folder).encode()).hexdigest()[:12]
    questions("search.questions", library, examples, asked, ask)


def _show_hits(backend: Backend, state: SearchState, hits: list[Hit]) -> None:
    if not hits:
        with empty_state(
            "search_off",
            "No moment fits",
            "Ask in other words, or loosen the filters: the score that a moment must have, its length, where to look.",
        ):
            return
    videos = {entry.path: entry for entry in backend.indexed()}
    hits = [hit for hit in hits if hit.video in videos]
    st.caption(f"{count(len(hits), 'moment')} in {count(len({hit.video for hit in hits}), 'video')}")
    made = [(hit, _card(backend, state, hit, videos[hit.video])) for hit in hits]
    if state.grouped:
        by_video: dict[str, list[Card]] = {}
        for hit, card in made:
            by_video.setdefault(hit.video, []).append(card)
        groups = [CardGroup(Path(path).name, count(len(own), "moment"), tuple(own)) for path, own in by_video.items()]
    else:
        groups = [CardGroup("", "", tuple(card for _, card in made))]

    def choose(chosen: str) -> None:
        opened = read_search({"open": [chosen]}).open
        if opened:
            visit.keep(PAGE, replace(visit.current(PAGE), open=opened, at=None))

    cards("search.cards", groups, state.query, str(state.open or ""), choose)


def _card(backend: Backend, state: SearchState, hit: Hit, entry: VideoEntry) -> Card:
    moment, name = hit.moment, Path(hit.video).name
    times = (moment.start, moment.end)
    middle = min(hit.peak + 0.5 / backend.library.model.fps, entry.duration)
    return Card(
        id=str(OpenMoment(entry.video, *times)),
        name=name,
        span=span(*times),
        label=f"{name}, {span(*times)}, score {moment.score:.2f}: play",
        poster=media_url(backend, "why", entry.video, *times, query=state.query)
        if state.why
        else media_url(backend, "poster", entry.video, middle),
        preview=media_url(backend, "preview", entry.video, *times),
        score=moment.score,
    )


def _show_open(backend: Backend, state: SearchState) -> None:
    """The player, with the whole video's curve under it."""
    opened = state.open
    assert opened is not None
    entry = next((entry for entry in backend.indexed() if entry.video.startswith(opened.video)), None)
    if entry is None:
        raise VtgError("The moment of this address is of a video that is not in the library any more.")
    moment = Moment(opened.start, min(opened.end, entry.duration), 0.0)
    grounding = None
    if state.query and backend.readiness.state == backend_room.READY:
        (grounding,) = backend.ground(entry.video, [state.query])
    with st.container(border=True, key="open"):
        _open_heading(entry, moment, state)
        jump = (state.at, st.session_state.get("search.jumps", 0)) if state.at is not None else None
        show_player(backend, "search.player", entry.video, moment, grounding, jump)
        if grounding is not None:
            _show_curve(grounding)


def _open_heading(entry: VideoEntry, moment: Moment, state: SearchState) -> None:
    def close() -> None:
        visit.keep(PAGE, replace(visit.current(PAGE), open=None, at=None))

    with st.container(horizontal=True, vertical_alignment="center"):
        st.markdown(f"**{escape(Path(entry.path).name)}** · {span(moment.start, moment.end)}", width="stretch")
        params = {"v": entry.video[:SHORTEST_ID]} | ({"q": state.query} if state.query else {})
        st.page_link(
            st.session_state["pages"]["video"], label="This video", icon=":material/movie:", query_params=params
        )
        st.button("Close", icon=":material/close:", on_click=close, key="search.close")


def _show_curve(grounding: Grounding) -> None:
    key = f"search.curve.{hash((grounding.video, grounding.query))}"

    def jump() -> None:
        at = clicked_time(st.session_state.get(key))
        if at is not None:
            st.session_state["search.jumps"] = st.session_state.get("search.jumps", 0) + 1
            visit.keep(PAGE, replace(visit.current(PAGE), at=at))

    chart = curve_chart(grounding, ACCENT[st.context.theme.type or "light"])
    st.altair_chart(chart, key=key, on_select=jump, selection_mode=JUMP, width="stretch")
    st.caption("How much each part answers the question; shaded: the moments found. Click to jump.")
