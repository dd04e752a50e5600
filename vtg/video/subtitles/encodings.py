"""Decode the text of a file that does not say its encoding."""

from __future__ import annotations

import contextlib
import math
import unicodedata
from collections.abc import Iterator, Sequence
from dataclasses import replace
from itertools import islice

from vtg.video.subtitles.language_models import TextLikelihood, text_likelihood

__all__ = ["UnknownEncodingError", "decode_text"]

WESTERN = ("en", "fr", "de", "es", "pt", "it", "ca", "nl", "sv", "da", "nb", "fi", "is")
CENTRAL = ("en", "pl", "cs", "sk", "hu", "hr", "sl", "ro", "de")
CYRILLIC = ("en", "ru", "uk", "be", "bg", "sr", "mk")
BALTIC = ("en", "et", "lv", "lt")
# The languages each encoding serves, and how rare it is in subtitles (log). What another one is a part of is left out:
# iso-8859-1 of cp1252, iso-8859-9 of cp1254, iso-8859-8 of cp1255, tis-620 of cp874, gb2312 and gbk of gb18030.
ENCODINGS: dict[str, tuple[tuple[str, ...], float]] = {
    "cp1252": (WESTERN, 0.0),
    "cp1250": (CENTRAL, -1.0),
    "cp1251": (CYRILLIC, -1.0),
    "cp1253": (("en", "el"), -1.0),
    "cp1254": (("en", "tr"), -1.0),
    "cp1255": (("en", "he"), -1.0),
    "cp1256": (("en", "ar", "fa"), -1.0),
    "cp1257": (BALTIC, -1.0),
    "cp1258": (("en", "vi"), -2.0),
    "cp874": (("en", "th"), -1.0),
    "cp932": (("en", "ja"), -1.0),
    "euc_jp": (("en", "ja"), -2.0),
    "euc_jis_2004": (("en", "ja"), -5.0),
    "gb18030": (("en", "zh_hans", "zh_hant"), -1.0),
    "cp950": (("en", "zh_hant"), -1.0),
    "big5hkscs": (("en", "zh_hant"), -4.0),
    "cp949": (("en", "ko"), -1.0),
    "iso8859_2": (CENTRAL, -2.0),
    "iso8859_15": (WESTERN, -3.0),
    "iso8859_7": (("en", "el"), -4.0),
    "iso8859_5": (CYRILLIC, -4.0),
    "iso8859_6": (("en", "ar"), -3.0),
    "iso8859_13": (BALTIC, -3.0),
    "iso8859_4": (BALTIC, -4.0),
    "iso8859_10": (("en", "is", "sv", "lt", "lv", "et"), -6.0),
    "iso8859_3": (("en", "tr"), -6.0),
    "koi8_r": (("en", "ru"), -2.0),
    "koi8_u": (("en", "uk", "be"), -3.0),
    "cp866": (("en", "ru", "bg", "be"), -5.0),
    "cp852": (CENTRAL, -5.0),
    "cp850": (WESTERN, -6.0),
    "cp737": (("en", "el"), -6.0),
    "cp862": (("en", "he"), -6.0),
    "mac_roman": (WESTERN, -6.0),
    "mac_cyrillic": (CYRILLIC, -6.0),
    "mac_latin2": (CENTRAL, -7.0),
}
SAMPLE_BYTES = 4000  # of the lines that are not ASCII
MESS = 0.3  # share of a decoding that charset-normalizer finds disorderly, from which on it is no candidate
HINT = 12.0  # log; how much more likely the language is that the name of the file says
# A decoding is taken for text from this mean log probability of a byte on: text has -4 to -2.5, noise -5 and below, and
# what is short varies more.
LEAST_PROBABLE = -4.3
SHORT_TOLERANCE = 2.0  # divided by the root of the number of bytes
VALID_UTF8 = 0.5  # share of the lines from which on a file is UTF-8 with lines of another encoding in it
MAX_LINES = 5000  # that are not ASCII, from which these are judged
MAX_LINES_APART = 500_000  # decoded each by itself

MARKS = (  # of Unicode; the longer ones first
    (b"\xff\xfe\0\0", "utf-32"),
    (b"\0\0\xfe\xff", "utf-32"),
    (b"\xff\xfe", "utf-16"),
    (b"\xfe\xff", "utf-16"),
)
UTF8_MARK = b"\xef\xbb\xbf"
WIDE = ("utf-16-le", "utf-16-be", "utf-32-le", "utf-32-be")  # encodings with zeros in the bytes of ASCII characters
WIDE_SAMPLE = 1 << 14  # bytes
WIDE_ASCII = 0.25  # share of the characters, at least, in subtitles of any language
MAX_ZEROS = 0.01  # share of the bytes of an 8-bit text
ESCAPES = ((b"\x1b$)C", "iso2022_kr"), (b"\x1b$", "iso2022_jp_2"))  # encodings that are ASCII to the eye


class UnknownEncodingError(ValueError):
    """No encoding gives text in a known language."""


