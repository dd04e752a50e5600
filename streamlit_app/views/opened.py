"""The moment that is open on the search page: its player, and the whole video's curve under it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import streamlit as st

from vtg.errors import VtgError
from vtg.grounding.grounder import Grounding, Moment
from vtg.library.tables import VideoEntry

from .. import backend as backend_room
from .. import visit
from ..address import SHORTEST_ID, SearchState
from ..asked import Asked
from ..backend import Backend
from ..charts import JUMP, clicked_time, curve_caption, curve_chart
from ..look import ACCENT
from .parts import entry_of, errors_shown, escape, jump_to, show_player, span, trouble_with

__all__ = ["show_open"]


def show_open(
    backend: Backend, state: SearchState, asked: Asked, close: Callable[[], None], find_like: Callable[[str], None]
) -> None:
    """Draw it.

    Args:
        backend: whose library has the video.
        state: of the page, with an open moment.
        asked: what the page answers; a sentence alone has a curve.
        close: called where the visitor has seen enough.
        find_like: called with the moment where the visitor wants more like it.

    Raises:
        VtgError: the video is not in the library any more, or cannot be read.
    """
    opened = state.open
    assert opened is not None
    entry = entry_of(backend, opened)
    if entry is None or opened.start >= entry.duration:
        raise VtgError(f"The moment of this address {trouble_with(backend, opened)}")
    moment = Moment(opened.start, min(opened.end, entry.duration), 0.0)
    grounding = None
    if asked.sentence and backend.readiness.state == backend_room.READY:
        (grounding,) = backend.ground(entry.video, [asked.sentence])
        grounding = backend.comparable(entry.video, grounding)
    with st.container(border=True, key="open"):
        _heading(entry, moment, state, close, find_like)
        jump = jump_to(state.at, entry, st.session_state.get("search.jumps", 0))
        with errors_shown():
            show_player(backend, "search.player", entry.video, moment, grounding, jump)
        if grounding is not None:
            _show_curve(grounding, backend.usual_score)


def _heading(
    entry: VideoEntry, moment: Moment, state: SearchState, close: Callable[[], None], find_like: Callable[[str], None]
) -> None:
    with st.container(horizontal=True, vertical_alignment="center"):
        st.markdown(f"**{escape(Path(entry.path).name)}** · {span(moment.start, moment.end)}", width="stretch")
        st.button(
            "More like this",
            icon=":material/filter_none:",
            on_click=find_like,
            args=(str(state.open),),
            key="search.like",
        )
        params = {"v": entry.video[:SHORTEST_ID]} | ({"q": state.query} if state.query else {})
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
            visit.keep("search", replace(visit.current("search"), at=at))

    chart = curve_chart(grounding, threshold, ACCENT[st.context.theme.type or "light"])
    st.altair_chart(chart, key=key, on_select=jump, selection_mode=JUMP, width="stretch")
    st.caption(f"{curve_caption(grounding)} Click to jump.")
