"""The open moment of the search page: its player, and the saliency curve of the video."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import streamlit as st

from vtg.errors import VtgError
from vtg.grounding.grounder import Grounding, Moment
from vtg.library.tables import VideoEntry

from .. import backend as backend_module
from .. import page_state
from ..backend import Backend
from ..charts import JUMP, clicked_time, curve_caption, curve_chart
from ..search_query import SearchQuery
from ..theme import ACCENT
from ..url_state import ID_DIGITS, SearchState
from .parts import entry_of, escape, jump_target, moment_error, show_errors, show_player, span

__all__ = ["show_open"]


def show_open(
    backend: Backend,
    state: SearchState,
    asked: SearchQuery,
    close: Callable[[], None],
    on_find_similar: Callable[[str], None],
) -> None:
    """Draw the open moment.

    Args:
        backend: whose library has the video.
        state: of the page, with an open moment.
        asked: the query; only a sentence alone has a curve.
        close: called when the visitor closes the moment.
        on_find_similar: called with the moment to find similar ones of.

    Raises:
        VtgError: the video is not in the library any more, or cannot be read.
    """
    opened = state.open
    assert opened is not None
    entry = entry_of(backend, opened)
    if entry is None or opened.start >= entry.duration:
        raise VtgError(f"The moment of this address {moment_error(backend, opened)}")
    moment = Moment(opened.start, min(opened.end, entry.duration), 0.0)
    grounding = None
    if asked.sentence and backend.readiness.state == backend_module.READY:
        (grounding,) = backend.ground(entry.video, [asked.sentence])
        grounding = backend.with_search_scores(entry.video, grounding)
    with st.container(border=True, key="open"):
        _heading(entry, moment, state, close, on_find_similar)
        jump = jump_target(state.at, entry, st.session_state.get("search.jumps", 0))
        with show_errors():
            show_player(backend, "search.player", entry.video, moment, grounding, jump)
        if grounding is not None:
            _show_curve(grounding, backend.default_threshold)


def _heading(
    entry: VideoEntry,
    moment: Moment,
    state: SearchState,
    close: Callable[[], None],
    on_find_similar: Callable[[str], None],
) -> None:
    with st.container(horizontal=True, vertical_alignment="center"):
        st.markdown(f"**{escape(Path(entry.path).name)}** · {span(moment.start, moment.end)}", width="stretch")
        st.button(
            "More like this",
            icon=":material/filter_none:",
            on_click=on_find_similar,
            args=(str(state.open),),
            key="search.like",
        )
        params = {"v": entry.video[:ID_DIGITS]} | ({"q": state.query} if state.query else {})
        st.page_link(
            st.session_state["pages"]["video"], label="This video", icon=":material/movie:", query_params=params
        )
        st.button("Close", icon=":material/close:", on_click=close, key="search.close")


def _show_curve(grounding: Grounding, threshold: float) -> None:
    key = f"search.curve.{hash((grounding.video, grounding.query))}"

    def jump() -> None:
        at = clicked_time(st.session_state.get(key))
        if at is not None:
            st.session_state["search.jumps"] = st.session_state.get("search.jumps", 0) + 1
            page_state.save_state("search", replace(page_state.current_state("search"), at=at))

    chart = curve_chart(grounding, threshold, ACCENT[st.context.theme.type or "light"])
    st.altair_chart(chart, key=key, on_select=jump, selection_mode=JUMP, width="stretch")
    st.caption(f"{curve_caption(grounding)} Click to jump.")
