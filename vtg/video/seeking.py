"""Find seek positions for the ffmpeg binary from which decoding gives the frame shown at a time."""

from __future__ import annotations

import os
import re
from collections.abc import Sequence
from fractions import Fraction

from vtg.video.containers import absolute, input_options
from vtg.video.packets import Packet
from vtg.video.probing import VideoTrack, list_all_packets
from vtg.video.process import ffmpeg_binary, run

__all__ = ["EXTRA_SECONDS", "jump_before", "list_packets", "packets_between", "presentation_times", "time_in_file"]

# How far before the time to seek; the first that works is used. Not 0, because some demuxers find keyframes by decoding
# time, which is ahead of presentation time; and up to minutes, because others seek to a place between keyframes.
SEEK_MARGINS_SECONDS = (1.0, 12.0, 120.0)

EXTRA_SECONDS = 1.0  # of packets read beyond the wanted times, because they come in decoding order

_PACKET_FLAGS = re.compile(r"F=0x(?P<flags>[0-9A-F]+)")
UNKNOWN_TIME = -(1 << 63)  # an unknown time in the output of the framecrc muxer
KEY, DISCARD = 1, 4  # packet flags in that output; a packet without the field is an ordinary keyframe


def jump_before(track: VideoTrack, time: Fraction) -> list[str]:
    """Input options of ffmpeg that start decoding at a keyframe before a time.

    Args:
        track: the video.
        time: seconds from the first frame.

    Returns:
        The options; empty if decoding must start at the beginning.
    """
    if not track.seekable:
        return []
    for margin in SEEK_MARGINS_SECONDS:
        at = time_in_file(track, time - Fraction(margin))
        if at <= 0:
            break
        # Only the first keyframe matters.
        keyframes = presentation_times(track, list_packets(track.info.path, at, margin), key=True)
        if keyframes and keyframes[0] < time:
            return ["-noaccurate_seek", "-ss", f"{at:.6f}"]
    return []


def time_in_file(track: VideoTrack, time: float | Fraction) -> float:
    """Convert seconds from the first frame to seconds from the start of the file, which may be earlier; at least 0."""
    return max(0.0, float(track.first * track.clock + Fraction(time)) - track.file_start)


def presentation_times(track: VideoTrack, packets: Sequence[Packet], key: bool = False) -> list[Fraction]:
    """Presentation times of packets, or only of keyframes, in seconds from the first frame, ascending."""
    ticks = sorted(packet.pts for packet in packets if packet.shown and packet.key >= key and packet.pts is not None)
    return [(tick - track.first) * track.clock for tick in ticks if tick >= track.first]


def packets_between(track: VideoTrack, start: float, end: float) -> Sequence[Packet]:
    """The coded frames shown between two times (seconds from the first frame), and some around them."""
    if track.packets is not None:
        return track.packets
    if not track.seekable:
        return list_all_packets(track)
    return list_packets(track.info.path, time_in_file(track, start - EXTRA_SECONDS), end - start + 3 * EXTRA_SECONDS)


def list_packets(path: str | os.PathLike[str], since: float, seconds: float) -> list[Packet]:
    """The coded frames, in decoding order, that the ffmpeg binary reads after a seek.

    The binary itself is run, because releases of FFmpeg differ in the position to which they seek.

    Args:
        path: the file.
        since: seek time, seconds from the start of the file.
        seconds: duration to read from there.
    """
    command = [ffmpeg_binary(), "-hide_banner", "-nostdin", "-v", "error", "-copyts", *input_options()]
    command += ["-ss", f"{since:.6f}", "-t", f"{seconds:.6f}", "-i", absolute(path)]
    command += ["-map", "0:V:0", "-c", "copy", "-copyinkf", "-f", "framecrc", "pipe:1"]
    packets = []
    for line in run(command)[1].decode("ascii", "replace").splitlines():
        if line and not line.startswith("#"):
            _, _, pts, duration = (int(field) for field in line.split(",")[:4])
            flag_field = _PACKET_FLAGS.search(line)
            flags = int(flag_field["flags"], 16) if flag_field else KEY
            packets.append(
                Packet(None if pts == UNKNOWN_TIME else pts, duration, bool(flags & KEY), not flags & DISCARD)
            )
    return packets
