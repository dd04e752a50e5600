"""The search page's toolbar: a picture, a moment, said words, filters and switches; and the values of its widgets."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

import streamlit as st
from streamlit.delta_generator import DeltaGenerator

from vtg.errors import VtgError
from vtg.library.tables import VideoEntry
from vtg.text import one_line, to_utf8

from .. import backend as backend_room
from .. import visit
from ..address import LIMITS, LONGEST_QUERY, LONGEST_SECONDS, SHORTEST_ID, SearchState
from ..asked import Picture, read_picture
from ..backend import Backend
from ..components import asked as show_asked
from ..media import media_url
from .parts import entry_of, escape, span

__all__ = [
    "ABSENT",
    "FOLDER",
    "PAGE",
    "PICTURES",
    "change",
    "fill",
    "folders_of",
    "place_names",
    "show_toolbar",
    "shown_score",
]

PAGE = "search"
FOLDER = "folder: "  # before the names of folders among the places that can be searched
PICTURES = "search.pictures"  # that this visitor has chosen, by digest
PICTURES_KEPT = 4  # of one visitor
ABSENT = "search.absent"  # digest of a picture that the address names and the browser does not have
SHOWN_WORDS = 24  # characters of said words on their button
SCORE_STEP = 0.01


def fill(state: SearchState) -> None:
    """Put a state into the widgets before they are drawn."""
    st.session_state["search.query"] = state.query
    st.session_state["search.said"] = state.said
    st.session_state["search.places"] = list(state.places)
    st.session_state["search.min"] = shown_score(backend_room.current(), state)
    st.session_state["search.limit"] = state.limit
    st.session_state["search.shortest"] = state.shortest
    st.session_state["search.longest"] = state.longest
    st.session_state["search.grouped"] = state.grouped
    st.session_state["search.why"] = state.why


def change(state: SearchState) -> None:
    """Take a state that a click, and no widget, has made."""
    visit.keep(PAGE, state)
    fill(state)


def show_toolbar(backend: Backend, state: SearchState, before: SearchState) -> SearchState:
    """What is asked besides words that are seen, filters and switches; gives the state that they say."""
    with st.container(horizontal=True, vertical_alignment="center", key="toolbar"):
        _besides(backend, before)
        state = replace(state, said=_said(before))
        usual = _usual_score(backend, state)
        start = shown_score(backend, before)
        if abs(st.session_state.get("search.min", start) - _usual_score(backend, before)) <= SCORE_STEP / 2:
            start = usual
            if "search.min" in st.session_state:
                st.session_state["search.min"] = usual
        label = f"Filters · {before.filters}" if before.filters else "Filters"
        with st.popover(label, icon=":material/tune:"):
            places = _places(backend, before)
            least = st.slider(
                "Score at least",
                0.0,
                1.0,
                visit.initial("search.min", start),
                step=SCORE_STEP,
                key="search.min",
                on_change=visit.acted,
            )
            left, right = st.columns(2)
            shortest = _seconds(left, "Seconds at least", "search.shortest", before.shortest)
            longest = _seconds(right, "Seconds at most (0: any)", "search.longest", before.longest)
            limit = st.select_slider(
                "Moments at most",
                LIMITS,
                visit.initial("search.limit", before.limit),
                key="search.limit",
                on_change=visit.acted,
            )
        grouped = st.toggle(
            "Group by video",
            visit.initial("search.grouped", before.grouped),
            key="search.grouped",
            on_change=visit.acted,
        )
        head = backend.library.model.head is not None
        why = _why(head, state, before)
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


def _places(backend: Backend, state: SearchState) -> list[str]:
    """The folders and files to look in; none for all."""
    names = place_names(backend.indexed(), backend.shown.path)
    if "search.places" in st.session_state:
        st.session_state["search.places"] = [place for place in st.session_state["search.places"] if place in names]
    return st.multiselect(
        "Look in",
        list(names),
        visit.initial("search.places", [place for place in state.places if place in names]),
        key="search.places",
        on_change=visit.acted,
        format_func=names.__getitem__,
        placeholder="all videos",
    )


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
            change(replace(visit.current(PAGE), picture=picture.digest, like=None, open=None, at=None))

    def drop(what: str) -> None:
        gone = {"picture": ""} if what == "picture" else {"like": None}
        change(replace(visit.current(PAGE), **gone, open=None, at=None))

    like = None
    if state.like is not None:
        entry = entry_of(backend, state.like)
        times = (state.like.start, min(state.like.end, entry.duration) if entry else state.like.end)
        name = one_line(Path(entry.path).name) if entry else "a video that is not here any more"
        middle = sum(times) / 2
        like = f"{name} {span(*times)}", media_url(backend, "poster", entry.video, middle) if entry else ""
    news = st.session_state.get("search.likes", 0)
    show_asked("search.asked", visit.token(), state.picture, like, news, take, drop)
    if trouble := st.session_state.pop("search.trouble", None):
        st.error(escape(trouble), icon=":material/error:")


def _seconds(column: DeltaGenerator, label: str, key: str, value: float) -> float:
    return column.number_input(
        label, 0.0, LONGEST_SECONDS, visit.initial(key, value), step=1.0, key=key, on_change=visit.acted
    )


def _why(head: bool, state: SearchState, before: SearchState) -> bool:
    """The switch that paints the attention over the posters; it is disabled where there is none to be shown."""
    if not head:
        text = "This library is asked by CLIP alone, which looks at whole pictures; an R² head shows where."
    elif _beside_sentences(state):
        text = "Only for a question in words: it shows where the model looks for these."
    else:
        text = "Where the model looked for your words, painted over each picture."
    return st.toggle(
        "Show why",
        visit.initial("search.why", before.why),
        key="search.why",
        disabled=not head or _beside_sentences(state),
        help=text,
        on_change=visit.acted,
    )


def _beside_sentences(state: SearchState) -> bool:
    """Whether something else than a sentence is looked for."""
    return bool(state.like or state.picture or (state.said and not state.query))


def shown_score(backend: Backend, state: SearchState) -> float:
    """The least score of what is shown."""
    return _usual_score(backend, state) if state.min_score is None else state.min_score


def _usual_score(backend: Backend, state: SearchState) -> float:
    """The score from which on a moment is shown, unless a visitor says otherwise, as the slider has it.

    What a model knows of its scores is about sentences: what is like a picture is shown as it comes, nearest first.
    """
    return 0.0 if _beside_sentences(state) else round(backend.usual_score, 2)


def _said(before: SearchState) -> str:
    words = before.said if len(before.said) <= SHOWN_WORDS else f"{before.said[: SHOWN_WORDS - 1]}…"
    with st.popover(f"Said: {escape(words)}" if words else "Said words", icon=":material/record_voice_over:"):
        return st.text_input(
            "Words that are said there",
            visit.initial("search.said", before.said),
            key="search.said",
            on_change=visit.acted,
            placeholder="anything",
            max_chars=LONGEST_QUERY,
            help='From the subtitles of your videos. Some of these words are enough; "in quotes" they are one phrase. '
            "Alone, or together with what is to be seen.",
        ).strip()


def folders_of(entries: Sequence[VideoEntry], shown: Callable[[str], str] = str) -> dict[str, list[str]]:
    """The folders of files, by their names in the address; those that visitors see under one name are one.

    Args:
        entries: the files.
        shown: how the path of a folder is written.
    """
    named: dict[str, list[str]] = {}
    # Of thousands of videos in each run: paths as texts are many times quicker than as `Path`.
    for folder in sorted({os.path.dirname(entry.path) for entry in entries}):  # noqa: PTH120
        named.setdefault(f"{FOLDER}{to_utf8(shown(folder))}", []).append(folder)
    return named


def place_names(entries: Sequence[VideoEntry], shown: Callable[[str], str] = str) -> dict[str, str]:
    """What can be searched, by its name in the address: folders where there are several, and videos.

    Args:
        entries: the files of the library.
        shown: how the path of a folder is written.
    """
    folders = folders_of(entries, shown)
    names = {name: f"📁 {one_line(shown(paths[0]))}" for name, paths in folders.items()} if len(folders) > 1 else {}
    return names | {entry.video[:SHORTEST_ID]: one_line(os.path.basename(entry.path)) for entry in entries}  # noqa: PTH119
