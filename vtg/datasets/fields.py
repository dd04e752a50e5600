"""Convert and check JSON values: ids, texts, numbers and arrays."""

from __future__ import annotations

import math
from collections.abc import Mapping
from itertools import chain
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vtg.datasets.samples import QueryId
from vtg.files.text import short_repr

__all__ = ["MalformedError", "number", "numbers", "optional", "query_id", "table", "text"]

_MAX_NUMBER = 1e300  # excludes infinity, NaN (compares as false) and integers too large for a float


class MalformedError(ValueError):
    """A field has an invalid value; the message follows "file:line: "."""


def optional(record: Mapping[str, Any], name: str) -> Any:
    """The value of a field; None if it is missing, null or NaN (pandas' missing value)."""
    value = record.get(name)
    return None if isinstance(value, float) and math.isnan(value) else value


def query_id(record: Mapping[str, Any], *names: str) -> QueryId:
    """The id under the first of the names that the record has: a whole number or a text."""
    for name in names:
        if name in record:
            value = record[name]
            if isinstance(value, (int, str)) and not isinstance(value, bool) and value != "":
                return value
            raise MalformedError(f"{name} must be a whole number or a text, not {short_repr(value)}")
    raise MalformedError(f"no {' or '.join(names)}")


def text(record: Mapping[str, Any], *names: str) -> str:
    """The text under the first of the names that the record has."""
    for name in names:
        if name in record:
            if isinstance(record[name], str) and record[name].strip():
                return str(record[name])
            raise MalformedError(f"{name} must be a text, not {short_repr(record[name])}")
    raise MalformedError(f"no {' or '.join(names)}")


def number(value: object, name: str) -> float:
    """A finite number."""
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        raise MalformedError(f"{name} must be a number, not {short_repr(value)}")
    if not abs(value) < _MAX_NUMBER:
        raise MalformedError(f"{name} is {short_repr(value)}")
    return float(value)


def numbers(values: object, name: str) -> NDArray[np.float64]:
    """[n] finite numbers from a list."""
    if not isinstance(values, list):
        raise MalformedError(f"{name} must be a list of numbers, not {short_repr(values)}")
    # One pass over the types is fast; values are checked one by one only to name the invalid one.
    if set(map(type, values)) <= {float, int} and all(map(_MAX_NUMBER.__gt__, map(abs, values))):
        return np.array(values, dtype=float)
    for place, value in enumerate(values):
        number(value, f"{name}[{place}]")
    return np.array(values, dtype=float)


def table(rows: object, name: str, columns: int | None = None) -> NDArray[np.float64]:
    """[rows, columns] finite numbers from a list of lists; None: as many columns as the first row."""
    if not isinstance(rows, list):
        raise MalformedError(f"{name} must be a list of lists of numbers, not {short_repr(rows)}")
    for place, row in enumerate(rows):
        if type(row) is not list:
            raise MalformedError(f"{name}[{place}] must be a list of numbers, not {short_repr(row)}")
        columns = len(row) if columns is None else columns
        if len(row) != columns:
            raise MalformedError(f"{name}[{place}] has {len(row)} numbers instead of {columns}: {short_repr(row)}")
    try:
        flat = numbers(list(chain.from_iterable(rows)), name)
    except MalformedError:
        for place, row in enumerate(rows):
            numbers(row, f"{name}[{place}]")
        raise
    return flat.reshape(len(rows), columns or 0)
