"""The toolbar of the search page: picture, similar moment, transcript words, filters and switches."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

import streamlit as st
from streamlit.delta_generator import DeltaGenerator

from vtg.errors import VtgError
from vtg.files.text import one_line, to_utf8
from vtg.library.tables import VideoEntry

from .. import backend as backend_module
from .. import page_state
from ..backend import Backend
from ..components import query_inputs
from ..media import media_url
from ..search_query import Picture, read_picture
from ..url_state import ID_DIGITS, LIMITS, MAX_FILTER_SECONDS, MAX_QUERY_CHARACTERS, SearchState
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
PICTURES = "search.pictures"  # chosen in this visit, by digest
PICTURES_KEPT = 4  # per session
ABSENT = "search.absent"  # digest of a picture in the URL that the browser does not have
SHOWN_WORDS = 24  # characters of transcript words on their button
SCORE_STEP = 0.01


def fill(state: SearchState) -> None:
    """Set the widgets to a state before they are drawn."""
    st.session_state["search.query"] = state.query
    st.session_state["search.said"] = state.said
    st.session_state["search.places"] = list(state.places)
    st.session_state["search.min"] = shown_score(backend_module.current(), state)
    st.session_state["search.limit"] = state.limit
    st.session_state["search.shortest"] = state.shortest
    st.session_state["search.longest"] = state.longest
    st.session_state["search.grouped"] = state.grouped
    st.session_state["search.why"] = state.why


def change(state: SearchState) -> None:
    """Set a state that does not come from the widgets, such as from a click on a card."""
    page_state.save_state(PAGE, state)
    fill(state)


def show_toolbar(backend: Backend, state: SearchState, before: SearchState) -> SearchState:
    """Draw the toolbar; return the state of its widgets."""
    with st.container(horizontal=True, vertical_alignment="center", key="toolbar"):
        _besides(backend, before)
        state = replace(state, said=_said(before))
        default = _default_threshold(backend, state)
        start = shown_score(backend, before)
        if abs(st.session_state.get("search.min", start) - _default_threshold(backend, before)) <= SCORE_STEP / 2:
            start = default
            if "search.min" in st.session_state:
                st.session_state["search.min"] = default
        label = f"Filters · {before.filters}" if before.filters else "Filters"
        with st.popover(label, icon=":material/tune:"):
            places = _places(backend, before)
            least = st.slider(
                "Score at least",
                0.0,
                1.0,
                page_state.widget_default("search.min", start),
                step=SCORE_STEP,
                key="search.min",
                on_change=page_state.mark_widget_change,
            )
            left, right = st.columns(2)
            shortest = _seconds(left, "Seconds at least", "search.shortest", before.shortest)
            longest = _seconds(right, "Seconds at most (0: any)", "search.longest", before.longest)
            limit = st.select_slider(
                "Moments at most",
                LIMITS,
                page_state.widget_default("search.limit", before.limit),
                key="search.limit",
                on_change=page_state.mark_widget_change,
            )
        grouped = st.toggle(
            "Group by video",
            page_state.widget_default("search.grouped", before.grouped),
            key="search.grouped",
            on_change=page_state.mark_widget_change,
        )
        head = backend.library.model.head is not None
        why = _why(head, state, before)
    return replace(
        state,
        places=tuple(places),
        min_score=None if abs(least - default) <= SCORE_STEP / 2 else least,
        limit=limit,
        shortest=shortest,
        longest=longest,
        grouped=grouped,
        why=why and head,
    )


def _places(backend: Backend, state: SearchState) -> list[str]:
    """The folders and files to search; empty for all."""
    names = place_names(backend.indexed(), backend.shown.path)
    if "search.places" in st.session_state:
        st.session_state["search.places"] = [place for place in st.session_state["search.places"] if place in names]
    return st.multiselect(
        "Look in",
        list(names),
        page_state.widget_default("search.places", [place for place in state.places if place in names]),
        key="search.places",
        on_change=page_state.mark_widget_change,
        format_func=names.__getitem__,
        placeholder="all videos",
    )


def _besides(backend: Backend, state: SearchState) -> None:
    """Draw the picture and the similar moment of the query."""

    def on_picture(sent: dict[str, str]) -> None:
        if not sent.get("content"):
            st.session_state[ABSENT] = sent.get("digest")
            return
        try:
            picture = read_picture(str(sent.get("name")), str(sent["content"]))
        except VtgError as error:
            st.session_state["search.error"] = str(error)
            return
        kept: dict[str, Picture] = st.session_state.setdefault(PICTURES, {})
        kept[picture.digest] = picture
        for digest in list(kept)[:-PICTURES_KEPT]:
            del kept[digest]
        if picture.digest != page_state.current_state(PAGE).picture:
            change(replace(page_state.current_state(PAGE), picture=picture.digest, like=None, open=None, at=None))

    def on_remove(part: str) -> None:
        removed = {"picture": ""} if part == "picture" else {"like": None}
        change(replace(page_state.current_state(PAGE), **removed, open=None, at=None))

    like = None
    if state.like is not None:
        entry = entry_of(backend, state.like)
        times = (state.like.start, min(state.like.end, entry.duration) if entry else state.like.end)
        name = one_line(Path(entry.path).name) if entry else "a video that is not here any more"
        middle = sum(times) / 2
        like = f"{name} {span(*times)}", media_url(backend, "poster", entry.video, middle) if entry else ""
    scroll_count = st.session_state.get("search.likes", 0)
    query_inputs("search.inputs", page_state.visit_token(), state.picture, like, scroll_count, on_picture, on_remove)
    if message := st.session_state.pop("search.error", None):
        st.error(escape(message), icon=":material/error:")


def _seconds(column: DeltaGenerator, label: str, key: str, value: float) -> float:
    return column.number_input(
        label,
        0.0,
        MAX_FILTER_SECONDS,
        page_state.widget_default(key, value),
        step=1.0,
        key=key,
        on_change=page_state.mark_widget_change,
    )


def _why(head: bool, state: SearchState, before: SearchState) -> bool:
    """The switch for drawing attention over the posters; disabled if there is no attention."""
    if not head:
        text = "Needs an R² head: this library's model is CLIP alone, which has no attention to the query."
    elif _beside_sentences(state):
        text = "Only for a query in words."
    else:
        text = "Draws the model's attention to your query over each picture."
    return st.toggle(
        "Show why",
        page_state.widget_default("search.why", before.why),
        key="search.why",
        disabled=not head or _beside_sentences(state),
        help=text,
        on_change=page_state.mark_widget_change,
    )


def _beside_sentences(state: SearchState) -> bool:
    """Whether the query is not a sentence alone."""
    return bool(state.like or state.picture or (state.said and not state.query))


def shown_score(backend: Backend, state: SearchState) -> float:
    """The minimum score of the results that are shown."""
    return _default_threshold(backend, state) if state.min_score is None else state.min_score


def _default_threshold(backend: Backend, state: SearchState) -> float:
    """The default minimum score, rounded as in the slider.

    The model's threshold applies to sentences only: results for pictures and moments are shown with any score.
    """
    return 0.0 if _beside_sentences(state) else round(backend.default_threshold, 2)


def _said(before: SearchState) -> str:
    words = before.said if len(before.said) <= SHOWN_WORDS else f"{before.said[: SHOWN_WORDS - 1]}…"
    with st.popover(f"Said: {escape(words)}" if words else "Said words", icon=":material/record_voice_over:"):
        return st.text_input(
            "Words that are said there",
            page_state.widget_default("search.said", before.said),
            key="search.said",
            on_change=page_state.mark_widget_change,
            placeholder="anything",
            max_chars=MAX_QUERY_CHARACTERS,
            help='From the subtitles of your videos. Some of these words are enough; "in quotes" they are one phrase. '
            "Alone, or together with what is to be seen.",
        ).strip()


def folders_of(entries: Sequence[VideoEntry], shown: Callable[[str], str] = str) -> dict[str, list[str]]:
    """The folders of files, by their names in the URL; folders with the same display name are combined.

    Args:
        entries: the files.
        shown: converts the path of a folder for display.
    """
    named: dict[str, list[str]] = {}
    # For thousands of videos in each run; `os.path` is many times faster than `Path`.
    for folder in sorted({os.path.dirname(entry.path) for entry in entries}):  # noqa: PTH120
        named.setdefault(f"{FOLDER}{to_utf8(shown(folder))}", []).append(folder)
    return named


def place_names(entries: Sequence[VideoEntry], shown: Callable[[str], str] = str) -> dict[str, str]:
    """The choices for a search, by their names in the URL: folders, if there are several, and videos.

    Args:
        entries: the files of the library.
        shown: converts the path of a folder for display.
    """
    folders = folders_of(entries, shown)
    names = {name: f"📁 {one_line(shown(paths[0]))}" for name, paths in folders.items()} if len(folders) > 1 else {}
    return names | {entry.video[:ID_DIGITS]: one_line(os.path.basename(entry.path)) for entry in entries}  # noqa: PTH119
