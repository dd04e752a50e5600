"""Shared elements of the pages: error notices, empty states, progress of jobs, and the player."""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Callable, Iterator
from pathlib import Path

import streamlit as st

from vtg.errors import VtgError
from vtg.files.text import one_line
from vtg.grounding.grounder import Grounding, Moment
from vtg.library.tables import VideoEntry
from vtg.timespans import format_time

from .. import backend as backend_module
from .. import page_state
from ..backend import Backend
from ..components import Film, Mark, player
from ..jobs import CANCELLED, DONE, FAILED, WAITING, Job
from ..media import MAX_CLIP_SECONDS, clip_name, media_url
from ..tasks import Copy, playable
from ..url_state import OpenMoment

__all__ = [
    "count",
    "display_message",
    "empty_state",
    "entry_of",
    "escape",
    "jump_target",
    "megabytes",
    "moment_error",
    "show_errors",
    "show_job",
    "show_loading",
    "show_player",
    "span",
]

POLL_SECONDS = 1.0  # between two updates of background jobs
LOADING_POLL_SECONDS = 2.0  # each update runs the garbage collector, which slows loading down
MAX_MARKS = 12  # moments on the player's timeline
STATES = {
    WAITING: (":material/hourglass_empty:", "waiting"),
    DONE: (":material/check_circle:", "done"),
    FAILED: (":material/error:", "failed"),
    CANCELLED: (":material/cancel:", "cancelled"),
}
log = logging.getLogger(__name__)


@contextlib.contextmanager
def show_errors() -> Iterator[None]:
    """Show errors of the ``with`` block as a notice, and continue with the page."""
    try:
        yield
    except VtgError as error:
        st.error(display_message(str(error)), icon=":material/error:")
    except OSError as error:
        log.exception("a page could not read or write")
        st.error(display_message(f"{error.filename or 'The disk'}: {error.strerror or error}"), icon=":material/error:")


def display_message(message: str) -> str:
    """A message for display: paths converted, Markdown escaped."""
    return escape(backend_module.current().shown.text(message))


def escape(text: str) -> str:
    """Escape text for Streamlit's Markdown."""
    return "".join(f"\\{letter}" if letter in "\\`*_{}[]()<>#+-.!|~$:&" else letter for letter in one_line(text))


def span(start: float, end: float) -> str:
    """Format a start and an end time."""
    return f"{format_time(start)}–{format_time(end)}"


def count(number: int, thing: str) -> str:
    """Format a number with a noun, in singular or plural."""
    return f"{number:,} {thing}" if number == 1 else f"{number:,} {thing}s"


def megabytes(size: int) -> str:
    """Format a number of bytes."""
    return f"{size / 1e9:.1f} GB" if size >= 1e9 else f"{size / 1e6:.1f} MB"


@contextlib.contextmanager
def empty_state(icon: str, title: str, text: str) -> Iterator[None]:
    """An empty page with a reason and what to do; buttons go into the ``with`` block."""
    with st.container(key="empty", horizontal_alignment="center"):
        st.markdown(f"## :material/{icon}:")
        st.markdown(f"### {title}")
        st.markdown(text)
        yield


def entry_of(backend: Backend, moment: OpenMoment) -> VideoEntry | None:
    """The file of a moment in a URL; None if the library does not have it."""
    return next((entry for entry in backend.indexed() if entry.video.startswith(moment.video)), None)


def moment_error(backend: Backend, moment: OpenMoment) -> str:
    """The reason why a moment in a URL cannot be shown, as the end of a sentence; "" if it can."""
    entry = entry_of(backend, moment)
    if entry is None:
        return "belongs to a video that is not in the library any more."
    if moment.start >= entry.duration:
        return f"starts after the end of {Path(entry.path).name}, which is {format_time(entry.duration)} long."
    return ""


def jump_target(time: float | None, entry: VideoEntry, count: int) -> tuple[float, int] | None:
    """The seek target of the player (see `Film`); None for a time after the end of the video."""
    return (time, count) if time is not None and time < entry.duration else None


def show_loading(backend: Backend) -> bool:
    """Show that the model is loading, until it is loaded; return whether queries can be answered now."""
    if backend.readiness.state != backend_module.LOADING:
        return True

    def wait() -> None:
        if backend.readiness.state != backend_module.LOADING:
            page_state.rerun()
        st.info(f"{backend.readiness.message} … the first time takes a moment.", icon=":material/hourglass_top:")

    st.fragment(wait, run_every=LOADING_POLL_SECONDS)()
    return False


