"""Generate scenes from seeds, with things that never overlap."""

from __future__ import annotations

import colorsys
from collections.abc import Sequence
from dataclasses import replace
from itertools import pairwise

import numpy as np
from numpy.random import Generator
from numpy.typing import NDArray

from vtg.demo.scene import Scene
from vtg.demo.world import CLIP_SECONDS, COLOURS, PLACES, SHAPES, SIZES, Action, Backdrop, Thing
from vtg.errors import VtgError

__all__ = ["BACKDROP_STYLES", "SPLITS", "SPLIT_SIZE", "long_scene", "make_scene", "split_seed"]

# The first seed of each split. That of "demo" is chosen so that its first three videos look different and their queries
# include all kinds of sentences.
SPLITS = {"train": 1_000_000, "val": 2_000_000, "test": 3_000_000, "demo": 4_000_020, "encoder": 5_000_000}
SPLIT_SIZE = 900_000  # seeds in a split
BACKDROP_STYLES = ("gradient", "waves", "bokeh", "clouds", "stripes", "hills")

_LIFE_CLIPS = (3, 15)  # minimum and maximum number of clips in which a thing is visible
_MAX_THINGS = 5  # visible at the same time
_MOVES = {"left": (-1, 0), "right": (1, 0), "up": (0, -1), "down": (0, 1)}
_SIZE_NAMES = tuple(SIZES)


def split_seed(split: str, index: int) -> int:
    """The seed of video `index` of a split; the splits' seeds are disjoint.

    Raises:
        VtgError: no such split, or an index outside it.
    """
    if split not in SPLITS:
        raise VtgError(f"no split {split!r} in the demo world: choose one of {', '.join(SPLITS)}")
    if not 0 <= index < SPLIT_SIZE:
        raise VtgError(f"video {index} of split {split!r}: the index must be between 0 and {SPLIT_SIZE - 1}")
    return SPLITS[split] + index


def make_scene(
    seed: int,
    duration: float | None = None,
    cuts: Sequence[float] = (),
    density: float = 2.5,
    without: tuple[str, str] | None = None,
) -> Scene:
    """Generate a scene; the same arguments always give the same scene.

    Args:
        seed: any non-negative number.
        duration: seconds, rounded to whole clips of 2 s; None for 60 to 90 s, depending on the seed.
        cuts: times of hard cuts in seconds, rounded to whole clips; each shot has its own things and backdrop.
        density: mean number of visible things; it may be lower, as things must not overlap.
        without: (colour, shape) that no thing of the scene ever has.

    Raises:
        VtgError: a duration below 8 s, or a cut that leaves a shot without a clip.
    """
    random = np.random.default_rng(seed)
    if duration is None:
        duration = CLIP_SECONDS * int(random.integers(30, 46))
    clips = round(duration / CLIP_SECONDS)
    if clips < 4:
        raise VtgError(f"a scene of {duration} s is too short: give at least 8 s")
    borders = [0, *(round(cut / CLIP_SECONDS) for cut in cuts), clips]
    if any(late <= early for early, late in pairwise(borders)):
        raise VtgError(f"cuts at {list(cuts)} s: give rising times inside the {duration} s, at least 2 s apart")
    things: list[Thing] = []
    backdrops: list[Backdrop] = []
    for first, last in pairwise(borders):
        things += _Shot(random, first, last, without).fill(density)
        backdrops.append(_make_backdrop(random, first * CLIP_SECONDS, last * CLIP_SECONDS, backdrops))
    return Scene(seed, clips * CLIP_SECONDS, tuple(things), tuple(backdrops))


