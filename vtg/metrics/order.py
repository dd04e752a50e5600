"""Sort scores with ties in the order in which the published evaluation's sort leaves them.

No library's sort takes its place. A stable sort (numpy's, the standard library's) ranks ties by their index: measured
on the reference's predictions, that moves YouTube Highlights and TVSum in the fifth decimal. The order in which torch's
default sort, which the reference calls, leaves ties depends on the processor and on torch's version.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

__all__ = ["falling_order"]

_SORTED_BY_INSERTION = 16  # partitions of up to this length are not split further


def falling_order(scores: NDArray[np.floating]) -> NDArray[np.intp]:
    """Ranks scores from the highest to the lowest, equal ones as the published evaluation ranks them.

    The reference evaluates YouTube Highlights and TVSum with torch's default sort of float32 scores, which does not
    keep equal scores in their given order in videos of more than 16 clips. That decides the fifth decimal of published
    figures. It is an introspective sort: quicksort with the median of three as the pivot down to partitions of 16, then
    insertion. The same partitioning here gives the same order, on every machine.

    Args:
        scores: [n] finite.

    Returns:
        [n] indices.
    """
    scores = np.asarray(scores, dtype=np.float32)
    if len(np.unique(scores)) == len(scores):
        return np.argsort(-scores)
    order = np.arange(len(scores))
    if len(scores) > _SORTED_BY_INSERTION:
        order = np.array(_partitioned(scores.tolist()))
    # Insertion keeps equal scores as they are, so that any stable sort does for the last step.
    return np.asarray(order[np.argsort(-scores[order], kind="stable")])


def _partitioned(scores: list[float]) -> list[int]:
    """Indices after quicksort has stopped at short partitions, each with higher scores than those after it."""
    order = list(range(len(scores)))
    deepest = 2 * (len(scores).bit_length() - 1)
    pending = [(0, len(scores), deepest)]
    while pending:
        first, last, depth = pending.pop()
        # An input that exhausts the depth is left to the last step: quicksort would take quadratic time on it.
        while last - first > _SORTED_BY_INSERTION and depth:
            depth -= 1
            cut = _split(scores, order, first, last)
            pending.append((cut, last, depth))
            last = cut
    return order


def _split(scores: list[float], order: list[int], first: int, last: int) -> int:
    """Partitions a stretch around the median of its second, middle and last score; where the lower part begins."""
    middle = _median(scores, order, first + 1, first + (last - first) // 2, last - 1)
    order[first], order[middle] = order[middle], order[first]
    pivot = scores[order[first]]
    low, high = first + 1, last
    while True:
        while scores[order[low]] > pivot:
            low += 1
        high -= 1
        while pivot > scores[order[high]]:
            high -= 1
        if low >= high:
            return low
        order[low], order[high] = order[high], order[low]
        low += 1


def _median(scores: list[float], order: list[int], left: int, middle: int, right: int) -> int:
    """The place whose score is the median of three; of equal ones, where this sequence of comparisons ends."""
    first, second, third = scores[order[left]], scores[order[middle]], scores[order[right]]
    if first > second:
        if second > third:
            return middle
        return right if first > third else left
    if first > third:
        return left
    return right if second > third else middle
