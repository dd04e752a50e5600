"""Queries to train the bundled head: true sentences about a scene, and hard negatives."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from random import Random
from typing import TypeVar

import numpy as np
from numpy.random import Generator
from numpy.typing import NDArray

from vtg.demo import Scene, Sentence, true_sentences, truth
from vtg.demo.absences import absent_sentences
from vtg.demo.descriptions import Description, Order
from vtg.demo.sentences import KINDS, held_clips
from vtg.demo.world import ACTIONS, COLOURS, PLACES, SHAPES, SIZES

__all__ = ["Question", "ask_about"]

PARAPHRASED_SHARE = 0.5  # of the questions are not in the plainest words
# What a single frame does not show takes longest to learn.
SHARES = {"object": 1.0, "placed": 1.5, "pair": 2.0, "move": 3.0, "turn": 3.0, "resize": 2.0, "order": 4.0}
_RESIZING, _MOVING = ("grow", "shrink"), ("left", "right", "up", "down")
_DRAWS = 3  # for each false sentence: some are true, some come twice

Choice = TypeVar("Choice")
Look = tuple[str, str | None, str | None]  # shape, colour, size


@dataclass(frozen=True)
class Question:
    """A sentence, in the words in which it is asked about a scene.

    Attributes:
        sentence: what is asked.
        text: in words.
        windows: [N, 2] seconds in which it is true; none where it is false.
        saliency: [clips] 0…1.
    """

    sentence: Sentence
    text: str
    windows: NDArray[np.float32]
    saliency: NDArray[np.float32]


def ask_about(scene: Scene, true: int, false: int, random: Generator) -> list[Question]:
    """Questions about a scene, the true ones first.

    The false ones are what a head that looks only at single frames, or only at half of the words, takes for true: looks
    that are there but do not act so, actions of another kind or in another direction, pairs of which one is not there,
    orders the wrong way round.

    Args:
        scene: what is asked about.
        true: about how many are true.
        false: how many are false, at most.
        random: decides which.
    """
    words = Random(int(random.integers(1 << 30)))  # noqa: S311 - nothing secret about it
    true_ones = true_sentences(scene)
    questions = [_put(scene, sentence, words) for sentence in _choose(true_ones, true, random)]
    drawn: dict[Sentence, None] = {}
    tries = _false_sentences(scene, true_ones, random)
    for _ in range(_DRAWS * false):
        if len(drawn) == false:
            break
        if (sentence := next(tries)) is not None:
            drawn[sentence] = None
    clips = held_clips(scene, list(drawn))
    questions += [_put(scene, sentence, words) for sentence, held in zip(drawn, clips.T, strict=True) if not held.any()]
    return questions


def _choose(true_ones: Sequence[Sentence], count: int, random: Generator) -> list[Sentence]:
    pools = {kind: [sentence for sentence in true_ones if sentence.kind == kind] for kind in KINDS}
    total = sum(SHARES[kind] for kind in KINDS if pools[kind])
    chosen: dict[Sentence, None] = {}
    for kind, pool in pools.items():
        for i in random.permutation(len(pool))[: round(count * SHARES[kind] / total)]:
            chosen[pool[i]] = None
    return list(chosen)


def _put(scene: Scene, sentence: Sentence, words: Random) -> Question:
    text = sentence.paraphrase(words) if words.random() < PARAPHRASED_SHARE else sentence.text
    true = truth(scene, sentence)
    saliency = np.zeros(scene.clip_count, np.float32)
    if true.windows:
        saliency[list(true.relevant_clip_ids)] = np.array(true.saliency_scores, np.float32).sum(axis=1) / 12
    return Question(sentence, text, np.array(true.windows, np.float32).reshape(-1, 2), saliency)


def _false_sentences(scene: Scene, true_ones: Sequence[Sentence], random: Generator) -> Iterator[Sentence | None]:
    """Endless sentences of which most are false; None for a draw that gives no sentence."""
    looks = _looks(scene)
    acting = [sentence for sentence in true_ones if sentence.kind in ("move", "turn", "resize")]
    absent = absent_sentences(scene, 24, random)
    ways: list[tuple[float, Callable[[], Sentence | None]]] = [
        (0.22, lambda: _acts(_pick(looks, random), random)),
        (0.17, lambda: _acts_otherwise(_pick(acting, random), random) if acting else None),
        (0.34, lambda: _ordered(looks, random)),
        (0.09, lambda: _pick(absent, random) if absent else None),
        (0.13, lambda: _paired(looks, random)),
        (0.05, lambda: _placed(_pick(looks, random), random)),
    ]
    shares = np.array([share for share, _ in ways])
    while True:
        yield ways[int(random.choice(len(ways), p=shares))][1]()


def _looks(scene: Scene) -> list[Look]:
    codes = scene.clip_states.codes.reshape(-1, scene.clip_states.codes.shape[-1])
    codes = np.unique(codes[(codes[:, 0] >= 0) & (codes[:, 1] >= 0), :3], axis=0)
    colours, sizes = tuple(COLOURS), tuple(SIZES)
    return [(SHAPES[shape], colours[colour], None if size < 0 else sizes[size]) for shape, colour, size in codes]


def _acts(look: Look, random: Generator) -> Sentence | None:
    """A look that is there and any action."""
    shape, colour, size = _partial_look(look, random)
    moves = random.random() < 0.5
    action = _pick((*_MOVING, *_RESIZING) if moves else ACTIONS, random)
    if action == f"turn {colour}":
        return None
    return Sentence((Description(shape, colour, None if action in _RESIZING else size, None, action),))


def _acts_otherwise(sentence: Sentence, random: Generator) -> Sentence:
    """What acts, doing something else of the same kind."""
    (part,) = sentence.parts
    turns = tuple(f"turn {colour}" for colour in COLOURS if colour != part.colour)
    kind = next(kind for kind in (_MOVING, _RESIZING, turns) if part.action in kind)
    return Sentence((replace(part, action=_pick([action for action in kind if action != part.action], random)),))


def _ordered(looks: Sequence[Look], random: Generator) -> Sentence | None:
    shape, colour, _ = _pick(looks, random)
    what = Description(shape, None if random.random() < 0.3 else colour)
    if random.random() < 0.45:
        landmark = Description(*_pick(looks, random)[:2])
    else:
        landmark = Description(_pick(SHAPES, random), _pick(tuple(COLOURS), random))
    return None if landmark == what else Sentence((what,), Order(_pick(("before", "after"), random), landmark))


def _paired(looks: Sequence[Look], random: Generator) -> Sentence | None:
    one, other = _pick(looks, random), _pick(looks, random)
    sized = random.random() < 0.5
    draw = random.random()
    if draw < 0.16:
        one = (one[0], _pick(tuple(COLOURS), random), one[2])
    elif draw < 0.28:
        one = (_pick(SHAPES, random), *one[1:])
    elif draw < 0.4:
        one = (*one[:2], _pick(tuple(SIZES), random))
    parts = tuple(Description(shape, colour, size if sized else None) for shape, colour, size in (one, other))
    return None if parts[0] == parts[1] else Sentence(parts)


def _placed(look: Look, random: Generator) -> Sentence:
    return Sentence((Description(*_partial_look(look, random), _pick(PLACES, random)),))


def _partial_look(look: Look, random: Generator) -> Look:
    """A look with something left out, mostly."""
    shape, colour, size = look
    draw = random.random()
    if draw < 0.35:
        size = None
    elif draw < 0.5:
        colour = None
    return shape, colour, size


def _pick(choices: Sequence[Choice], random: Generator) -> Choice:
    return choices[int(random.integers(len(choices)))]
