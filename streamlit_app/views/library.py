"""The library page: list of videos, adding folders and uploads, running jobs, failures, and removing."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import streamlit as st

from vtg.errors import VtgError
from vtg.files.text import one_line
from vtg.library.library import IndexReport
from vtg.library.tables import FAILED, INDEXED, VideoEntry
from vtg.timespans import format_time
from vtg.video.sources import VIDEO_SUFFIXES

from .. import backend as backend_module
from .. import page_state
from ..backend import Backend
from ..components import uploader
from ..jobs import DONE, Job
from ..tasks import add_videos, start_demo
from ..uploads import upload_url
from .parts import POLL_SECONDS, count, display_message, empty_state, escape, megabytes, show_errors, show_job

__all__ = ["show", "show_first_steps"]

MAX_LISTED_FAILURES = 50  # failures listed


def show() -> None:
    """Draw the page."""
    backend = backend_module.current()
    st.title("Library")
    if backend.is_deleted:
        _show_deleted(backend)
        return
    _show_work(backend)
    entries = backend.entries()
    if not entries and not backend.worker.busy:
        show_first_steps(backend, title=False)
        return
    with show_errors():
        _summary(backend)
        _add(backend)
        _list(backend, entries)
        _failures(backend, [entry for entry in entries if entry.state == FAILED])
        _outdated(backend, [entry for entry in entries if entry.state == INDEXED and not backend.library.reads(entry)])


def show_first_steps(backend: Backend, title: bool = True) -> None:
    """Show the first steps while nothing can be searched.

    Args:
        backend: whose library is empty or missing.
        title: also show running jobs.
    """
    if backend.is_deleted:
        _show_deleted(backend)
        return
    if title:
        _show_work(backend)
    if backend.worker.busy:
        with empty_state(
            "hourglass_top", "Your videos are being indexed", "Each can be searched as soon as it is done."
        ):
            return
    if backend.entries():
        with empty_state(
            "video_library",
            "Nothing can be searched yet",
            "The videos of the library failed, or have to be indexed again: see the library page.",
        ):
            return
    with empty_state(
        "movie",
        "Find any moment by describing it",
        "Add your videos, and ask for what happens in them. Or look at a few small ones that are made on this machine.",
    ):
        st.button(
            "Try it with demo videos",
            type="primary",
            icon=":material/play_circle:",
            on_click=lambda: _begin_demo(backend),
            key="demo",
        )
    with show_errors():
        _add(backend)


def _begin_demo(backend: Backend) -> None:
    if not backend.worker.busy:  # one click of one visitor is enough
        start_demo(backend)


def _show_deleted(backend: Backend) -> None:
    with empty_state(
        "folder_off",
        "The library does not exist any more",
        f"{escape(backend.shown.path(backend.library.folder))} was deleted or moved while this page was open. "
        "Put it back, or start the page on another one.",
    ):
        st.button("Look again", icon=":material/refresh:", on_click=backend.refresh)


def _show_work(backend: Backend) -> None:
    """Show jobs that wait, run or have just ended; updated each second while jobs run."""

    def draw() -> None:
        jobs = [job for job in backend.worker.jobs() if job.kind != "pull"]
        shown = tuple((job.number, job.active) for job in jobs)
        if st.session_state.get("library.jobs", shown) != shown and polling:
            st.session_state["library.jobs"] = shown
            page_state.rerun()
        st.session_state["library.jobs"] = shown
        for job in jobs:
            show_job(job, lambda each: each.cancel(), backend.worker.dismiss)
            if isinstance(job.result, IndexReport):
                _report(job)

    polling = backend.worker.busy
    st.session_state.pop("library.jobs", None)
    st.fragment(draw, run_every=POLL_SECONDS if polling else None)()


def _report(job: Job) -> None:
    report: IndexReport = job.result
    parts = [f"{len(report.added)} added ({format_time(report.seconds)} of video)"]
    if report.unchanged:
        parts.append(f"{len(report.unchanged)} were there already")
    if report.failed:
        parts.append(f"{len(report.failed)} failed")
    if not report.added and not report.unchanged and not report.failed and job.state == DONE:
        parts = ["no videos were found"]
    st.caption(", ".join(parts))
    for warning in report.warnings:
        st.caption(display_message(warning))


def _summary(backend: Backend) -> None:
    indexed = backend.indexed()
    with st.container(horizontal=True, gap="large"):
        st.metric("Videos", f"{len(indexed):,}", width="content")
        st.metric("Length", format_time(sum(entry.duration for entry in indexed)), width="content")
        st.metric("Size", megabytes(sum(entry.size for entry in indexed)), width="content")
    st.caption(
        f"{escape(backend.shown.path(backend.library.folder))} · {display_message(str(backend.library.model.encoder))}"
    )


def _add(backend: Backend) -> None:
    with st.container(border=True, key="add"):
        st.markdown("#### Add videos")
        limit = backend.options.upload_bytes
        if limit:

            def uploaded(_: dict[str, Any]) -> None:
                backend.refresh()

            uploader(
                "library.uploader",
                upload_url(backend),
                limit,
                f"up to {megabytes(limit)} each; they are kept inside the library",
                f"larger than {megabytes(limit)}, the limit of this page",
                ",".join(sorted(VIDEO_SUFFIXES)),
                uploaded,
            )
        if backend.roots:
            _add_folder(backend)
        elif not limit:
            st.caption("This page was started without folders to add from: vtg ui --root FOLDER.")


def _add_folder(backend: Backend) -> None:
    def add() -> None:
        written = st.session_state.get("library.folder") or ""
        try:
            if not written.strip():
                raise VtgError("Choose a folder or file, or write its path and press Enter.")
            path = backend.roots.allowed(written)
        except VtgError as error:
            st.session_state["library.refusal"] = str(error)
        else:
            add_videos(backend, [path], path.name or str(path))
            st.session_state["library.folder"] = None

    with st.container(horizontal=True, vertical_alignment="bottom"):
        st.selectbox(
            "A folder or file on the server",
            backend.roots.folders(),
            index=None,
            key="library.folder",
            accept_new_options=True,
            placeholder="Choose a folder, or write its path",
        )
        st.button("Add", icon=":material/add:", on_click=add, key="library.add")
    if refusal := st.session_state.pop("library.refusal", None):
        st.error(display_message(refusal), icon=":material/error:")


def _list(backend: Backend, entries: list[VideoEntry]) -> None:
    if not entries:
        return
    rows = [
        {
            "Name": one_line(Path(entry.path).name),
            "State": "failed" if entry.state == FAILED else "ready" if backend.library.reads(entry) else "outdated",
            "Length": format_time(entry.duration) if entry.duration else "",
            "Picture": f"{entry.width}×{entry.height}" if entry.width else "",
            "MB": entry.size / 1e6,
            "Added": entry.added,
            "Folder": one_line(backend.shown.path(Path(entry.path).parent)),
        }
        for entry in entries
    ]
    # The key changes with the list, because a selection in the old list does not apply to the new one.
    key = f"library.list.{hash(tuple((entry.path, entry.modified) for entry in entries))}"
    config = {
        "MB": st.column_config.NumberColumn(format="%.1f"),
        "Added": st.column_config.DatetimeColumn(format="D MMM YYYY, HH:mm"),
    }
    chosen = st.dataframe(
        rows, key=key, on_select="rerun", selection_mode="multi-row", hide_index=True, column_config=config
    )
    paths = [entries[row].path for row in chosen["selection"]["rows"] if row < len(entries)]
    if paths:
        _remove(backend, paths)
    else:
        st.caption("Tick videos to remove them.")


def _remove(backend: Backend, paths: list[str]) -> None:
    uploads = sum(Path(path).parent == backend.uploads for path in paths)
    what = count(len(paths), "video")

    def remove() -> None:
        try:
            backend.remove(paths)
        except (VtgError, OSError) as error:
            st.session_state["library.error"] = str(error)

    with st.popover(f"Remove {what}", icon=":material/delete:"):
        st.markdown(
            f"Removes {what} from the library. "
            + (f"{uploads} of them were uploaded: these files are deleted. " if uploads else "")
            + "Files elsewhere on the disk are not deleted."
        )
        st.button("Remove", type="primary", on_click=remove, key="library.remove")


def _failures(backend: Backend, failed: list[VideoEntry]) -> None:
    if message := st.session_state.pop("library.error", None):
        st.error(display_message(message), icon=":material/error:")
    if not failed:
        return
    with st.container(border=True, key="failures"):
        st.markdown(f"#### Could not be indexed: {len(failed)}")
        for entry in failed[:MAX_LISTED_FAILURES]:
            st.markdown(f":material/error: **{escape(Path(entry.path).name)}** {display_message(entry.failure)}")

        def retry() -> None:
            add_videos(backend, [Path(entry.path) for entry in failed], "Trying again", retry_failed=True)

        st.button("Try these again", icon=":material/refresh:", on_click=retry, key="library.retry")


def _outdated(backend: Backend, outdated: list[VideoEntry]) -> None:
    if not outdated:
        return

    def again() -> None:
        add_videos(backend, [Path(entry.path) for entry in outdated], "Indexing again")

    with st.container(border=True, key="outdated"):
        st.markdown(f"#### Indexed with other CLIP weights: {len(outdated)}")
        st.caption("They cannot be searched until they are indexed again.")
        st.button("Index them again", icon=":material/refresh:", on_click=again, key="library.again")
