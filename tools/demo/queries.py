"""Training queries of the bundled head: true sentences about a scene, and hard negatives."""

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

__all__ = ["SceneQuery", "make_queries"]

PARAPHRASED_SHARE = 0.5  # share of the queries that are paraphrased
# Relative frequency of each kind of true sentence: what a single frame does not show takes longest to learn.
KIND_SHARES = {"object": 1.0, "placed": 1.5, "pair": 2.0, "move": 3.0, "turn": 3.0, "resize": 2.0, "order": 4.0}
_RESIZING, _MOVING = ("grow", "shrink"), ("left", "right", "up", "down")
_DRAWS_PER_SENTENCE = 3  # maximum, as some drawn sentences are true or duplicates

Choice = TypeVar("Choice")
Look = tuple[str, str | None, str | None]  # shape, colour, size


@dataclass(frozen=True)
class SceneQuery:
    """A query about a scene, with its targets.

    Attributes:
        sentence: the meaning of the query.
        text: its wording, plain or paraphrased.
        windows: [N, 2] windows that match, in seconds; N is 0 if none does.
        saliency: [clips] 0…1.
    """

    sentence: Sentence
    text: str
    windows: NDArray[np.float32]
    saliency: NDArray[np.float32]


def make_queries(scene: Scene, true: int, false: int, random: Generator) -> list[SceneQuery]:
    """Generate queries about a scene: first those that match somewhere in it, then those that match nowhere.

    The false queries are those that a head takes for true if it only considers single frames or some of the words:
    things of the scene with an action that they do not perform, other actions or directions, pairs of which one thing
    is missing, and wrong orders.

    Args:
        scene: the scene to describe.
        true: approximate number of true queries.
        false: maximum number of false queries.
        random: source of randomness.
    """
    words = Random(int(random.integers(1 << 30)))  # noqa: S311 - not for security
    true_ones = true_sentences(scene)
    queries = [_make_query(scene, sentence, words) for sentence in _choose(true_ones, true, random)]
    drawn: dict[Sentence, None] = {}
    candidates = _false_sentences(scene, true_ones, random)
    for _ in range(_DRAWS_PER_SENTENCE * false):
        if len(drawn) == false:
            break
        if (sentence := next(candidates)) is not None:
            drawn[sentence] = None
    clips = held_clips(scene, list(drawn))
    false_sentences = [sentence for sentence, held in zip(drawn, clips.T, strict=True) if not held.any()]
    return queries + [_make_query(scene, sentence, words) for sentence in false_sentences]


def _choose(true_ones: Sequence[Sentence], count: int, random: Generator) -> list[Sentence]:
    pools = {kind: [sentence for sentence in true_ones if sentence.kind == kind] for kind in KINDS}
    total = sum(KIND_SHARES[kind] for kind in KINDS if pools[kind])
    chosen: dict[Sentence, None] = {}
    for kind, pool in pools.items():
        for i in random.permutation(len(pool))[: round(count * KIND_SHARES[kind] / total)]:
            chosen[pool[i]] = None
    return list(chosen)


def _make_query(scene: Scene, sentence: Sentence, words: Random) -> SceneQuery:
    text = sentence.paraphrase(words) if words.random() < PARAPHRASED_SHARE else sentence.text
    true = truth(scene, sentence)
    saliency = np.zeros(scene.clip_count, np.float32)
    if true.windows:
        saliency[list(true.relevant_clip_ids)] = np.array(true.saliency_scores, np.float32).sum(axis=1) / 12
    return SceneQuery(sentence, text, np.array(true.windows, np.float32).reshape(-1, 2), saliency)


def _false_sentences(scene: Scene, true_ones: Sequence[Sentence], random: Generator) -> Iterator[Sentence | None]:
    """Yield sentences endlessly, most of them false; None for a draw that results in no sentence."""
    looks = _looks(scene)
    acting = [sentence for sentence in true_ones if sentence.kind in ("move", "turn", "resize")]
    absent = absent_sentences(scene, 24, random)
    generators: list[tuple[float, Callable[[], Sentence | None]]] = [
        (0.22, lambda: _with_any_action(_pick(looks, random), random)),
        (0.17, lambda: _with_other_action(_pick(acting, random), random) if acting else None),
        (0.34, lambda: _with_any_order(looks, random)),
        (0.09, lambda: _pick(absent, random) if absent else None),
        (0.13, lambda: _make_pair(looks, random)),
        (0.05, lambda: _with_any_place(_pick(looks, random), random)),
    ]
    shares = np.array([share for share, _ in generators])
    while True:
        yield generators[int(random.choice(len(generators), p=shares))][1]()


def _looks(scene: Scene) -> list[Look]:
    """All looks of the scene's things; the size is None where a thing is growing or shrinking."""
    codes = scene.clip_states.codes.reshape(-1, scene.clip_states.codes.shape[-1])
    codes = np.unique(codes[(codes[:, 0] >= 0) & (codes[:, 1] >= 0), :3], axis=0)
    colours, sizes = tuple(COLOURS), tuple(SIZES)
    return [(SHAPES[shape], colours[colour], None if size < 0 else sizes[size]) for shape, colour, size in codes]


def _with_any_action(look: Look, random: Generator) -> Sentence | None:
    """A look of the scene's things with any action."""
    shape, colour, size = _partial_look(look, random)
    moves = random.random() < 0.5
    action = _pick((*_MOVING, *_RESIZING) if moves else ACTIONS, random)
    if action == f"turn {colour}":
        return None
    return Sentence((Description(shape, colour, None if action in _RESIZING else size, None, action),))


def _with_other_action(sentence: Sentence, random: Generator) -> Sentence:
    """The sentence with another action of the same kind."""
    (part,) = sentence.parts
    turns = tuple(f"turn {colour}" for colour in COLOURS if colour != part.colour)
    kind = next(kind for kind in (_MOVING, _RESIZING, turns) if part.action in kind)
    return Sentence((replace(part, action=_pick([action for action in kind if action != part.action], random)),))


def _with_any_order(looks: Sequence[Look], random: Generator) -> Sentence | None:
    shape, colour, _ = _pick(looks, random)
    what = Description(shape, None if random.random() < 0.3 else colour)
    if random.random() < 0.45:
        landmark = Description(*_pick(looks, random)[:2])
    else:
        landmark = Description(_pick(SHAPES, random), _pick(tuple(COLOURS), random))
    return None if landmark == what else Sentence((what,), Order(_pick(("before", "after"), random), landmark))


def _make_pair(looks: Sequence[Look], random: Generator) -> Sentence | None:
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


def _with_any_place(look: Look, random: Generator) -> Sentence:
    return Sentence((Description(*_partial_look(look, random), _pick(PLACES, random)),))


def _partial_look(look: Look, random: Generator) -> Look:
    """The look without its size (35 %), without its colour (15 %), or unchanged."""
    shape, colour, size = look
    draw = random.random()
    if draw < 0.35:
        size = None
    elif draw < 0.5:
        colour = None
    return shape, colour, size


def _pick(choices: Sequence[Choice], random: Generator) -> Choice:
    return choices[int(random.integers(len(choices)))]
