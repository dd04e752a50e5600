"""Training batches of the demo CLIP: frames, sentences, and which match."""

from __future__ import annotations

import random
from collections.abc import Generator
from contextlib import closing
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from tools.demo.frames import FrameBlock, Plan, render_blocks
from vtg.demo.descriptions import Description, Order
from vtg.demo.sentences import RELATIONS, Sentence, holds, part_codes
from vtg.demo.wording import UNKNOWN, put_into_neutral_words, vocabulary
from vtg.demo.world import ACTIONS, COLOURS, PLACES, SHAPES, SIZES, States

__all__ = ["MAX_TEXT_TOKENS", "Lesson", "Lessons", "Words"]

MAX_TEXT_TOKENS = 24  # tokens; no sentence of the world is longer
START_TOKEN, END_TOKEN, PADDING_TOKEN = 49406, 49407, 0  # of CLIP's tokenizer

NEUTRAL_SHARE = 0.06  # of the sentences say nothing; their logit is held at 0, the threshold of all others
ACTION_WEIGHT = 0.3  # one frame cannot tell whether something moves or comes first, but the words have to be learned
ORDERED_BELOW = 0.33  # of a draw from 0.25, where pairs end, to 0.5, where places begin: 8 % of the sentences
COLOUR_NAMES, SIZE_NAMES = tuple(COLOURS), tuple(SIZES)


@dataclass(frozen=True)
class Lesson:
    """N frames and M sentences.

    Attributes:
        frames: uint8 [N, size, size, 3].
        codes: int8 [N, S, 6].
        poses: float32 [N, S, 7].
        slots: int8 [N, P].
        rows: int64 [M, L] rows of `Words`, padded.
        ends: int64 [M], where each text ends.
        parts: int8 [M, 2, 6], what the sentences say, as `part_codes`.
        orders: int64 [M, 3], of each sentence the relation and the landmark's shape and colour; −1 for none.
        truth: float32 [N, M]: 1 where the sentence holds in the frame, 0.5 everywhere for one that says nothing.
        weights: float32 [M].
        located: int64 [D], the sentences about one thing, which can be pointed at.
        patch_truth: float32 [N, P, D]: 1 where the patch shows a thing that the sentence is about.
    """

    frames: NDArray[np.uint8]
    codes: NDArray[np.int8]
    poses: NDArray[np.float32]
    slots: NDArray[np.int8]
    rows: NDArray[np.int64]
    ends: NDArray[np.int64]
    parts: NDArray[np.int8]
    orders: NDArray[np.int64]
    truth: NDArray[np.float32]
    weights: NDArray[np.float32]
    located: NDArray[np.int64]
    patch_truth: NDArray[np.float32]


class Words:
    """The token rows that are trained: those of the world's words, and last one for all others.

    Attributes:
        tokens: ids of CLIP's tokenizer, one for each row but the last.
    """

    def __init__(self) -> None:
        from open_clip.tokenizer import SimpleTokenizer

        self._tokenizer = SimpleTokenizer()
        used = {START_TOKEN, END_TOKEN, PADDING_TOKEN}
        for phrase in vocabulary():
            used.update(self._tokenizer.encode(phrase))
        self.tokens = sorted(used)
        self._row_of = {token: row for row, token in enumerate(self.tokens)}
        self._known: dict[str, list[int]] = {}

    @property
    def row_count(self) -> int:
        """How many rows there are, the last one included."""
        return len(self.tokens) + 1

    def encode(self, text: str) -> list[int]:
        """Rows of a text, from its start to its end token, at most MAX_TEXT_TOKENS; commas and full stops go alone."""
        rows = [self._row_of[START_TOKEN]]
        for word in text.replace(",", " ,").replace(".", " .").split():
            if word not in self._known:
                tokens = [-1] if word == UNKNOWN else self._tokenizer.encode(word)
                self._known[word] = [self._row_of.get(token, len(self.tokens)) for token in tokens]
            rows += self._known[word]
        return [*rows[: MAX_TEXT_TOKENS - 1], self._row_of[END_TOKEN]]


