"""Remove the markup of a cue: tags of SubRip and WebVTT, overrides of SubStation, HTML entities.

All patterns take time linear in the length of any text.
"""

from __future__ import annotations

import html
import re
from dataclasses import dataclass

__all__ = ["TimedWords", "plain_lines"]

# Only the tags of these formats: other text between < and > may be words ("a <b and c> d").
_TAGS = re.compile(
    r"</?(?:b|i|u|s|c|em|strong|ruby|rt|rp|small|big|sub|sup|tt|p|div|span|font|v|lang|br)"
    r"(?:\.[^<>\s]{0,200})?(?:\s+[\w-]+\s?=[^<>]{0,300})?\s{0,9}/?>"
    r"|<(?:v|lang|c|font|span)(?:\.[^<>\s]{0,200})?\s[^<>]{0,300}>|</\s?[a-z]{1,6}\s?>",
    re.IGNORECASE,
)
_ANNOTATION = re.compile(r"<rt>[^<]{0,200}</rt>")  # pronunciation of the word before
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
    """A part of a line of a cue, and the time of its first word in seconds; None: the start of the cue.

    Spaces at the ends are kept, because parts may be syllables of one word.
    """

    time: float | None
    words: str


def plain_lines(text: str, is_substation: bool = False) -> list[list[TimedWords]]:
    """The lines of a cue that have text, each as a list of timed parts.

    Args:
        text: of the cue, from pysubs2.
        is_substation: all braces are markup. Tags and entities are removed as well, as converters leave some.
    """
    if is_substation:
        text = _without_drawings(text)
        text = _OVERRIDE.sub("", text).replace("\\h", " ").replace("\\n", "\\N")
    lines = []
    time: float | None = None
    for line in _LINE_BREAK.split(text):
        parts: list[TimedWords] = []
        # `split` gives text at even indices and times at odd ones.
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
    """Remove drawings: the text between the override that starts one and the override that ends it."""
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
