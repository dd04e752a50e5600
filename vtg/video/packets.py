"""Read video packets with PyAV and give them continuous presentation times."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from fractions import Fraction
from typing import TYPE_CHECKING, cast

from vtg.video.containers import rational

if TYPE_CHECKING:
    import av
    from av.container import InputContainer
    from av.video.stream import VideoStream

__all__ = [
    "ContinuousTimes",
    "Packet",
    "PacketListing",
    "coded_frame",
    "continuous_times",
    "may_restart_clock",
    "read_packets",
]

# Transport and program streams may restart their clock. As in FFmpeg, a step of the decoding timestamps beyond these
# limits is a restart, and the following packets continue from the previous time.
MAX_STEP_SECONDS = Fraction(10)
MAX_STEP_BACK_SECONDS = Fraction(1, 10)
MAX_LISTED_PACKETS = 500_000  # of which the times are kept: 100 MB


@dataclass(frozen=True, slots=True)
class Packet:
    """One coded frame: its presentation time (None: unknown) and duration, in ticks."""

    pts: int | None
    duration: int
    key: bool
    shown: bool


def coded_frame(packet: av.Packet) -> Packet:
    """The `Packet` of a packet of PyAV."""
    return Packet(packet.pts, packet.duration or 0, packet.is_keyframe, not packet.is_discard)


class ContinuousTimes:
    """Makes a stream's timestamps continuous where its clock restarts or jumps, as FFmpeg and players do.

    Args:
        clock: timebase, seconds per tick.
        picture: default duration of a frame, ticks.
    """

    def __init__(self, clock: Fraction, picture: int) -> None:
        self._max_step = MAX_STEP_SECONDS / clock
        self._max_step_back = MAX_STEP_BACK_SECONDS / clock
        self._picture = picture
        self._dts: int | None = None
        self._next_dts: int | None = None
        self._offset = 0

    @property
    def clock_restarted(self) -> bool:
        """Whether the clock has restarted or jumped."""
        return self._offset != 0

    def continue_times(self, packet: av.Packet) -> None:
        """Shift a packet's timestamps; to be called for all packets in the order of the file."""
        if packet.dts is not None:
            dts = packet.dts + self._offset
            if self._next_dts is not None and self._dts is not None:
                step = dts - self._next_dts
                if abs(step) > self._max_step or dts + self._max_step_back < self._dts:
                    self._offset -= step
                    dts -= step
            self._dts = dts
            self._next_dts = dts + (packet.duration or self._picture)
        if self._offset:
            if packet.pts is not None:
                packet.pts += self._offset
            if packet.dts is not None:
                packet.dts += self._offset


def may_restart_clock(container: InputContainer) -> bool:
    """Whether the clock of this container format may restart within a file."""
    from av.format import Flags

    return bool(container.format.flags & cast(int, Flags.ts_discont.value))


def continuous_times(container: InputContainer, stream: VideoStream) -> ContinuousTimes | None:
    """A `ContinuousTimes` for a video stream; None for container formats whose clock cannot restart."""
    clock = rational(stream.time_base)
    if clock is None or not may_restart_clock(container):
        return None
    rate = rational(stream.average_rate) or rational(stream.guessed_rate) or Fraction(25)
    return ContinuousTimes(clock, round(1 / rate / clock))


def read_packets(
    container: InputContainer, stream: VideoStream, times: ContinuousTimes | None, every: bool = False
) -> Iterator[av.Packet]:
    """Yield the packets of a video stream from the current position on; the last one is empty.

    Args:
        container: the open file.
        stream: the video stream.
        times: makes their timestamps continuous.
        every: also yield the packets of all other streams, with the timestamps of the file.
    """
    try:
        for packet in container.demux() if every else container.demux(stream):
            if times is not None and packet.stream_index == stream.index and packet.size:
                times.continue_times(packet)
            yield packet
    except IndexError:
        return  # PyAV raises it at the end of a damaged file in which streams have appeared


@dataclass
class PacketListing:
    """Statistics over the packets of a file.

    Attributes:
        clock: timebase of the video stream, seconds per tick.
        count: number of coded frames that are shown.
        dated: each of them has a presentation time.
        last: presentation time and duration of the last one, ticks; None without any.
        longest: the longest time between two frames and its start, ticks.
        packets: every coded frame in decoding order; None where there are too many, or they are not wanted.
    """

    clock: Fraction
    packets: list[Packet] | None
    count: int = 0
    dated: bool = True
    last: tuple[int, int] | None = None
    longest: tuple[int, int] = (0, 0)
    _ends: dict[int, int] = field(default_factory=dict)  # by stream, in ticks of its timebase
    _clocks: dict[int, Fraction] = field(default_factory=dict)  # timebase by stream, seconds per tick

    def add(self, packet: av.Packet, is_picture: bool) -> None:
        """Add a packet."""
        pts, dts, duration = packet.pts, packet.dts, packet.duration or 0
        if pts is not None or dts is not None:
            known = max(pts, dts) if pts is not None and dts is not None else dts if pts is None else pts
            assert known is not None
            index = packet.stream_index
            # In ticks: arithmetic with fractions would dominate the time of listing a file.
            if index not in self._ends or known + duration > self._ends[index]:
                self._ends[index] = known + duration
                if index not in self._clocks:
                    self._clocks[index] = rational(packet.time_base) or Fraction(0)
        if is_picture:
            self._add_picture(coded_frame(packet))

    @property
    def end(self) -> Fraction:
        """End of the last stream in the timestamps of the file, seconds."""
        return max((end * self._clocks[index] for index, end in self._ends.items()), default=Fraction(0))

    def _add_picture(self, picture: Packet) -> None:
        if self.packets is not None:
            self.packets.append(picture)
            if len(self.packets) > MAX_LISTED_PACKETS:
                self.packets = None
        self.dated = self.dated and picture.pts is not None
        if not picture.shown:
            return
        self.count += 1
        if picture.pts is not None:
            if self.last is not None and picture.pts > self.last[0]:
                self.longest = max(self.longest, (picture.pts - self.last[0], self.last[0]))
            self.last = max(self.last or (picture.pts, picture.duration), (picture.pts, picture.duration))

    def duration(self, first: int, rate: Fraction) -> Fraction:
        """Seconds from the first frame to the end of the last.

        Args:
            first: presentation time of the first frame, ticks.
            rate: average frame rate, frames a second, where packets lack times or durations.
        """
        if not self.dated or self.last is None:
            return max(1, self.count) / rate
        time, duration = self.last
        # Matroska may omit a frame's duration; the average is used.
        return (time - first) * self.clock + (duration * self.clock if duration > 0 else 1 / rate)
