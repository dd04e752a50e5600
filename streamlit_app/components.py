"""Custom components of the page: query inputs, result cards, player and uploads."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, dataclass
from functools import cache
from pathlib import Path
from typing import Any

import streamlit as st

from vtg.timespans import TimeSpan

__all__ = [
    "ICON",
    "Card",
    "CardGroup",
    "Film",
    "Mark",
    "cards",
    "player",
    "query_inputs",
    "questions",
    "reconnect",
    "uploader",
]

FRONTEND = Path(__file__).with_name("frontend")
ICON = FRONTEND / "icon.svg"


@dataclass(frozen=True)
class Card:
    """One moment that can be opened.

    Attributes:
        id: passed to the callback when it is chosen.
        name: of the video.
        span: its times, as text.
        label: full description, for screen readers.
        poster: address of an image.
        preview: address of a short video, "" for none.
        score: 0…1, None for none.
        said: its transcript words, "" for none.
        like: label of the button that finds similar moments; "" for no button.
    """

    id: str
    name: str
    span: str
    label: str
    poster: str
    preview: str = ""
    score: float | None = None
    said: str = ""
    like: str = ""


@dataclass(frozen=True)
class CardGroup:
    """Cards under a heading; "" for none."""

    title: str
    count: str
    cards: tuple[Card, ...]


@dataclass(frozen=True)
class Mark(TimeSpan):
    """A moment on the player's timeline: seconds, score 0…1, and its label."""

    score: float
    label: str


@dataclass(frozen=True)
class Film:
    """The state of the player.

    Attributes:
        film: id of the video.
        moment: id of the moment; the player seeks to it when it changes.
        title: of the video.
        src: address of the file.
        offset: time in the video at which that file starts, seconds.
        start: of the moment, seconds.
        end: of the moment, seconds.
        duration: of the video, seconds.
        marks: moments on the timeline.
        play: start at once.
        note: text shown over the video, "" for none.
        jump: time to seek to, seconds, and a number that changes with each seek; None for none.
        clip: address and file name of the moment's clip, None for none.
        replay: whether there is a moment to replay.
        last: no other form of the file is available if the browser cannot play this one.
    """

    film: str
    moment: str
    title: str
    src: str
    offset: float
    start: float
    end: float
    duration: float
    marks: tuple[Mark, ...] = ()
    play: bool = True
    note: str = ""
    jump: tuple[float, int] | None = None
    clip: tuple[str, str] | None = None
    replay: bool = True
    last: bool = False


@cache
def _source(name: str) -> tuple[str, str]:
    sheets = [FRONTEND / f"{part}.css" for part in ("common", name)]
    css = "\n".join(sheet.read_text("utf-8") for sheet in sheets if sheet.exists())
    return css, (FRONTEND / f"{name}.js").read_text("utf-8")


@cache
def _component(name: str) -> Callable[..., Any]:
    css, script = _source(name)
    mount: Callable[..., Any] = st.components.v2.component(f"vtg_{name}", css=css, js=script)
    return mount


def query_inputs(
    key: str,
    session: str,
    picture: str,
    like: tuple[str, str] | None,
    scroll_count: int,
    on_picture: Callable[[dict[str, str]], None],
    on_remove: Callable[[str], None],
) -> None:
    """Show the picture and the moment of a query, and let the visitor choose a picture.

    Browsers keep the pictures that they have sent while their tab is open; after a reload they send them again.

    Args:
        key: of this place on the page.
        session: id of the session that keeps the pictures; pictures are sent again to another one.
        picture: digest of the picture of the query, "" for none.
        like: caption and image address of the moment to find similar ones of; None for none.
        scroll_count: the page scrolls to this component whenever the number changes.
        on_picture: called with digest, name and content (base64) of a picture; a new one has no digest, one that the
            browser does not have has no content.
        on_remove: called with the part to remove from the query: "picture" or "like".
    """
    moment = {"label": like[0], "poster": like[1]} if like else None
    data = {"session": session, "picture": picture, "like": moment, "scrollCount": scroll_count}
    _mount("query_inputs", key, data, width="content", taken=on_picture, dropped=on_remove)


def cards(
    key: str,
    groups: list[CardGroup],
    query: str,
    chosen: str,
    on_choose: Callable[[str], None],
    on_find_similar: Callable[[str], None],
) -> None:
    """Show cards.

    Args:
        key: of this place on the page.
        groups: the cards.
        query: of which they are the results.
        chosen: id of the open card.
        on_choose: called with the id of a card that is clicked.
        on_find_similar: called with the id of a card to find similar moments of.
    """
    data = {"groups": [asdict(group) for group in groups], "query": query, "open": chosen}
    _mount("cards", key, data, chosen=on_choose, liked=on_find_similar)


def player(key: str, film: Film, on_refused: Callable[[str], None]) -> None:
    """Show the player.

    Args:
        key: of this place on the page.
        film: what it plays.
        on_refused: called with the address of a file that the browser cannot play.
    """
    data = asdict(film)
    data["moments"] = data.pop("marks")
    data["jump"] = {"to": film.jump[0], "count": film.jump[1]} if film.jump else None
    data["clip"] = {"href": film.clip[0], "name": film.clip[1]} if film.clip else None
    _mount("player", key, data, refused=on_refused)


def questions(key: str, library: str, examples: tuple[str, ...], query: str, on_ask: Callable[[str], None]) -> None:
    """Show example queries and earlier queries of this browser.

    Args:
        key: of this place on the page.
        library: id of the library; each has its own history.
        examples: queries to try.
        query: the current one, which is added to the history; "" for none.
        on_ask: called with a query that is clicked.
    """
    _mount("questions", key, {"library": library, "examples": list(examples), "query": query}, ask=on_ask)


def reconnect(key: str) -> None:
    """Run the script when the browser has connected again; shows nothing.

    After a restart the server has no fragments and callbacks of pages that are open in browsers, so that the first
    click would have no effect. A run of the whole script registers them again.

    Args:
        key: of this place on the page.
    """
    _mount("reconnect", key, {}, width="content", connected=lambda _: None)


def uploader(
    key: str, url: str, limit: int, hint: str, too_large: str, accept: str, on_upload: Callable[[dict[str, Any]], None]
) -> None:
    """Show a file upload.

    Args:
        key: of this place on the page.
        url: to which files are sent.
        limit: maximum size of a file, bytes.
        hint: which files are accepted, as text.
        too_large: error text for a larger file.
        accept: value of the HTML input's attribute.
        on_upload: called with name and job of an uploaded file.
    """
    data = {"url": url, "limit": limit, "hint": hint, "tooLarge": too_large, "accept": accept}
    _mount("uploader", key, data, uploaded=on_upload)


def _mount(name: str, key: str, data: dict[str, Any], width: str = "stretch", **events: Callable[[Any], None]) -> None:
    def make_handler(event: str, callback: Callable[[Any], None]) -> Callable[[], None]:
        def on_event() -> None:
            value = getattr(st.session_state.get(key), event, None)
            if value is not None:
                callback(value)

        return on_event

    handlers = {f"on_{event}_change": make_handler(event, callback) for event, callback in events.items()}
    _component(name)(key=key, data=data, width=width, **handlers)