def decode_text(content: bytes, language: str | None = None) -> str:
    """Decode bytes: by their mark, as UTF-8, UTF-16 or UTF-32, else in the likeliest older encoding.

    Args:
        content: of a text file.
        language: that the text is expected in, a value of `language_codes`; None where nothing says so.

    Raises:
        UnknownEncodingError: no encoding fits.
    """
    for mark, encoding in MARKS:
        if content.startswith(mark):
            return content.decode(encoding, "replace")
    content = content.removeprefix(UTF8_MARK)
    if b"\0" in content:
        if (wide := _wide_encoding(content)) is not None:
            return content.decode(wide, "replace")
        content = _without_zeros(content)
    if content.isascii():
        encoding = next((name for escape, name in ESCAPES if escape in content), "ascii")
        return content.decode(encoding, "replace")
    try:
        return content.decode("utf-8")
    except UnicodeDecodeError:
        return _decode_by_lines(content, language)


def _wide_encoding(content: bytes) -> str | None:
    """UTF-16 or UTF-32 without a mark: the one that gives the most ASCII, which times are written in."""
    start = content[:WIDE_SAMPLE]
    decoded = {encoding: start.decode(encoding, "replace") for encoding in WIDE}
    best = max(decoded, key=lambda encoding: _ascii_share(decoded[encoding]))
    return best if _ascii_share(decoded[best]) > WIDE_ASCII else None


def _without_zeros(content: bytes) -> bytes:
    """Leave out zeros, which some programs fill a file up with.

    Raises:
        UnknownEncodingError: there are so many that it is no text.
    """
    text = content.rstrip(b"\0")
    if not text or text.count(b"\0") > MAX_ZEROS * len(text):
        raise UnknownEncodingError("not a text")
    return text.replace(b"\0", b"")


def _ascii_share(text: str) -> float:
    return sum(" " <= letter <= "~" or letter == "\n" for letter in text) / max(len(text), 1)


def _decode_by_lines(content: bytes, language: str | None) -> str:
    """Decode what is not UTF-8, or not all of it: files that were joined or damaged have lines of both kinds."""
    lines = content.split(b"\n")
    foreign = list(islice((line for line in lines if not line.isascii()), MAX_LINES))
    others = [line for line in foreign if not _is_utf8(line)]
    if len(others) > (1 - VALID_UTF8) * len(foreign):
        return unicodedata.normalize("NFC", content.decode(_likeliest_encoding(foreign, language), "replace"))
    encoding = "utf-8"
    if others and len(lines) <= MAX_LINES_APART:
        with contextlib.suppress(UnknownEncodingError):
            encoding = _likeliest_encoding(others, language)
    if encoding == "utf-8":
        return content.decode("utf-8", "replace")
    return "\n".join(line.decode("utf-8" if _is_utf8(line) else encoding, "replace") for line in lines)


def _is_utf8(line: bytes) -> bool:
    """Whether a line is UTF-8, perhaps with some damage: text in another encoding has hardly any valid sequence."""
    text = line.decode("utf-8", "replace")
    bad = text.count("\ufffd")
    return bad == 0 or sum(letter > "\x7f" for letter in text) > 2 * bad


def _likeliest_encoding(lines: Sequence[bytes], language: str | None) -> str:
    """The encoding in which lines read most like one of its languages.

    Raises:
        UnknownEncodingError: in none they do.
    """
    sample = b"\n".join(_head(lines))
    # Some damaged bytes must not hide the right one: then all are judged.
    for candidates in (_tidy_encodings(sample), ENCODINGS):
        judged = {encoding: _judge(sample, encoding, language) for encoding in candidates}
        best = max(judged, key=lambda encoding: judged[encoding].log_probability, default=None)
        if best is not None:
            found = judged[best]
            if found.per_byte >= LEAST_PROBABLE - SHORT_TOLERANCE / math.sqrt(max(found.foreign_bytes, 1)):
                return best
    raise UnknownEncodingError("no encoding gives text in a known language")


def _head(lines: Sequence[bytes]) -> Iterator[bytes]:
    """Whole lines from the start, as many as a sample has; at least one, or what fits of it."""
    left = SAMPLE_BYTES
    for line in lines:
        if len(line) > left:
            if left == SAMPLE_BYTES:
                yield line[:SAMPLE_BYTES]
            return
        left -= len(line)
        yield line


def _tidy_encodings(sample: bytes) -> list[str]:
    """The encodings that decode a sample without error and without a mess of signs."""
    import charset_normalizer

    matches = charset_normalizer.from_bytes(
        sample, cp_isolation=list(ENCODINGS), threshold=MESS, preemptive_behaviour=False, enable_fallback=False
    )
    found = {encoding for match in matches for encoding in match.could_be_from_charset}
    return [encoding for encoding in ENCODINGS if encoding in found]


def _judge(sample: bytes, encoding: str, language: str | None) -> TextLikelihood:
    languages, rarity = ENCODINGS[encoding]
    found = text_likelihood(unicodedata.normalize("NFC", sample.decode(encoding, "replace")), languages)
    expected = HINT if language != "en" and language in languages else 0.0
    return replace(found, log_probability=found.log_probability + rarity + expected)
