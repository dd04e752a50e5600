"""Open image files safely, and draw attention maps on frames."""

from __future__ import annotations

import contextlib
import struct
import warnings
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import IO

import numpy as np
from PIL import Image

__all__ = ["PictureError", "open_picture", "paint_attention"]

MAX_PICTURE_PIXELS = 120_000_000  # more than cameras produce: 360 MB in RGB, and copies of that
# Raised by Pillow for damaged images, when they are opened or their pixels are read.
READING_ERRORS = (
    *(OSError, ValueError, SyntaxError, IndexError, KeyError, TypeError, OverflowError, struct.error, zlib.error),
    *(EOFError, NotImplementedError, Image.DecompressionBombError),
)
# Colour scale from dark through red to yellow: (share of the maximum, red, green, blue).
HEAT_COLOURS = np.array([(0.0, 30, 0, 60), (0.4, 200, 30, 60), (0.7, 250, 130, 20), (1.0, 255, 240, 120)], float)
MAX_OPACITY = 0.75  # keeps the frame visible where attention is highest


class PictureError(Exception):
    """An image cannot be read."""


@contextlib.contextmanager
def open_picture(source: Path | IO[bytes], formats: list[str] | None = None) -> Iterator[Image.Image]:
    """Open an untrusted image for a ``with`` statement, in which its pixels may be read.

    Args:
        source: the file.
        formats: accepted formats, by Pillow's names; None for all.

    Raises:
        FileNotFoundError: there is no such file.
        PictureError: not an image, damaged, or larger than 120 million pixels.
    """
    try:
        with warnings.catch_warnings():
            warnings.simplefilter(
                "ignore"
            )  # about damaged metadata, which is not used, and about Pillow's own size limit
            with Image.open(source, formats=formats) as picture:
                if picture.width * picture.height > MAX_PICTURE_PIXELS:
                    raise PictureError(f"has {picture.width}×{picture.height} pixels")
                yield picture
    except FileNotFoundError:
        raise
    except READING_ERRORS as error:
        raise PictureError(str(error)) from error


def paint_attention(frame: np.ndarray, attention: np.ndarray) -> np.ndarray:
    """Draw an attention map over its frame.

    Args:
        frame: uint8 [H, W, 3], the square that CLIP gets, at any size.
        attention: [h, w], not negative; scaled so that the maximum gets the last colour.

    Returns:
        uint8 [H, W, 3].
    """
    height, width = frame.shape[:2]
    share = attention / max(float(attention.max()), 1e-12)
    smooth = Image.fromarray(share.astype(np.float32)).resize((width, height), Image.Resampling.BICUBIC)
    share = np.asarray(smooth).clip(0.0, 1.0)
    colour = np.stack(
        [np.interp(share, HEAT_COLOURS[:, 0], HEAT_COLOURS[:, channel]) for channel in (1, 2, 3)], axis=-1
    )
    opacity = MAX_OPACITY * share[..., None]
    return np.asarray((1 - opacity) * frame + opacity * colour).round().astype(np.uint8)
