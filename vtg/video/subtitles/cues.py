"""Convert cues, which may repeat text on the screen, to transcript lines that hold each word once."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

from vtg.timespans import TimeSpan
from vtg.video.subtitles.markup import TimedWords

__all__ = ["Cue", "Speech", "merge_cues", "merge_repeats"]

MAX_GAP_SECONDS = 0.1  # between two cues of which the second continues the first
MAX_ROWS = 8  # on the screen, where a line may stay while others appear
MIN_GROWING_LETTERS = 8  # of a line that another line extends within a word
MIN_PAUSE_SECONDS = 3.0  # between two timed words that are put into different lines


@dataclass(frozen=True)
class Cue(TimeSpan):
    """Lines that are shown together, with start and end in seconds."""

    lines: Sequence[Sequence[TimedWords]]


@dataclass(frozen=True)
class Speech(TimeSpan):
    """Words merge_cues without a long pause, with start and end in seconds."""

    words: str


@dataclass
class _OpenLine:
    start: float
    end: float
    rows: list[str]


def merge_cues(cues: Iterable[Cue]) -> list[Speech]:
    """The speech in the cues of one file or track, ordered by time.

    Rolling captions repeat a line above the next one, or extend it word by word: such a line is taken once, from the
    time of its first word. Where words within a cue have times, a long pause starts a new line.
    """
    lines: list[_OpenLine] = []
    shown: list[tuple[str, _OpenLine]] = []  # the rows of the previous cue, and the line of each
    until = float("-inf")
    for cue in sorted(cues, key=lambda cue: (cue.start, cue.end)):
        rows = [line for line in cue.lines if _text(line)]
        if not rows or cue.end <= cue.start:
            continue
        texts = [_text(line) for line in rows]
        kept = _continue(shown, texts) if cue.start <= until + MAX_GAP_SECONDS else []
        if len(kept) == len(rows):
            kept[-1][1].end = max(kept[-1][1].end, cue.end)
        new = _append_rows(cue, rows[len(kept) :], lines)
        shown = [*kept, *zip(texts[len(kept) :], new, strict=True)][-MAX_ROWS:]
        until = cue.end
    return [Speech(one.start, one.end, " ".join(" ".join(one.rows).split())) for one in lines]


def _text(line: Sequence[TimedWords]) -> str:
    return " ".join("".join(part.words for part in line).split())


def _continue(shown: Sequence[tuple[str, _OpenLine]], texts: Sequence[str]) -> list[tuple[str, _OpenLine]]:
    """The first rows of a cue that were shown already; the last of them may have been extended."""
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
    for (before, line), text in zip(shown[start : start + count], texts, strict=False):
        line.rows[-1] += text[len(before) :]
    return [(text, line) for text, (_, line) in zip(texts, shown[start : start + count], strict=False)]


def _grows(before: str, text: str) -> bool:
    return text.startswith(f"{before} ") or (len(before) >= MIN_GROWING_LETTERS and text.startswith(before))


def _append_rows(cue: Cue, rows: Sequence[Sequence[TimedWords]], lines: list[_OpenLine]) -> list[_OpenLine]:
    """Append rows to the lines: as one line, unless there is a long pause between timed words.

    Returns:
        The line that holds the end of each row.
    """
    ends: list[_OpenLine] = []
    time = cue.start
    current: _OpenLine | None = None
    for line in rows:
        for place, part in enumerate(line):
            at = time if part.time is None else min(max(part.time, time), cue.end)
            if current is None or at - time > MIN_PAUSE_SECONDS:
                if current is not None:
                    current.end = at
                current = _OpenLine(at, cue.end, [part.words])
                lines.append(current)
            elif place == 0:
                current.rows.append(part.words)
            else:
                current.rows[-1] += part.words
            time = at
        if current is not None:
            ends.append(current)
    return ends


def merge_repeats(speech: Iterable[Speech]) -> list[Speech]:
    """Order by time and merge equal words at the same time: files and tracks often have the same content."""
    merged: list[Speech] = []
    latest: dict[str, int] = {}
    for one in sorted(speech, key=lambda one: (one.start, one.end)):
        place = latest.get(one.words)
        if place is not None and one.start <= merged[place].end + MAX_GAP_SECONDS:
            merged[place] = replace(merged[place], end=max(merged[place].end, one.end))
        else:
            latest[one.words] = len(merged)
            merged.append(one)
    return merged
