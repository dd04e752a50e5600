"""Wordings of the demo world's sentences, plain or paraphrased."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from random import Random

from vtg.demo.descriptions import Description, Order
from vtg.demo.world import ACTIONS, COLOURS, PLACES, SHAPES, SIZES

__all__ = ["UNKNOWN", "put_into_neutral_words", "put_into_words", "vocabulary"]

UNKNOWN = "\u2047"  # replaces an unknown word, in training only

# The first wording is the plain one, which is used in annotations.
SHAPE_WORDS = {
    "circle": ("circle", "disc", "ball"),
    "square": ("square", "box"),
    "triangle": ("triangle",),
    "star": ("star",),
    "heart": ("heart",),
    "diamond": ("diamond",),
    "cross": ("cross", "plus"),
    "ring": ("ring", "hoop"),
}
COLOUR_WORDS = {name: (name,) for name in COLOURS} | {"purple": ("purple", "violet")}
SIZE_WORDS = {
    "small": ("small", "little", "tiny"),
    "medium": ("medium", "medium-sized"),
    "large": ("large", "big", "huge"),
}
PLACE_WORDS = {
    "top left": ("in the top left corner", "in the upper left corner", "at the top left"),
    "top": ("at the top", "at the upper edge", "on top"),
    "top right": ("in the top right corner", "in the upper right corner", "at the top right"),
    "left": ("on the left", "on the left side", "at the left"),
    "centre": ("in the centre", "in the middle", "in the center"),
    "right": ("on the right", "on the right side", "at the right"),
    "bottom left": ("in the bottom left corner", "in the lower left corner", "at the bottom left"),
    "bottom": ("at the bottom", "at the lower edge"),
    "bottom right": ("in the bottom right corner", "in the lower right corner", "at the bottom right"),
}
ACTION_WORDS = {
    "left": ("moves to the left", "goes left", "slides to the left", "moving left"),
    "right": ("moves to the right", "goes right", "slides to the right", "moving right"),
    "up": ("moves up", "goes up", "rises", "moving up"),
    "down": ("moves down", "goes down", "sinks", "moving down"),
    "grow": ("grows", "gets bigger", "becomes larger", "growing"),
    "shrink": ("shrinks", "gets smaller", "becomes smaller", "shrinking"),
    **{f"turn {colour}": (f"turns {colour}", f"becomes {colour}", f"changes to {colour}") for colour in COLOURS},
}
ORDER_WORDS = {  # the braces are replaced by the landmark
    "first": ("for the first time", "the first time"),
    "last": ("for the last time", "the last time"),
    "before": ("before {}", "before {} comes", "earlier than {}"),
    "after": ("after {}", "after {} has gone", "later than {}"),
}
_LEAD_INS = ("there is", "a video of", "a photo of", "a picture of", "we see", "show me", "find", "look for")
_NEUTRAL_NOUNS = (
    *("photo", "picture", "video", "image", "frame", "frame of a video", "scene", "empty scene", "background"),
    *("picture of something", "something", "nothing", ""),
)
_ARTICLES = ("a", "the", "one", "")


def put_into_words(descriptions: Sequence[Description], order: Order | None, random: Random | None = None) -> str:
    """The text of a sentence: its plain wording or, with `random`, a paraphrase."""
    parts = [_describe(part, random) for part in descriptions]
    if order is not None:
        parts = [f"{' and '.join(parts)} {_put_order(order, random)}"]
    if random is None:
        return " and ".join(parts)
    if len(parts) == 2 and random.random() < 0.5:
        parts.reverse()
    text = random.choice((" and ", " and ", " with ", ", ")).join(parts)
    lead_in = random.choice(_LEAD_INS) if random.random() < 0.4 else ""
    return f"{lead_in} {text}{'.' if random.random() < 0.15 else ''}".strip()


def put_into_neutral_words(random: Random) -> str:
    """A text without content, such as "a photo of something"."""
    noun = random.choice(_NEUTRAL_NOUNS)
    words = [random.choice((*_LEAD_INS, "", "")), random.choice(_ARTICLES), noun, random.choice(("", "", UNKNOWN, "."))]
    return " ".join(word for word in words if word) or UNKNOWN


def vocabulary() -> list[str]:
    """All phrases that occur in sentences of the demo world."""
    tables = (SHAPE_WORDS, COLOUR_WORDS, SIZE_WORDS, PLACE_WORDS, ACTION_WORDS, ORDER_WORDS)
    phrases = [phrase.replace("{}", "") for table in tables for choices in table.values() for phrase in choices]
    return [*phrases, *_LEAD_INS, *_NEUTRAL_NOUNS, *_ARTICLES, "an", "and", "with", "shape", "of", ",", "."]


def _put_order(order: Order, random: Random | None) -> str:
    landmark = "" if order.landmark is None else _describe(order.landmark, random)
    return _choose(ORDER_WORDS, order.relation, random).format(landmark)


def _describe(part: Description, random: Random | None) -> str:
    words = [
        _choose(SIZE_WORDS, part.size, random),
        _choose(COLOUR_WORDS, part.colour, random),
        "shape" if part.shape is None else _choose(SHAPE_WORDS, part.shape, random),
    ]
    noun = " ".join(word for word in words if word)
    article = "a" if random is None or random.random() < 0.6 else random.choice(_ARTICLES)
    if article == "a" and noun[0] in "aeiou":
        article = "an"
    rest = [_choose(PLACE_WORDS, part.place, random), _choose(ACTION_WORDS, part.action, random)]
    return " ".join(word for word in (article, noun, *rest) if word)


def _choose(table: Mapping[str, tuple[str, ...]], key: str | None, random: Random | None) -> str:
    if key is None:
        return ""
    choices = table[key]
    return choices[0] if random is None or random.random() < 0.5 else random.choice(choices)


assert set(SHAPE_WORDS) == set(SHAPES) and set(COLOUR_WORDS) == set(COLOURS) and set(SIZE_WORDS) == set(SIZES)
assert set(PLACE_WORDS) == set(PLACES) and set(ACTION_WORDS) == set(ACTIONS)