def show_job(job: Job, cancel: Callable[[Job], None] | None, dismiss: Callable[[Job], None] | None = None) -> None:
    """Show a job's progress or result.

    Args:
        job: the job.
        cancel: called by the button "Cancel"; None for no button.
        dismiss: called by the button "Dismiss"; None for no button.
    """
    with st.container(horizontal=True, vertical_alignment="center", key=f"job-{job.kind}-{job.number}"):
        if job.active and job.state != WAITING:
            note = "stopping" if job.stopping else job.note or "looking at the files"
            st.progress(job.share, text=f"**{display_message(job.title)}** · {display_message(note)}")
        else:
            icon, word = STATES[job.state]
            st.markdown(
                f"{icon} **{display_message(job.title)}** · {display_message(job.error) if job.error else word}"
            )
        if job.active and cancel and not job.stopping:
            st.button("Cancel", key=f"cancel-{job.kind}-{job.number}", on_click=cancel, args=(job,))
        elif not job.active and dismiss:
            st.button("Dismiss", key=f"dismiss-{job.kind}-{job.number}", on_click=dismiss, args=(job,))


def _clip(backend: Backend, video: str, path: str, moment: Moment) -> tuple[str, str] | None:
    """Address and file name of a moment's clip; None if it is too long."""
    if moment.seconds > MAX_CLIP_SECONDS:
        return None
    return media_url(backend, "clip", video, moment.start, moment.end), clip_name(path, moment.start, moment.end)


def show_player(
    backend: Backend,
    key: str,
    video: str,
    moment: Moment,
    grounding: Grounding | None,
    jump: tuple[float, int] | None,
    clip: bool = True,
    play: bool = True,
) -> None:
    """Show the player, with a copy that the browser can play; until that is made, with the moment's preview.

    Args:
        backend: whose library has the video.
        key: of this place on the page.
        video: content key.
        moment: to play first.
        grounding: whose moments are shown on the timeline; None for none.
        jump: see `Film`.
        clip: whether there is a moment that can be replayed and downloaded.
        play: start at once.

    Raises:
        VtgError: the video is not in the library any more, or its file is missing or cannot be read.
    """
    entry = backend.entry(video)
    backend.file(video)
    refused_key = f"refused.{video}"

    def refuse(address: str) -> None:
        if "/preview/" not in address:
            st.session_state[refused_key] = True

    def draw() -> None:
        copy = playable(backend, video, st.session_state.get(refused_key, False))
        if polling != (copy.job is not None and copy.job.active):
            page_state.rerun()
        src, offset, note = _source(backend, video, moment, copy)
        film = Film(
            film=video,
            moment=f"{video} {moment.start:.3f} {moment.end:.3f}",
            title=one_line(backend.shown.path(entry.path)),
            src=src,
            offset=offset,
            start=moment.start,
            end=moment.end,
            duration=entry.duration,
            marks=_marks(grounding) if grounding else (),
            play=play,
            note=note,
            jump=jump,
            clip=_clip(backend, video, entry.path, moment) if clip else None,
            replay=clip,
            last=copy.job is not None and copy.job.state == FAILED,
        )
        player(key, film, refuse)

    waiting = playable(backend, video, st.session_state.get(refused_key, False)).job
    polling = waiting is not None and waiting.active
    st.fragment(draw, run_every=POLL_SECONDS if polling else None)()


def _source(backend: Backend, video: str, moment: Moment, copy: Copy) -> tuple[str, float, str]:
    """Address of the file that can be played now, its start in the video in seconds, and a note."""
    if copy.job is None:
        return media_url(backend, copy.kind, video), 0.0, ""
    preview, shown = media_url(backend, "preview", video, moment.start, moment.end), backend.shown
    begins = max(0.0, moment.start - 0.5)
    if copy.job.state == FAILED:
        return preview, begins, f"Only this moment can be shown: {shown.text(copy.job.error)}"
    return preview, begins, f"Browsers do not play this format: a copy is being made, {copy.job.share:.0%}"


def _marks(grounding: Grounding) -> tuple[Mark, ...]:
    return tuple(
        Mark(moment.start, moment.end, moment.score, f"{span(moment.start, moment.end)}, score {moment.score:.2f}")
        for moment in grounding.moments[:MAX_MARKS]
        if moment.score > 0
    )
