"""Read the transcript of a video from its subtitle tracks and from the subtitle files beside it."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from vtg.errors import VideoError
from vtg.video.subtitles.cleaning import MAX_CUES, TooManyCuesError, same_line_ends
from vtg.video.subtitles.cues import Cue, Speech, merge_cues, merge_repeats
from vtg.video.subtitles.encodings import UnknownEncodingError, decode_text
from vtg.video.subtitles.folders import SubtitleFolders, language_of
from vtg.video.subtitles.formats import format_of, read_cues, read_packets
from vtg.video.subtitles.lines import TranscriptLine

if TYPE_CHECKING:
    from vtg.video.probing import VideoTrack

__all__ = ["MAX_FILE_BYTES", "read_transcript"]

MAX_FILE_BYTES = 25 << 20  # of a subtitle file; that of a long film has 200 KB
VOBSUB_START = b"\0\0\1\xba"  # of a program stream with subtitles as images


class _UnreadableError(Exception):
    """Reason why a subtitle file cannot be read; follows "path: "."""


def read_transcript(
    video: Path, folders: SubtitleFolders, warn: Callable[[str], None] = lambda message: None
) -> list[TranscriptLine]:
    """Read all transcript lines of a video, ordered by time; times count from its first frame.

    Args:
        video: the file.
        folders: finds the subtitle files that belong to it.
        warn: called with one line for each subtitle file or track that cannot be read.
    """
    from vtg.video.subtitle_tracks import subtitle_tracks

    tracks = subtitle_tracks(video)
    files = folders.subtitle_files(video)
    if not tracks and not files:
        return []
    pictures = _survey(video)
    first = float(pictures.first * pictures.clock) if pictures else 0.0
    # In players, time 0 of a subtitle file is the start of the earliest stream, but not before 0, where only decoder
    # preroll lies. In a video whose frames start 5 s after its audio, a subtitle at 6 s in a file is shown 1 s after
    # the first frame. Tracks have the timestamps of the video.
    begin = max(0.0, pictures.file_start) if pictures else 0.0
    speech: list[Speech] = []
    for track in tracks:
        try:
            speech += _moved(merge_cues(read_packets(track)), first)
        except UnknownEncodingError:
            warn(f"{video}: a subtitle track is skipped: the encoding of its text is unknown")
    for path in files:
        try:
            cues = _read(path, language_of(path, video), pictures.info.fps if pictures else None)
        except _UnreadableError as error:
            warn(f"{path}: {error}")
        else:
            speech += _moved(merge_cues(cues), first - begin)
    end = float(pictures.duration) if pictures else float("inf")
    return [
        TranscriptLine(str(video), max(0.0, one.start), min(one.end, end), one.words)
        for one in merge_repeats(speech)
        if one.end > 0 and one.start < end
    ]


def _survey(video: Path) -> VideoTrack | None:
    from vtg.video.probing import survey

    with contextlib.suppress(VideoError):
        return survey(video)
    return None


def _moved(speech: Iterable[Speech], seconds: float) -> Iterator[Speech]:
    return (Speech(one.start - seconds, one.end - seconds, one.words) for one in speech)


def _read(path: Path, language: str | None, rate: float | None) -> list[Cue]:
    """The cues of a subtitle file; language from its name (or None) and frame rate of the video, where known."""
    try:
        if not path.is_file():  # reading a pipe would block
            raise _UnreadableError("is not a file: skipped")
        size = path.stat().st_size
        if size > MAX_FILE_BYTES:
            raise _UnreadableError(f"is too large for a subtitle file ({size >> 20} MB): skipped")
        content = path.read_bytes()
    except OSError as error:
        raise _UnreadableError(f"cannot be read: {error.strerror or error}") from None
    if content.startswith(VOBSUB_START):
        raise _UnreadableError("contains subtitles as images (VobSub): only text can be read")
    try:
        text = decode_text(content, language)
        cues = read_cues(text, rate)
    except UnknownEncodingError:
        raise _UnreadableError("the encoding of its text is unknown: save it as UTF-8") from None
    except TooManyCuesError:
        raise _UnreadableError(f"contains more than {MAX_CUES:,} subtitles: skipped") from None
    if not cues and text.strip() and format_of(same_line_ends(text)) not in ("vtt", "ass"):
        raise _UnreadableError("contains no subtitles with times and text")
    return cues
