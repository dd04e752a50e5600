"""Training batches of the demo CLIP: rendered frames, sentences, and which sentences match which frames."""

from __future__ import annotations

import random
from collections.abc import Generator
from contextlib import closing
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from tools.demo.frames import BatchPlan, FrameBlock, render_blocks
from vtg.demo.descriptions import Description, Order
from vtg.demo.sentences import RELATIONS, Sentence, holds, part_codes
from vtg.demo.wording import UNKNOWN, put_into_neutral_words, vocabulary
from vtg.demo.world import ACTIONS, COLOURS, PLACES, SHAPES, SIZES, States

__all__ = ["MAX_TEXT_TOKENS", "EncoderBatch", "EncoderBatches", "TokenRows"]

MAX_TEXT_TOKENS = 24  # tokens; no sentence of the world is longer
START_TOKEN, END_TOKEN, PADDING_TOKEN = 49406, 49407, 0  # of CLIP's tokenizer

NEUTRAL_SHARE = 0.06  # share of sentences without content; their logit is trained to 0, the threshold of all others
ACTION_WEIGHT = 0.3  # loss weight of actions and orders: one frame does not show them, but their words must be learned
# `_make_sentence` draws the kind of a sentence as a number in 0…1; these are the upper limits of the kinds.
PAIR_LIMIT, ORDER_LIMIT, OBJECT_LIMIT, PLACED_LIMIT = 0.25, 0.33, 0.5, 0.9
COLOUR_NAMES, SIZE_NAMES = tuple(COLOURS), tuple(SIZES)


@dataclass(frozen=True)
class EncoderBatch:
    """A batch of N frames and M sentences.

    Attributes:
        frames: uint8 [N, size, size, 3].
        codes: int8 [N, S, 6].
        poses: float32 [N, S, 7].
        slots: int8 [N, P].
        rows: int64 [M, L], token rows as encoded by `TokenRows`, padded.
        ends: int64 [M], index of each text's end token.
        parts: int8 [M, 2, 6], the descriptions of each sentence, as `part_codes` returns them.
        orders: int64 [M, 3], relation, shape and colour of the landmark of each sentence; −1 for none.
        truth: float32 [N, M]: 1 where the sentence holds in the frame; 0.5 for sentences without content.
        weights: float32 [M], loss weights.
        located: int64 [D], indices of the sentences that describe one thing, whose patches are known.
        patch_truth: float32 [N, P, D]: 1 where the patch shows a thing that the sentence describes.
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


class TokenRows:
    """The trained rows of the token embedding: one for each token of the demo vocabulary, and one for all others.

    Attributes:
        tokens: ids of CLIP's tokenizer, one for each row except the last, which is for unknown tokens.
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
        """Number of rows, including the last one."""
        return len(self.tokens) + 1

    def encode(self, text: str) -> list[int]:
        """Rows of a text, from its start token to its end token, at most MAX_TEXT_TOKENS.

        Commas and full stops are separate words.
        """
        rows = [self._row_of[START_TOKEN]]
        for word in text.replace(",", " ,").replace(".", " .").split():
            if word not in self._known:
                tokens = [-1] if word == UNKNOWN else self._tokenizer.encode(word)
                self._known[word] = [self._row_of.get(token, len(self.tokens)) for token in tokens]
            rows += self._known[word]
        return [*rows[: MAX_TEXT_TOKENS - 1], self._row_of[END_TOKEN]]


