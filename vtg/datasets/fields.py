"""What a well-formed value is: turns JSON values into numbers, texts and arrays, or says why it cannot."""

from __future__ import annotations

import math
from collections.abc import Mapping
from itertools import chain
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vtg.datasets.samples import QueryId

__all__ = ["MalformedError", "number", "numbers", "optional", "query_id", "shown", "table", "text"]

_SHOWN_CHARACTERS = 40
_TOO_LARGE = 1e300  # beyond are infinities, NaN (which compares as false) and whole numbers that no float holds


class MalformedError(ValueError):
    """A value that is not what its field promises; the message says which and why, and follows "file:line: "."""


def shown(value: object) -> str:
    """A value as it stands in the file, short enough for one line."""
    written = repr(value)
    return written if len(written) <= _SHOWN_CHARACTERS else f"{written[: _SHOWN_CHARACTERS - 1]}…"


def optional(record: Mapping[str, Any], name: str) -> Any:
    """The value of a field; None if it is absent, null or (as pandas writes a missing value) NaN."""
    value = record.get(name)
    return None if isinstance(value, float) and math.isnan(value) else value


def query_id(record: Mapping[str, Any], *names: str) -> QueryId:
    """The id under the first of the names that the record has: a whole number or a text."""
    for name in names:
        if name in record:
            value = record[name]
            if isinstance(value, (int, str)) and not isinstance(value, bool) and value != "":
                return value
            raise MalformedError(f"{name} must be a whole number or a text, not {shown(value)}")
    raise MalformedError(f"no {' or '.join(names)}")


def text(record: Mapping[str, Any], *names: str) -> str:
    """The text under the first of the names that the record has."""
    for name in names:
        if name in record:
            if isinstance(record[name], str) and record[name].strip():
                return str(record[name])
            raise MalformedError(f"{name} must be a text, not {shown(record[name])}")
    raise MalformedError(f"no {' or '.join(names)}")


def number(value: object, name: str) -> float:
    """A finite number."""
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        raise MalformedError(f"{name} must be a number, not {shown(value)}")
    if not abs(value) < _TOO_LARGE:
        raise MalformedError(f"{name} is {shown(value)}")
    return float(value)


def numbers(values: object, name: str) -> NDArray[np.float64]:
    """[n] finite numbers from a list."""
    if not isinstance(values, list):
        raise MalformedError(f"{name} must be a list of numbers, not {shown(values)}")
    # One pass over the types is quick; only a list that fails is looked at value by value, to name the culprit.
    if set(map(type, values)) <= {float, int} and all(map(_TOO_LARGE.__gt__, map(abs, values))):
        return np.array(values, dtype=float)
    for place, value in enumerate(values):
        number(value, f"{name}[{place}]")
    return np.array(values, dtype=float)


def table(rows: object, name: str, columns: int | None = None) -> NDArray[np.float64]:
    """[rows, columns] finite numbers from a list of lists, all as long as the first, or as `columns` says."""
    if not isinstance(rows, list):
        raise MalformedError(f"{name} must be a list of lists of numbers, not {shown(rows)}")
    for place, row in enumerate(rows):
        if type(row) is not list:
            raise MalformedError(f"{name}[{place}] must be a list of numbers, not {shown(row)}")
        columns = len(row) if columns is None else columns
        if len(row) != columns:
            raise MalformedError(f"{name}[{place}] has {len(row)} numbers instead of {columns}: {shown(row)}")
    try:
        flat = numbers(list(chain.from_iterable(rows)), name)
    except MalformedError:
        for place, row in enumerate(rows):
            numbers(row, f"{name}[{place}]")
        raise
    return flat.reshape(len(rows), columns or 0)
