"""Render captions as images to overlay on video frames."""

from __future__ import annotations

import functools
from pathlib import Path

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageDraw, ImageFont

__all__ = ["font", "render_caption", "wrap_text"]

FONT_SHARE = 0.05  # font size as a share of the frame's height
MIN_FONT_PIXELS = 10
MAX_LINES = 3
BACKGROUND_RGBA = (0, 0, 0, 150)  # keeps the text readable on any frame
TEXT_RGBA = (255, 255, 255, 255)


@functools.lru_cache(maxsize=8)
def font(size: int) -> ImageFont.FreeTypeFont:
    """The font that comes with matplotlib (DejaVu Sans: Latin, Greek, Cyrillic and more) at a size in pixels."""
    import matplotlib

    return ImageFont.truetype(str(Path(matplotlib.get_data_path()) / "fonts" / "ttf" / "DejaVuSans.ttf"), size)


def wrap_text(text: str, width: int, text_font: ImageFont.FreeTypeFont, max_lines: int = MAX_LINES) -> list[str]:
    """Wrap text into lines of at most `width` pixels; text that does not fit is cut off with an ellipsis."""
    lines = [""]
    for word in text.split():
        longer = f"{lines[-1]} {word}".strip()
        if lines[-1] and text_font.getlength(longer) > width:
            lines.append(word)
        else:
            lines[-1] = longer
    cut_off = len(lines) > max_lines
    lines = lines[:max_lines]
    for i, line in enumerate(lines):
        is_short = cut_off and i == max_lines - 1
        while line and text_font.getlength(line + "…" * is_short) > width:
            line, is_short = line[:-1], True
        lines[i] = line + "…" * is_short
    return lines


def render_caption(text: str, width: int, height: int) -> npt.NDArray[np.uint8]:
    """Render a caption on a dark background, to overlay on a frame.

    Args:
        text: of any length; three lines of it are shown.
        width: maximum width, pixels.
        height: of the frame, pixels; the font size is a twentieth of it.

    Returns:
        RGBA, uint8 [h, w, 4], as small as the text allows.
    """
    size = max(MIN_FONT_PIXELS, round(FONT_SHARE * height))
    text_font, margin = font(size), max(2, size // 3)
    lines = wrap_text(text, max(1, width - 2 * margin), text_font)
    step = round(1.25 * size)
    widest = max(text_font.getlength(line) for line in lines)
    picture = Image.new(
        "RGBA", (min(width, round(widest) + 2 * margin), step * len(lines) + 2 * margin), BACKGROUND_RGBA
    )
    draw = ImageDraw.Draw(picture)
    for number, line in enumerate(lines):
        draw.text(
            (picture.width / 2, margin + (number + 0.5) * step), line, fill=TEXT_RGBA, font=text_font, anchor="mm"
        )
    return np.asarray(picture)
