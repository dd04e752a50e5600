"""The search page: the query and its results, which `results` and `open_moment` draw."""

from __future__ import annotations

import hashlib
from dataclasses import replace
from pathlib import Path

import streamlit as st

from vtg.errors import VtgError
from vtg.library.library import Hit, Stretch

from .. import backend as backend_module
from .. import page_state
from ..backend import Backend
from ..components import questions
from ..search_query import SearchQuery
from ..url_state import ID_DIGITS, MAX_QUERY_CHARACTERS, OpenMoment, SearchState, read_moment, read_search
from . import library as library_view
from .open_moment import show_open
from .parts import empty_state, entry_of, moment_error, show_errors, show_loading
from .results import show_hits, show_nothing
from .toolbar import ABSENT, PAGE, PICTURES, change, fill, folders_of, show_toolbar, shown_score

__all__ = ["PAGE", "show", "state_like"]

CHANGED = "search.changed"  # whether a click among the results has changed the query or the filters


def show() -> None:
    """Draw the page."""
    backend = backend_module.current()
    if not backend.indexed():
        library_view.show_first_steps(backend)
        return
    before = page_state.load_state(PAGE, read_search, fill)
    with st.container(key="ask"):
        query = st.text_input(
            "Ask for a moment",
            page_state.widget_default("search.query", before.query),
            key="search.query",
            on_change=page_state.mark_widget_change,
            placeholder="Ask for a moment in plain words",
            label_visibility="collapsed",
            icon=":material/search:",
        ).strip()
    state = show_toolbar(backend, replace(before, query=query), before)
    if not state.has_same_query(before):
        state = replace(state, open=None, at=None)
    if len(state.query) <= MAX_QUERY_CHARACTERS:
        page_state.save_state(PAGE, state)
    _questions(backend, page_state.current_state(PAGE))
    st.fragment(_answer)()


def state_like(moment: OpenMoment, before: SearchState) -> SearchState:
    """The state that finds moments similar to one, with the filters of another state."""
    return replace(before, query="", said="", picture="", like=moment, open=None, at=None)


def _questions(backend: Backend, state: SearchState) -> None:
    def ask(question: str) -> None:
        st.session_state["search.query"] = question[:MAX_QUERY_CHARACTERS]
        page_state.mark_widget_change()

    examples = () if state.has_query else backend.examples
    library = hashlib.sha256(str(backend.library.folder).encode()).hexdigest()[:12]
    answered = state.query if len(state.query) <= MAX_QUERY_CHARACTERS else ""
    questions("search.questions", library, examples, answered, ask)


def _answer() -> None:
    """Draw everything below the query; this fragment runs alone when a card or a curve is clicked."""
    if st.session_state.pop(CHANGED, False):
        page_state.rerun()
    backend = backend_module.current()
    state = _valid_state(backend, page_state.current_state(PAGE))
    if state is None:
        return
    ready = show_loading(backend)
    with show_errors():
        if backend.readiness.state == backend_module.FAILED:
            raise VtgError(backend.readiness.message)
    # An error in one part does not hide the others.
    query = _search_query(backend, state)
    hits: list[Hit] | None = None
    if state.has_query and ready:
        with show_errors():
            hits = _search(backend, state, query)
    if state.open is not None:
        with show_errors():
            show_open(backend, state, query, _close, _find_like)
    if hits is not None:
        with show_errors():
            _show_results(backend, state, query, hits)


def _valid_state(backend: Backend, state: SearchState) -> SearchState | None:
    """Show errors of parts of the query and return the rest; None while the browser is sending its picture."""
    query = st.session_state.get("search.query", "").strip()
    with show_errors():
        if len(query) > MAX_QUERY_CHARACTERS:
            state = replace(state, query="")
            backend.check_length(query)
    with show_errors():
        if state.like is not None and (reason := moment_error(backend, state.like)):
            state = replace(state, like=None)
            raise VtgError(f"The moment to find similar ones of {reason}")
    if not state.picture or state.picture in st.session_state.get(PICTURES, {}):
        return state
    if st.session_state.get(ABSENT) != state.picture:
        return None
    state = replace(state, picture="")
    text = "A link does not contain the picture; only the browser tab in which it was chosen has it: choose it again."
    if state.has_query:
        st.warning(f"This search also uses a picture. {text}", icon=":material/add_photo_alternate:")
        return state
    with empty_state("add_photo_alternate", "This search uses a picture", text):
        return state


def _show_results(backend: Backend, state: SearchState, query: SearchQuery, hits: list[Hit]) -> None:
    least = shown_score(backend, state)
    videos = {entry.path: entry for entry in backend.indexed()}
    hits = [hit for hit in hits if hit.video in videos]
    found = [hit for hit in hits if hit.moment.score >= least]
    if found:
        show_hits(backend, state, query, found, videos, _open, _find_like)
    else:
        show_nothing(backend, state, least, hits, _show_nearest)


def _search_query(backend: Backend, state: SearchState) -> SearchQuery:
    like = None
    if state.like is not None and (entry := entry_of(backend, state.like)):
        like = Stretch(Path(entry.path), state.like.start, state.like.end)
    return SearchQuery(state.query, state.said, like, st.session_state.get(PICTURES, {}).get(state.picture))


def _search(backend: Backend, state: SearchState, query: SearchQuery) -> list[Hit]:
    entries = backend.indexed()
    known = {entry.video[:ID_DIGITS]: [entry.path] for entry in entries}
    known |= folders_of(entries, backend.shown.path)
    places = [path for place in state.places for path in known.get(place, ())]
    return backend.search(query, state.limit, places, (state.shortest, state.longest or None))


def _open(chosen: str) -> None:
    if (opened := read_moment(chosen)) is None:
        return
    state: SearchState = page_state.current_state(PAGE)
    again = opened == state.open  # it is in the player already, which then seeks to its start
    if again:
        st.session_state["search.jumps"] = st.session_state.get("search.jumps", 0) + 1
    page_state.save_state(PAGE, replace(state, open=opened, at=opened.start if again else None))


def _close() -> None:
    page_state.save_state(PAGE, replace(page_state.current_state(PAGE), open=None, at=None))


def _find_like(chosen: str) -> None:
    if moment := read_moment(chosen):
        st.session_state[CHANGED] = True
        st.session_state["search.likes"] = st.session_state.get("search.likes", 0) + 1
        change(state_like(moment, page_state.current_state(PAGE)))


def _show_nearest() -> None:
    st.session_state[CHANGED] = True
    change(replace(page_state.current_state(PAGE), min_score=0.0))
