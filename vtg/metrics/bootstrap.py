"""How sure a figure is: means over queries drawn again and again from the queries at hand."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

__all__ = ["interval", "resampled_means"]

Array = NDArray[np.float64]

_CELLS_AT_ONCE = 4_000_000  # rounds × queries drawn together; one array of them is 32 MB


def resampled_means(values: Array, rounds: int, seed: int = 0, strata: NDArray[np.intp] | None = None) -> Array:
    """Means of every column over as many queries as there are, drawn with replacement, `rounds` times.

    The draws depend on the number of queries, the strata and the seed only: the means of two systems on the same
        queries come from
    the same draws, so that their difference is a paired bootstrap.

    Args:
        values: [Q, K] K figures of each query; NaN where the query does not count for the figure.
        rounds: how often to draw.
        seed: of the draws.
        strata: [Q] a number 0 … S-1 for each query; each stratum keeps its size in every draw. One stratum if None.

    Returns:
        [rounds, K]; NaN where a draw has no query that counts for a figure.
    """
    generator = np.random.default_rng(seed)
    counted = ~np.isnan(values)
    known = np.where(counted, values, 0.0)
    strata = np.zeros(len(values), dtype=np.intp) if strata is None else strata
    means = np.empty((rounds, values.shape[1]))
    step = max(1, _CELLS_AT_ONCE // len(values))
    for start in range(0, rounds, step):
        stop = min(start + step, rounds)
        draws = np.zeros((stop - start, len(values)))
        for stratum in np.unique(strata):
            members = np.flatnonzero(strata == stratum)
            draws[:, members] = generator.multinomial(
                len(members), np.full(len(members), 1 / len(members)), stop - start
            )
        with np.errstate(invalid="ignore"):
            means[start:stop] = (draws @ known) / (draws @ counted.astype(float))
    return means


def interval(means: Array, level: float = 0.95) -> Array:
    """The central interval of resampled means, column by column.

    Args:
        means: [rounds, K].
        level: share of the rounds within the interval.

    Returns:
        [2, K] lower and upper end, of the rounds that have a value.
    """
    tail = 100 * (1 - level) / 2
    return np.asarray(np.nanpercentile(means, [tail, 100 - tail], axis=0))
