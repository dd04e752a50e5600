"""Finds where to jump to in a file so that decoding from there gives the picture shown at a time."""

from __future__ import annotations

from collections.abc import Sequence
from fractions import Fraction

from vtg.video.probing import Packet, PictureTrack, list_packets

__all__ = ["file_time", "jump_before", "times_shown"]

# How far before the time to jump, seconds; the first that works is taken. Not 0, because some demuxers find keyframes
# by decoding time, which runs ahead of the time shown; and far, because others land anywhere between keyframes.
RUN_UPS = (1.0, 12.0, 120.0)


def jump_before(track: PictureTrack, time: Fraction) -> list[str]:
    """Options for ffmpeg that start decoding at a keyframe shown before a time.

    Args:
        track: the video.
        time: seconds from the first picture.

    Returns:
        Input options; none if everything before must be decoded.
    """
    if not track.seekable:
        return []
    for run_up in RUN_UPS:
        at = file_time(track, time - Fraction(run_up))
        if at <= 0:
            break
        # A short run: what follows the first keyframe does not matter.
        keyframes = times_shown(track, list_packets(track.info.path, at, run_up), key=True)
        if keyframes and keyframes[0] < time:
            return ["-noaccurate_seek", "-ss", f"{at:.6f}"]
    return []


def file_time(track: PictureTrack, time: float | Fraction) -> float:
    """Seconds from the first picture as seconds from the start of the file, which may lie earlier; not below 0."""
    return max(0.0, float(track.first * track.clock + Fraction(time)) - track.file_start)


def times_shown(track: PictureTrack, packets: Sequence[Packet], key: bool = False) -> list[Fraction]:
    """When the pictures, or only the keyframes, among packets are shown: seconds from the first picture, ascending."""
    ticks = sorted(packet.pts for packet in packets if packet.shown and packet.key >= key and packet.pts is not None)
    return [(tick - track.first) * track.clock for tick in ticks if tick >= track.first]
