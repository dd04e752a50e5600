"""Sentences about a scene, and the windows in which they hold."""

from __future__ import annotations

import zlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import combinations
from random import Random

import numpy as np
from numpy.random import Generator
from numpy.typing import NDArray

from vtg.demo.descriptions import Description, Order
from vtg.demo.scene import Scene
from vtg.demo.wording import put_into_words
from vtg.demo.world import ACTIONS, CLIP_SECONDS, COLOURS, PLACES, SHAPES, SIZES, States, Thing

__all__ = [
    "KINDS",
    "RELATIONS",
    "Sentence",
    "Truth",
    "choose_sentences",
    "held_clips",
    "holds",
    "part_codes",
    "true_sentences",
    "truth",
]

KINDS = ("object", "placed", "pair", "move", "turn", "resize", "order")
RELATIONS = ("first", "last", "before", "after")
PART_COLUMNS = 6  # codes of a description: shape, colour, size, place, action, colour before the action

_RATERS = 3
# Limits the best possible result: a saliency equal to the true quality has an average precision of 98 % for the highest
# rating; with more disagreement it would be lower.
_RATING_DEVIATION = 0.25  # standard deviation of a rating, on the scale of 0…4
_BEST_QUALITY_SHARE = 1 / 1.12  # from this share of the best clip's quality, a clip gets the highest rating
_SEVERAL_SHARE = 0.4  # share of the sentences that are chosen among those with several windows, if there are any
_MIN_WINDOW_SECONDS = 2 * CLIP_SECONDS
_COLOUR_NAMES = tuple(COLOURS)
_SIZE_NAMES = tuple(SIZES)


@dataclass(frozen=True)
class Sentence:
    """A sentence about one thing in a scene, or about two that are visible at the same time.

    Attributes:
        parts: one or two descriptions, each of which a visible thing must match. As shapes or colours of a pair
            differ, the same thing never matches both.
        order: which of the windows in which the parts match are meant; None for all of them.
    """

    parts: tuple[Description, ...]
    order: Order | None = None

    @property
    def kind(self) -> str:
        """One of KINDS."""
        first = self.parts[0]
        if self.order is not None:
            return "order"
        if len(self.parts) > 1:
            return "pair"
        if first.action is None:
            return "object" if first.place is None else "placed"
        if first.action in ("grow", "shrink"):
            return "resize"
        return "turn" if first.action.startswith("turn") else "move"

    @property
    def single_frame(self) -> bool:
        """Whether a single frame shows if the sentence holds in it."""
        return self.order is None and all(part.action is None for part in self.parts)

    @property
    def text(self) -> str:
        """The sentence in its plain wording."""
        return put_into_words(self.parts, self.order)

    def paraphrase(self, random: Random) -> str:
        """The sentence in a random wording."""
        return put_into_words(self.parts, self.order, random)


@dataclass(frozen=True)
class Truth:
    """When a sentence holds in a scene, in the format of QVHighlights.

    Attributes:
        windows: (start, end) in seconds, in order and without overlap.
        relevant_clip_ids: the 2-second clips inside the windows.
        saliency_scores: three ratings of 0…4 for each of these clips.
    """

    windows: tuple[tuple[float, float], ...]
    relevant_clip_ids: tuple[int, ...]
    saliency_scores: tuple[tuple[int, int, int], ...]


def holds(states: States, parts: NDArray[np.int8]) -> NDArray[np.bool_]:
    """Whether things match the descriptions of M sentences at each of N times; orders are ignored.

    Args:
        states: attributes of the visible things at N times.
        parts: int8 [M, 2, 6], the codes of each sentence's descriptions; all −1 for a missing second description.

    Returns:
        bool [N, M].
    """
    codes = states.codes[:, :, None, None, :]  # [N, S, 1, 1, 6]
    wanted = parts[None, None]  # [1, 1, M, 2, 6]
    met = np.all((codes == wanted) | (wanted < 0), axis=-1) & (codes[..., 0] >= 0)  # [N, S, M, 2]
    # A first description without attributes still requires a thing.
    missing = np.all(parts < 0, axis=-1) & np.array([False, True])  # [M, 2]
    return np.asarray(np.all(np.any(met, axis=1) | missing, axis=-1))


def part_codes(sentences: Sequence[Sentence]) -> NDArray[np.int8]:
    """The codes of the sentences' descriptions, int8 [M, 2, 6], for `holds`."""
    codes = np.full((len(sentences), 2, PART_COLUMNS), -1, np.int8)
    for row, sentence in enumerate(sentences):
        for column, part in enumerate(sentence.parts):
            codes[row, column] = part.codes
    return codes


