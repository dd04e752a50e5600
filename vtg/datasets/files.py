"""How records lie in a file: JSON lines or one JSON document, plain or gzipped, with line numbers."""

from __future__ import annotations

import gzip
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from vtg.errors import VtgError
from vtg.files.paths import check_regular
from vtg.text import read_json

__all__ = ["json_document", "json_records", "lines_of", "read_text"]

MOST_BYTES = 128 << 20  # of text; the largest annotations that are published have 30 MB


def read_text(path: Path) -> str:
    """The text of a UTF-8 file, unpacked if it is gzipped, whatever its name.

    Raises:
        VtgError: the file is not there, cannot be read, or is not text.
    """
    check_regular(path)
    try:
        with path.open("rb") as plain:
            is_packed = plain.read(2) == b"\x1f\x8b"
            plain.seek(0)
            # Not all at once: a few MB of a gzip file can hold more than memory does.
            content = (gzip.GzipFile(fileobj=plain) if is_packed else plain).read(MOST_BYTES + 1)
        if len(content) > MOST_BYTES:
            raise VtgError(f"{path}: holds more than {MOST_BYTES >> 20} MiB of text; divide it, or check the file")
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
    """The text as one JSON object that spans several records, or None if it is something else (JSON lines, plain text).

    A single JSON line that is itself a record, which names its query or its video, is not a document.
    """
    try:
        document = read_json(text)
    except ValueError:
        return None
    return document if isinstance(document, dict) and not {"qid", "vid"} & document.keys() else None


def lines_of(text: str) -> Iterator[tuple[int, str]]:
    """Line number from 1 and content of every line that is not empty."""
    # Not splitlines(): it also breaks at characters like U+2028, which may stand inside a JSON string.
    for number, line in enumerate(text.split("\n"), start=1):
        if line.strip():
            yield number, line.strip()


def json_records(text: str) -> Iterator[tuple[int, dict[str, Any] | str]]:
    """Line number and object of every JSON line; in place of the object, the reason why there is none."""
    for number, line in lines_of(text):
        try:
            record = read_json(line)
        except ValueError as error:
            yield number, f"not valid JSON ({error})"
            continue
        yield number, record if isinstance(record, dict) else f"expected a JSON object, found {type(record).__name__}"
