"""The search page: what is asked, and of which answers; `results` and `opened` draw these."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import streamlit as st

from vtg.errors import VtgError
from vtg.library import Hit, Stretch
from vtg.tables import VideoEntry

from .. import backend as backend_room
from .. import visit
from ..address import LIMITS, SHORTEST_ID, OpenMoment, SearchState, read_moment, read_search
from ..asked import Asked, Picture, read_picture
from ..backend import Backend
from ..components import asked as show_asked
from ..components import questions
from ..media import media_url
from . import library as library_view
from .opened import show_open
from .parts import empty_state, errors_shown, escape, show_loading, span
from .results import show_hits, show_nothing

__all__ = ["show", "state_like"]

PAGE = "search"
FOLDER = "folder: "  # before the names of folders among the places that can be searched
PICTURES = "search.pictures"  # that this visitor has chosen, by digest
PICTURES_KEPT = 4  # of one visitor
ABSENT = "search.absent"  # digest of a picture that the address names and the browser does not have
CHANGED = "search.changed"  # whether a click among the answers has changed what is above them
SHOWN_WORDS = 24  # characters of said words on their button
SCORE_STEP = 0.01


def show() -> None:
    """Draw the page."""
    backend = backend_room.current()
    if not backend.indexed():
        library_view.show_first_steps(backend)
        return
    before = visit.begin(PAGE, read_search, _fill)
    with st.container(key="ask"):
        query = st.text_input(
            "Ask for a moment",
            key="search.query",
            placeholder="Ask for a moment in plain words",
            label_visibility="collapsed",
            icon=":material/search:",
        ).strip()
    state = _toolbar(backend, replace(before, query=query), before)
    if not state.asks_the_same_as(before):
        state = replace(state, open=None, at=None)
    if len(state.query) <= backend_room.LONGEST_QUERY:
        visit.keep(PAGE, state)
    _questions(backend, visit.current(PAGE))
    st.fragment(_answer)()


def state_like(moment: OpenMoment, before: SearchState) -> SearchState:
    """The state that looks for more like a moment, with the filters of another."""
    return replace(before, query="", said="", picture="", like=moment, open=None, at=None)


def _fill(state: SearchState) -> None:
    usual = _usual_score(backend_room.current(), state)
    st.session_state["search.query"] = state.query
    st.session_state["search.said"] = state.said
    st.session_state["search.places"] = list(state.places)
    st.session_state["search.min"] = usual if state.min_score is None else state.min_score
    st.session_state["search.limit"] = state.limit
    st.session_state["search.shortest"] = state.shortest
    st.session_state["search.longest"] = state.longest
    st.session_state["search.grouped"] = state.grouped
    st.session_state["search.why"] = state.why


def _change(state: SearchState) -> None:
    """Take a state that a click, and no widget, has made."""
    visit.keep(PAGE, state)
    _fill(state)


def _besides(backend: Backend, state: SearchState) -> None:
    """A picture, and a moment that others are to be like."""

    def take(sent: dict[str, str]) -> None:
        if not sent.get("content"):
            st.session_state[ABSENT] = sent.get("digest")
            return
        try:
            picture = read_picture(str(sent.get("name")), str(sent["content"]))
        except VtgError as error:
            st.session_state["search.trouble"] = str(error)
            return
        kept: dict[str, Picture] = st.session_state.setdefault(PICTURES, {})
        kept[picture.digest] = picture
        for digest in list(kept)[:-PICTURES_KEPT]:
            del kept[digest]
        if picture.digest != visit.current(PAGE).picture:
            _change(replace(visit.current(PAGE), picture=picture.digest, like=None, open=None, at=None))

    def drop(what: str) -> None:
        gone = {"picture": ""} if what == "picture" else {"like": None}
        _change(replace(visit.current(PAGE), **gone, open=None, at=None))

    like = None
    if state.like is not None:
        entry = _entry_of(backend, state.like)
        times = (state.like.start, state.like.end)
        name = Path(entry.path).name if entry else "a video that is not here any more"
        middle = sum(times) / 2
        like = f"{name} {span(*times)}", media_url(backend, "poster", entry.video, middle) if entry else ""
    show_asked("search.asked", state.picture, like, st.session_state.get("search.likes", 0), take, drop)
    if trouble := st.session_state.pop("search.trouble", None):
        st.error(escape(trouble), icon=":material/error:")


def _toolbar(backend: Backend, state: SearchState, before: SearchState) -> SearchState:
    """What is asked besides words that are seen, filters and switches; gives the state that they say."""
    with st.container(horizontal=True, vertical_alignment="center", key="toolbar"):
        _besides(backend, before)
        state = replace(state, said=_said(before))
        usual = _usual_score(backend, state)
        if abs(st.session_state["search.min"] - _usual_score(backend, before)) <= SCORE_STEP / 2:
            st.session_state["search.min"] = usual
        label = f"Filters · {before.filters}" if before.filters else "Filters"
        with st.popover(label, icon=":material/tune:"):
            names = _place_names(backend.indexed())
            kept = [place for place in st.session_state.get("search.places", []) if place in names]
            st.session_state["search.places"] = kept
            places = st.multiselect(
                "Look in", list(names), key="search.places", format_func=names.__getitem__, placeholder="all videos"
            )
            least = st.slider("Score at least", 0.0, 1.0, step=SCORE_STEP, key="search.min")
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
            help="Where the model looked for your words, painted over each picture."
            if head
            else "This library is asked by CLIP alone, which looks at whole pictures; an R² head shows where.",
        )
    return replace(
        state,
        places=tuple(places),
        min_score=None if abs(least - usual) <= SCORE_STEP / 2 else least,
        limit=limit,
        shortest=shortest,
        longest=longest,
        grouped=grouped,
        why=why and head,
    )


def _usual_score(backend: Backend, state: SearchState) -> float:
    """The score from which on a moment is shown, unless a visitor says otherwise, as the slider has it.

    What a model knows of its scores is about sentences: what is like a picture is shown as it comes, nearest first.
    """
    other = state.like or state.picture or (state.said and not state.query)
    return 0.0 if other else round(backend.usual_score, 2)


def _said(before: SearchState) -> str:
    words = before.said if len(before.said) <= SHOWN_WORDS else f"{before.said[: SHOWN_WORDS - 1]}…"
    with st.popover(f"Said: {escape(words)}" if words else "Said words", icon=":material/record_voice_over:"):
        return st.text_input(
            "Words that are said there",
            key="search.said",
            placeholder="anything",
            max_chars=backend_room.LONGEST_QUERY,
            help='From the subtitles of your videos. Some of these words are enough; "in quotes" they are one phrase. '
            "Alone, or together with what is to be seen.",
        ).strip()


def _place_names(entries: Sequence[VideoEntry]) -> dict[str, str]:
    """What can be searched, by its name in the address: folders where there are several, and videos."""
    # Of thousands of videos in each run: paths as texts are many times quicker than as `Path`.
    folders = sorted({os.path.dirname(entry.path) for entry in entries})  # noqa: PTH120
    names = {f"{FOLDER}{folder}": f"📁 {folder}" for folder in folders} if len(folders) > 1 else {}
    return names | {entry.video[:SHORTEST_ID]: os.path.basename(entry.path) for entry in entries}  # noqa: PTH119


def _questions(backend: Backend, state: SearchState) -> None:
    def ask(question: str) -> None:
        st.session_state["search.query"] = question[: backend_room.LONGEST_QUERY]

    examples = () if state.asks else backend.examples
    library = hashlib.sha256(str(backend.library.folder).encode()).hexdigest()[:12]
    questions("search.questions", library, examples, state.query, ask)


def _answer() -> None:
    """Everything below the question: it is drawn anew without the rest when a card or a curve is clicked."""
    if st.session_state.pop(CHANGED, False):
        st.rerun()
    backend = backend_room.current()
    state: SearchState = visit.current(PAGE)
    query = st.session_state.get("search.query", "").strip()
    with errors_shown():
        if len(query) > backend_room.LONGEST_QUERY:
            backend.search(Asked(query), 1)
        if state.picture and state.picture not in st.session_state.get(PICTURES, {}):
            _wait_for_picture(state.picture)
            return
        asked = _asked(backend, state)
        hits: list[Hit] = []
        if state.asks and show_loading(backend):
            hits = _search(backend, state, asked)
        if state.open is not None:
            show_open(backend, state, asked, _close, _find_like)
        if backend.readiness.state == backend_room.FAILED:
            raise VtgError(backend.readiness.message)
        if not state.asks:
            show_loading(backend)
        elif backend.readiness.state == backend_room.READY:
            _show_answers(backend, state, asked, hits)


def _show_answers(backend: Backend, state: SearchState, asked: Asked, hits: list[Hit]) -> None:
    least = _usual_score(backend, state) if state.min_score is None else state.min_score
    videos = {entry.path: entry for entry in backend.indexed()}
    hits = [hit for hit in hits if hit.video in videos]
    found = [hit for hit in hits if hit.moment.score >= least]
    if found:
        show_hits(backend, state, asked, found, videos, _open, _find_like)
    else:
        show_nothing(backend, state, least, hits, _show_nearest)


def _wait_for_picture(digest: str) -> None:
    """Nothing while the browser is asked for its picture, which takes a moment; then what is to be done."""
    if st.session_state.get(ABSENT) == digest:
        with empty_state(
            "add_photo_alternate",
            "This search is by a picture",
            "An address cannot hold it, and only the browser tab in which it was chosen has it: choose it again.",
        ):
            return


def _asked(backend: Backend, state: SearchState) -> Asked:
    like = None
    if state.like is not None:
        entry = _entry_of(backend, state.like)
        if entry is None:
            raise VtgError("The moment that others are to be like is of a video that is not in the library any more.")
        like = Stretch(Path(entry.path), state.like.start, state.like.end)
    return Asked(state.query, state.said, like, st.session_state.get(PICTURES, {}).get(state.picture))


def _entry_of(backend: Backend, moment: OpenMoment) -> VideoEntry | None:
    return next((entry for entry in backend.indexed() if entry.video.startswith(moment.video)), None)


def _search(backend: Backend, state: SearchState, asked: Asked) -> list[Hit]:
    by_id = {entry.video[:SHORTEST_ID]: entry.path for entry in backend.indexed()}
    places = [
        place.removeprefix(FOLDER) if place.startswith(FOLDER) else by_id[place]
        for place in state.places
        if place.startswith(FOLDER) or place in by_id
    ]
    return backend.search(asked, state.limit, places, (state.shortest, state.longest or None))


def _open(chosen: str) -> None:
    if opened := read_moment(chosen):
        visit.keep(PAGE, replace(visit.current(PAGE), open=opened, at=None))


def _close() -> None:
    visit.keep(PAGE, replace(visit.current(PAGE), open=None, at=None))


def _find_like(chosen: str) -> None:
    if moment := read_moment(chosen):
        st.session_state[CHANGED] = True
        st.session_state["search.likes"] = st.session_state.get("search.likes", 0) + 1
        _change(state_like(moment, visit.current(PAGE)))


def _show_nearest() -> None:
    st.session_state[CHANGED] = True
    _change(replace(visit.current(PAGE), min_score=0.0))
