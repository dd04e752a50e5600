"""Likelihood of a text in a language, by a model of letter pairs.

`text_likelihood` compares decodings of the same bytes: the correct one is likely in a language of its encoding. The
models are built from the samples in `languages.toml` on first use.
"""

from __future__ import annotations

import functools
import itertools
import math
import sys
import unicodedata
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

__all__ = ["TextLikelihood", "language_codes", "text_likelihood"]

MAX_WORDS = 600  # of a text that are scored
MAX_WORD_LETTERS = 40
PAIR_WEIGHT = 6.0  # occurrences of a letter at which pair and single-letter statistics have the same weight
EM_STEPS = 8
LANGUAGE_PRIOR_EXPONENT = 1.5  # above 1: a single word in another language than its neighbours is less likely

# Log probabilities of characters that are not in the samples.
ASCII_LETTER = -3.3  # in a language that is not written with a-z
FOREIGN_LETTER = -11.0
SCRIPT_CHANGES = (-5.0, -2.5)  # within a word: between alphabets, and to logographic or syllabic scripts
MARK_INSIDE = -6.0  # between two letters
UNPAIRED_QUOTE = -4.0
CASE_CHANGE = -4.0  # "пРИВЕТ"
CAPITAL_INSIDE = -0.5  # "ПРИВЕТ"
PUNCTUATION = -3.5
SYMBOL = -9.0
NOT_TEXT = -14.0  # control characters, private use, unassigned, undecodable
RARE = {"CJK": 0.3 / 7000, "HANGUL": 0.2 / 2400, "KATAKANA": 0.05 / 90, "HIRAGANA": 0.05 / 90}
RARE_ELSEWHERE = 0.1 / 400  # for alphabets
RARE_MASS = 0.2  # total probability of characters that are in neither letters nor sample of a language

PUNCTUATION_MARKS = frozenset("“”„‘’‚–—…«»‹›¿¡♪♫·•\xa0،؟؛、。「」『』？！，：；（）～・《》【】　׳״")
MARKS_IN_WORDS = frozenset("’·…–—\xad־׳״\u200c")


@dataclass(frozen=True)
class TextLikelihood:
    """Likelihood of a text under a mixture of languages.

    Attributes:
        log_probability: of the whole text; comparable between decodings of the same bytes.
        per_byte: mean over words and marks that are not ASCII; 0 where there are none.
        foreign_bytes: approximate number of bytes of these.
    """

    log_probability: float
    per_byte: float
    foreign_bytes: int


@functools.cache
def language_codes() -> dict[str, str]:
    """The languages with a model, by each of their names in file names, lower case."""
    return {name: language for language, facts in _languages().items() for name in facts["names"].split()}


def text_likelihood(text: str, languages: Sequence[str]) -> TextLikelihood:
    """Score a text as a mixture of languages; ASCII words count for the weights of the languages.

    Args:
        text: some lines; only the first `MAX_WORDS` words are used.
        languages: values of `language_codes`, at least one.
    """
    words, marks, mark_count = _split(text)
    if not words:
        return TextLikelihood(marks, marks / max(mark_count, 1), mark_count)
    table = np.array([[_model(language).word(word) for language in languages] for word in words])
    weights = np.full(len(languages), 1 / len(languages))
    for _ in range(EM_STEPS):
        joint = table + LANGUAGE_PRIOR_EXPONENT * np.log(weights)
        shares = np.exp(joint - joint.max(axis=1, keepdims=True))
        shares /= shares.sum(axis=1, keepdims=True)
        weights = (shares.sum(axis=0) + 0.1) / (len(words) + 0.1 * len(languages))
    joint = table + LANGUAGE_PRIOR_EXPONENT * np.log(weights)
    highest = joint.max(axis=1)
    each = highest + np.log(np.exp(joint - highest[:, None]).sum(axis=1)) + [_case_cost(word) for word in words]
    foreign = np.array([not word.isascii() for word in words])
    size = mark_count + sum(map(_size, itertools.compress(words, foreign)))
    return TextLikelihood(float(each.sum()) + marks, (float(each[foreign].sum()) + marks) / max(size, 1), size)


def _size(word: str) -> int:
    """Approximate number of bytes of a word and the character after it."""
    return 1 + sum(2 if "\u2e80" <= letter <= "\uffee" else 1 for letter in word)


