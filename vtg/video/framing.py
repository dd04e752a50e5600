"""Describe how a frame becomes a square of pixels: resized and cropped, squeezed, or padded."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

__all__ = ["INTERPOLATIONS", "RESIZE_MODES", "Framing"]

RESIZE_MODES = ("shortest", "squash", "longest")
INTERPOLATIONS = ("bicubic", "bilinear")


@dataclass(frozen=True)
class Framing:
    """How frames of any size become squares; the names are those of open_clip's preprocessing.

    Attributes:
        size: side of the square, pixels.
        resize: "shortest": the short side is resized to `size` and the centre cropped; "squash": both sides are resized
            to `size`, so that the whole frame is in the square, with another aspect ratio; "longest": the long side is
            resized to `size`, and borders fill the square.
        interpolation: "bicubic" or "bilinear", antialiased.
        fill: value of the borders, 0…255.
    """

    size: int
    resize: str = "shortest"
    interpolation: str = "bicubic"
    fill: int = 0

    def __post_init__(self) -> None:
        """Check the names.

        Raises:
            ValueError: one is unknown, or `fill` is not a value of a pixel.
        """
        if self.resize not in RESIZE_MODES:
            raise ValueError(f"resize is one of {', '.join(RESIZE_MODES)}, not {self.resize!r}")
        if self.interpolation not in INTERPOLATIONS:
            raise ValueError(f"interpolation is one of {', '.join(INTERPOLATIONS)}, not {self.interpolation!r}")
        if not 0 <= self.fill <= 255:
            raise ValueError(f"fill is from 0 to 255, not {self.fill}")

    def resized(self, width: int, height: int) -> tuple[int, int]:
        """Width and height of a frame after it was resized, before it is cropped or padded; pixels."""
        if self.resize == "squash":
            return self.size, self.size
        short, long = sorted((width, height))
        if self.resize == "shortest":
            fitted = max(self.size, self.size * long // short)
            return (fitted, self.size) if width >= height else (self.size, fitted)
        fitted = max(1, round(self.size * short / long))
        return (self.size, fitted) if width >= height else (fitted, self.size)

    def offsets(self, width: int, height: int) -> tuple[int, int]:
        """Left and top of the square in a resized frame, pixels; negative where borders are added."""
        if self.resize == "longest":  # the border that is odd is the right or the lower one
            return -((self.size - width) // 2), -((self.size - height) // 2)
        return round((width - self.size) / 2), round((height - self.size) / 2)

    def square(self, frames: npt.NDArray[np.uint8]) -> npt.NDArray[np.uint8]:
        """Crop or pad resized frames.

        Args:
            frames: uint8 [N, height, width, 3], of the size that `resized` gives.

        Returns:
            uint8 [N, size, size, 3], C-contiguous.
        """
        import numpy as np  # here, for commands that only name a CLIP start without it

        height, width = frames.shape[1:3]
        left, top = self.offsets(width, height)
        if self.resize != "longest":
            return np.ascontiguousarray(frames[:, top : top + self.size, left : left + self.size])
        whole = np.full((len(frames), self.size, self.size, 3), self.fill, np.uint8)
        whole[:, -top : height - top, -left : width - left] = frames
        return whole

    def filter(self, width: int, height: int) -> str:
        """The same as `square`, as an FFmpeg filter for resized frames."""
        left, top = self.offsets(width, height)
        if self.resize == "longest":
            colour = f"0x{self.fill:02x}{self.fill:02x}{self.fill:02x}"
            return f"pad={self.size}:{self.size}:{-left}:{-top}:color={colour}"
        return f"crop={self.size}:{self.size}:{left}:{top}"
