"""Read the rotation and mirroring of a video from its display matrix, and give the filters that apply them."""

from __future__ import annotations

import struct
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, cast

from vtg.video.filters import Filter

if TYPE_CHECKING:
    from av.video.frame import VideoFrame

__all__ = ["UPRIGHT", "Orientation", "orientation_of"]

NEGLIGIBLE_SHARE = 0.02  # of a matrix's larger coefficients, up to which the smaller ones are rounding errors


@dataclass(frozen=True)
class Orientation:
    """How a player turns stored frames for display.

    Attributes:
        rotation: clockwise, degrees: 0, 90, 180 or 270.
        mirrored: flipped vertically before the rotation.
    """

    rotation: int = 0
    mirrored: bool = False

    @property
    def swaps_sides(self) -> bool:
        """Whether width and height are swapped."""
        return self.rotation in (90, 270)

    @property
    def filters(self) -> tuple[Filter, ...]:
        """The filters that apply it."""
        return _STEPS[self]


UPRIGHT = Orientation()
_VFLIP, _HFLIP = Filter("vflip", ()), Filter("hflip", ())
_STEPS: dict[Orientation, tuple[Filter, ...]] = {
    UPRIGHT: (),
    Orientation(0, True): (_VFLIP,),
    Orientation(90): (Filter("transpose", (("dir", "clock"),)),),
    Orientation(90, True): (Filter("transpose", (("dir", "cclock_flip"),)),),
    Orientation(180): (_HFLIP, _VFLIP),
    Orientation(180, True): (_HFLIP,),
    Orientation(270): (Filter("transpose", (("dir", "cclock"),)),),
    Orientation(270, True): (Filter("transpose", (("dir", "clock_flip"),)),),
}


def orientation_of(frame: VideoFrame) -> Orientation:
    """The orientation that the display matrix of a decoded frame prescribes.

    A matrix that skews, or turns by other than right angles, is ignored, as players do.
    """
    matrix = cast(Any, frame.side_data).get("DISPLAYMATRIX")
    return UPRIGHT if matrix is None else _read_matrix(bytes(matrix))


def _read_matrix(data: bytes) -> Orientation:
    """Decode a display matrix: point (x, y) of the stored frame is shown at (a·x + c·y, b·x + d·y), y downwards."""
    if len(data) < 36:
        return UPRIGHT
    a, b, _, c, d, *_ = struct.unpack("=9i", data[:36])
    straight, crossed = min(abs(a), abs(d)), min(abs(b), abs(c))
    if max(abs(b), abs(c)) < NEGLIGIBLE_SHARE * straight:
        return Orientation(0 if a > 0 else 180, (a > 0) != (d > 0))
    if max(abs(a), abs(d)) < NEGLIGIBLE_SHARE * crossed:
        return Orientation(90 if b > 0 else 270, (b > 0) == (c > 0))
    return UPRIGHT
