"""Read the packets of text subtitle tracks in video files with PyAV."""

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

# By FFmpeg's names; other subtitle codecs are images, or captions within the video data.
TEXT_CODECS = frozenset({"ass", "mov_text", "srt", "ssa", "subrip", "text", "webvtt"})
MAX_PACKETS = 100_000  # per track; a film has 2,000
MAX_PACKET_BYTES = 1 << 16
MAX_BYTES = 50 << 20  # per track
READ_TIMEOUT_SECONDS = 60.0  # per file, plus
READ_TIMEOUT_SECONDS_PER_GIGABYTE = 60.0  # for slow disks


@dataclass(frozen=True)
class SubtitlePacket:
    """One subtitle: its times in the timestamps of the file, seconds (end None: until the next one), and its data."""

    start: float
    end: float | None
    content: bytes


@dataclass(frozen=True)
class SubtitleTrack:
    """A subtitle track.

    Attributes:
        codec: one of `TEXT_CODECS`.
        language: from the metadata; None where it is missing.
        packets: in the order of the file.
    """

    codec: str
    language: str | None
    packets: list[SubtitlePacket] = field(default_factory=list)


def subtitle_tracks(path: str | os.PathLike[str]) -> list[SubtitleTrack]:
    """Read the text subtitle tracks of a video file.

    Args:
        path: the file.

    Returns:
        The tracks that are not empty; for a damaged file what can be read, for a file that is not a video none.
    """
    tracks: dict[int, SubtitleTrack] = {}
    errors: tuple[type[Exception], ...] = (VideoError, *reading_errors())
    try:
        with open_container(path) as container:
            _read(container, tracks, _deadline(path))
    except errors:
        pass  # the packets read before the error are correct
    return [track for track in tracks.values() if track.packets]


def _read(container: InputContainer, tracks: dict[int, SubtitleTrack], deadline: float) -> None:
    """Read the tracks of a container into `tracks`, by stream index."""
    streams = []
    for stream in container.streams:
        context = stream.codec_context if stream.type == "subtitle" else None
        if context is not None and context.codec.canonical_name in TEXT_CODECS:
            streams.append(stream)
            tracks[stream.index] = SubtitleTrack(
                context.codec.canonical_name, tag_text(stream.metadata.get("language", "")) or None
            )
        elif hasattr(stream, "discard"):  # before PyAV 18 packets of other streams are read and dropped by `demux`
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
    gigabytes = Path(path).stat().st_size / (1 << 30)
    return time.monotonic() + READ_TIMEOUT_SECONDS + READ_TIMEOUT_SECONDS_PER_GIGABYTE * gigabytes
