"""The models page: the model of the library, and the models that are installed or can be downloaded."""

from __future__ import annotations

from typing import Any

import streamlit as st

from vtg.models.registry import registry
from vtg.models.specs import describe_models

from .. import backend as backend_module
from .. import page_state
from ..backend import Backend
from ..tasks import pull_model
from .parts import POLL_SECONDS, display_message, show_errors, show_job

__all__ = ["show"]


def show() -> None:
    """Draw the page."""
    backend = backend_module.current()
    st.title("Models")
    with show_errors():
        _show_used(backend)
        _show_pulls(backend)
        _show_all(backend)


def _show_used(backend: Backend) -> None:
    model = backend.library.model
    with st.container(border=True, key="used"):
        st.markdown("#### Model of this library")
        with st.container(horizontal=True, gap="large"):
            st.metric("Head", backend.shown.text(model.name) if model.head else "none", width="content")
            st.metric("CLIP", backend.shown.text(str(model.encoder)).removeprefix("the "), width="content")
            st.metric("Frames a second", f"{model.fps:g}", width="content")
        if model.head is None:
            st.caption(
                "No head: moments are found by CLIP's similarity of single frames alone. It sees what is shown, "
                "not what moves."
            )
        state = {
            backend_module.READY: ":material/check_circle: loaded",
            backend_module.LOADING: ":material/hourglass_top: loading",
            backend_module.NOTHING: "loaded after videos are added",
        }.get(backend.readiness.state)
        st.caption(state or f":material/error: {display_message(backend.readiness.message)}")


def _show_pulls(backend: Backend) -> None:
    jobs = backend.worker.jobs("pull")
    if not jobs:
        return
    active = any(job.active for job in jobs)

    def draw() -> None:
        if active and not any(job.active for job in jobs):
            page_state.rerun()
        for job in jobs:
            show_job(job, lambda each: each.cancel(), backend.worker.dismiss)

    st.fragment(draw, run_every=POLL_SECONDS if active else None)()


def _show_all(backend: Backend) -> None:
    st.markdown("#### All models")
    rows = describe_models()
    st.dataframe(
        [
            {
                "Model": row["name"],
                "On this disk": row["present"],
                "CLIP": row["clip"],
                "Its CLIP is here": row["clip_present"],
                "For": row["purpose"],
            }
            for row in rows
        ],
        hide_index=True,
    )
    absent = [name for name in _pullable(rows) if not any(job.title == name for job in backend.worker.jobs("pull"))]
    if not absent:
        return

    def pull() -> None:
        if name := st.session_state.get("models.name"):
            pull_model(backend, name)

    with st.container(horizontal=True, vertical_alignment="bottom"):
        st.selectbox("Download a published head", absent, index=None, key="models.name", placeholder="Choose a head")
        chosen = st.session_state.get("models.name")
        st.button(
            "Download",
            icon=":material/download:",
            on_click=pull,
            key="models.pull",
            disabled=chosen is None,
            help="Choose a head first." if chosen is None else None,
        )


def _pullable(rows: list[dict[str, Any]]) -> list[str]:
    return [row["name"] for row in rows if row["name"] in registry() and not row["present"]]