def long_scene(
    seed: int, duration: float = 1800.0, shot_seconds: float = 120.0, density: float = 2.0
) -> tuple[Scene, Thing]:
    """Generate a long scene of many shots, with a thing in the middle whose colour and shape no other thing has.

    Args:
        seed: any non-negative number.
        duration: seconds.
        shot_seconds: duration of a shot.
        density: mean number of visible things.

    Returns:
        The scene, and that thing, which is visible for 16 s.

    Raises:
        VtgError: the duration is below 60 s.
    """
    if duration < 60:
        raise VtgError(f"a long scene of {duration} s: give at least 60 s")
    random = np.random.default_rng([seed, 1])
    colour, shape = str(random.choice(tuple(COLOURS))), str(random.choice(SHAPES))
    middle = round(duration / 2 / CLIP_SECONDS)
    cuts = [
        cut
        for cut in np.arange(shot_seconds, duration - CLIP_SECONDS, shot_seconds)
        if abs(cut / CLIP_SECONDS - middle) > 6
    ]
    scene = make_scene(seed, duration, cuts, density, without=(colour, shape))
    start, end = (middle - 4) * CLIP_SECONDS, (middle + 4) * CLIP_SECONDS
    place = str(random.choice(PLACES))
    event = Thing(shape, colour, "large", place, start, end, None, *_draw_drift_and_tilt(random))
    others = tuple(thing for thing in scene.things if not _meets(thing, event))
    return replace(scene, things=(*others, event)), event


