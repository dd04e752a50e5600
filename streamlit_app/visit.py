"""One visit: keeps what a visitor sees in step with the page's address, through reloads and going back."""

from __future__ import annotations

import secrets
from collections.abc import Callable, Mapping
from typing import Any, TypeVar

import streamlit as st

from .address import SearchState, VideoState

__all__ = [
    "acted",
    "address",
    "arrive",
    "begin",
    "current",
    "finish",
    "initial",
    "keep",
    "known",
    "prepare",
    "rerun",
    "token",
]

ACTED = "visit.acted"  # whether this run follows from a widget or from the script itself, and not from a new address
COMPLETE = "visit.complete"  # whether any run for this visitor has drawn its whole page
State = TypeVar("State", SearchState, VideoState)
Value = TypeVar("Value")


def arrive(page: str) -> None:
    """Take note, once a run, of the page that is shown.

    Args:
        page: its name.
    """
    st.session_state["visit.before"] = st.session_state.get("visit.page")
    st.session_state["visit.page"] = page


def finish() -> None:
    """Take note that a run has drawn its whole page."""
    st.session_state[COMPLETE] = True


def acted() -> None:
    """Take note that a visitor has used a widget outside of fragments (its ``on_change``).

    A run that follows from a widget may still have the address from before the last `keep`: browsers write the new one
    only after they have received it. Read as a step back it would undo what the visitor has just done.
    """
    st.session_state[ACTED] = True


def rerun() -> None:
    """Run the whole script again; the address says nothing new to that run, for the reason that `acted` gives."""
    acted()
    st.rerun()


def initial(key: str, value: Value) -> Value:
    """The default value of a widget whose value the address may name.

    In the first run of a session the widget takes it as its default, and the session's state is left alone: a page
    that was open before the server was restarted sends the values of its widgets, and these must not be overwritten.

    Args:
        key: of the widget.
        value: that the page's state names.
    """
    if st.session_state.get(COMPLETE) and key not in st.session_state:
        st.session_state[key] = value
    return value


def token() -> str:
    """Names a visit: another one after a reload, and after a restart of the server."""
    name: str = st.session_state.setdefault("visit.token", secrets.token_hex(8))
    return name


def begin(page: str, read: Callable[[Mapping[str, list[str]]], State], fill: Callable[[State], None]) -> State:
    """The state that a page is to show in this run.

    The address counts where it is another than the one that the page last read or wrote: a shared link, a reload, a
    step back. Who comes from another page finds this one as it was left, unless the address says what else to show.

    Args:
        page: its name.
        read: makes a state of query parameters.
        fill: puts a state into the page's widgets before they are drawn.
    """
    params = {name: st.query_params.get_all(name) for name in st.query_params}
    here = st.session_state.get("visit.before") == page
    acted = st.session_state.pop(ACTED, False) and here
    written = st.session_state.get(f"visit.{page}.params")
    state: State | None = st.session_state.get(f"visit.{page}.state")
    named = read(params)
    if state is None or (params != written and not acted and (here or named.says)):
        new_session = state is None and not st.session_state.get(COMPLETE)
        state = named
        # An address is read once: what a page cannot keep would otherwise be put back into its widgets in each run.
        st.session_state[f"visit.{page}.params"] = params
        if not new_session:  # in a new one the widgets begin with their `initial` values
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