def _split(text: str) -> tuple[list[str], float, int]:
    """The words of a text, and the log probability and number of its other characters that are not ASCII."""
    words: list[str] = []
    word: list[str] = []
    marks, mark_count = UNPAIRED_QUOTE * abs(text.count("«") - text.count("»")), 0
    for place, character in enumerate(text):
        if character.isalpha() or (word and unicodedata.category(character) in ("Mn", "Mc")):
            word.append(character)
            if len(word) < MAX_WORD_LETTERS:
                continue
        elif not character.isascii():
            mark_count += 1
            inside = bool(word) + text[place + 1 : place + 2].isalpha()
            usual = character in MARKS_IN_WORDS or (inside < 2 and character in PUNCTUATION_MARKS)
            marks += _mark_cost(character) + (0.0 if usual else MARK_INSIDE * inside / 2)
        elif character < " " and character not in "\t\r\n":
            marks += NOT_TEXT
            mark_count += 1
        if word:
            words.append("".join(word))
            word = []
            if len(words) >= MAX_WORDS:
                return words, marks, mark_count
    return [*words, "".join(word)] if word else words, marks, mark_count


def _mark_cost(character: str) -> float:
    if character in PUNCTUATION_MARKS:
        return PUNCTUATION
    category = unicodedata.category(character)
    return NOT_TEXT if category in ("Cc", "Co", "Cn", "Cs") or character == "\ufffd" else SYMBOL


def _case_cost(word: str) -> float:
    if word.islower() or not any(map(str.isupper, word[1:])):
        return 0.0
    changes = sum(a.islower() and b.isupper() for a, b in itertools.pairwise(word))
    return CASE_CHANGE * changes + CAPITAL_INSIDE * sum(map(str.isupper, word[1:]))


class _Model:
    """Statistics of letter pairs in one language; " " is the edge of a word."""

    def __init__(self, letters: str, sample: str) -> None:
        sample = "".join(
            letter if letter.isalpha() or unicodedata.category(letter) in ("Mn", "Mc") else " "
            for letter in sample.lower()
        )
        sample = " ".join(sample.split())
        self._script = _script(letters[0])
        by_frequency = self._script in RARE
        counts: Counter[str] = Counter(sample)
        weights = {letter: 0.5 + counts[letter] for letter in counts}
        for place, letter in enumerate(letters):
            weights[letter] = weights.get(letter, 0.0) + (60 / (place + 8) if by_frequency else 0.5)
        if self._script == "LATIN":
            for letter in "abcdefghijklmnopqrstuvwxyz":
                weights[letter] = weights.get(letter, 0.0) + 0.5
        total = sum(weights.values()) / (1 - RARE_MASS)
        self._single = {letter: weight / total for letter, weight in weights.items()}
        self._script_change = 0.0 if self._script == "LATIN" else SCRIPT_CHANGES[by_frequency]
        self._scripts = {_script(letter) for letter in letters}
        self._counts = counts
        self._pairs = Counter(itertools.pairwise(sample))
        self._known: dict[tuple[str, str], float] = {}

    def word(self, word: str) -> float:
        """Log probability of a word."""
        total, before = 0.0, " "
        for letter in f"{word.lower()} ":
            pair = (before, letter)
            cost = self._known.get(pair)
            if cost is None:
                cost = self._known[pair] = self._log(*pair)
            total += cost
            before = letter
        return total

    def _log(self, before: str, letter: str) -> float:
        """Log probability of a letter after another."""
        if self._script != "LATIN" and letter.isascii() and letter != " ":
            return ASCII_LETTER + (self._script_change if not before.isascii() else 0.0)
        single = self._single.get(letter)
        if single is None:
            script = _script(letter)
            if script not in self._scripts:
                return FOREIGN_LETTER
            single = RARE.get(script, RARE_ELSEWHERE)
        seen = self._counts[before]
        trust = seen / (seen + PAIR_WEIGHT)
        pairs = self._pairs[before, letter] / seen if seen else 0.0
        changes = before != " " and before.isascii() and not letter.isascii()
        return math.log(trust * pairs + (1 - trust) * single) + (self._script_change if changes else 0.0)


def _script(letter: str) -> str:
    name = unicodedata.name(letter, "").split(" ", 1)[0].split("-", 1)[0]
    return "CJK" if name == "IDEOGRAPHIC" else name


@functools.cache
def _model(language: str) -> _Model:
    return _Model(_languages()[language]["letters"], _languages()[language]["sample"])


@functools.cache
def _languages() -> dict[str, dict[str, str]]:
    with Path(__file__).with_name("languages.toml").open("rb") as file:
        return tomllib.load(file)
