"""The words of a cue without its markup: tags of SubRip and WebVTT, overrides of SubStation, entities of HTML.

All patterns are linear in the length of the text, whatever it holds.
"""

from __future__ import annotations

import html
import re
from dataclasses import dataclass

__all__ = ["TimedWords", "plain_lines"]

# Only tags that these formats know: what else is between < and > may be words ("a <b and c> d"). A quoted or coloured
# value follows the name of those that have one.
_TAGS = re.compile(
    r"</?(?:b|i|u|s|c|em|strong|ruby|rt|rp|small|big|sub|sup|tt|p|div|span|font|v|lang|br)"
    r"(?:\.[^<>\s]{0,200})?(?:\s+[\w-]+\s?=[^<>]{0,300})?\s{0,9}/?>"
    r"|<(?:v|lang|c|font|span)(?:\.[^<>\s]{0,200})?\s[^<>]{0,300}>|</\s?[a-z]{1,6}\s?>",
    re.IGNORECASE,
)
_ANNOTATION = re.compile(r"<rt>[^<]{0,200}</rt>")  # how the word before is pronounced
_LINE_BREAK = re.compile(r"\\N|<br\s{0,9}/?>|\[br\]")
_OVERRIDE = re.compile(r"\{[^{}]*\}")  # of SubStation; one without a backslash is a comment
_OVERRIDE_ONLY = re.compile(r"\{\\[^{}]*\}")
_TIME = re.compile(r"\{\\@([0-9]{1,9})\}")  # see `cleaning`
_SPACE = re.compile(r"\s+")
_DRAWING = re.compile(r"\\p([0-9])")
_LONG_ENTITY = re.compile(r"&#(?:[0-9]{8,}|[xX][0-9a-fA-F]{7,});?")
_INVISIBLE = dict.fromkeys(
    map(ord, "\u200b\u200e\u200f\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069\ufeff\xad")
)


@dataclass(frozen=True)
class TimedWords:
    """Words of one line of a cue, of which the first is said at a time: seconds; None: when the cue begins.

    Spaces at their ends are kept: parts may be syllables of one word.
    """

    time: float | None
    words: str


def plain_lines(text: str, is_substation: bool = False) -> list[list[TimedWords]]:
    """The lines of a cue that have words, each in the parts that are timed.

    Args:
        text: of the cue, as pysubs2 gives it.
        is_substation: braces are markup in any case. Tags and entities are too, as converters leave them in.
    """
    if is_substation:
        text = _without_drawings(text)
        text = _OVERRIDE.sub("", text).replace("\\h", " ").replace("\\n", "\\N")
    lines = []
    time: float | None = None
    for line in _LINE_BREAK.split(text):
        parts: list[TimedWords] = []
        # What is between two times: the text at even places, the times at odd ones.
        for place, piece in enumerate(_TIME.split(line)):
            if place % 2:
                time = int(piece) / 1000
            elif words := _words(piece):
                parts.append(TimedWords(time, words))
        if any(part.words.strip() for part in parts):
            lines.append(parts)
    return lines


def _words(text: str) -> str:
    text = _TAGS.sub("", _ANNOTATION.sub("", _OVERRIDE_ONLY.sub("", text)))
    text = html.unescape(_LONG_ENTITY.sub(" ", text))
    return _SPACE.sub(" ", text.translate(_INVISIBLE))


def _without_drawings(text: str) -> str:
    """Leave out what is between the override that begins a drawing and the one that ends it."""
    if "\\p" not in text:
        return text
    kept: list[str] = []
    position, draws = 0, False
    for match in _OVERRIDE.finditer(text):
        if not draws:
            kept.append(text[position : match.end()])
        position = match.end()
        if modes := _DRAWING.findall(match[0]):
            draws = modes[-1] != "0"
    return "".join(kept) + ("" if draws else text[position:])
