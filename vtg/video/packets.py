"""Coded pictures with the times at which a player shows them, read with PyAV: the one time line of a video."""

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

# Of a stream whose clock may begin anew (transport and program streams), as in FFmpeg: a step of the decoding times
# beyond this, or back by more than that, is a new clock, and what follows is played where the old one had come to.
MAX_STEP = Fraction(10)  # seconds
MAX_STEP_BACK = Fraction(1, 10)  # seconds
MAX_KEPT = 500_000  # packets of which the times are kept: 100 MB


@dataclass(frozen=True, slots=True)
class Packet:
    """One coded picture: when it is shown (None: the container does not say) and for how long, in ticks."""

    pts: int | None
    duration: int
    key: bool
    shown: bool


def coded_frame(packet: av.Packet) -> Packet:
    """What a packet of PyAV tells about its picture."""
    return Packet(packet.pts, packet.duration or 0, packet.is_keyframe, not packet.is_discard)


class ContinuousTimes:
    """Continues a stream's time stamps where its clock begins anew or jumps, as FFmpeg and players do.

    Args:
        clock: seconds a tick.
        picture: ticks for which a picture is shown whose packet does not say so.
    """

    def __init__(self, clock: Fraction, picture: int) -> None:
        self._max_step = MAX_STEP / clock
        self._max_step_back = MAX_STEP_BACK / clock
        self._picture = picture
        self._dts: int | None = None
        self._next_dts: int | None = None
        self._offset = 0

    @property
    def clock_restarted(self) -> bool:
        """Whether there was a jump."""
        return self._offset != 0

    def continue_times(self, packet: av.Packet) -> None:
        """Move a packet's time stamps; packets come in the order of the file."""
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
    """Whether the clock of such a container may begin anew in the middle."""
    from av.format import Flags

    return bool(container.format.flags & cast(int, Flags.ts_discont.value))


def continuous_times(container: InputContainer, stream: VideoStream) -> ContinuousTimes | None:
    """What continues the times of a picture track; None for containers with one clock."""
    clock = rational(stream.time_base)
    if clock is None or not may_restart_clock(container):
        return None
    rate = rational(stream.average_rate) or rational(stream.guessed_rate) or Fraction(25)
    return ContinuousTimes(clock, round(1 / rate / clock))


def read_packets(
    container: InputContainer, stream: VideoStream, times: ContinuousTimes | None, every: bool = False
) -> Iterator[av.Packet]:
    """The packets of a picture track from here on, and at last the empty one that ends it.

    Args:
        container: where they are read.
        stream: the picture track.
        times: continues their times.
        every: the packets of all other streams too, with the times that the file gives them.
    """
    try:
        for packet in container.demux() if every else container.demux(stream):
            if times is not None and packet.stream_index == stream.index and packet.size:
                times.continue_times(packet)
            yield packet
    except IndexError:
        return  # PyAV stumbles at the end over streams that damage has made appear on the way


@dataclass
class PacketListing:
    """What the packets of a file tell, gathered as they come.

    Attributes:
        clock: seconds a tick of the picture track.
        count: coded pictures that are shown.
        dated: each of them says when it is shown.
        last: when the last one is shown and for how long, ticks; None without any.
        longest: for how long a picture is shown at most, ticks, and when it appears.
        packets: every coded picture in decoding order; None where there are too many to keep, or nobody asked.
    """

    clock: Fraction
    packets: list[Packet] | None
    count: int = 0
    dated: bool = True
    last: tuple[int, int] | None = None
    longest: tuple[int, int] = (0, 0)
    _ends: dict[int, int] = field(default_factory=dict)  # of each stream, in its own ticks
    _clocks: dict[int, Fraction] = field(default_factory=dict)  # seconds a tick of each stream

    def add(self, packet: av.Packet, is_picture: bool) -> None:
        """Take in one more packet."""
        pts, dts, duration = packet.pts, packet.dts, packet.duration or 0
        if pts is not None or dts is not None:
            known = max(pts, dts) if pts is not None and dts is not None else dts if pts is None else pts
            assert known is not None
            index = packet.stream_index
            # In ticks: fractions would take most of the time in which a file is listed.
            if index not in self._ends or known + duration > self._ends[index]:
                self._ends[index] = known + duration
                if index not in self._clocks:
                    self._clocks[index] = rational(packet.time_base) or Fraction(0)
        if is_picture:
            self._add_picture(coded_frame(packet))

    @property
    def end(self) -> Fraction:
        """Seconds at which the last of the streams ends, on the clock of the file."""
        return max((end * self._clocks[index] for index, end in self._ends.items()), default=Fraction(0))

    def _add_picture(self, picture: Packet) -> None:
        if self.packets is not None:
            self.packets.append(picture)
            if len(self.packets) > MAX_KEPT:
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
        """Seconds from the first picture, shown at `first` (ticks), to the end of the last.

        Args:
            first: when the first picture is shown, ticks.
            rate: pictures a second on average, for what the packets do not say.
        """
        if not self.dated or self.last is None:
            return max(1, self.count) / rate
        time, duration = self.last
        # Matroska may leave a picture's duration out; then it lasts as long as an average one.
        return (time - first) * self.clock + (duration * self.clock if duration > 0 else 1 / rate)
