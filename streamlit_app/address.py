"""Read and write the state of the page as a URL that can be shared and reloaded."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass, replace

__all__ = ["OpenMoment", "SearchState", "VideoState", "read_moment", "read_search", "read_video"]

LIMITS = (12, 24, 48, 96)  # how many cards a visitor may ask for
PARTS = ("curves", "highlights", "summary")  # of the page of one video
LONGEST_QUERY = 500  # characters; CLIP reads 77 tokens, about 50 words
LONGEST_SECONDS = 86_400.0  # that a filter may ask a moment to last
LATEST_SECONDS = 999_999.0  # of a moment: `OpenMoment` writes six digits
RATIO_STEP = 5  # percent
MOST_QUERIES = 6  # curves that can be told apart
SHORTEST_ID = 12  # digits of a content key in an address
_TIME = r"(\d+(?:\.\d+)?)"
_MOMENT = re.compile(rf"([0-9a-f]{{12,64}})_{_TIME}_{_TIME}")
_LIKE = re.compile(rf"([0-9a-f]{{12,64}})@{_TIME}-{_TIME}")
_KEY = re.compile(r"[0-9a-f]{12,64}")


@dataclass(frozen=True)
class OpenMoment:
    """The moment in the player, or one that others are to be like.

    Attributes:
        video: the beginning of its content key.
        start: seconds.
        end: seconds.
    """

    video: str
    start: float
    end: float

    def __str__(self) -> str:
        return f"{self.video[:SHORTEST_ID]}_{self.start:g}_{self.end:g}"

    @property
    def as_stretch(self) -> str:
        """As the command line writes a stretch, with the beginning of the content key for the file."""
        return f"{self.video[:SHORTEST_ID]}@{self.start:g}-{self.end:g}"


@dataclass(frozen=True)
class SearchState:
    """What the search page shows.

    Attributes:
        query: the sentence; "" for none.
        said: words that are said there; "" for any.
        like: the moment that others are to be like.
        picture: names a picture that this visitor has chosen (`asked.Picture.digest`); "" for none. An address cannot
            hold the picture itself.
        places: what is searched: beginnings of content keys, and names of folders; empty for all.
        min_score: 0…1; None for the one from which on the model takes a moment for found.
        limit: cards at most.
        shortest: of the moments, seconds.
        longest: of the moments, seconds; 0 for any.
        grouped: cards of one video stand together.
        why: the attention is painted over the posters.
        open: what the player shows.
        at: where a visitor jumped to in it, seconds.
    """

    query: str = ""
    said: str = ""
    like: OpenMoment | None = None
    picture: str = ""
    places: tuple[str, ...] = ()
    min_score: float | None = None
    limit: int = LIMITS[0]
    shortest: float = 0.0
    longest: float = 0.0
    grouped: bool = False
    why: bool = False
    open: OpenMoment | None = None
    at: float | None = None

    def to_params(self) -> dict[str, str | list[str]]:
        """As query parameters; what is as usual is left out."""
        params: dict[str, str | list[str]] = {}
        like = self.like.as_stretch if self.like else ""
        for name, text in (("q", self.query), ("said", self.said), ("like", like), ("picture", self.picture)):
            if text:
                params[name] = text
        if self.places:
            params["in"] = list(self.places)
        for name, value in (("min", self.min_score), ("from", self.shortest or None), ("to", self.longest or None)):
            if value is not None:
                params[name] = f"{value:g}"
        if self.limit != LIMITS[0]:
            params["n"] = str(self.limit)
        params |= {name: "1" for name, on in (("group", self.grouped), ("why", self.why)) if on}
        if self.open:
            params["open"] = str(self.open)
            if self.at is not None:
                params["t"] = f"{self.at:g}"
        return params

    @property
    def says(self) -> bool:
        """Whether it is another state than that of an address without parameters."""
        return self != SearchState()

    @property
    def asks(self) -> bool:
        """Whether anything is looked for."""
        return bool(self.query or self.said or self.like or self.picture)

    def asks_the_same_as(self, other: SearchState) -> bool:
        """Whether another state looks for the same thing."""
        return all(getattr(self, name) == getattr(other, name) for name in ("query", "said", "like", "picture"))

    @property
    def filters(self) -> int:
        """How many filters are set."""
        usual = SearchState()
        names = ("places", "min_score", "limit", "shortest", "longest")
        return sum(getattr(self, name) != getattr(usual, name) for name in names)


@dataclass(frozen=True)
class VideoState:
    """What the page of one video shows.

    Attributes:
        video: the beginning of its content key; "" before one is chosen.
        queries: whose curves are drawn.
        part: which of the page's parts is open.
        ratio: of the summary, percent of the video.
        at: where a visitor jumped to, seconds.
    """

    video: str = ""
    queries: tuple[str, ...] = ()
    part: str = "curves"
    ratio: int = 15
    at: float | None = None

    def to_params(self) -> dict[str, str | list[str]]:
        """As query parameters; what is as usual is left out."""
        params: dict[str, str | list[str]] = {}
        if self.video:
            params["v"] = self.video[:SHORTEST_ID]
        if self.queries:
            params["q"] = list(self.queries)
        usual = VideoState()
        if self.part != usual.part:
            params["part"] = self.part
        if self.ratio != usual.ratio:
            params["ratio"] = str(self.ratio)
        if self.at is not None:
            params["t"] = f"{self.at:g}"
        return params

    @property
    def says(self) -> bool:
        """Whether it names a video; without one the rest says nothing."""
        return bool(self.video)


def read_search(params: Mapping[str, list[str]]) -> SearchState:
    """The state that an address names; what makes no sense in it is passed over.

    Args:
        params: all values of each query parameter.
    """
    least, picture, said = _number(params, "min", -1.0), _last(params, "picture"), _last(params, "said")
    state = SearchState(
        query=_last(params, "q"),
        said=said if len(said) <= LONGEST_QUERY else "",
        like=_moment(_LIKE, _last(params, "like")),
        picture=picture if _KEY.fullmatch(picture) else "",
        places=tuple(params.get("in", ())),
        min_score=least if 0 <= least <= 1 else None,
        shortest=_number(params, "from", 0.0, LONGEST_SECONDS),
        longest=_number(params, "to", 0.0, LONGEST_SECONDS),
        grouped=_last(params, "group") == "1",
        why=_last(params, "why") == "1",
    )
    limit = int(_number(params, "n", LIMITS[0]))
    state = replace(state, limit=limit if limit in LIMITS else LIMITS[0])
    if opened := read_moment(_last(params, "open")):
        at = _number(params, "t", -1.0)
        state = replace(state, open=opened, at=at if at >= 0 else None)
    return state


def read_moment(text: str) -> OpenMoment | None:
    """The moment that an address or a card names; None where it makes no sense."""
    return _moment(_MOMENT, text)


def _moment(form: re.Pattern[str], text: str) -> OpenMoment | None:
    match = form.fullmatch(text)
    if match is None:
        return None
    start, end = float(match[2]), float(match[3])
    return OpenMoment(match[1], start, end) if start < end <= LATEST_SECONDS else None


def read_video(params: Mapping[str, list[str]]) -> VideoState:
    """The state that an address names; what makes no sense in it is passed over.

    Args:
        params: all values of each query parameter.
    """
    usual = VideoState()
    video, part, at = _last(params, "v"), _last(params, "part"), _number(params, "t", -1.0)
    queries = tuple(dict.fromkeys(query for query in params.get("q", ()) if query.strip()))
    return VideoState(
        video=video if _KEY.fullmatch(video) else "",
        queries=queries[:MOST_QUERIES],
        part=part if part in PARTS else usual.part,
        ratio=min(50, max(5, RATIO_STEP * round(_number(params, "ratio", usual.ratio) / RATIO_STEP))),
        at=at if at >= 0 else None,
    )


def _last(params: Mapping[str, list[str]], name: str) -> str:
    values = params.get(name) or [""]
    return values[-1]


def _number(params: Mapping[str, list[str]], name: str, usual: float, most: float = math.inf) -> float:
    try:
        number = float(_last(params, name))
    except ValueError:
        return usual
    return number if math.isfinite(number) and 0 <= number <= most else usual