class Lessons:
    """Endless lessons, the same for the same plan; frames are rendered by a process of its own.

    Args:
        plan: how much is shown at a time.
        words: which rows texts are made of.
    """

    def __init__(self, plan: Plan, words: Words) -> None:
        self._plan = plan
        self._words = words
        self._random = random.Random(plan.seed)  # noqa: S311 - nothing secret about it

    def __iter__(self) -> Generator[Lesson, None, None]:
        with closing(render_blocks(self._plan)) as rendered:
            at_hand = [next(rendered) for _ in range(2)]
            while True:
                for _ in range(self._plan.lessons_per_block):
                    yield self._make_lesson(at_hand)
                at_hand = [*at_hand[-self._plan.blocks + 1 :], next(rendered)]

    def _make_lesson(self, at_hand: list[FrameBlock]) -> Lesson:
        plan = self._plan
        picked = []
        for _ in range(plan.frames // 4):
            block, scene = self._random.choice(at_hand), self._random.randrange(plan.block_scenes)
            picked += [
                (block, scene * plan.scene_frames + frame) for frame in self._random.sample(range(plan.scene_frames), 4)
            ]
        frames, codes, poses, slots = (
            np.stack([getattr(block, name)[index] for block, index in picked])
            for name in ("frames", "codes", "poses", "slots")
        )
        return self._ask(FrameBlock(frames, codes, poses, slots))

    def _ask(self, shown: FrameBlock) -> Lesson:
        codes, slots = shown.codes, shown.slots
        seen = codes.tolist()
        asked: list[tuple[Sentence, str, float]] = []
        for _ in range(self._plan.sentences):
            if self._random.random() < NEUTRAL_SHARE:
                asked.append((Sentence((Description(),)), put_into_neutral_words(self._random), 1.0))
                continue
            sentence, text = _make_sentence(self._random, self._random.choice(seen))
            asked.append((sentence, text, 1.0 if sentence.single_frame else ACTION_WEIGHT))
        parts = part_codes([sentence for sentence, _, _ in asked])
        says_nothing = np.all(parts < 0, axis=(1, 2))
        truth = holds(States(codes, np.zeros(codes.shape[:2], np.int32)), parts).astype(np.float32)
        truth[:, says_nothing] = 0.5
        pointed = np.array([len(sentence.parts) == 1 and sentence.single_frame for sentence, _, _ in asked])
        located = np.flatnonzero(pointed & ~says_nothing)
        texts = [self._words.encode(text) for _, text, _ in asked]
        rows = np.zeros((len(texts), max(map(len, texts))), np.int64)
        for number, encoded in enumerate(texts):
            rows[number, : len(encoded)] = encoded
        return Lesson(
            frames=shown.frames,
            codes=codes,
            poses=shown.poses,
            slots=slots,
            rows=rows,
            ends=np.array([len(text) - 1 for text in texts]),
            parts=parts,
            orders=np.array([_order_codes(sentence.order) for sentence, _, _ in asked]),
            truth=truth,
            weights=np.array([weight for _, _, weight in asked], np.float32),
            located=located,
            patch_truth=_patch_truth(codes, slots, parts[located, 0]),
        )


def _order_codes(order: Order | None) -> tuple[int, int, int]:
    if order is None:
        return -1, -1, -1
    shape, colour = (-1, -1) if order.landmark is None else order.landmark.codes[:2]
    return RELATIONS.index(order.relation), shape, colour


def _patch_truth(codes: NDArray[np.int8], slots: NDArray[np.int8], parts: NDArray[np.int8]) -> NDArray[np.float32]:
    """float32 [N, P, D] from codes [N, S, 6], slots [N, P] and descriptions [D, 6]."""
    wanted = parts[None, None]
    met = np.all((codes[:, :, None] == wanted) | (wanted < 0), axis=-1) & (codes[:, :, None, 0] >= 0)  # [N, S, D]
    shown = np.take_along_axis(met, slots.astype(np.int64).clip(min=0)[..., None], axis=1)  # [N, P, D]
    return (shown & (slots >= 0)[..., None]).astype(np.float32)


def _make_sentence(rng: random.Random, seen: list[list[int]]) -> tuple[Sentence, str]:
    """A sentence about a frame with things `seen`, and words for it; about every second one is not true there."""
    things = [codes for codes in seen if codes[0] >= 0]
    first = _describe(rng, rng.choice(things) if things and rng.random() < 0.9 else None)
    kind = rng.random()
    if kind < 0.25 and len(things) != 1:
        second = _describe(rng, rng.choice(things) if things else None)
        sentence = _make_pair(rng, first, second)
    else:
        if kind < 0.5:
            first = replace(first, place=None, action=None)
        elif kind < 0.9:
            first = replace(first, place=first.place or rng.choice(PLACES), action=None)
        else:
            first = replace(first, place=None, action=first.action or rng.choice(ACTIONS))
        order = _make_order(rng) if kind < ORDERED_BELOW else None
        sentence = Sentence((_change_one(rng, first) if rng.random() < 0.4 else first,), order)
    return _put(rng, sentence)


def _make_order(rng: random.Random) -> Order:
    """Any: which of a thing's windows is meant is not for one frame to show, but the words have to be told apart."""
    relation = rng.choice(RELATIONS)
    if relation in ("first", "last"):
        return Order(relation)
    return Order(relation, Description(rng.choice(SHAPES), rng.choice(COLOUR_NAMES)))


def _describe(rng: random.Random, codes: list[int] | None) -> Description:
    """Some of what can be said of a thing, and always its shape or its colour."""
    if codes is None:
        codes = [rng.randrange(8), rng.randrange(8), rng.randrange(3), rng.randrange(9), -1, -1]
    shape, colour, size, place, action, before = codes
    colour = before if action >= 0 and colour < 0 else colour
    named = colour >= 0 and rng.random() < 0.8
    return Description(
        shape=SHAPES[shape] if not named or rng.random() < 0.9 else None,
        colour=COLOUR_NAMES[colour] if named else None,
        size=SIZE_NAMES[size] if size >= 0 and rng.random() < 0.5 else None,
        place=PLACES[place] if place >= 0 else None,
        action=ACTIONS[action] if action >= 0 else None,
    )


def _make_pair(rng: random.Random, first: Description, second: Description) -> Sentence:
    first, second = (
        replace(
            part,
            shape=part.shape or rng.choice(SHAPES),
            colour=part.colour or rng.choice(COLOUR_NAMES),
            place=None,
            action=None,
        )
        for part in (first, second)
    )
    draw = rng.random()
    if draw < 0.2:
        first, second = replace(first, colour=second.colour), replace(second, colour=first.colour)
    elif draw < 0.3:
        first = _change_one(rng, first)
    elif draw < 0.4:
        second = _change_one(rng, second)
    if (first.shape, first.colour) == (second.shape, second.colour):
        second = replace(second, shape=rng.choice([shape for shape in SHAPES if shape != first.shape]))
    return Sentence((first, second))


def _change_one(rng: random.Random, part: Description) -> Description:
    """The hardest of the untrue sentences: only one thing about it is different."""
    choices = {"shape": SHAPES, "colour": COLOUR_NAMES, "size": SIZE_NAMES, "place": PLACES, "action": ACTIONS}
    said = [name for name in choices if getattr(part, name) is not None]
    name = rng.choice(said)
    changed: dict[str, str] = {name: rng.choice(choices[name])}
    return replace(part, **changed)


def _put(rng: random.Random, sentence: Sentence) -> tuple[Sentence, str]:
    """Words for a sentence, sometimes with one that the model does not know and that therefore counts for nothing."""
    text = sentence.paraphrase(rng)
    if rng.random() > 0.15:
        return sentence, text
    words = text.split()
    part = sentence.parts[0]
    blotted: dict[str, None] = {}
    once = [name for name in (part.colour, part.shape) if name is not None and words.count(name) == 1]
    if len(sentence.parts) == 1 and part.action is None and len(once) == 2:
        name = rng.choice(("", "colour", "shape"))
        if name:
            words[words.index(getattr(part, name))] = UNKNOWN
            blotted = {name: None}
    if not blotted:
        words.insert(rng.randrange(len(words) + 1), UNKNOWN)
    return Sentence((replace(part, **blotted), *sentence.parts[1:]), sentence.order), " ".join(words)
