"""Read what is said in a video, from the subtitle files beside it and from its own tracks."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from vtg.errors import VideoError
from vtg.video.subtitles.cleaning import MAX_CUES, TooManyCuesError, same_line_ends
from vtg.video.subtitles.encodings import UnknownEncodingError, decode_text
from vtg.video.subtitles.folders import SubtitleFolders, language_of
from vtg.video.subtitles.formats import format_of, read_cues, read_packets
from vtg.video.subtitles.lines import TranscriptLine
from vtg.video.subtitles.speech import Cue, Speech, merge_repeats, spoken

if TYPE_CHECKING:
    from vtg.video.probing import VideoTrack

__all__ = ["MAX_FILE_BYTES", "said_lines"]

MAX_FILE_BYTES = 25 << 20  # of a subtitle file; that of a long film has 200 KB
PICTURES = b"\0\0\1\xba"  # a program stream begins like this: the pictures of VobSub


class _UnreadableError(Exception):
    """Why a subtitle file cannot be read, in words that follow "path: "."""


def said_lines(
    video: Path, folders: SubtitleFolders, warn: Callable[[str], None] = lambda message: None
) -> list[TranscriptLine]:
    """All that is said in a video, in the order of time, counted from its first picture as frames are.

    Args:
        video: the file.
        folders: finds the subtitle files that belong to it.
        warn: called with one line for each of these that cannot be read.
    """
    from vtg.video.subtitle_tracks import subtitle_tracks

    tracks = subtitle_tracks(video)
    files = folders.subtitle_files(video)
    if not tracks and not files:
        return []
    pictures = _survey(video)
    first = float(pictures.first * pictures.clock) if pictures else 0.0
    # Players count the times of a subtitle file from where they begin to play: at the start of the earliest track, and
    # not before 0, where only what primes a decoder lies. In a video whose pictures begin 5 s later than its sound,
    # what a file has at 6 s is shown 1 s after the first picture. Tracks have the clock of the video.
    begin = max(0.0, pictures.file_start) if pictures else 0.0
    said: list[Speech] = []
    for track in tracks:
        try:
            said += _moved(spoken(read_packets(track)), first)
        except UnknownEncodingError:
            warn(f"{video}: the encoding of its subtitle track is not known: the track is left out")
    for path in files:
        try:
            cues = _read(path, language_of(path, video), pictures.info.fps if pictures else None)
        except _UnreadableError as error:
            warn(f"{path}: {error}")
        else:
            said += _moved(spoken(cues), first - begin)
    end = float(pictures.duration) if pictures else float("inf")
    return [
        TranscriptLine(str(video), max(0.0, one.start), min(one.end, end), one.words)
        for one in merge_repeats(said)
        if one.end > 0 and one.start < end
    ]


def _survey(video: Path) -> VideoTrack | None:
    from vtg.video.probing import survey

    with contextlib.suppress(VideoError):
        return survey(video)
    return None


def _moved(said: Iterable[Speech], seconds: float) -> Iterator[Speech]:
    return (Speech(one.start - seconds, one.end - seconds, one.words) for one in said)


def _read(path: Path, language: str | None, rate: float | None) -> list[Cue]:
    """The cues of a subtitle file in a language, if its name says one, of a video with so many frames a second."""
    try:
        if not path.is_file():  # a pipe would be waited for
            raise _UnreadableError("is no file: passed over")
        size = path.stat().st_size
        if size > MAX_FILE_BYTES:
            raise _UnreadableError(f"is larger than any subtitle file ({size >> 20} MB): passed over")
        content = path.read_bytes()
    except OSError as error:
        raise _UnreadableError(f"cannot be read: {error.strerror or error}") from None
    if content.startswith(PICTURES):
        raise _UnreadableError("holds subtitles as pictures (VobSub), which cannot be read: only text can")
    try:
        text = decode_text(content, language)
        cues = read_cues(text, rate)
    except UnknownEncodingError:
        raise _UnreadableError("the encoding of its text is not known: save it as UTF-8") from None
    except TooManyCuesError:
        raise _UnreadableError(f"holds more than {MAX_CUES:,} subtitles: passed over") from None
    if not cues and text.strip() and format_of(same_line_ends(text)) not in ("vtt", "ass"):
        raise _UnreadableError("holds no subtitles with times and words")
    return cues
