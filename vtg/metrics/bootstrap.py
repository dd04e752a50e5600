"""Bootstrap confidence intervals of figures, by resampling queries."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

__all__ = ["interval", "resampled_means"]

Array = NDArray[np.float64]

_CELLS_AT_ONCE = 4_000_000  # rounds × queries drawn together; one array of them is 32 MB


def resampled_means(values: Array, rounds: int, seed: int = 0, strata: NDArray[np.intp] | None = None) -> Array:
    """Bootstrap means of every column: queries are resampled with replacement `rounds` times.

    The draws depend on the number of queries, the strata and the seed only, so that the difference of two systems on
    the same queries is a paired bootstrap.

    Args:
        values: [Q, K] K figures of each query; NaN if the query does not count for the figure.
        rounds: number of resamples.
        seed: of the random numbers.
        strata: [Q] stratum 0 … S-1 of each query; the size of each stratum is fixed. None for one stratum.

    Returns:
        [rounds, K]; NaN if no drawn query counts for a figure.
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
        [2, K] lower and upper end, over rounds that are not NaN.
    """
    tail = 100 * (1 - level) / 2
    return np.asarray(np.nanpercentile(means, [tail, 100 - tail], axis=0))
