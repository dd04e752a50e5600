"""Read text files, plain or gzipped, as JSON lines with line numbers or as one JSON document."""

from __future__ import annotations

import gzip
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from vtg.errors import VtgError
from vtg.files.paths import check_regular
from vtg.files.text import read_json

__all__ = ["json_document", "json_records", "lines_of", "read_text"]

MAX_TEXT_BYTES = 128 << 20  # the largest published annotations have 30 MB


def read_text(path: Path) -> str:
    """Read a UTF-8 file; it is decompressed if it is gzipped, whatever its name.

    Raises:
        VtgError: the file does not exist, cannot be read, or is not text.
    """
    check_regular(path)
    try:
        with path.open("rb") as plain:
            is_packed = plain.read(2) == b"\x1f\x8b"
            plain.seek(0)
            # Limited, as a few MB of gzip can decompress to more than the memory.
            content = (gzip.GzipFile(fileobj=plain) if is_packed else plain).read(MAX_TEXT_BYTES + 1)
        if len(content) > MAX_TEXT_BYTES:
            raise VtgError(f"{path}: holds more than {MAX_TEXT_BYTES >> 20} MiB of text; divide it, or check the file")
        return content.decode("utf-8-sig")
    except FileNotFoundError:
        raise VtgError(f"{path}: there is no such file; check the path") from None
    except (EOFError, gzip.BadGzipFile, zlib.error):
        raise VtgError(f"{path}: the gzip file is damaged or cut off; get it again") from None
    except UnicodeDecodeError:
        raise VtgError(f"{path}: not a text file; expected JSON lines, JSON, or either of them gzipped") from None
    except OSError as error:
        raise VtgError(f"{path}: cannot be read ({error.strerror or error}); give a readable file") from None


def json_document(text: str) -> dict[str, Any] | None:
    """Parse the text as one JSON object of several records; None for other formats (JSON lines, plain text).

    A single record, with the id of a query or a video, is not a document.
    """
    try:
        document = read_json(text)
    except ValueError:
        return None
    return document if isinstance(document, dict) and not {"qid", "vid"} & document.keys() else None


def lines_of(text: str) -> Iterator[tuple[int, str]]:
    """Line number, from 1, and content of every non-empty line."""
    # Not splitlines(), which also splits at characters like U+2028 inside JSON strings.
    for number, line in enumerate(text.split("\n"), start=1):
        if line.strip():
            yield number, line.strip()


def json_records(text: str) -> Iterator[tuple[int, dict[str, Any] | str]]:
    """Line number and object of every JSON line; an error message in place of an invalid object."""
    for number, line in lines_of(text):
        try:
            record = read_json(line)
        except ValueError as error:
            yield number, f"not valid JSON ({error})"
            continue
        yield number, record if isinstance(record, dict) else f"expected a JSON object, found {type(record).__name__}"
