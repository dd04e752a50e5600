"""Sentences that match nothing in a scene (hard negatives)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from numpy.random import Generator

from vtg.demo.descriptions import Description
from vtg.demo.scene import Scene
from vtg.demo.sentences import KINDS, Sentence, held_clips, true_sentences
from vtg.demo.world import ACTIONS, COLOURS, PLACES, SHAPES, SIZES

__all__ = ["absent_sentences"]

_NEAR_SHARE = 0.5  # share of sentences that differ from a true one in one word; in the others, all words are drawn
_VALUES: dict[str, Sequence[str]] = {
    "shape": SHAPES,
    "colour": tuple(COLOURS),
    "size": tuple(SIZES),
    "place": PLACES,
    "action": ACTIONS,
}
_MAX_DRAWS = 40  # for each sentence: in scenes with many things, many drawn sentences are true


def absent_sentences(scene: Scene, count: int, random: Generator) -> list[Sentence]:
    """Generate hard negatives: sentences of all kinds that hold nowhere in a scene, but resemble true ones.

    Each is a true sentence of which one word or all words of a description are drawn anew. In a sentence with an order,
    the described thing must not appear at all, because "the last red circle" always holds where there is one.

    Args:
        scene: the scene in which the sentences do not hold.
        count: maximum number of sentences, all different; the kinds of the scene's true sentences alternate.
        random: source of randomness.
    """
    true = true_sentences(scene)
    pools = {kind: [sentence for sentence in true if sentence.kind == kind] for kind in KINDS}
    kinds = [KINDS[i] for i in random.permutation(len(KINDS)) if pools[KINDS[i]]]
    found: dict[Sentence, None] = {}
    for draw in range(_MAX_DRAWS * count if kinds else 0):
        pool = pools[kinds[draw % len(kinds)]]
        sentence = _change(pool[int(random.integers(len(pool)))], random)
        if _is_meaningful(sentence) and not held_clips(scene, [replace(sentence, order=None)]).any():
            found[sentence] = None
        if len(found) == count:
            break
    return list(found)


def _change(sentence: Sentence, random: Generator) -> Sentence:
    """The sentence with one word or all words of one of its descriptions drawn anew."""
    place = int(random.integers(len(sentence.parts)))
    part = sentence.parts[place]
    given = [name for name in _VALUES if getattr(part, name) is not None]
    near = random.random() < _NEAR_SHARE
    for name in [given[int(random.integers(len(given)))]] if near else given:
        part = _draw(part, name, random)
    return replace(sentence, parts=(*sentence.parts[:place], part, *sentence.parts[place + 1 :]))


def _draw(part: Description, name: str, random: Generator) -> Description:
    """The description with another value of an attribute; an action keeps its kind (move, turn or resize)."""
    value = getattr(part, name)
    turns = name == "action" and value.startswith("turn")
    resizes = value in ("grow", "shrink")
    others = [
        other
        for other in _VALUES[name]
        if other != value
        and (name != "action" or (other.startswith("turn") == turns and (other in ("grow", "shrink")) == resizes))
    ]
    return replace(part, **{name: others[int(random.integers(len(others)))]})


def _is_meaningful(sentence: Sentence) -> bool:
    """Whether a pair describes two different things, and no thing turns into its present colour."""
    return len(set(sentence.parts)) == len(sentence.parts) and all(
        part.colour is None or part.action != f"turn {part.colour}" for part in sentence.parts
    )
