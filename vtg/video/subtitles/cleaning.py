"""Normalize real-world subtitle files to the strict formats that pysubs2 reads, in time linear in their size.

Each function takes the text of a file and returns text in the strict form of its format: with complete times, without
notes, styles and wrong numbers, and without lines or numbers so long that they would slow a parser down.
"""

from __future__ import annotations

import io
import re
from collections import deque
from collections.abc import Iterator

__all__ = [
    "MAX_CUES",
    "MAX_OPEN_CUE_SECONDS",
    "TooManyCuesError",
    "clean_microdvd",
    "clean_mpl2",
    "clean_subrip",
    "clean_substation",
    "mark_times",
    "same_line_ends",
]

MAX_CUES = 60_000  # per file; a film has 2,000, a day of rolling captions 50,000
MAX_CUE_CHARACTERS = 20_000  # a longer cue is cut off
MAX_SECONDS = 100 * 3600  # a later time is not accepted
MAX_OPEN_CUE_SECONDS = 5.0  # duration of a cue without an end

_CLOCK = r"(-?(?:[0-9]{1,4} ?: ?)?[0-9]{1,3} ?: ?[0-9]{1,2}(?: ?[.,;:] ?[0-9]{0,9})?)"
_CUE_TIMES = re.compile(
    rf"\s{{0,20}}(?:[0-9]{{1,7}}\s{{1,9}})?{_CLOCK}\s{{0,9}}(?:[-—–=]{{1,3}} ?>|→)\s{{0,9}}{_CLOCK}?"
)
_SUBVIEWER_TIMES = re.compile(rf"{_CLOCK},{_CLOCK}\s{{0,20}}$")
_FIELDS = re.compile(r"-?(?:([0-9]{1,4}) ?: ?)?([0-9]{1,3}) ?: ?([0-9]{1,2})(?: ?[.,;:] ?([0-9]{0,9}))?")
_TIME_INSIDE = re.compile(r"<((?:[0-9]{1,4}:)?[0-9]{1,2}:[0-9]{2}\.[0-9]{1,3})>")
_ANY_TIME = re.compile(r"([0-9]:[0-9]{1,2}:[0-9]{1,2})[.,]([0-9])")
_NOT_WORDS = re.compile(r"\s*$|\s{0,9}[0-9]+:[0-9]+:[0-9.,]{1,20}[ >-]{1,9}[0-9]+:[0-9]+:[0-9.,]{1,20}\s{0,9}$")
_NUMBER = re.compile(r"\s{0,20}([0-9]{1,9})\s{0,20}$")
_NOT_SAID = re.compile(r"(?:NOTE|STYLE|REGION)(?:\s|$)")  # blocks of WebVTT
_FRAMES = re.compile(r"\s{0,20}\{\s?([0-9]{1,8})\s?\}\s{0,9}\{\s?([0-9]{0,8})\s?\}")
_FRAME_CODES = re.compile(r"\{[A-Za-z]:[^{}]*\}")
_RATE = re.compile(r"[1-9][0-9]{1,2}(?:[.,][0-9]{1,6})?$")
_NO_BRACES = str.maketrans("{}", "()")
_SECTION = re.compile(r"\[[A-Za-z][^\]]{0,40}\]\s*$")
_ASS_FIELDS = ("layer", "start", "end", "style", "name", "marginl", "marginr", "marginv", "effect", "text")
_TENTHS = re.compile(r"\s{0,20}\[([0-9]{1,8})\]\s{0,9}\[([0-9]{1,8})\]")


class TooManyCuesError(ValueError):
    """A file has more than `MAX_CUES` cues."""


def same_line_ends(text: str) -> str:
    r"""Convert line ends to "\n", also those of old Macs and CR CR LF, and several empty lines to one."""
    text = re.sub(r"\r+\n?", "\n", text).replace("\0", "")
    return re.sub(r"\n{3,}", "\n\n", text)


def clean_subrip(text: str, is_webvtt: bool = False) -> str:
    """Convert SubRip, WebVTT or SubViewer to strict SubRip, with times within a cue as by `mark_times`."""
    written: list[str] = []
    for number, (start, end, lines) in enumerate(_with_ends(_cues(text, is_webvtt)), 1):
        # pysubs2 reads a last line that is a number as that of the next cue: each cue is followed by a number.
        written += [f"{_stamp(start)} --> {_stamp(end)}", *lines, str(number)]
    return "\n".join(written)


def _with_ends(
    cues: Iterator[tuple[float, float | None, list[str]]],
) -> Iterator[tuple[float, float, list[str]]]:
    """Yield the cues that have text; a missing end becomes the start of the next cue."""
    waiting: tuple[float, list[str]] | None = None
    for start, end, lines in cues:
        if waiting is not None:
            latest = waiting[0] + MAX_OPEN_CUE_SECONDS
            yield waiting[0], min(start, latest) if start > waiting[0] else latest, waiting[1]
            waiting = None
        if lines and end is None:
            waiting = (start, lines)
        elif lines and end is not None:
            yield start, end, lines
    if waiting is not None:
        yield waiting[0], waiting[0] + MAX_OPEN_CUE_SECONDS, waiting[1]


