"""Convert the state of a page to URL query parameters and back."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass, replace

__all__ = ["OpenMoment", "SearchState", "VideoState", "read_moment", "read_search", "read_video"]

LIMITS = (12, 24, 48, 96)  # choices for the number of results
PARTS = ("curves", "highlights", "summary")  # of the page of one video
MAX_QUERY_CHARACTERS = 500  # characters; CLIP reads 77 tokens, about 50 words
MAX_FILTER_SECONDS = 86_400.0  # of a moment's length in a filter
MAX_END_SECONDS = 999_999.0  # of a moment; `OpenMoment` writes six digits
RATIO_STEP = 5  # percent
MAX_QUERIES = 6  # curves with distinguishable colours
ID_DIGITS = 12  # digits of a content key in an address
_TIME = r"(\d+(?:\.\d+)?)"
_MOMENT = re.compile(rf"([0-9a-f]{{12,64}})_{_TIME}_{_TIME}")
_LIKE = re.compile(rf"([0-9a-f]{{12,64}})@{_TIME}-{_TIME}")
_KEY = re.compile(r"[0-9a-f]{12,64}")


@dataclass(frozen=True)
class OpenMoment:
    """The moment in the player, or one to find similar moments of.

    Attributes:
        video: the beginning of its content key.
        start: seconds.
        end: seconds.
    """

    video: str
    start: float
    end: float

    def __str__(self) -> str:
        return f"{self.video[:ID_DIGITS]}_{self.start:g}_{self.end:g}"

    @property
    def as_stretch(self) -> str:
        """In the syntax of spans on the command line, with the start of the content key for the file."""
        return f"{self.video[:ID_DIGITS]}@{self.start:g}-{self.end:g}"


@dataclass(frozen=True)
class SearchState:
    """State of the search page.

    Attributes:
        query: the sentence; "" for none.
        said: words in the transcript; "" for any.
        like: the moment to find similar ones of.
        picture: digest of a picture that this visit has (`search_query.Picture.digest`); "" for none. The URL does
            not contain the picture itself.
        places: searched videos (starts of content keys) and names of folders; empty for all.
        min_score: 0…1; None for the model's threshold.
        limit: maximum number of results.
        shortest: minimum length of a moment, seconds.
        longest: maximum length of a moment, seconds; 0 for any.
        grouped: group results by video.
        why: draw the attention over the posters.
        open: the moment in the player.
        at: time in the player to which the visitor jumped, seconds.
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
        """As query parameters; default values are left out."""
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
    def has_content(self) -> bool:
        """Whether it differs from the default state."""
        return self != SearchState()

    @property
    def has_query(self) -> bool:
        """Whether there is a query: a sentence, transcript words, a moment or a picture."""
        return bool(self.query or self.said or self.like or self.picture)

    def has_same_query(self, other: SearchState) -> bool:
        """Whether another state has the same query."""
        return all(getattr(self, name) == getattr(other, name) for name in ("query", "said", "like", "picture"))

    @property
    def filters(self) -> int:
        """How many filters are set."""
        default = SearchState()
        names = ("places", "min_score", "limit", "shortest", "longest")
        return sum(getattr(self, name) != getattr(default, name) for name in names)


@dataclass(frozen=True)
class VideoState:
    """State of the page of one video.

    Attributes:
        video: the start of its content key; "" before one is chosen.
        queries: with one curve each.
        part: the open part of the page.
        ratio: length of the summary, percent of the video.
        at: time to which the visitor jumped, seconds.
    """

    video: str = ""
    queries: tuple[str, ...] = ()
    part: str = "curves"
    ratio: int = 15
    at: float | None = None

    def to_params(self) -> dict[str, str | list[str]]:
        """As query parameters; default values are left out."""
        params: dict[str, str | list[str]] = {}
        if self.video:
            params["v"] = self.video[:ID_DIGITS]
        if self.queries:
            params["q"] = list(self.queries)
        default = VideoState()
        if self.part != default.part:
            params["part"] = self.part
        if self.ratio != default.ratio:
            params["ratio"] = str(self.ratio)
        if self.at is not None:
            params["t"] = f"{self.at:g}"
        return params

    @property
    def has_content(self) -> bool:
        """Whether a video is chosen; without one the rest has no effect."""
        return bool(self.video)


def read_search(params: Mapping[str, list[str]]) -> SearchState:
    """Read the state from query parameters; invalid values are ignored.

    Args:
        params: all values of each query parameter.
    """
    least, picture, said = _number(params, "min", -1.0), _last(params, "picture"), _last(params, "said")
    state = SearchState(
        query=_last(params, "q"),
        said=said if len(said) <= MAX_QUERY_CHARACTERS else "",
        like=_moment(_LIKE, _last(params, "like")),
        picture=picture if _KEY.fullmatch(picture) else "",
        places=tuple(params.get("in", ())),
        min_score=least if 0 <= least <= 1 else None,
        shortest=_number(params, "from", 0.0, MAX_FILTER_SECONDS),
        longest=_number(params, "to", 0.0, MAX_FILTER_SECONDS),
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
    """Read the moment of a URL or a card; None if it is invalid."""
    return _moment(_MOMENT, text)


def _moment(form: re.Pattern[str], text: str) -> OpenMoment | None:
    match = form.fullmatch(text)
    if match is None:
        return None
    start, end = float(match[2]), float(match[3])
    return OpenMoment(match[1], start, end) if start < end <= MAX_END_SECONDS else None


def read_video(params: Mapping[str, list[str]]) -> VideoState:
    """Read the state from query parameters; invalid values are ignored.

    Args:
        params: all values of each query parameter.
    """
    default = VideoState()
    video, part, at = _last(params, "v"), _last(params, "part"), _number(params, "t", -1.0)
    queries = tuple(dict.fromkeys(query for query in params.get("q", ()) if query.strip()))
    return VideoState(
        video=video if _KEY.fullmatch(video) else "",
        queries=queries[:MAX_QUERIES],
        part=part if part in PARTS else default.part,
        ratio=min(50, max(5, RATIO_STEP * round(_number(params, "ratio", default.ratio) / RATIO_STEP))),
        at=at if at >= 0 else None,
    )


def _last(params: Mapping[str, list[str]], name: str) -> str:
    values = params.get(name) or [""]
    return values[-1]


def _number(params: Mapping[str, list[str]], name: str, default: float, most: float = math.inf) -> float:
    try:
        number = float(_last(params, name))
    except ValueError:
        return default
    return number if math.isfinite(number) and 0 <= number <= most else default
