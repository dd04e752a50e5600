"""Detect the encoding of a text file and decode it."""

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
# Languages and log prior of each encoding in subtitles. Subsets of other encodings are left out:
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
MAX_MESS_SHARE = 0.3  # charset-normalizer's measure of disorder, above which an encoding is not considered
FILE_NAME_LOG_PRIOR = 12.0  # added for the language in the file's name
# Minimum mean log probability per byte of text: text has -4 to -2.5, noise -5 and below, and short text varies more.
MIN_LOG_PROBABILITY = -4.3
SHORT_TEXT_TOLERANCE = 2.0  # divided by the square root of the number of bytes
MIN_UTF8_SHARE = 0.5  # of the lines, for a UTF-8 file that has lines in another encoding
MAX_SAMPLE_LINES = 5000  # that are not ASCII, used to detect the encoding
MAX_SEPARATE_LINES = 500_000  # of a file whose lines are decoded one by one

BYTE_ORDER_MARKS = (  # longest first
    (b"\xff\xfe\0\0", "utf-32"),
    (b"\0\0\xfe\xff", "utf-32"),
    (b"\xff\xfe", "utf-16"),
    (b"\xfe\xff", "utf-16"),
)
UTF8_BYTE_ORDER_MARK = b"\xef\xbb\xbf"
WIDE_ENCODINGS = ("utf-16-le", "utf-16-be", "utf-32-le", "utf-32-be")  # with zeros in the bytes of ASCII characters
WIDE_SAMPLE_BYTES = 1 << 14
MIN_WIDE_ASCII_SHARE = 0.25  # of the characters, in subtitles of any language
MAX_ZERO_SHARE = 0.01  # of the bytes of an 8-bit text
ESCAPES = ((b"\x1b$)C", "iso2022_kr"), (b"\x1b$", "iso2022_jp_2"))  # encodings that use only ASCII bytes


class UnknownEncodingError(ValueError):
    """No encoding gives text in a known language."""


def decode_text(content: bytes, language: str | None = None) -> str:
    """Decode bytes by their byte order mark, as UTF-8, UTF-16 or UTF-32, or in the likeliest legacy encoding.

    Args:
        content: of a text file.
        language: expected language, a value of `language_codes`; None for unknown.

    Raises:
        UnknownEncodingError: no encoding fits.
    """
    for mark, encoding in BYTE_ORDER_MARKS:
        if content.startswith(mark):
            return content.decode(encoding, "replace")
    content = content.removeprefix(UTF8_BYTE_ORDER_MARK)
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
    """UTF-16 or UTF-32 without a byte order mark: the one that gives the most ASCII, because times are ASCII."""
    start = content[:WIDE_SAMPLE_BYTES]
    decoded = {encoding: start.decode(encoding, "replace") for encoding in WIDE_ENCODINGS}
    best = max(decoded, key=lambda encoding: _ascii_share(decoded[encoding]))
    return best if _ascii_share(decoded[best]) > MIN_WIDE_ASCII_SHARE else None


def _without_zeros(content: bytes) -> bytes:
    """Remove zero bytes, with which some programs pad a file.

    Raises:
        UnknownEncodingError: there are too many for a text.
    """
    text = content.rstrip(b"\0")
    if not text or text.count(b"\0") > MAX_ZERO_SHARE * len(text):
        raise UnknownEncodingError("not a text")
    return text.replace(b"\0", b"")


def _ascii_share(text: str) -> float:
    return sum(" " <= letter <= "~" or letter == "\n" for letter in text) / max(len(text), 1)


def _decode_by_lines(content: bytes, language: str | None) -> str:
    """Decode a file that is not, or not completely, UTF-8: joined or damaged files have lines in two encodings."""
    lines = content.split(b"\n")
    foreign = list(islice((line for line in lines if not line.isascii()), MAX_SAMPLE_LINES))
    others = [line for line in foreign if not _is_utf8(line)]
    if len(others) > (1 - MIN_UTF8_SHARE) * len(foreign):
        return unicodedata.normalize("NFC", content.decode(_likeliest_encoding(foreign, language), "replace"))
    encoding = "utf-8"
    if others and len(lines) <= MAX_SEPARATE_LINES:
        with contextlib.suppress(UnknownEncodingError):
            encoding = _likeliest_encoding(others, language)
    if encoding == "utf-8":
        return content.decode("utf-8", "replace")
    return "\n".join(line.decode("utf-8" if _is_utf8(line) else encoding, "replace") for line in lines)


def _is_utf8(line: bytes) -> bool:
    """Whether a line is UTF-8, with some damage at most: text in other encodings has hardly any valid sequence."""
    text = line.decode("utf-8", "replace")
    bad = text.count("\ufffd")
    return bad == 0 or sum(letter > "\x7f" for letter in text) > 2 * bad


def _likeliest_encoding(lines: Sequence[bytes], language: str | None) -> str:
    """The encoding in which lines are most likely text in one of its languages.

    Raises:
        UnknownEncodingError: there is none.
    """
    sample = b"\n".join(_head(lines))
    # Damaged bytes may exclude the correct encoding: then all are scored.
    for candidates in (_tidy_encodings(sample), ENCODINGS):
        scored = {encoding: _score(sample, encoding, language) for encoding in candidates}
        best = max(scored, key=lambda encoding: scored[encoding].log_probability, default=None)
        if best is not None:
            found = scored[best]
            if found.per_byte >= MIN_LOG_PROBABILITY - SHORT_TEXT_TOLERANCE / math.sqrt(max(found.foreign_bytes, 1)):
                return best
    raise UnknownEncodingError("no encoding gives text in a known language")


def _head(lines: Sequence[bytes]) -> Iterator[bytes]:
    """Yield complete lines from the start, up to the size of a sample; at least one, cut off if it is too long."""
    left = SAMPLE_BYTES
    for line in lines:
        if len(line) > left:
            if left == SAMPLE_BYTES:
                yield line[:SAMPLE_BYTES]
            return
        left -= len(line)
        yield line


def _tidy_encodings(sample: bytes) -> list[str]:
    """The encodings that decode a sample without errors and without too many unlikely characters."""
    import charset_normalizer

    matches = charset_normalizer.from_bytes(
        sample,
        cp_isolation=list(ENCODINGS),
        threshold=MAX_MESS_SHARE,
        preemptive_behaviour=False,
        enable_fallback=False,
    )
    found = {encoding for match in matches for encoding in match.could_be_from_charset}
    return [encoding for encoding in ENCODINGS if encoding in found]


def _score(sample: bytes, encoding: str, language: str | None) -> TextLikelihood:
    languages, rarity = ENCODINGS[encoding]
    found = text_likelihood(unicodedata.normalize("NFC", sample.decode(encoding, "replace")), languages)
    expected = FILE_NAME_LOG_PRIOR if language != "en" and language in languages else 0.0
    return replace(found, log_probability=found.log_probability + rarity + expected)
