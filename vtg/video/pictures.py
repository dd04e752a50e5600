"""Still pictures: reads those of other people, and paints on frames."""

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

MAX_PICTURE_PIXELS = 120_000_000  # as much as any camera makes: 360 MB in RGB, and copies of that
# What Pillow's readers say of damaged pictures, as they are opened or as their pixels are read.
READING_ERRORS = (
    *(OSError, ValueError, SyntaxError, IndexError, KeyError, TypeError, OverflowError, struct.error, zlib.error),
    *(EOFError, NotImplementedError, Image.DecompressionBombError),
)
# From nothing through red to yellow, the colours of heat, as (share of the strongest, red, green, blue).
HEAT_COLOURS = np.array([(0.0, 30, 0, 60), (0.4, 200, 30, 60), (0.7, 250, 130, 20), (1.0, 255, 240, 120)], float)
MAX_OPACITY = 0.75  # so that what is looked at hardest can still be seen


class PictureError(Exception):
    """A picture cannot be read."""


@contextlib.contextmanager
def open_picture(source: Path | IO[bytes], formats: list[str] | None = None) -> Iterator[Image.Image]:
    """Open a picture of anybody's for a ``with`` statement, in which its pixels may be read.

    Args:
        source: the file.
        formats: those that are accepted, as Pillow names them; None for all.

    Raises:
        FileNotFoundError: there is no such file.
        PictureError: it is no picture, damaged, or larger than 120 million pixels.
    """
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of damaged metadata, which is of no use here, and of a limit above ours
            with Image.open(source, formats=formats) as picture:
                if picture.width * picture.height > MAX_PICTURE_PIXELS:
                    raise PictureError(f"has {picture.width}×{picture.height} pixels")
                yield picture
    except FileNotFoundError:
        raise
    except READING_ERRORS as error:
        raise PictureError(str(error)) from error


def paint_attention(frame: np.ndarray, attention: np.ndarray) -> np.ndarray:
    """Paint a map of attention over the frame that it is of.

    Args:
        frame: uint8 [H, W, 3], the square that CLIP sees, at any size.
        attention: [h, w], not negative; its strongest patch gets the strongest colour.

    Returns:
        uint8 [H, W, 3].
    """
    height, width = frame.shape[:2]
    share = attention / max(float(attention.max()), 1e-12)
    smooth = Image.fromarray(share.astype(np.float32)).resize((width, height), Image.Resampling.BICUBIC)
    share = np.asarray(smooth).clip(0.0, 1.0)
    colour = np.stack([np.interp(share, HEAT_COLOURS[:, 0], HEAT_COLOURS[:, channel]) for channel in (1, 2, 3)], axis=-1)
    opacity = MAX_OPACITY * share[..., None]
    return np.asarray((1 - opacity) * frame + opacity * colour).round().astype(np.uint8)