def held_clips(scene: Scene, sentences: Sequence[Sentence]) -> NDArray[np.bool_]:
    """Whether each of M sentences holds in each 2-second clip of a scene: bool [clips, M]."""
    held = holds(scene.clip_states, part_codes(sentences))
    landmarks = [
        Sentence((sentence.order.landmark,))
        for sentence in sentences
        if sentence.order is not None and sentence.order.landmark is not None
    ]
    marked = dict(zip(landmarks, holds(scene.clip_states, part_codes(landmarks)).T, strict=True))
    for column, sentence in enumerate(sentences):
        order = sentence.order
        if order is None:
            continue
        landmark = None if order.landmark is None else marked[Sentence((order.landmark,))]
        held[:, column] = _in_order(held[:, column], order.relation, landmark)
    return held


def truth(scene: Scene, sentence: Sentence) -> Truth:
    """When `sentence` holds in `scene`; without windows if it never does.

    The clips that show the described things best are rated 4, others in proportion to their quality; the ratings of the
    three raters differ randomly.
    """
    clips = np.flatnonzero(held_clips(scene, [sentence])[:, 0])
    random = np.random.default_rng([scene.seed, zlib.crc32(sentence.text.encode())])
    disagreement = random.normal(0, _RATING_DEVIATION, (scene.clip_count, _RATERS))
    qualities = [min(_quality(scene, int(clip), part) for part in sentence.parts) for clip in clips]
    best = max(qualities, default=1.0)
    scores = []
    for clip, quality in zip(clips, qualities, strict=True):
        rated = np.rint(4 * min(1.0, quality / best / _BEST_QUALITY_SHARE) + disagreement[clip])
        low, middle, high = (int(score) for score in np.clip(rated, 0, 4))
        scores.append((low, middle, high))
    return Truth(_windows(clips), tuple(int(clip) for clip in clips), tuple(scores))


def true_sentences(scene: Scene, shortest: float = _MIN_WINDOW_SECONDS, most: float = 0.6) -> list[Sentence]:
    """Sentences that hold somewhere in the scene.

    Args:
        scene: the scene to describe.
        shortest: minimum duration of all windows of a sentence, in seconds.
        most: maximum total duration of the windows of a sentence, as a share of the scene.

    Returns:
        All such sentences of all kinds, in an order that depends only on the scene.
    """
    sentences = list(dict.fromkeys((*_candidates(scene), *_ordered_candidates(scene))))
    held = held_clips(scene, sentences)
    return [
        sentence
        for column, sentence in enumerate(sentences)
        if (windows := _windows(np.flatnonzero(held[:, column])))
        and min(end - start for start, end in windows) >= shortest
        and sum(end - start for start, end in windows) <= most * scene.duration
    ]


def choose_sentences(scene: Scene, count: int, random: Generator) -> list[Sentence]:
    """Choose true sentences of a scene: the kinds alternate, and sentences with different windows are preferred.

    Args:
        scene: the scene to describe.
        count: maximum number of sentences; fewer are returned if fewer hold.
        random: source of randomness.
    """
    candidates = true_sentences(scene)
    held = held_clips(scene, candidates)
    windows = {one: _windows(np.flatnonzero(held[:, column])) for column, one in enumerate(candidates)}
    order = random.permutation(len(candidates))
    pools = {kind: [candidates[i] for i in order if candidates[i].kind == kind] for kind in KINDS}
    kinds = [KINDS[i] for i in random.permutation(len(KINDS))]
    chosen: list[Sentence] = []
    seen: set[tuple[tuple[float, float], ...]] = set()
    while len(chosen) < count and any(pools.values()):
        for kind in kinds:
            if not pools[kind] or len(chosen) == count:
                continue
            fresh = [one for one in pools[kind] if windows[one] not in seen] or pools[kind]
            several = [one for one in fresh if len(windows[one]) > 1]
            sentence = several[0] if several and random.random() < _SEVERAL_SHARE else fresh[0]
            pools[kind].remove(sentence)
            seen.add(windows[sentence])
            chosen.append(sentence)
    return chosen


def _candidates(scene: Scene) -> Iterable[Sentence]:
    states = scene.clip_states
    for codes in np.unique(states.codes.reshape(-1, PART_COLUMNS), axis=0):
        if codes[0] >= 0:
            yield from _about_one(codes)
    pairs = {
        (tuple(first[:3]), tuple(second[:3]))
        for row in states.codes.tolist()
        for first, second in combinations([codes for codes in row if codes[0] >= 0 and codes[1] >= 0], 2)
        if tuple(first[:2]) != tuple(second[:2])
    }
    for first, second in sorted(pairs):
        yield Sentence((_look(first, sized=False), _look(second, sized=False)))
        if first[2] >= 0 and second[2] >= 0:
            yield Sentence((_look(first, sized=True), _look(second, sized=True)))


