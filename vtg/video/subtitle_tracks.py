"""Subtitle tracks inside video files: which of them are text, and their packets, read with PyAV."""

from __future__ import annotations

import os
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from vtg.errors import VideoError
from vtg.video.containers import open_container, reading_errors, tag_text

if TYPE_CHECKING:
    from av.container import InputContainer

__all__ = ["TEXT_CODECS", "SubtitlePacket", "SubtitleTrack", "subtitle_tracks"]

# FFmpeg's names of codecs; the others are pictures, or captions inside of the pictures' own data.
TEXT_CODECS = frozenset({"ass", "mov_text", "srt", "ssa", "subrip", "text", "webvtt"})
MAX_PACKETS = 100_000  # of one track; a film has 2,000
MAX_PACKET_BYTES = 1 << 16  # of one subtitle
MAX_BYTES = 50 << 20  # of one track
SECONDS_TO_READ = 60.0  # for a file, and for each
SECONDS_A_GIGABYTE = 60.0  # of it, for slow disks


@dataclass(frozen=True)
class SubtitlePacket:
    """One subtitle: when it is shown, seconds of the file's clock, and its coded text; no end: until the next one."""

    start: float
    end: float | None
    content: bytes


@dataclass(frozen=True)
class SubtitleTrack:
    """A subtitle track.

    Attributes:
        codec: one of `TEXT_CODECS`.
        language: as the file says; None where it does not.
        packets: in the order of the file.
    """

    codec: str
    language: str | None
    packets: list[SubtitlePacket] = field(default_factory=list)


def subtitle_tracks(path: str | os.PathLike[str]) -> list[SubtitleTrack]:
    """Read the subtitle tracks of a video file that are text.

    Args:
        path: the file.

    Returns:
        The tracks with anything in them; of a damaged file what can be read, of one that is no video none.
    """
    tracks: dict[int, SubtitleTrack] = {}
    errors: tuple[type[Exception], ...] = (VideoError, *reading_errors())
    try:
        with open_container(path) as container:
            _read(container, tracks, _deadline(path))
    except errors:
        pass  # what was read until then is right
    return [track for track in tracks.values() if track.packets]


def _read(container: InputContainer, tracks: dict[int, SubtitleTrack], deadline: float) -> None:
    """Add the tracks of a container, with their packets as they come, by the number of their stream."""
    streams = []
    for stream in container.streams:
        context = stream.codec_context if stream.type == "subtitle" else None
        if context is not None and context.codec.canonical_name in TEXT_CODECS:
            streams.append(stream)
            tracks[stream.index] = SubtitleTrack(
                context.codec.canonical_name, tag_text(stream.metadata.get("language", "")) or None
            )
        elif hasattr(stream, "discard"):  # before PyAV 18 what is not asked for is read, and dropped by `demux`
            stream.discard = type(stream.discard).all
    if not streams:
        return
    sizes = dict.fromkeys(tracks, 0)
    for packet in container.demux(*streams):
        if time.monotonic() > deadline:
            return
        if packet.pts is None or packet.time_base is None or not 0 < packet.size <= MAX_PACKET_BYTES:
            continue
        track = tracks[packet.stream_index]
        sizes[packet.stream_index] += packet.size
        if sizes[packet.stream_index] > MAX_BYTES or len(track.packets) >= MAX_PACKETS:
            continue
        start = float(packet.pts * packet.time_base)
        end = start + float(packet.duration * packet.time_base) if packet.duration else None
        track.packets.append(SubtitlePacket(start, end, bytes(packet)))


def _deadline(path: str | os.PathLike[str]) -> float:
    return time.monotonic() + SECONDS_TO_READ + SECONDS_A_GIGABYTE * Path(path).stat().st_size / (1 << 30)
