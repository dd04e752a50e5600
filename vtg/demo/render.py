"""Draw frames of the demo world at any time of a scene."""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw

from vtg.demo.world import Backdrop, Pose, Thing

__all__ = ["draw_frame"]

_SUPERSAMPLING = 3  # mask pixels along each side of a frame's pixel
_GRID_ROWS = 36  # rows of the coarse grid on which a backdrop is computed before it is enlarged
_SHADOW_OPACITY = 0.28


def draw_frame(
    backdrops: Sequence[Backdrop], things: Sequence[Thing], time: float, width: int, height: int
) -> NDArray[np.uint8]:
    """Draw a scene at one time.

    All things are inside the central square, whose side is the smaller of width and height.

    Args:
        backdrops: backdrops of the shots, in order.
        things: in the order in which they are drawn.
        time: seconds; outside the scene, only its first or last backdrop is drawn.
        width: pixels.
        height: pixels.

    Returns:
        uint8 [height, width, 3], RGB.
    """
    backdrop = next((shot for shot in backdrops if time < shot.end), backdrops[-1])
    canvas = _draw_backdrop(backdrop, time, width, height)
    side = min(width, height)
    left, top = (width - side) / 2, (height - side) / 2
    for thing in things:
        if thing.alive(time):
            _draw_thing(canvas, thing.shape, thing.pose(time), side, left, top)
    return np.array(canvas)


def _draw_thing(canvas: Image.Image, shape: str, pose: Pose, side: int, left: float, top: float) -> None:
    radius = pose.radius * side
    x, y = left + pose.x * side, top + pose.y * side
    reach = math.ceil(radius) + 2
    corner_x, corner_y = math.floor(x) - reach, math.floor(y) - reach
    size = (2 * reach + 1) * _SUPERSAMPLING
    centre = ((x - corner_x) * _SUPERSAMPLING, (y - corner_y) * _SUPERSAMPLING)
    mask = Image.new("L", (size, size), 0)
    draw = ImageDraw.Draw(mask)
    _draw_shape(draw, shape, centre, radius * _SUPERSAMPLING, pose.tilt, round(255 * pose.opacity))
    mask = mask.reduce(_SUPERSAMPLING)
    drop = max(1, round(0.012 * side))
    canvas.paste((0, 0, 0), (corner_x + drop, corner_y + drop), mask.point(_SHADOW_TABLE))
    canvas.paste(pose.colour, (corner_x, corner_y), mask)


def _draw_shape(
    draw: ImageDraw.ImageDraw, shape: str, centre: tuple[float, float], radius: float, tilt: float, ink: int
) -> None:
    x, y = centre
    if shape in ("circle", "ring"):
        outer = 0.92 * radius
        draw.ellipse((x - outer, y - outer, x + outer, y + outer), fill=ink)
        if shape == "ring":
            inner = 0.5 * radius
            draw.ellipse((x - inner, y - inner, x + inner, y + inner), fill=0)
        return
    sine, cosine = math.sin(tilt), math.cos(tilt)
    draw.polygon(
        [(x + radius * (cosine * u - sine * v), y + radius * (sine * u + cosine * v)) for u, v in _outline(shape)],
        fill=ink,
    )


@lru_cache(maxsize=16)
def _outline(shape: str) -> tuple[tuple[float, float], ...]:
    """Corners of a shape of radius 1 about (0, 0), y downwards."""
    if shape == "square":
        return ((-0.8, -0.8), (0.8, -0.8), (0.8, 0.8), (-0.8, 0.8))
    if shape == "triangle":
        return ((0.0, -1.0), (0.95, 0.75), (-0.95, 0.75))
    if shape == "diamond":
        return ((0.0, -1.08), (0.72, 0.0), (0.0, 1.08), (-0.72, 0.0))
    if shape == "cross":
        arm, thick = 0.95, 0.32
        quarter = ((-thick, -arm), (thick, -arm), (thick, -thick))
        return tuple(turned for turns in range(4) for turned in (_quarter_turn(u, v, turns) for u, v in quarter))
    if shape == "star":
        return tuple(
            (radius * math.sin(math.pi * corner / 5), -radius * math.cos(math.pi * corner / 5))
            for corner, radius in ((corner, 1.08 if corner % 2 == 0 else 0.46) for corner in range(10))
        )
    return tuple(_heart(2 * math.pi * step / 40) for step in range(40))


def _heart(angle: float) -> tuple[float, float]:
    height = 13 * math.cos(angle) - 5 * math.cos(2 * angle) - 2 * math.cos(3 * angle) - math.cos(4 * angle)
    return 0.98 * math.sin(angle) ** 3, -height / 16 - 0.1


def _quarter_turn(u: float, v: float, turns: int) -> tuple[float, float]:
    for _ in range(turns):
        u, v = -v, u
    return u, v


