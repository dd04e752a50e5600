"""From cues, which say what a player shows, to lines, which say what is said when: each word once."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

from vtg.timespans import TimeSpan
from vtg.video.subtitles.markup import TimedWords

__all__ = ["Cue", "Speech", "merge_repeats", "spoken"]

JOINT = 0.1  # seconds between two cues up to which the second continues the first
ROWS = 8  # of a screen that a line may stay on while others come
GROWING_LETTERS = 8  # of a line from which on another that begins with them is the same, grown within a word
LONG_PAUSE = 3.0  # seconds between two timed words from which on they are two lines


@dataclass(frozen=True)
class Cue(TimeSpan):
    """What is shown together: from when to when, seconds, and its lines."""

    lines: Sequence[Sequence[TimedWords]]


@dataclass(frozen=True)
class Speech(TimeSpan):
    """Words that are said in one go: from when to when, seconds."""

    words: str


@dataclass
class _Saying:
    start: float
    end: float
    rows: list[str]


def spoken(cues: Iterable[Cue]) -> list[Speech]:
    """What is said in the cues of one file or track, in the order of time.

    Captions that roll show a line again above the next one, or let it grow word by word: it is said once, from when
    its first word appears. Where words inside of a cue have times, a long pause parts them.
    """
    said: list[_Saying] = []
    shown: list[tuple[str, _Saying]] = []  # the rows of the cue before, and with what each is said
    until = float("-inf")
    for cue in sorted(cues, key=lambda cue: (cue.start, cue.end)):
        rows = [line for line in cue.lines if _text(line)]
        if not rows or cue.end <= cue.start:
            continue
        texts = [_text(line) for line in rows]
        kept = _continue(shown, texts) if cue.start <= until + JOINT else []
        if len(kept) == len(rows):
            kept[-1][1].end = max(kept[-1][1].end, cue.end)
        new = _say(cue, rows[len(kept) :], said)
        shown = [*kept, *zip(texts[len(kept) :], new, strict=True)][-ROWS:]
        until = cue.end
    return [Speech(one.start, one.end, " ".join(" ".join(one.rows).split())) for one in said]


def _text(line: Sequence[TimedWords]) -> str:
    return " ".join("".join(part.words for part in line).split())


def _continue(shown: Sequence[tuple[str, _Saying]], texts: Sequence[str]) -> list[tuple[str, _Saying]]:
    """The first rows of a cue that were shown already; the one that was shown last may have got more words."""
    start = count = 0
    for first in range(len(shown)):
        same = 0
        for (before, _), text in zip(shown[first:], texts, strict=False):
            if text != before:
                same += first + same == len(shown) - 1 and _grows(before, text)
                break
            same += 1
        if same > count:
            start, count = first, same
    for (before, saying), text in zip(shown[start : start + count], texts, strict=False):
        saying.rows[-1] += text[len(before) :]
    return [(text, saying) for text, (_, saying) in zip(texts, shown[start : start + count], strict=False)]


def _grows(before: str, text: str) -> bool:
    return text.startswith(f"{before} ") or (len(before) >= GROWING_LETTERS and text.startswith(before))


def _say(cue: Cue, rows: Sequence[Sequence[TimedWords]], said: list[_Saying]) -> list[_Saying]:
    """Add rows to what is said: all together, unless there is a long pause between words that have times.

    Returns:
        With what the end of each row is said.
    """
    ends: list[_Saying] = []
    time = cue.start
    current: _Saying | None = None
    for line in rows:
        for place, part in enumerate(line):
            at = time if part.time is None else min(max(part.time, time), cue.end)
            if current is None or at - time > LONG_PAUSE:
                if current is not None:
                    current.end = at
                current = _Saying(at, cue.end, [part.words])
                said.append(current)
            elif place == 0:
                current.rows.append(part.words)
            else:
                current.rows[-1] += part.words
            time = at
        if current is not None:
            ends.append(current)
    return ends


def merge_repeats(said: Iterable[Speech]) -> list[Speech]:
    """In the order of time, with the same words at the same time once: files and tracks often hold the same."""
    merged: list[Speech] = []
    latest: dict[str, int] = {}
    for one in sorted(said, key=lambda one: (one.start, one.end)):
        place = latest.get(one.words)
        if place is not None and one.start <= merged[place].end + JOINT:
            merged[place] = replace(merged[place], end=max(merged[place].end, one.end))
        else:
            latest[one.words] = len(merged)
            merged.append(one)
    return merged