class EncoderBatches:
    """Endless training batches, the same for the same plan; a separate process renders the frames.

    Args:
        plan: sizes of the batches.
        token_rows: encodes the texts.
    """

    def __init__(self, plan: BatchPlan, token_rows: TokenRows) -> None:
        self._plan = plan
        self._token_rows = token_rows
        self._random = random.Random(plan.seed)  # noqa: S311 - not for security

    def __iter__(self) -> Generator[EncoderBatch, None, None]:
        with closing(render_blocks(self._plan)) as rendered:
            blocks = [next(rendered) for _ in range(2)]
            while True:
                for _ in range(self._plan.batches_per_block):
                    yield self._make_batch(blocks)
                blocks = [*blocks[-self._plan.blocks + 1 :], next(rendered)]

    def _make_batch(self, blocks: list[FrameBlock]) -> EncoderBatch:
        plan = self._plan
        picked = []
        for _ in range(plan.frames // 4):
            block, scene = self._random.choice(blocks), self._random.randrange(plan.block_scenes)
            picked += [
                (block, scene * plan.scene_frames + frame) for frame in self._random.sample(range(plan.scene_frames), 4)
            ]
        frames, codes, poses, slots = (
            np.stack([getattr(block, name)[index] for block, index in picked])
            for name in ("frames", "codes", "poses", "slots")
        )
        return self._add_sentences(FrameBlock(frames, codes, poses, slots))

    def _add_sentences(self, block: FrameBlock) -> EncoderBatch:
        codes, slots = block.codes, block.slots
        frame_codes = codes.tolist()
        drawn: list[tuple[Sentence, str, float]] = []  # sentence, text, loss weight
        for _ in range(self._plan.sentences):
            if self._random.random() < NEUTRAL_SHARE:
                drawn.append((Sentence((Description(),)), put_into_neutral_words(self._random), 1.0))
                continue
            sentence, text = _make_sentence(self._random, self._random.choice(frame_codes))
            drawn.append((sentence, text, 1.0 if sentence.single_frame else ACTION_WEIGHT))
        parts = part_codes([sentence for sentence, _, _ in drawn])
        is_neutral = np.all(parts < 0, axis=(1, 2))
        truth = holds(States(codes, np.zeros(codes.shape[:2], np.int32)), parts).astype(np.float32)
        truth[:, is_neutral] = 0.5
        is_located = np.array([len(sentence.parts) == 1 and sentence.single_frame for sentence, _, _ in drawn])
        located = np.flatnonzero(is_located & ~is_neutral)
        texts = [self._token_rows.encode(text) for _, text, _ in drawn]
        rows = np.zeros((len(texts), max(map(len, texts))), np.int64)
        for number, encoded in enumerate(texts):
            rows[number, : len(encoded)] = encoded
        return EncoderBatch(
            frames=block.frames,
            codes=codes,
            poses=block.poses,
            slots=slots,
            rows=rows,
            ends=np.array([len(text) - 1 for text in texts]),
            parts=parts,
            orders=np.array([_order_codes(sentence.order) for sentence, _, _ in drawn]),
            truth=truth,
            weights=np.array([weight for _, _, weight in drawn], np.float32),
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
    matches = np.all((codes[:, :, None] == wanted) | (wanted < 0), axis=-1) & (codes[:, :, None, 0] >= 0)  # [N, S, D]
    shown = np.take_along_axis(matches, slots.astype(np.int64).clip(min=0)[..., None], axis=1)  # [N, P, D]
    return (shown & (slots >= 0)[..., None]).astype(np.float32)


def _make_sentence(rng: random.Random, frame_codes: list[list[int]]) -> tuple[Sentence, str]:
    """Make a sentence about a frame, and its text; about half of them are false in that frame.

    Args:
        rng: source of randomness.
        frame_codes: codes [S][6] of the things in the frame; a first code of −1 means no thing.
    """
    things = [codes for codes in frame_codes if codes[0] >= 0]
    first = _describe(rng, rng.choice(things) if things and rng.random() < 0.9 else None)
    kind = rng.random()
    if kind < PAIR_LIMIT and len(things) != 1:
        second = _describe(rng, rng.choice(things) if things else None)
        sentence = _make_pair(rng, first, second)
    else:
        if kind < OBJECT_LIMIT:
            first = replace(first, place=None, action=None)
        elif kind < PLACED_LIMIT:
            first = replace(first, place=first.place or rng.choice(PLACES), action=None)
        else:
            first = replace(first, place=None, action=first.action or rng.choice(ACTIONS))
        order = _make_order(rng) if kind < ORDER_LIMIT else None
        sentence = Sentence((_change_one(rng, first) if rng.random() < 0.4 else first,), order)
    return _word_sentence(rng, sentence)


def _make_order(rng: random.Random) -> Order:
    """Any order: one frame does not show which window is meant, but the text tower must distinguish the words."""
    relation = rng.choice(RELATIONS)
    if relation in ("first", "last"):
        return Order(relation)
    return Order(relation, Description(rng.choice(SHAPES), rng.choice(COLOUR_NAMES)))


def _describe(rng: random.Random, codes: list[int] | None) -> Description:
    """A description with some attributes of a thing, always including its shape or its colour; any for None."""
    if codes is None:
        codes = [rng.randrange(8), rng.randrange(8), rng.randrange(3), rng.randrange(9), -1, -1]
    shape, colour, size, place, action, colour_before = codes
    colour = colour_before if action >= 0 and colour < 0 else colour
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
    """Draw one attribute anew: sentences with a single wrong word are the hardest negatives."""
    choices = {"shape": SHAPES, "colour": COLOUR_NAMES, "size": SIZE_NAMES, "place": PLACES, "action": ACTIONS}
    given = [name for name in choices if getattr(part, name) is not None]
    name = rng.choice(given)
    changed: dict[str, str] = {name: rng.choice(choices[name])}
    return replace(part, **changed)


def _word_sentence(rng: random.Random, sentence: Sentence) -> tuple[Sentence, str]:
    """The text of a sentence, in 15 % of cases with an unknown word, which must not influence the embedding.

    If the unknown word replaces an attribute, the returned sentence lacks that attribute.
    """
    text = sentence.paraphrase(rng)
    if rng.random() > 0.15:
        return sentence, text
    words = text.split()
    part = sentence.parts[0]
    removed: dict[str, None] = {}
    once = [name for name in (part.colour, part.shape) if name is not None and words.count(name) == 1]
    if len(sentence.parts) == 1 and part.action is None and len(once) == 2:
        name = rng.choice(("", "colour", "shape"))
        if name:
            words[words.index(getattr(part, name))] = UNKNOWN
            removed = {name: None}
    if not removed:
        words.insert(rng.randrange(len(words) + 1), UNKNOWN)
    return Sentence((replace(part, **removed), *sentence.parts[1:]), sentence.order), " ".join(words)
