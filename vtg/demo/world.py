"""Things of the demo world: attribute names, poses over time, and attributes at given times."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

__all__ = [
    "ACTIONS",
    "CLIP_SECONDS",
    "COLOURS",
    "PLACES",
    "SHAPES",
    "SIZES",
    "Action",
    "Backdrop",
    "Pose",
    "States",
    "Thing",
]

CLIP_SECONDS = 2.0  # as in QVHighlights; things and actions begin and end at multiples of it

COLOURS = {
    "red": (222, 57, 60),
    "orange": (246, 140, 38),
    "yellow": (252, 214, 62),
    "green": (60, 170, 88),
    "blue": (54, 108, 222),
    "purple": (136, 72, 188),
    "pink": (248, 150, 192),
    "white": (248, 248, 246),
}
SHAPES = ("circle", "square", "triangle", "star", "heart", "diamond", "cross", "ring")
SIZES = {"small": 0.07, "medium": 0.105, "large": 0.16}  # radius, in sides of the central square
PLACES = (
    "top left",
    "top",
    "top right",
    "left",
    "centre",
    "right",
    "bottom left",
    "bottom",
    "bottom right",
)  # row by row over the central square
ACTIONS = ("left", "right", "up", "down", "grow", "shrink", *(f"turn {colour}" for colour in COLOURS))

_COLUMN_CENTRES = (0.2, 0.5, 0.8)  # centres of the three columns and rows, in sides of the central square
_FADE_SECONDS = 1.5
_MAX_PLACE_DISTANCE = 0.11  # along each axis, between a thing in a place and the place's centre
_MAX_SIZE_RATIO = 1.15  # between the radius of a thing and the radius of its size
_MAX_COLOUR_MIX = 0.25  # share of a second colour, up to which a mixed colour has the name of the first


@dataclass(frozen=True)
class Action:
    """The action of a thing: a move, a change of size or a change of colour.

    Attributes:
        kind: one of ACTIONS.
        start: seconds.
        end: seconds.
        target: the place, size or colour at the end of the action.
    """

    kind: str
    start: float
    end: float
    target: str


@dataclass(frozen=True)
class Pose:
    """Position and look of a thing at one time, in sides of the central square; (0, 0) is its top left corner."""

    x: float
    y: float
    radius: float
    colour: tuple[int, int, int]
    opacity: float
    tilt: float  # radians, clockwise
    progress: float  # of the action: 0 before it, 1 after it


@dataclass(frozen=True)
class Thing:
    """A coloured shape, visible from `start` to `end` (seconds), that drifts around its place and acts at most once."""

    shape: str
    colour: str
    size: str
    place: str
    start: float
    end: float
    action: Action | None = None
    drift: tuple[float, float, float, float] = (0.02, 9.0, 0.0, 0.0)  # amplitude, period in s, phases of x and y
    tilt: tuple[float, float] = (0.0, 0.0)  # radians: mean and swing

    def alive(self, time: float) -> bool:
        """Whether the thing is visible at `time` (seconds), including while it fades."""
        return self.start <= time < self.end

    def pose(self, time: float) -> Pose:
        """The pose of the thing at `time` (seconds)."""
        x, y = _centre(self.place)
        radius = SIZES[self.size]
        colour = COLOURS[self.colour]
        progress = self._progress(time)
        if self.action is not None and progress > 0:
            if self.action.kind in ("left", "right", "up", "down"):
                to_x, to_y = _centre(self.action.target)
                x, y = x + (to_x - x) * progress, y + (to_y - y) * progress
            elif self.action.kind in ("grow", "shrink"):
                radius *= (SIZES[self.action.target] / radius) ** progress
            else:
                colour = _mix(colour, COLOURS[self.action.target], progress)
        amplitude, period, phase_x, phase_y = self.drift
        turn = 2 * math.pi * time / period
        fade = min(1.0, (time - self.start) / _FADE_SECONDS, (self.end - time) / _FADE_SECONDS)
        return Pose(
            x=x + amplitude * math.sin(turn + phase_x),
            y=y + amplitude * math.sin(0.8 * turn + phase_y),
            radius=radius,
            colour=colour,
            opacity=max(0.0, fade),
            tilt=self.tilt[0] + self.tilt[1] * math.sin(0.7 * turn + phase_y),
            progress=progress,
        )

    def state(self, time: float) -> tuple[int, int, int, int, int, int]:
        """The attributes of the thing at `time` (seconds), as the columns of `States.codes`."""
        pose = self.pose(time)
        acting = self.action is not None and 0 < pose.progress < 1
        return (
            SHAPES.index(self.shape),
            self._colour_code(pose.progress),
            _size_code(pose.radius),
            _place_code(pose.x, pose.y),
            ACTIONS.index(self.action.kind) if self.action is not None and acting else -1,
            _COLOUR_NAMES.index(self.colour),
        )

    def _progress(self, time: float) -> float:
        if self.action is None:
            return 0.0
        return min(1.0, max(0.0, (time - self.action.start) / (self.action.end - self.action.start)))

    def _colour_code(self, progress: float) -> int:
        if self.action is None or not self.action.kind.startswith("turn") or progress <= _MAX_COLOUR_MIX:
            return _COLOUR_NAMES.index(self.colour)
        return _COLOUR_NAMES.index(self.action.target) if progress >= 1 - _MAX_COLOUR_MIX else -1


@dataclass(frozen=True)
class Backdrop:
    """The background from `start` to `end` (seconds): a moving pattern of two muted colours."""

    start: float
    end: float
    style: str
    colours: tuple[tuple[int, int, int], tuple[int, int, int]]
    numbers: tuple[float, ...]  # uniform in 0…1; their meaning depends on the style


@dataclass(frozen=True)
class States:
    """The attributes of the visible things at each of N times, at most S things at a time.

    Attributes:
        codes: int8 [N, S, 6]: shape, colour, size, place, action, colour before the action, as indices into
            SHAPES, COLOURS, SIZES, PLACES, ACTIONS, COLOURS; −1 where no value holds (a colour between two, a thing
            between two places, no action), and all −1 where there is no thing.
        things: int32 [N, S], indices into `Scene.things`; −1 where there is no thing.
    """

    codes: NDArray[np.int8]
    things: NDArray[np.int32]


_COLOUR_NAMES = tuple(COLOURS)
_SIZE_RADII = tuple(SIZES.values())


def _centre(place: str) -> tuple[float, float]:
    row, column = divmod(PLACES.index(place), 3)
    return _COLUMN_CENTRES[column], _COLUMN_CENTRES[row]


def _mix(start: tuple[int, int, int], end: tuple[int, int, int], progress: float) -> tuple[int, int, int]:
    # Through grey: a direct mix of red and yellow would be orange, which is another colour of the world.
    grey = 2.4 * progress * (1 - progress)
    red, green, blue = (
        round((a + (b - a) * progress) * (1 - grey) + 190 * grey) for a, b in zip(start, end, strict=True)
    )
    return red, green, blue


def _size_code(radius: float) -> int:
    nearest = min(range(len(_SIZE_RADII)), key=lambda index: abs(math.log(radius / _SIZE_RADII[index])))
    return nearest if abs(math.log(radius / _SIZE_RADII[nearest])) <= math.log(_MAX_SIZE_RATIO) else -1


def _place_code(x: float, y: float) -> int:
    column = min(range(3), key=lambda index: abs(x - _COLUMN_CENTRES[index]))
    row = min(range(3), key=lambda index: abs(y - _COLUMN_CENTRES[index]))
    inside = (
        abs(x - _COLUMN_CENTRES[column]) <= _MAX_PLACE_DISTANCE and abs(y - _COLUMN_CENTRES[row]) <= _MAX_PLACE_DISTANCE
    )
    return 3 * row + column if inside else -1
