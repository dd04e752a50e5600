"""The search page: what is asked, and of which answers; `results` and `opened` draw these."""

from __future__ import annotations

import hashlib
from dataclasses import replace
from pathlib import Path

import streamlit as st

from vtg.errors import VtgError
from vtg.library.library import Hit, Stretch

from .. import backend as backend_room
from .. import visit
from ..address import LONGEST_QUERY, SHORTEST_ID, OpenMoment, SearchState, read_moment, read_search
from ..asked import Asked
from ..backend import Backend
from ..components import questions
from . import library as library_view
from .opened import show_open
from .parts import empty_state, entry_of, errors_shown, show_loading, trouble_with
from .results import show_hits, show_nothing
from .toolbar import ABSENT, PAGE, PICTURES, change, fill, folders_of, show_toolbar, shown_score

__all__ = ["PAGE", "show", "state_like"]

CHANGED = "search.changed"  # whether a click among the answers has changed what is above them


def show() -> None:
    """Draw the page."""
    backend = backend_room.current()
    if not backend.indexed():
        library_view.show_first_steps(backend)
        return
    before = visit.begin(PAGE, read_search, fill)
    with st.container(key="ask"):
        query = st.text_input(
            "Ask for a moment",
            visit.initial("search.query", before.query),
            key="search.query",
            on_change=visit.acted,
            placeholder="Ask for a moment in plain words",
            label_visibility="collapsed",
            icon=":material/search:",
        ).strip()
    state = show_toolbar(backend, replace(before, query=query), before)
    if not state.asks_the_same_as(before):
        state = replace(state, open=None, at=None)
    if len(state.query) <= LONGEST_QUERY:
        visit.keep(PAGE, state)
    _questions(backend, visit.current(PAGE))
    st.fragment(_answer)()


def state_like(moment: OpenMoment, before: SearchState) -> SearchState:
    """The state that looks for more like a moment, with the filters of another."""
    return replace(before, query="", said="", picture="", like=moment, open=None, at=None)


def _questions(backend: Backend, state: SearchState) -> None:
    def ask(question: str) -> None:
        st.session_state["search.query"] = question[:LONGEST_QUERY]
        visit.acted()

    examples = () if state.asks else backend.examples
    library = hashlib.sha256(str(backend.library.folder).encode()).hexdigest()[:12]
    answered = state.query if len(state.query) <= LONGEST_QUERY else ""
    questions("search.questions", library, examples, answered, ask)


def _answer() -> None:
    """Everything below the question: it is drawn anew without the rest when a card or a curve is clicked."""
    if st.session_state.pop(CHANGED, False):
        visit.rerun()
    backend = backend_room.current()
    state = _answerable(backend, visit.current(PAGE))
    if state is None:
        return
    ready = show_loading(backend)
    with errors_shown():
        if backend.readiness.state == backend_room.FAILED:
            raise VtgError(backend.readiness.message)
    # What is wrong with one part is no reason to withhold the others.
    asked = _asked(backend, state)
    hits: list[Hit] | None = None
    if state.asks and ready:
        with errors_shown():
            hits = _search(backend, state, asked)
    if state.open is not None:
        with errors_shown():
            show_open(backend, state, asked, _close, _find_like)
    if hits is not None:
        with errors_shown():
            _show_answers(backend, state, asked, hits)


def _answerable(backend: Backend, state: SearchState) -> SearchState | None:
    """Say what of a state cannot be answered, and give the rest; None while the browser is asked for its picture."""
    query = st.session_state.get("search.query", "").strip()
    with errors_shown():
        if len(query) > LONGEST_QUERY:
            state = replace(state, query="")
            backend.check_length(query)
    with errors_shown():
        if state.like is not None and (trouble := trouble_with(backend, state.like)):
            state = replace(state, like=None)
            raise VtgError(f"The moment that others are to be like {trouble}")
    if not state.picture or state.picture in st.session_state.get(PICTURES, {}):
        return state
    if st.session_state.get(ABSENT) != state.picture:
        return None
    state = replace(state, picture="")
    text = "An address cannot hold it, and only the browser tab in which it was chosen has it: choose it again."
    if state.asks:
        st.warning(f"This search is also by a picture. {text}", icon=":material/add_photo_alternate:")
        return state
    with empty_state("add_photo_alternate", "This search is by a picture", text):
        return state


def _show_answers(backend: Backend, state: SearchState, asked: Asked, hits: list[Hit]) -> None:
    least = shown_score(backend, state)
    videos = {entry.path: entry for entry in backend.indexed()}
    hits = [hit for hit in hits if hit.video in videos]
    found = [hit for hit in hits if hit.moment.score >= least]
    if found:
        show_hits(backend, state, asked, found, videos, _open, _find_like)
    else:
        show_nothing(backend, state, least, hits, _show_nearest)


def _asked(backend: Backend, state: SearchState) -> Asked:
    like = None
    if state.like is not None and (entry := entry_of(backend, state.like)):
        like = Stretch(Path(entry.path), state.like.start, state.like.end)
    return Asked(state.query, state.said, like, st.session_state.get(PICTURES, {}).get(state.picture))


def _search(backend: Backend, state: SearchState, asked: Asked) -> list[Hit]:
    entries = backend.indexed()
    known = {entry.video[:SHORTEST_ID]: [entry.path] for entry in entries}
    known |= folders_of(entries, backend.shown.path)
    places = [path for place in state.places for path in known.get(place, ())]
    return backend.search(asked, state.limit, places, (state.shortest, state.longest or None))


def _open(chosen: str) -> None:
    if (opened := read_moment(chosen)) is None:
        return
    state: SearchState = visit.current(PAGE)
    again = opened == state.open  # it is in the player already, which goes back to its beginning
    if again:
        st.session_state["search.jumps"] = st.session_state.get("search.jumps", 0) + 1
    visit.keep(PAGE, replace(state, open=opened, at=opened.start if again else None))


def _close() -> None:
    visit.keep(PAGE, replace(visit.current(PAGE), open=None, at=None))


def _find_like(chosen: str) -> None:
    if moment := read_moment(chosen):
        st.session_state[CHANGED] = True
        st.session_state["search.likes"] = st.session_state.get("search.likes", 0) + 1
        change(state_like(moment, visit.current(PAGE)))


def _show_nearest() -> None:
    st.session_state[CHANGED] = True
    change(replace(visit.current(PAGE), min_score=0.0))
