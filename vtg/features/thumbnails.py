"""Tiny thumbnails of frames, which show where the picture changes, and the difference of two."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
from PIL import Image

__all__ = ["SIDE_PIXELS", "frame_differences", "make_thumbnails"]

SIDE_PIXELS = 8  # pixels: what moves within a shot changes few of them much, a cut changes nearly all
MIN_CONTRAST = 0.02  # of the full range: below it, what differs is noise of the encoder


def make_thumbnails(frames: npt.NDArray[np.uint8]) -> npt.NDArray[np.uint8]:
    """The mean colours of the fields of a grid over each frame.

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
    """How much the picture changes from each frame to the next, whatever it shows and however dark it is.

    Args:
        thumbnails: [T, SIDE_PIXELS, SIDE_PIXELS, 3].

    Returns:
        [T - 1]: mean distance of the colours in units of the two pictures' contrast (standard deviation of each colour
        channel over the picture). Two pictures that have nothing to do with each other are at about 1.1.
    """
    colours = thumbnails.reshape(len(thumbnails), -1, 3) / 255.0
    distance = np.abs(np.diff(colours, axis=0)).mean(axis=(1, 2))
    variance = colours.var(axis=1).mean(axis=1)
    contrast = np.sqrt((variance[1:] + variance[:-1]) / 2)
    return np.asarray(distance / np.maximum(contrast, MIN_CONTRAST))
