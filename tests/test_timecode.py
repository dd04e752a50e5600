"""Times as people write them."""

from __future__ import annotations

import pytest

from vtg.errors import VtgError
from vtg.timespans import format_time, parse_time


@pytest.mark.parametrize(
    ("text", "seconds"),
    [("0", 0), ("83.5", 83.5), ("1:23.5", 83.5), ("01:23", 83), ("1:00:01.25", 3601.25), ("90:00", 5400), (" 7. ", 7)],
)
def test_times_are_read(text: str, seconds: float) -> None:
    assert parse_time(text) == seconds


@pytest.mark.parametrize("text", ["", "abc", "-3", "1:2:3:4", "1:", "1e3", "nan", "12s"])
def test_other_words_are_refused(text: str) -> None:
    with pytest.raises(VtgError, match="not a time"):
        parse_time(text)


@pytest.mark.parametrize(
    ("seconds", "decimals", "text"),
    [(0, 0, "00:00"), (83.5, 1, "01:23.5"), (59.96, 1, "01:00.0"), (3599.7, 0, "1:00:00"), (7325, 0, "2:02:05")],
)
def test_times_are_written(seconds: float, decimals: int, text: str) -> None:
    assert format_time(seconds, decimals) == text
