"""Subtitles inside video files: which tracks there are, and their words as SubRip text."""

from __future__ import annotations

import os
import re

from vtg.video.process import absolute, ffmpeg_binary, run

__all__ = ["subtitle_tracks"]

_TRACK = re.compile(r"^  Stream #0:(?P<number>\d+)\S*: Subtitle: (?P<codec>\w+)", re.M)
WRITTEN_WORDS = frozenset(
    {"ass", "mov_text", "srt", "ssa", "subrip", "text", "webvtt"}
)  # the other codecs are pictures


def subtitle_tracks(path: str | os.PathLike[str]) -> list[str]:
    """Read the subtitles that a video file brings.

    Args:
        path: the file.

    Returns:
        The text of each track that is written words, as SubRip files have it; a track that cannot be read is left out.
    """
    command = [ffmpeg_binary(), "-hide_banner", "-nostdin"]
    _, _, listing = run([*command, "-i", absolute(path)])
    tracks = [match["number"] for match in _TRACK.finditer(listing) if match["codec"] in WRITTEN_WORDS]
    texts = []
    for track in tracks:
        options = ["-v", "error", "-i", absolute(path), "-map", f"0:{track}", "-f", "srt", "-"]
        status, output, _ = run([*command, *options])
        if status == 0 and output:
            texts.append(output.decode("utf-8", "replace"))
    return texts
