"""Custom components of the page: result cards, player, query box and uploads; their arguments and events."""

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
    "asked",
    "cards",
    "player",
    "questions",
    "reconnect",
    "uploader",
]

FRONTEND = Path(__file__).with_name("frontend")
ICON = FRONTEND / "icon.svg"


@dataclass(frozen=True)
class Card:
    """One picture that can be chosen.

    Attributes:
        id: what is told when it is chosen.
        name: of the video.
        span: where in it, as people read it.
        label: all of it in words, for those who hear the page.
        poster: address of a picture.
        preview: address of a short film, "" for none.
        score: 0…1, None for none.
        said: words that are said there, "" for none.
        like: says, in words, that others like it can be looked for; "" where they cannot.
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
    """A moment on the player's line: seconds, score 0…1, and in words."""

    score: float
    label: str


@dataclass(frozen=True)
class Film:
    """What the player plays.

    Attributes:
        film: names the video.
        moment: names the moment; another one is jumped to.
        title: of the video.
        src: address of the file.
        offset: seconds of the video at which that file begins.
        start: of the moment, seconds.
        end: of the moment, seconds.
        duration: of the video, seconds.
        marks: moments on the line.
        play: begin at once.
        note: shown over the picture, "" for none.
        jump: where to go, seconds, and a number that is another at each jump; None for nowhere.
        clip: address and name of the moment's clip, None for none.
        replay: whether there is a moment to be replayed.
        last: whether no other form of the file is to be had, where the browser cannot play this one.
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


def asked(
    key: str,
    session: str,
    picture: str,
    like: tuple[str, str] | None,
    news: int,
    take: Callable[[dict[str, str]], None],
    drop: Callable[[str], None],
) -> None:
    """Show what is asked besides words, and take a picture.

    Browsers keep the pictures that they have sent, as long as their tab is open: after a reload they send them again.

    Args:
        key: of this place on the page.
        session: names the visit that keeps the pictures; another one is sent them again.
        picture: digest of the one that is asked by, "" for none.
        like: a moment that others are to be like: in words, and the address of its picture; None for none.
        news: another number where the page is to be scrolled to this.
        take: called with digest, name and content (base64) of a picture: a new one has no digest yet, one that the
            browser does not have has no content.
        drop: called with what is not to be asked any more: "picture" or "like".
    """
    moment = {"label": like[0], "poster": like[1]} if like else None
    data = {"session": session, "picture": picture, "like": moment, "news": news}
    _mount("asked", key, data, width="content", taken=take, dropped=drop)


def cards(
    key: str,
    groups: list[CardGroup],
    query: str,
    chosen: str,
    choose: Callable[[str], None],
    find_like: Callable[[str], None],
) -> None:
    """Show cards.

    Args:
        key: of this place on the page.
        groups: what to show.
        query: that they answer.
        chosen: id of the one that is open.
        choose: called with the id of the one that is clicked.
        find_like: called with the id of the one that others are to be like.
    """
    data = {"groups": [asdict(group) for group in groups], "query": query, "open": chosen}
    _mount("cards", key, data, chosen=choose, liked=find_like)


def player(key: str, film: Film, refused: Callable[[str], None]) -> None:
    """Show the player.

    Args:
        key: of this place on the page.
        film: what it plays.
        refused: called with the address of a file that the browser cannot play.
    """
    data = asdict(film)
    data["moments"] = data.pop("marks")
    data["jump"] = {"to": film.jump[0], "count": film.jump[1]} if film.jump else None
    data["clip"] = {"href": film.clip[0], "name": film.clip[1]} if film.clip else None
    _mount("player", key, data, refused=refused)


def questions(key: str, library: str, examples: tuple[str, ...], asked: str, ask: Callable[[str], None]) -> None:
    """Show examples and what this browser asked before.

    Args:
        key: of this place on the page.
        library: names it: each has its own history.
        examples: questions to try.
        asked: the one that was just answered, "" for none: it is remembered.
        ask: called with the one that is clicked.
    """
    _mount("questions", key, {"library": library, "examples": list(examples), "asked": asked}, ask=ask)


def reconnect(key: str) -> None:
    """Run the script when the browser has connected again; shows nothing.

    After a restart the server knows nothing of an open page: neither its fragments nor the callbacks of its widgets, so
    that the first click would be lost. A run of the whole script makes them known before anybody clicks.

    Args:
        key: of this place on the page.
    """
    _mount("reconnect", key, {}, width="content", connected=lambda _: None)


def uploader(
    key: str, url: str, limit: int, hint: str, too_large: str, accept: str, uploaded: Callable[[dict[str, Any]], None]
) -> None:
    """Take files.

    Args:
        key: of this place on the page.
        url: where they are sent.
        limit: bytes of one.
        hint: what is taken, in words.
        too_large: what is said of one beyond the limit.
        accept: as an HTML input's.
        uploaded: called with name and job of one that has arrived.
    """
    data = {"url": url, "limit": limit, "hint": hint, "tooLarge": too_large, "accept": accept}
    _mount("uploader", key, data, uploaded=uploaded)


def _mount(name: str, key: str, data: dict[str, Any], width: str = "stretch", **events: Callable[[Any], None]) -> None:
    def teller(event: str, tell: Callable[[Any], None]) -> Callable[[], None]:
        def on_event() -> None:
            value = getattr(st.session_state.get(key), event, None)
            if value is not None:
                tell(value)

        return on_event

    told = {f"on_{event}_change": teller(event, tell) for event, tell in events.items()}
    _component(name)(key=key, data=data, width=width, **told)
