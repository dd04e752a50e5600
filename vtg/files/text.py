"""Text for other programs: single lines, JSON, spreadsheet cells, and characters that an encoding lacks."""

from __future__ import annotations

import codecs
import csv
import io
import json
import re
import unicodedata
from collections.abc import Iterable, Sequence
from typing import Any

__all__ = [
    "READABLE",
    "caption_line",
    "csv_text",
    "error_line",
    "from_utf8",
    "json_text",
    "one_line",
    "read_json",
    "short_repr",
    "table_cell",
    "to_utf8",
]

READABLE = (
    "vtg-readable"  # error handler of `str.encode` and of text streams: lookalikes and escapes for what is lacking
)

MAX_ERROR_CHARACTERS = 160
MAX_VALUE_CHARACTERS = 40

# What vtg itself writes beyond ASCII.
LOOKALIKES = {"█": "#", "░": ".", "–": "-", "—": "-", "…": "...", "≈": "~", "≥": ">=", "≤": "<=", "×": "x", "²": "2"}
LOOKALIKES |= {"“": '"', "”": '"', "„": '"', "‘": "'", "’": "'", "→": "->", "±": "+/-", "━": "-", "╸": "-", "╺": "-"}

# Control characters, and everything else that some reader takes for the end of a line.
_BREAKING = re.compile("[\x00-\x1f\x7f-\x9f\u2028\u2029]")
_SURROGATE = re.compile("[\ud800-\udfff]")
_UNSAFE_IN_JSON = re.compile("[\x7f-\x9f\u2028\u2029\ud800-\udfff]")
_WRITTEN_SURROGATE = re.compile("(?<=.)//u(d[89a-f][0-9a-f]{2})")
_UNSEEN_AT_START = " \xa0\ufeff\u200b\u200c\u200d\u2060"  # spreadsheets look for a formula behind these
_FORMULA_SIGNS = frozenset("=+-@\u2212")
_ENDS_OF_CELLS = frozenset("\t\r\n")


def one_line(text: str) -> str:
    r"""A text on one line, whatever reads it: control characters and line separators become blanks.

    Bytes of a file name that are not UTF-8 are shown as ``\xe9``.
    """
    return _SURROGATE.sub(lambda found: _escape(found[0]), _BREAKING.sub(" ", text)).strip()


def error_line(error: BaseException, most: int = MAX_ERROR_CHARACTERS) -> str:
    """The message of another library's error on one line of at most `most` characters; its class if it has none."""
    return " ".join(str(error).split())[:most] or type(error).__name__


def short_repr(value: object) -> str:
    """The representation of a value, shortened for an error message."""
    try:
        text = repr(value)
    except (ValueError, RecursionError):  # an integer of thousands of digits
        return type(value).__name__
    return text if len(text) <= MAX_VALUE_CHARACTERS else f"{text[: MAX_VALUE_CHARACTERS - 1]}…"


def caption_line(text: str) -> str:
    """A text on one line of a caption (SRT, WebVTT), where an arrow would begin the times of the next one."""
    return one_line(text).replace("-->", "->")


def json_text(document: Any, ascii_only: bool = False, indent: int | None = 1) -> str:
    r"""A document as JSON, which is valid UTF-8 even where names of files in it are not.

    Args:
        document: what `json.dumps` takes. Bytes of a name that are not UTF-8 become lone surrogates (``\udce9``),
            from which Python's ``json`` makes the same path again.
        ascii_only: write everything beyond ASCII as escapes: for outputs whose encoding is not UTF-8.
        indent: of each level; None for one line.
    """
    text = json.dumps(document, ensure_ascii=ascii_only, indent=indent) + "\n"
    # A line separator in a string is valid JSON, but some readers split lines there.
    return _UNSAFE_IN_JSON.sub(lambda found: f"\\u{ord(found[0]):04x}", text)


def read_json(text: str | bytes) -> Any:
    """What a JSON text says, whoever wrote it.

    Raises:
        ValueError: it is not JSON, or not UTF-8, or nested deeper than any document of ours.
    """
    try:
        return json.loads(text)
    except RecursionError:
        raise ValueError("nested too deeply") from None


def to_utf8(path: str) -> str:
    """An absolute path for programs that know nothing but UTF-8; `from_utf8` makes the same path of it again.

    A byte of a name that is not UTF-8 is a lone surrogate in Python, and ``//udce9`` here: no absolute path has two
    slashes behind its first character, so nothing else is ever written like that.
    """
    return _SURROGATE.sub(lambda found: f"//u{ord(found[0]):04x}", path)


def from_utf8(text: str) -> str:
    """The path that `to_utf8` was given; any text without a path in that form stays as it is."""
    return _WRITTEN_SURROGATE.sub(lambda found: chr(int(found[1], 16)), text)


def table_cell(text: str) -> str:
    """A text that a spreadsheet shows and does not run: one that could begin a formula gets an apostrophe before it.

    A formula begins with one of ``= + - @``, also full-width or small ones and the minus sign, with invisible
    characters before it or without; a tab or a line break at the start could begin another cell.
    """
    text = text.replace("\0", " ")  # at which many readers end
    first = text.lstrip(_UNSEEN_AT_START)[:1]
    begins_formula = unicodedata.normalize("NFKC", first)[:1] in _FORMULA_SIGNS
    return f"'{text}" if first and (begins_formula or first in _ENDS_OF_CELLS) else text


def csv_text(rows: Iterable[Sequence[str]]) -> str:
    """Rows as CSV, which is valid UTF-8 and has one row for each whatever is in them.

    Args:
        rows: their cells; what people have written should be a `table_cell`.
    """
    text = io.StringIO()
    for row in rows:
        # What has characters of the line's end in it is quoted: both, as readers take each of them for one.
        line = io.StringIO()
        csv.writer(line, lineterminator="\r\n").writerow(row)
        text.write(line.getvalue().removesuffix("\r\n") + "\n")
    return text.getvalue().encode("utf-8", READABLE).decode("utf-8")


def _escape(character: str) -> str:
    r"""One character in ASCII: a byte that could not be decoded as ``\xe9``, any other as ``\u00e9``."""
    code = ord(character)
    if 0xDC80 <= code <= 0xDCFF:
        return f"\\x{code - 0xDC00:02x}"
    return f"\\u{code:04x}" if code <= 0xFFFF else f"\\U{code:08x}"


def _replace_unencodable(error: UnicodeError) -> tuple[str, int]:
    if not isinstance(error, UnicodeEncodeError):
        raise error
    missing = error.object[error.start : error.end]
    return "".join(LOOKALIKES.get(character) or _escape(character) for character in missing), error.end


codecs.register_error(READABLE, _replace_unencodable)