def _cues(text: str, is_webvtt: bool) -> Iterator[tuple[float, float | None, list[str]]]:
    """Yield start, end (None: missing) and lines of each cue.

    Empty lines do not end a cue, because many editors write some within cues: the next pair of times does.
    """
    times: tuple[float, float | None] | None = None
    lines: list[str] = []
    before: deque[str] = deque(maxlen=3)
    length = number = count = 0
    is_note = False
    for line in io.StringIO(text):
        line = line.rstrip("\n")
        match = (_CUE_TIMES.match(line) or _SUBVIEWER_TIMES.match(line)) if ":" in line else None
        if match is not None:
            count += 1
            if count > MAX_CUES:
                raise TooManyCuesError
            label = _label(before, number, is_webvtt)
            if label is not None and lines and lines[-1] == label:
                lines.pop()
            if times is not None:
                yield *times, lines
            number = int(label) if label is not None and _NUMBER.match(label) else number + 1
            start, end = _seconds(match[1]), _seconds(match[2])
            times = None if start is None else (start, end)
            lines, length, is_note = [], 0, False
        else:
            if is_webvtt:
                is_note = bool(line) and (is_note or _begins_note(line, before))
            if length < MAX_CUE_CHARACTERS and times is not None and not is_note and not _NOT_WORDS.match(line):
                lines.append(_unlike_times(mark_times(line[: MAX_CUE_CHARACTERS - length])))
            length += len(line) + 1
        before.append(line)
    if times is not None:
        yield *times, lines


def _label(before: deque[str], number: int, is_webvtt: bool) -> str | None:
    """The line before a pair of times, if it is the number or name of the cue.

    Args:
        before: the last lines.
        number: of the cue before.
        is_webvtt: cues may have names.
    """
    if not before:
        return None
    directly = bool(before[-1].strip())
    label = before[-1] if directly or len(before) < 2 else before[-2]
    if (match := _NUMBER.match(label)) is not None:
        return label if directly or int(match[1]) == number + 1 else None
    return label if is_webvtt and directly and (len(before) < 2 or not before[-2]) else None


def _begins_note(line: str, before: deque[str]) -> bool:
    return line[:1] in "NSR" and (not before or not before[-1]) and _NOT_SAID.match(line) is not None


def mark_times(line: str) -> str:
    r"""Convert times within a cue to overrides such as ``{\@900}`` (ms), which no parser reads as times of the cue."""
    return _TIME_INSIDE.sub(lambda match: f"{{\\@{round(1000 * (_seconds(match[1]) or 0))}}}", line)


def _unlike_times(line: str) -> str:
    """Change a line of text with two times, which pysubs2 would read as the times of a cue."""
    return _ANY_TIME.sub(r"\1 \2", line) if len(_ANY_TIME.findall(line)) == 2 else line


def _seconds(clock: str | None) -> float | None:
    match = _FIELDS.fullmatch(clock or "")
    if clock is None or match is None:
        return None
    hours, minutes, seconds, fraction = match.groups()
    if clock.startswith("-"):  # as after shifting a file: shown from the start
        return 0.0
    time = int(hours or 0) * 3600 + int(minutes) * 60 + int(seconds) + float(f"0.{fraction or 0}")
    return time if time < MAX_SECONDS else None


def _stamp(seconds: float) -> str:
    milliseconds = round(1000 * seconds)
    minutes, milliseconds = divmod(milliseconds, 60_000)
    return f"{minutes // 60:02d}:{minutes % 60:02d}:{milliseconds // 1000:02d}.{milliseconds % 1000:03d}"


def clean_substation(text: str) -> str:
    """Extract the dialogue of SubStation Alpha (SSA, ASS), with its fields in the order of ASS."""
    written = ["[Script Info]", "ScriptType: v4.00+", "", "[Events]"]
    fields = list(_ASS_FIELDS)
    in_events = False
    for line in io.StringIO(text):
        line = line.strip()
        if _SECTION.match(line):
            in_events = line.lower().startswith("[events]")
        kind, _, rest = line.partition(":") if in_events else ("", "", "")
        if kind.lower() == "format":
            named = [name.strip().lower() for name in rest[:1000].split(",")]
            fields = named if {"start", "end", "text"} <= set(named) else fields
        elif kind.lower() == "dialogue":
            values = dict(zip(fields, rest[:MAX_CUE_CHARACTERS].split(",", len(fields) - 1), strict=False))
            start, end = (_seconds(values.get(name, "").strip()) for name in ("start", "end"))
            if start is not None and end is not None and values.get("text"):
                written.append(f"Dialogue: 0,{_stamp(start)},{_stamp(end)},Default,,0,0,0,,{values['text']}")
        if len(written) > MAX_CUES:
            raise TooManyCuesError
    return "\n".join(written)


def clean_microdvd(text: str) -> tuple[str, float | None]:
    """Convert MicroDVD to plain text; also return the frame rate from its first line, if there is one."""
    written: list[str] = []
    rate = None
    for line in io.StringIO(text):
        if (match := _FRAMES.match(line)) is None:
            continue
        words = _FRAME_CODES.sub("", line[match.end() : match.end() + MAX_CUE_CHARACTERS]).strip()
        start, end = int(match[1]), int(match[2]) if match[2] else None
        if not written and rate is None and start <= 1 and (end or 0) <= 1 and _RATE.match(words):
            rate = float(words.replace(",", "."))
        elif words:
            # Without an end: 50 frames, about two seconds.
            written.append(f"{{{start}}}{{{start + 50 if end is None else end}}}{words.translate(_NO_BRACES)}")
        if len(written) > MAX_CUES:
            raise TooManyCuesError
    return "\n".join(written), rate


def clean_mpl2(text: str) -> str:
    """Clean up MPL2 (times in tenths of a second in brackets)."""
    written = []
    for line in io.StringIO(text):
        if (match := _TENTHS.match(line)) is not None:
            words = line[match.end() : match.end() + MAX_CUE_CHARACTERS].strip()
            written.append(f"[{match[1]}][{match[2]}]{words.translate(_NO_BRACES)}")
            if len(written) > MAX_CUES:
                raise TooManyCuesError
    return "\n".join(written)
