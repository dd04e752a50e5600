"""One visit: keeps what a visitor sees in step with the page's address, through reloads and going back."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, TypeVar

import streamlit as st

from .address import SearchState, VideoState

__all__ = ["address", "arrive", "begin", "current", "keep", "known", "prepare"]

State = TypeVar("State", SearchState, VideoState)


def arrive(page: str) -> None:
    """Take note, once a run, of the page that is shown.

    Args:
        page: its name.
    """
    st.session_state["visit.before"] = st.session_state.get("visit.page")
    st.session_state["visit.page"] = page


def begin(page: str, read: Callable[[Mapping[str, list[str]]], State], fill: Callable[[State], None]) -> State:
    """The state that a page is to show in this run.

    The address counts where it is another than the one that the page itself wrote: a shared link, a reload, a step
    back. Who comes from another page finds this one as it was left, unless the address says what else to show.

    Args:
        page: its name.
        read: makes a state of query parameters.
        fill: puts a state into the page's widgets before they are drawn.
    """
    params = {name: st.query_params.get_all(name) for name in st.query_params}
    here = st.session_state.get("visit.before") == page
    written = st.session_state.get(f"visit.{page}.params")
    state: State | None = st.session_state.get(f"visit.{page}.state")
    named = read(params)
    if state is None or (params != written and (here or named.says)):
        state = named
        fill(state)
    elif not here:
        fill(state)
    st.session_state[f"visit.{page}.state"] = state
    return state


def current(page: str) -> Any:
    """The state that a page shows."""
    return st.session_state[f"visit.{page}.state"]


def known(page: str) -> Any:
    """The state in which a visitor has left another page; None where they have not been there."""
    return st.session_state.get(f"visit.{page}.state")


def address(page: str) -> dict[str, str | list[str]]:
    """The query parameters with which another page is found as its visitor has left it."""
    state = known(page)
    return state.to_params() if state is not None else {}


def prepare(page: str, state: SearchState | VideoState) -> None:
    """Take a state as what another page shows when its visitor comes to it."""
    st.session_state[f"visit.{page}.state"] = state


def keep(page: str, state: State) -> State:
    """Take a state as what the page shows from now on, and write it into the address."""
    st.session_state[f"visit.{page}.state"] = state
    params = {name: value if isinstance(value, list) else [value] for name, value in state.to_params().items()}
    if {name: st.query_params.get_all(name) for name in st.query_params} != params:
        st.query_params.from_dict(params)
    st.session_state[f"visit.{page}.params"] = params
    return state
