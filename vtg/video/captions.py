"""Draw text onto pictures."""

from __future__ import annotations

import functools
from pathlib import Path

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageDraw, ImageFont

__all__ = ["caption_picture", "font", "wrapped"]

LETTER_SHARE = 0.05  # of the picture's height
SMALLEST_LETTERS = 10  # pixels
MOST_LINES = 3
BACKING = (0, 0, 0, 150)  # behind the words: they must be read on any picture
WORDS = (255, 255, 255, 255)


@functools.lru_cache(maxsize=8)
def font(size: int) -> ImageFont.FreeTypeFont:
    """The font that matplotlib brings (DejaVu Sans: Latin, Greek, Cyrillic and more), letters of `size` pixels."""
    import matplotlib

    return ImageFont.truetype(str(Path(matplotlib.get_data_path()) / "fonts" / "ttf" / "DejaVuSans.ttf"), size)


def wrapped(text: str, width: int, letters: ImageFont.FreeTypeFont, most_lines: int = MOST_LINES) -> list[str]:
    """Lines of at most `width` pixels; what does not fit into them ends with an ellipsis."""
    lines = [""]
    for word in text.split():
        longer = f"{lines[-1]} {word}".strip()
        if lines[-1] and letters.getlength(longer) > width:
            lines.append(word)
        else:
            lines[-1] = longer
    cut_off = len(lines) > most_lines
    lines = lines[:most_lines]
    for i, line in enumerate(lines):
        is_short = cut_off and i == most_lines - 1
        while line and letters.getlength(line + "…" * is_short) > width:
            line, is_short = line[:-1], True
        lines[i] = line + "…" * is_short
    return lines


def caption_picture(text: str, width: int, height: int) -> npt.NDArray[np.uint8]:
    """A caption to lay over a picture: its words on a dark backing.

    Args:
        text: any length; three lines of it are shown.
        width: pixels that it may take.
        height: of the picture that it will lie on, pixels; letters are a twentieth of it.

    Returns:
        RGBA, uint8 [h, w, 4], no larger than its words need.
    """
    size = max(SMALLEST_LETTERS, round(LETTER_SHARE * height))
    letters, margin = font(size), max(2, size // 3)
    lines = wrapped(text, max(1, width - 2 * margin), letters)
    step = round(1.25 * size)
    widest = max(letters.getlength(line) for line in lines)
    picture = Image.new("RGBA", (min(width, round(widest) + 2 * margin), step * len(lines) + 2 * margin), BACKING)
    draw = ImageDraw.Draw(picture)
    for number, line in enumerate(lines):
        draw.text((picture.width / 2, margin + (number + 0.5) * step), line, fill=WORDS, font=letters, anchor="mm")
    return np.asarray(picture)
