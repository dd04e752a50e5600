"""What is said in a video: knows subtitle files, where they lie and how they are written."""

from __future__ import annotations

import html
import os
import re
from collections.abc import Iterable
from pathlib import Path

from vtg.table_rows import SaidLine
from vtg.timecode import parse_time

__all__ = ["SubtitleFolders", "captions_in_turn", "parse_subtitles", "said_lines"]

SUFFIXES = (".srt", ".vtt")
_TIME = r"((?:\d+:)?\d+:\d\d[.,]\d{1,3})"
_SHOWN = re.compile(rf"\s*{_TIME}\s*-->\s*{_TIME}")
_MARKUP = re.compile(r"<[^>]*>|\{\\[^}]*\}")  # of SubRip and WebVTT, and what is left of ASS
_BYTE_ORDER_MARKS = {b"\xff\xfe": "utf-16", b"\xfe\xff": "utf-16", b"\xef\xbb\xbf": "utf-8-sig"}
TRACKS_SEEN = "tracks"  # in the name of what was read: the file itself, whose tracks follow from its content


class SubtitleFolders:
    """The subtitle files beside videos; each folder is looked at once."""

    def __init__(self) -> None:
        self._files: dict[Path, list[Path]] = {}

    def beside(self, video: Path) -> list[Path]:
        """The subtitle files of a video: of its name, or of its name and a language (``film.srt``, ``film.en.vtt``)."""
        if video.parent not in self._files:
            try:
                listed = [path for path in video.parent.iterdir() if path.suffix.lower() in SUFFIXES]
            except OSError:
                listed = []
            self._files[video.parent] = sorted(listed)
        stem = video.stem.lower()
        return [path for path in self._files[video.parent] if _belongs(path.stem.lower(), stem)]

    def name(self, video: Path) -> str:
        """Names what there is to read for a video, so that a change of it is seen; never empty."""
        names = [TRACKS_SEEN]
        for path in self.beside(video):
            try:
                status = path.stat()
            except OSError:
                continue
            names.append(f"{path.name} {status.st_size} {status.st_mtime_ns}")
        return "|".join(names)


def _belongs(stem: str, video: str) -> bool:
    return stem == video or (stem.startswith(f"{video}.") and "." not in stem[len(video) + 1 :])


def said_lines(video: Path, folders: SubtitleFolders) -> list[SaidLine]:
    """All that is said in a video, from the files beside it and from its own tracks, in the order of time.

    A file that cannot be read has nothing to say.
    """
    from vtg.video.subtitle_tracks import subtitle_tracks

    texts = [*(_read(path) for path in folders.beside(video)), *subtitle_tracks(video)]
    lines = {line: None for text in texts for line in parse_subtitles(text, str(video))}
    return sorted(lines, key=lambda line: (line.start, line.end))


def _read(path: Path) -> str:
    try:
        content = path.read_bytes()
    except OSError:
        return ""
    for mark, encoding in _BYTE_ORDER_MARKS.items():
        if content.startswith(mark):
            return content.decode(encoding, "replace")
    try:
        return content.decode("utf-8")
    except UnicodeDecodeError:
        return content.decode("cp1252", "replace")  # what old editors wrote


def parse_subtitles(text: str, video: str | os.PathLike[str]) -> list[SaidLine]:
    """Read SubRip or WebVTT: the lines below each pair of times, without markup.

    Args:
        text: of the file; what is not a pair of times with words below it is passed over.
        video: the file that the words are said in.
    """
    found = []
    for block in re.split(r"\n\s*\n", text.replace("\r\n", "\n").replace("\r", "\n")):
        lines = block.split("\n")
        shown = [(number, match) for number, line in enumerate(lines) if (match := _SHOWN.match(line))]
        # Where the empty line between two is missing, the number of the second is taken for words: no harm in a search.
        ends = [number for number, _ in shown[1:]] + [len(lines)]
        for (number, match), until in zip(shown, ends, strict=False):
            words = html.unescape(_MARKUP.sub("", " ".join(lines[number + 1 : until])))
            words = " ".join(words.split())
            start, end = (parse_time(written.replace(",", ".")) for written in match.groups())
            if words and end > start:
                found.append(SaidLine(os.fspath(video), start, end, words))
    return found


def captions_in_turn(captions: Iterable[tuple[float, str]]) -> str:
    """Writes captions (SRT) that follow each other from 0 on.

    Args:
        captions: for how many seconds each is shown, and its text.
    """
    text, begin = "", 0.0
    for number, (seconds, words) in enumerate(captions, 1):
        text += f"{number}\n{_srt_time(begin)} --> {_srt_time(begin + seconds)}\n{words}\n\n"
        begin += seconds
    return text


def _srt_time(seconds: float) -> str:
    whole, milliseconds = divmod(round(1000 * seconds), 1000)
    return f"{whole // 3600:02d}:{whole // 60 % 60:02d}:{whole % 60:02d},{milliseconds:03d}"
