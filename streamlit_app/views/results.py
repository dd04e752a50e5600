"""The results of the search page: moments as cards, their exports, and the notice if nothing is found."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import streamlit as st

from vtg.files.text import one_line
from vtg.library.library import Hit
from vtg.library.tables import VideoEntry

from ..backend import Backend
from ..components import Card, CardGroup, cards
from ..exports import FORMS
from ..media import export_url, media_url
from ..search_query import SearchQuery
from ..url_state import OpenMoment, SearchState
from .parts import count, empty_state, escape, span

__all__ = ["show_hits", "show_nothing"]

TITLES = {
    ".json": "JSON: times in each video",
    ".csv": "CSV: a table",
    ".srt": "SRT: captions of the cut",
    ".edl": "EDL: the cut, for editors",
    ".otio": "OTIO: the cut, for editors",
}


def show_hits(
    backend: Backend,
    state: SearchState,
    query: SearchQuery,
    hits: Sequence[Hit],
    videos: Mapping[str, VideoEntry],
    choose: Callable[[str], None],
    on_find_similar: Callable[[str], None],
) -> None:
    """Draw moments.

    Args:
        backend: whose library they are in.
        state: of the page.
        query: the query.
        hits: best first, at least one.
        videos: the library's files, by path.
        choose: called with the moment of the card that is clicked.
        on_find_similar: called with the moment to find similar ones of.
    """
    with st.container(horizontal=True, vertical_alignment="center"):
        found = f"{count(len(hits), 'moment')} in {count(len({hit.video for hit in hits}), 'video')}"
        st.caption(found, width="stretch")
        _exports(backend, backend.results.keep(str(query), hits))
    made = [(hit, _card(backend, state, query, hit, videos[hit.video])) for hit in hits]
    if state.grouped:
        by_video: dict[str, list[Card]] = {}
        for hit, card in made:
            by_video.setdefault(hit.video, []).append(card)
        groups = [
            CardGroup(one_line(Path(path).name), count(len(own), "moment"), tuple(own))
            for path, own in by_video.items()
        ]
    else:
        groups = [CardGroup("", "", tuple(card for _, card in made))]
    cards("search.cards", groups, state.query, str(state.open or ""), choose, on_find_similar)


def _exports(backend: Backend, name: str) -> None:
    with st.popover("Export", icon=":material/download:"):
        st.caption("These moments for a video editor or a table. The cut has them one after the other.")
        for form in FORMS:
            st.link_button(TITLES[form], export_url(backend, name, form), width="stretch")


def _card(backend: Backend, state: SearchState, query: SearchQuery, hit: Hit, entry: VideoEntry) -> Card:
    moment, name = hit.moment, one_line(Path(hit.video).name)
    times = (moment.start, moment.end)
    middle = min(hit.peak + 0.5 / backend.library.model.fps, entry.duration)
    said = f", said: {hit.said}" if hit.said else ""
    return Card(
        id=str(OpenMoment(entry.video, *times)),
        name=name,
        span=span(*times),
        label=f"{name}, {span(*times)}, score {moment.score:.2f}{said}: play",
        poster=media_url(backend, "why", entry.video, *times, query=query.sentence)
        if state.why and query.sentence
        else media_url(backend, "poster", entry.video, middle),
        preview=media_url(backend, "preview", entry.video, *times),
        score=moment.score,
        said=hit.said,
        like=f"More like {name}, {span(*times)}",
    )


def show_nothing(
    backend: Backend, state: SearchState, least: float, nearest: Sequence[Hit], show_nearest: Callable[[], None]
) -> None:
    """Show that nothing was found.

    Args:
        backend: whose library was searched.
        state: of the page.
        least: the minimum score.
        nearest: moments with lower scores, best first.
        show_nearest: called by the button that shows them.
    """
    if nearest:
        moment, name = nearest[0].moment, Path(nearest[0].video).name
        text = (
            f"No moment has a score of {least:.2f} or more. The nearest, "
            f"{span(moment.start, moment.end)} of {escape(name)}, has {moment.score:.2f}."
        )
    elif state.said and not backend.has_transcripts:
        text = (
            "These videos have no subtitles, so their words cannot be searched. "
            "Put .srt or .vtt files with the same names beside them, and add them again."
        )
    elif state.said:
        text = "No subtitle contains these words. Try other words, or change the filters."
    else:
        text = "Try other words, or change the filters: the length of a moment, and where to look."
    with empty_state("search_off", "Nothing found", text):
        if nearest:
            st.button("Show the nearest", icon=":material/near_me:", on_click=show_nearest, key="search.nearest")
