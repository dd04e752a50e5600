"""Tiny thumbnails of frames, and their differences, from which cuts are detected."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
from PIL import Image

__all__ = ["SIDE_PIXELS", "frame_differences", "make_thumbnails"]

SIDE_PIXELS = 8  # small enough that motion within a shot changes few pixels much, and a cut nearly all
MIN_CONTRAST = 0.02  # share of the full range; smaller differences are noise of the video encoder


def make_thumbnails(frames: npt.NDArray[np.uint8]) -> npt.NDArray[np.uint8]:
    """Downscale frames to thumbnails by averaging.

    Args:
        frames: [N, H, W, 3] RGB, of any size.

    Returns:
        [N, SIDE_PIXELS, SIDE_PIXELS, 3] RGB.
    """
    small = [
        np.asarray(Image.fromarray(frame).resize((SIDE_PIXELS, SIDE_PIXELS), Image.Resampling.BOX)) for frame in frames
    ]
    return np.stack(small) if small else np.zeros((0, SIDE_PIXELS, SIDE_PIXELS, 3), np.uint8)


def frame_differences(thumbnails: npt.NDArray[np.uint8]) -> npt.NDArray[np.float64]:
    """The difference of each frame from the next, normalised by contrast.

    Args:
        thumbnails: [T, SIDE_PIXELS, SIDE_PIXELS, 3].

    Returns:
        [T - 1]: mean colour distance in units of the contrast of the two frames (standard deviation of each colour
        channel over the frame). Unrelated frames have about 1.1.
    """
    colours = thumbnails.reshape(len(thumbnails), -1, 3) / 255.0
    distance = np.abs(np.diff(colours, axis=0)).mean(axis=(1, 2))
    variance = colours.var(axis=1).mean(axis=1)
    contrast = np.sqrt((variance[1:] + variance[:-1]) / 2)
    return np.asarray(distance / np.maximum(contrast, MIN_CONTRAST))
