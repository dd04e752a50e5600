"""Solve the 0/1 knapsack problem exactly."""

from __future__ import annotations

import numpy as np

__all__ = ["best_within"]


def best_within(values: np.ndarray, lengths: np.ndarray, capacity: int) -> list[int]:
    """Choose the items of the greatest total value whose total length stays within the capacity.

    Exact, by dynamic programming over the capacity: N · capacity steps and bits, after both are divided by the greatest
    common divisor of the lengths. Items of value 0 are not chosen.

    Args:
        values: [N], not negative.
        lengths: [N] whole numbers above 0.
        capacity: whole number.

    Returns:
        Indices, ascending.

    Raises:
        ValueError: a length is not above 0, or a value is negative.
    """
    values, lengths = np.asarray(values, dtype=np.float64), np.asarray(lengths, dtype=np.int64)
    if (lengths <= 0).any() or not (values >= 0).all():
        raise ValueError("items need a length above 0 and a value of at least 0")
    if not len(values) or capacity <= 0:
        return []
    unit = int(np.gcd.reduce(lengths))
    lengths, capacity = lengths // unit, int(capacity) // unit
    capacity = min(capacity, int(lengths.sum()))
    best = np.zeros(capacity + 1)  # of each capacity, with the items so far
    taken = np.zeros((len(values), capacity + 1), bool)
    for item, (value, length) in enumerate(zip(values, lengths, strict=True)):
        if length > capacity:
            continue
        with_item = best[: capacity + 1 - length] + value
        taken[item, length:] = with_item > best[length:]
        best[length:] = np.maximum(best[length:], with_item)
    chosen, left = [], capacity
    for item in reversed(range(len(values))):
        if taken[item, left]:
            chosen.append(item)
            left -= int(lengths[item])
    return chosen[::-1]
