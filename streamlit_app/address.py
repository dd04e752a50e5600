"""The page's address: knows how what a visitor sees is written as a URL, so that it can be shared and reloaded."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass, replace

__all__ = ["OpenMoment", "SearchState", "VideoState", "read_search", "read_video"]

USUAL_SCORE = 0.05  # what scores less is next to nothing
LIMITS = (12, 24, 48, 96)  # how many cards a visitor may ask for
PARTS = ("curves", "highlights", "summary")  # of the page of one video
MOST_QUERIES = 6  # curves that can be told apart
SHORTEST_ID = 12  # digits of a content key in an address
_MOMENT = re.compile(r"([0-9a-f]{12,64})_(\d+(?:\.\d+)?)_(\d+(?:\.\d+)?)")
_KEY = re.compile(r"[0-9a-f]{12,64}")


@dataclass(frozen=True)
class OpenMoment:
    """The moment in the player.

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


@dataclass(frozen=True)
class SearchState:
    """What the search page shows.

    Attributes:
        query: the sentence; "" before the first.
        places: what is searched: beginnings of content keys, and names of folders; empty for all.
        min_score: 0…1.
        limit: cards at most.
        shortest: of the moments, seconds.
        longest: of the moments, seconds; 0 for any.
        grouped: cards of one video stand together.
        why: the attention is painted over the posters.
        open: what the player shows.
        at: where a visitor jumped to in it, seconds.
    """

    query: str = ""
    places: tuple[str, ...] = ()
    min_score: float = USUAL_SCORE
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
        if self.query:
            params["q"] = self.query
        if self.places:
            params["in"] = list(self.places)
        for name, value, usual in (
            ("min", self.min_score, USUAL_SCORE),
            ("from", self.shortest, 0.0),
            ("to", self.longest, 0.0),
        ):
            if value != usual:
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


def read_search(params: Mapping[str, list[str]]) -> SearchState:
    """The state that an address names; what makes no sense in it is passed over.

    Args:
        params: all values of each query parameter.
    """
    state = SearchState(
        query=_last(params, "q"),
        places=tuple(params.get("in", ())),
        min_score=min(1.0, _number(params, "min", USUAL_SCORE)),
        shortest=_number(params, "from", 0.0),
        longest=_number(params, "to", 0.0),
        grouped=_last(params, "group") == "1",
        why=_last(params, "why") == "1",
    )
    limit = int(_number(params, "n", LIMITS[0]))
    state = replace(state, limit=limit if limit in LIMITS else LIMITS[0])
    match = _MOMENT.fullmatch(_last(params, "open"))
    if match and float(match[2]) < float(match[3]):
        at = _number(params, "t", -1.0)
        moment = OpenMoment(match[1], float(match[2]), float(match[3]))
        state = replace(state, open=moment, at=at if at >= 0 else None)
    return state


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
        ratio=min(50, max(5, int(_number(params, "ratio", usual.ratio)))),
        at=at if at >= 0 else None,
    )


def _last(params: Mapping[str, list[str]], name: str) -> str:
    values = params.get(name) or [""]
    return values[-1]


def _number(params: Mapping[str, list[str]], name: str, usual: float) -> float:
    try:
        number = float(_last(params, name))
    except ValueError:
        return usual
    return number if math.isfinite(number) and number >= 0 else usual