def _draw_backdrop(backdrop: Backdrop, time: float, width: int, height: int) -> Image.Image:
    u, v = _grid(width, height)
    numbers = backdrop.numbers
    first, second = (np.array(colour, np.float32) for colour in backdrop.colours)
    share = np.clip(_field(backdrop.style, u, v, time, numbers), 0, 1)[..., None]
    coarse = first + (second - first) * share
    small = Image.fromarray(np.clip(coarse + 0.5, 0, 255).astype(np.uint8))
    canvas = small.resize((width, height), Image.Resampling.BICUBIC)
    _draw_specks(canvas, backdrop, time, min(width, height))
    return canvas


@lru_cache(maxsize=8)
def _grid(width: int, height: int) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Coordinates of the coarse grid in sides of the central square, (0, 0) its top left corner."""
    side = min(width, height)
    rows, columns = round(_GRID_ROWS * height / side), round(_GRID_ROWS * width / side)
    v = ((np.arange(rows, dtype=np.float32) + 0.5) / rows * height - (height - side) / 2) / side
    u = ((np.arange(columns, dtype=np.float32) + 0.5) / columns * width - (width - side) / 2) / side
    return np.broadcast_to(u[None, :], (rows, columns)), np.broadcast_to(v[:, None], (rows, columns))


def _field(
    style: str, u: NDArray[np.float32], v: NDArray[np.float32], time: float, numbers: tuple[float, ...]
) -> NDArray[np.float32]:
    """Share of the second colour, [rows, columns], about 0…1."""
    angle = 2 * np.pi * numbers[0] + 0.05 * time * (numbers[1] - 0.5)
    along = (u - 0.5) * np.float32(math.cos(angle)) + (v - 0.5) * np.float32(math.sin(angle))
    pace = 0.3 + 0.7 * numbers[2]
    if style == "gradient":
        return 0.5 + 0.7 * along + np.float32(0.15 * math.sin(0.4 * pace * time))
    if style == "waves":
        across = (v - 0.5) * np.float32(math.cos(angle)) - (u - 0.5) * np.float32(math.sin(angle))
        bend = 0.12 * np.sin(9 * across + np.float32(0.5 * pace * time))
        return 0.5 + 0.45 * np.sin((8 + 8 * numbers[3]) * (along + bend) - np.float32(0.6 * pace * time))
    if style == "stripes":
        return 1 / (1 + np.exp(-6 * np.sin((12 + 14 * numbers[3]) * along + np.float32(0.8 * pace * time))))
    if style == "clouds":
        warp = np.sin(5 * u + np.float32(0.3 * pace * time + 6 * numbers[4]))
        shift = np.float32(0.35 * pace * time)
        return 0.5 + 0.25 * np.sin(6 * v + 2 * warp + shift) + 0.25 * np.sin(4 * u - 3 * v - shift)
    if style == "hills":
        share = 0.15 + 0.25 * v
        for layer in range(3):
            crest = 0.35 + 0.22 * layer + 0.07 * np.sin((5 + 3 * layer) * u + np.float32((layer + 1) * 0.15 * time))
            share = share + 0.25 / (1 + np.exp(-60 * (v - crest)))
        return share
    share = 0.15 + 0.2 * v  # bokeh: soft moving discs
    for disc in range(6):
        a, b, c = numbers[6 + 3 * disc : 9 + 3 * disc]
        x = -0.2 + 1.4 * ((a + 0.012 * (b - 0.5) * time) % 1.0)
        y = -0.1 + 1.2 * ((b + 0.015 * (0.3 + c) * time) % 1.0)
        distance = np.sqrt((u - np.float32(x)) ** 2 + (v - np.float32(y)) ** 2)
        share = share + (0.2 + 0.25 * c) / (1 + np.exp(40 * (distance - np.float32(0.08 + 0.12 * a))))
    return share


def _draw_specks(canvas: Image.Image, backdrop: Backdrop, time: float, side: int) -> None:
    """Draw small moving dots and bars in a shade of the backdrop, as distractors."""
    draw = ImageDraw.Draw(canvas)
    width, height = canvas.size
    numbers = backdrop.numbers
    bright = sum(backdrop.colours[0]) < 330
    shade = tuple(min(255, channel + 45) if bright else max(0, channel - 45) for channel in backdrop.colours[1])
    for speck in range(3 + int(8 * numbers[5])):
        a, b = numbers[speck % 24], numbers[(7 * speck + 3) % 24]
        x = ((a + 0.02 * (b - 0.5) * time) % 1.0) * width
        y = ((b + speck / 11 + 0.02 * (a - 0.5) * time) % 1.0) * height
        radius = (0.006 + 0.008 * a) * side
        stretch = 4 if speck % 3 == 0 else 1
        draw.ellipse((x - stretch * radius, y - radius, x + stretch * radius, y + radius), fill=shade)


_SHADOW_TABLE = [round(_SHADOW_OPACITY * value) for value in range(256)]
