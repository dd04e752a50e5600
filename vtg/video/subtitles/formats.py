"""Parse subtitle files and tracks with pysubs2: SubRip, WebVTT, SubStation, MicroDVD, SubViewer and MPL2."""

from __future__ import annotations

import os
import re
from typing import TYPE_CHECKING

from vtg.video.subtitles.cleaning import (
    MAX_OPEN_CUE_SECONDS,
    clean_microdvd,
    clean_mpl2,
    clean_subrip,
    clean_substation,
    mark_times,
    same_line_ends,
)
from vtg.video.subtitles.cues import Cue, merge_cues, merge_repeats
from vtg.video.subtitles.encodings import decode_text
from vtg.video.subtitles.language_models import language_codes
from vtg.video.subtitles.lines import TranscriptLine
from vtg.video.subtitles.markup import plain_lines

if TYPE_CHECKING:
    from vtg.video.subtitle_tracks import SubtitleTrack

__all__ = ["DEFAULT_FRAME_RATE", "format_of", "parse_subtitles", "read_cues", "read_packets"]

DEFAULT_FRAME_RATE = 24000 / 1001  # frames a second, for times in frames without a known rate
PACKET_SEPARATOR = "\n\x1e\n"  # between the texts of packets, which are decoded together
HEAD_CHARACTERS = 4096  # used to detect the format

_SUBSTATION = re.compile(r"^\[(?:script info|events|v4\+? styles)\]", re.IGNORECASE | re.MULTILINE)
_FRAMES = re.compile(r"^\s{0,9}\{\s?[0-9]{1,8}\s?\}\s{0,9}\{\s?[0-9]{0,8}\s?\}", re.MULTILINE)
_TENTHS = re.compile(r"^\s{0,9}\[[0-9]{1,8}\]\s{0,9}\[[0-9]{1,8}\]", re.MULTILINE)


def format_of(text: str) -> str:
    """Detect the format of a text by its beginning, regardless of the file's suffix; returns pysubs2's name."""
    head = text[:HEAD_CHARACTERS].lstrip("\ufeff \t\n")
    if head.startswith("WEBVTT"):
        return "vtt"
    if _SUBSTATION.search(head):
        return "ass"
    if "-->" not in head:
        for pattern, name in ((_FRAMES, "microdvd"), (_TENTHS, "mpl2")):
            if pattern.search(head):
                return name
    return "srt"


def parse_subtitles(text: str, video: str | os.PathLike[str], rate: float | None = None) -> list[TranscriptLine]:
    """Parse the text of a subtitle file to transcript lines without markup.

    Args:
        text: of the file; anything but cues with times and text is ignored.
        video: the video file to which the subtitles belong.
        rate: frame rate of the video, for times in frames.

    Raises:
        TooManyCuesError: it is not a subtitle file.
    """
    speech = merge_repeats(merge_cues(read_cues(text, rate)))
    return [TranscriptLine(os.fspath(video), one.start, one.end, one.words) for one in speech]


def read_cues(text: str, rate: float | None = None) -> list[Cue]:
    """The cues of a subtitle file that have text; arguments and errors as of `parse_subtitles`."""
    import pysubs2

    text = same_line_ends(text)
    kind = format_of(text)
    options: dict[str, float | bool] = {}
    if kind == "ass":
        text = clean_substation(text)
    elif kind == "microdvd":
        text, declared = clean_microdvd(text)
        options["fps"] = declared or rate or DEFAULT_FRAME_RATE
    elif kind == "mpl2":
        text = clean_mpl2(text)
    else:
        text = clean_subrip(text, is_webvtt=kind == "vtt")
        kind = "srt"
        options["keep_html_tags"] = True  # pysubs2 removes them in quadratic time
    events = pysubs2.SSAFile.from_string(text, format_=kind, **options) if text else ()
    cues = [Cue(e.start / 1000, e.end / 1000, plain_lines(e.text, kind == "ass")) for e in events]
    return [cue for cue in cues if cue.lines]


def read_packets(track: SubtitleTrack) -> list[Cue]:
    """The cues of a subtitle track that have text.

    Raises:
        UnknownEncodingError: its text is neither UTF-8, as it should be, nor in another known encoding.
    """
    contents = [_movie_text(one.content) if track.codec == "mov_text" else one.content for one in track.packets]
    joined = PACKET_SEPARATOR.encode().join(content.translate(None, b"\0\x1e") for content in contents)
    texts = decode_text(joined, language_codes().get((track.language or "").lower())).split(PACKET_SEPARATOR)
    cues = []
    following = [one.start for one in track.packets[1:]]
    for packet, text, later in zip(track.packets, texts, [*following, None], strict=False):
        latest = packet.start + MAX_OPEN_CUE_SECONDS
        end = packet.end if packet.end is not None else latest if later is None else min(latest, later)
        if track.codec in ("ass", "ssa"):
            # Fields in Matroska: number, layer, style, name, three margins, effect, text.
            lines = plain_lines(text.split(",", 8)[-1], is_substation=True)
        else:
            lines = plain_lines("\\N".join(mark_times(line) for line in same_line_ends(text).split("\n")))
        if lines:
            cues.append(Cue(packet.start, end, lines))
    return cues


def _movie_text(content: bytes) -> bytes:
    """The text of a packet of MPEG-4 timed text, as UTF-8: the packet holds its length, the text, and style boxes."""
    text = content[2 : 2 + int.from_bytes(content[:2], "big")]
    if text.startswith((b"\xfe\xff", b"\xff\xfe")):
        return text.decode("utf-16", "replace").encode()
    return text
