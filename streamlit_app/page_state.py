"""Synchronize the state of a page with its URL, through reloads and the browser's history."""

from __future__ import annotations

import secrets
from collections.abc import Callable, Mapping
from typing import Any, TypeVar

import streamlit as st

from .url_state import SearchState, VideoState

__all__ = [
    "current_state",
    "enter_page",
    "load_state",
    "mark_complete",
    "mark_widget_change",
    "preset_state",
    "rerun",
    "save_state",
    "state_of",
    "url_params",
    "visit_token",
    "widget_default",
]

ACTED = "visit.acted"  # whether a widget or the script has caused this run, and not a new URL
COMPLETE = "visit.complete"  # whether a run of this visit has drawn its whole page
State = TypeVar("State", SearchState, VideoState)
Value = TypeVar("Value")


def enter_page(page: str) -> None:
    """Record the page that is shown; called once per run.

    Args:
        page: its name.
    """
    st.session_state["visit.before"] = st.session_state.get("visit.page")
    st.session_state["visit.page"] = page


def mark_complete() -> None:
    """Record that a run has drawn its whole page."""
    st.session_state[COMPLETE] = True


def mark_widget_change() -> None:
    """Record that a visitor has used a widget outside of fragments; for its ``on_change``.

    Such a run may still have the URL from before the last `save_state`, because browsers update the URL later. Without
    this mark the old URL would look like a step back and undo the change.
    """
    st.session_state[ACTED] = True


def rerun() -> None:
    """Run the whole script again, without reading the URL; see `mark_widget_change`."""
    mark_widget_change()
    st.rerun()


def widget_default(key: str, value: Value) -> Value:
    """The default value of a widget whose value is part of the URL.

    In the first run of a session the value is only passed as the widget's default: a page that was open before a
    restart of the server sends the values of its widgets, which must not be overwritten.

    Args:
        key: of the widget.
        value: from the page's state.
    """
    if st.session_state.get(COMPLETE) and key not in st.session_state:
        st.session_state[key] = value
    return value


def visit_token() -> str:
    """Id of the session; it changes with a reload and with a restart of the server."""
    name: str = st.session_state.setdefault("visit.token", secrets.token_hex(8))
    return name


def load_state(page: str, read: Callable[[Mapping[str, list[str]]], State], fill: Callable[[State], None]) -> State:
    """The state that a page shows in this run.

    It is read from the URL if that differs from the one last read or written: a shared link, a reload, a step back. A
    visitor who returns from another page finds the state as it was, unless the URL has another one.

    Args:
        page: its name.
        read: converts query parameters to a state.
        fill: puts a state into the page's widgets before they are drawn.
    """
    params = {name: st.query_params.get_all(name) for name in st.query_params}
    here = st.session_state.get("visit.before") == page
    acted = st.session_state.pop(ACTED, False) and here
    written = st.session_state.get(f"visit.{page}.params")
    state: State | None = st.session_state.get(f"visit.{page}.state")
    named = read(params)
    if state is None or (params != written and not acted and (here or named.has_content)):
        new_session = state is None and not st.session_state.get(COMPLETE)
        state = named
        # A URL is read once: values that the page rejects would otherwise be put back into its widgets in each run.
        st.session_state[f"visit.{page}.params"] = params
        if not new_session:  # there the widgets start with their `widget_default`
            fill(state)
    elif not here:
        fill(state)
    st.session_state[f"visit.{page}.state"] = state
    return state


def current_state(page: str) -> Any:
    """The current state of a page."""
    return st.session_state[f"visit.{page}.state"]


def state_of(page: str) -> Any:
    """The last state of a page in this visit; None if it has not been shown."""
    return st.session_state.get(f"visit.{page}.state")


def url_params(page: str) -> dict[str, str | list[str]]:
    """The query parameters of a page's last state in this visit."""
    state = state_of(page)
    return state.to_params() if state is not None else {}


def preset_state(page: str, state: SearchState | VideoState) -> None:
    """Set the state that another page shows when the visitor goes there."""
    st.session_state[f"visit.{page}.state"] = state


def save_state(page: str, state: State) -> State:
    """Set the state of a page, and write it to the URL."""
    st.session_state[f"visit.{page}.state"] = state
    params = {name: value if isinstance(value, list) else [value] for name, value in state.to_params().items()}
    if {name: st.query_params.get_all(name) for name in st.query_params} != params:
        st.query_params.from_dict(params)
    st.session_state[f"visit.{page}.params"] = params
    return state