class _Shot:
    """Generates the things of one shot, clips `first` to `last`, and tracks the occupied places in each clip."""

    def __init__(self, random: Generator, first: int, last: int, without: tuple[str, str] | None) -> None:
        self.random = random
        self.first = first
        self.last = last
        self.without = without
        self.taken: NDArray[np.bool_] = np.zeros((last - first, len(PLACES)), bool)
        self.things: list[Thing] = []

    def fill(self, density: float) -> list[Thing]:
        wanted = density * (self.last - self.first)
        filled = 0
        for _ in range(round(2 * wanted)):
            if filled >= wanted:
                break
            thing = self._make_thing()
            if thing is not None:
                self.things.append(thing)
                filled += round((thing.end - thing.start) / CLIP_SECONDS)
        return self.things

    def _make_thing(self) -> Thing | None:
        random = self.random
        span = self.last - self.first
        life = min(span, int(random.integers(_LIFE_CLIPS[0], _LIFE_CLIPS[1] + 1)))
        begin = int(random.integers(0, span - life + 1))
        if (self.taken[begin : begin + life].sum(axis=1) >= _MAX_THINGS).any():
            return None
        colour, shape, size = self._choose_look(begin, begin + life)
        start, end = (self.first + begin) * CLIP_SECONDS, (self.first + begin + life) * CLIP_SECONDS
        place = str(random.choice(PLACES))
        action = self._make_action(colour, size, place, start, life) if random.random() < 0.6 else None
        taken = self._footprint(place, action, begin, life)
        if self._forbidden(colour, shape, action) or (self.taken & taken).any():
            return None
        self.taken |= taken
        return Thing(shape, colour, size, place, start, end, action, *_draw_drift_and_tilt(random))

    def _choose_look(self, begin: int, end: int) -> tuple[str, str, str]:
        """Colour, shape and size: new, those of an earlier thing (for several windows), or similar (distractors)."""
        random = self.random
        look = [str(random.choice(tuple(COLOURS))), str(random.choice(SHAPES)), str(random.choice(_SIZE_NAMES))]
        draw = random.random()
        if self.things and draw < 0.7:
            model = self.things[int(random.integers(len(self.things)))]
            again = [model.colour, model.shape, model.size]
            if draw >= 0.3:
                changed = int(random.integers(3))
                again[changed] = look[changed]
            clips = (model.start / CLIP_SECONDS - self.first, model.end / CLIP_SECONDS - self.first)
            # Two equal things at the same time would only have one longer window.
            if draw >= 0.3 or clips[1] < begin or clips[0] > end:
                look = again
        colour, shape, size = look
        return colour, shape, size

    def _make_action(self, colour: str, size: str, place: str, start: float, life: int) -> Action | None:
        random = self.random
        if life < 5:
            return None
        length = int(random.integers(3, min(9, life - 1)))
        begin = int(random.integers(1, life - length))
        kind, target, longest = self._choose_action(colour, size, place)
        length = min(length, longest)
        begin_time = start + begin * CLIP_SECONDS
        return Action(kind, begin_time, begin_time + length * CLIP_SECONDS, target)

    def _choose_action(self, colour: str, size: str, place: str) -> tuple[str, str, int]:
        """Kind and target of an action, and its maximum duration in clips."""
        random = self.random
        family = random.choice(("move", "turn", "resize"), p=(0.35, 0.3, 0.35))
        if family == "turn":
            target = str(random.choice([name for name in COLOURS if name != colour]))
            return f"turn {target}", target, 6
        if family == "resize" and size != "medium":
            # Changes between adjacent sizes would be only one or two pixels of CLIP's input from clip to clip.
            return ("grow", "large", 5) if size == "small" else ("shrink", "small", 5)
        row, column = divmod(PLACES.index(place), 3)
        options = [
            (kind, 3 * (row + dy * steps) + column + dx * steps, steps)
            for kind, (dx, dy) in _MOVES.items()
            for steps in (1, 2)
            if 0 <= row + dy * steps < 3 and 0 <= column + dx * steps < 3
        ]
        kind, goal, steps = options[int(random.integers(len(options)))]
        # Slower than one step in 6 s, the start and end of a move would look like the drift of a thing that stays.
        return kind, PLACES[goal], 3 * steps

    def _footprint(self, place: str, action: Action | None, begin: int, life: int) -> NDArray[np.bool_]:
        taken = np.zeros_like(self.taken)
        here = PLACES.index(place)
        if action is None or action.kind not in _MOVES:
            taken[begin : begin + life, here] = True
            return taken
        goal = PLACES.index(action.target)
        first = round(action.start / CLIP_SECONDS) - self.first
        last = round(action.end / CLIP_SECONDS) - self.first
        taken[begin:first, here] = True
        taken[first:last, [here, (here + goal) // 2, goal]] = True
        if abs(goal - here) in (1, 3):
            taken[first:last] = False
            taken[first:last, [here, goal]] = True
        taken[last : begin + life, goal] = True
        return taken

    def _forbidden(self, colour: str, shape: str, action: Action | None) -> bool:
        turned = action.target if action is not None and action.kind.startswith("turn") else colour
        return self.without in ((colour, shape), (turned, shape))


def _draw_drift_and_tilt(random: Generator) -> tuple[tuple[float, float, float, float], tuple[float, float]]:
    phases = random.uniform(0, 2 * np.pi, 2)
    drift = (float(random.uniform(0.008, 0.016)), float(random.uniform(8, 14)), float(phases[0]), float(phases[1]))
    return drift, (float(random.uniform(-0.15, 0.15)), float(random.uniform(0, 0.12)))


def _make_backdrop(random: Generator, start: float, end: float, earlier: Sequence[Backdrop]) -> Backdrop:
    used = earlier[-1].style if earlier else ""
    style = str(random.choice([name for name in BACKDROP_STYLES if name != used]))
    hue, value = random.random(), random.uniform(0.18, 0.68)
    colours = []
    for _ in range(2):
        red, green, blue = colorsys.hsv_to_rgb(
            (hue + random.uniform(-0.12, 0.12)) % 1.0,
            random.uniform(0.08, 0.38),
            float(np.clip(value + random.uniform(-0.16, 0.16), 0.1, 0.8)),
        )
        colours.append((round(255 * red), round(255 * green), round(255 * blue)))
    return Backdrop(start, end, style, (colours[0], colours[1]), tuple(float(number) for number in random.random(24)))


def _meets(thing: Thing, other: Thing) -> bool:
    """Whether two things are ever in the same place at the same time."""
    places = {thing.place}
    if thing.action is not None and thing.action.kind in _MOVES:
        here, goal = PLACES.index(thing.place), PLACES.index(thing.action.target)
        places |= {PLACES[goal], PLACES[(here + goal) // 2]}
    return other.place in places and thing.start < other.end and other.start < thing.end