def _ordered_candidates(scene: Scene) -> Iterable[Sentence]:
    """Yield sentences with an order, about things that appear several times: they hold in some of the windows only."""
    states = scene.clip_states
    visible = states.codes.reshape(-1, PART_COLUMNS)
    visible = visible[(visible[:, 0] >= 0) & (visible[:, 1] >= 0)]
    named = [_look(codes, sized=False) for codes in np.unique(visible[:, :3], axis=0)]
    looks = [*dict.fromkeys(named), *dict.fromkeys(Description(look.shape) for look in named)]
    held = holds(states, part_codes([Sentence((look,)) for look in looks]))
    windows = {look: _windows(np.flatnonzero(held[:, column])) for column, look in enumerate(looks)}
    for look in looks:
        if len(windows[look]) < 2:
            continue
        yield Sentence((look,), Order("first"))
        yield Sentence((look,), Order("last"))
        for landmark in dict.fromkeys(named):
            if _lies_between(windows[landmark], windows[look]):
                yield Sentence((look,), Order("before", landmark))
                yield Sentence((look,), Order("after", landmark))


def _lies_between(landmark: tuple[tuple[float, float], ...], windows: tuple[tuple[float, float], ...]) -> bool:
    """Whether each window is completely before or after all windows of a landmark, with at least one on each side."""
    begin, end = landmark[0][0], landmark[-1][1]
    before, after = [window[1] <= begin for window in windows], [window[0] >= end for window in windows]
    return any(before) and any(after) and all(a or b for a, b in zip(before, after, strict=True))


def _in_order(held: NDArray[np.bool_], relation: str, landmark: NDArray[np.bool_] | None) -> NDArray[np.bool_]:
    """The clips of those runs of `held` [clips] that match a relation; `landmark` [clips] is where it is visible."""
    runs = [run for run in _runs(np.flatnonzero(held)) if len(run)]
    seen = np.flatnonzero(landmark) if landmark is not None else np.empty(0, np.intp)
    if relation in ("first", "last"):
        runs = runs[:1] if relation == "first" else runs[-1:]
    elif len(seen):
        runs = [run for run in runs if (run[-1] < seen[0] if relation == "before" else run[0] > seen[-1])]
    else:
        runs = []
    meant = np.zeros_like(held)
    for run in runs:
        meant[run] = True
    return meant


def _about_one(codes: NDArray[np.int8]) -> Iterable[Sentence]:
    shape, colour, size, place, action, colour_before = (int(code) for code in codes)
    form = SHAPES[shape]
    named = None if colour < 0 else _COLOUR_NAMES[colour]
    sizes = [None] if size < 0 else [None, _SIZE_NAMES[size]]
    for sized in sizes:
        for coloured in [None] if named is None else [None, named]:
            yield Sentence((Description(form, coloured, sized),))
            if place >= 0:
                yield Sentence((Description(form, coloured, sized, PLACES[place]),))
    if action >= 0:
        for sized in sizes if ACTIONS[action] not in ("grow", "shrink") else [None]:
            for coloured in (None, _COLOUR_NAMES[colour_before]):
                yield Sentence((Description(form, coloured, sized, None, ACTIONS[action]),))


def _look(codes: Sequence[int], sized: bool) -> Description:
    shape, colour, size = codes
    return Description(SHAPES[shape], _COLOUR_NAMES[colour], _SIZE_NAMES[size] if sized else None)


def _windows(clips: NDArray[np.intp]) -> tuple[tuple[float, float], ...]:
    return tuple((float(run[0]) * CLIP_SECONDS, float(run[-1] + 1) * CLIP_SECONDS) for run in _runs(clips) if len(run))


def _runs(clips: NDArray[np.intp]) -> list[NDArray[np.intp]]:
    """Split ascending clip indices into runs of consecutive ones."""
    return np.split(clips, np.flatnonzero(np.diff(clips) > 1) + 1)


def _quality(scene: Scene, clip: int, part: Description) -> float:
    """How well a clip shows a description, 0…1: the visibility of the best matching thing."""
    time = float(scene.clip_times[clip])
    row = States(scene.clip_states.codes[clip][:, None], scene.clip_states.things[clip][:, None])
    met = holds(row, part_codes([Sentence((part,))]))[:, 0]
    things = [scene.things[index] for index in scene.clip_states.things[clip][met]]
    return max(_visibility(thing, time, part.action is not None) for thing in things)


def _visibility(thing: Thing, time: float, acting: bool) -> float:
    """How well a thing is visible, 0…1: best if opaque, large and central, and in the middle of an action."""
    pose = thing.pose(time)
    size = min(1.0, (pose.radius - SIZES["small"]) / (SIZES["large"] - SIZES["small"]))
    centrality = 1 - min(1.0, float(np.hypot(pose.x - 0.5, pose.y - 0.5)) / 0.5)
    quality = pose.opacity * (0.74 + 0.15 * size + 0.11 * centrality)
    return quality * (0.7 + 0.3 * float(np.sin(np.pi * pose.progress))) if acting else quality
