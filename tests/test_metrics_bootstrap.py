"""Bootstrap intervals: they cover what they should, and pairs of systems share their draws."""

from __future__ import annotations

import numpy as np
import pytest

from vtg.metrics import bootstrap as module
from vtg.metrics import interval, resampled_means


def test_the_interval_has_the_width_of_theory() -> None:
    values = np.random.default_rng(0).normal(5.0, 2.0, (400, 1))
    low, high = interval(resampled_means(values, 4000))[:, 0]
    error = values.std() / np.sqrt(400)
    assert low == pytest.approx(values.mean() - 1.96 * error, abs=0.25 * error)
    assert high == pytest.approx(values.mean() + 1.96 * error, abs=0.25 * error)


def test_two_systems_on_the_same_queries_share_their_draws() -> None:
    values = np.random.default_rng(0).normal(size=(50, 1))
    difference = resampled_means(values + 0.01, 200) - resampled_means(values, 200)
    np.testing.assert_allclose(difference, 0.01)


def test_queries_that_do_not_count_are_left_out() -> None:
    values = np.array([[1.0], [1.0], [np.nan], [1.0]])
    assert set(interval(resampled_means(values, 100))[:, 0]) == {1.0}


def test_every_stratum_keeps_its_size() -> None:
    values = np.array([[0.0], [0.0], [0.0], [1.0]])
    means = resampled_means(values, 50, strata=np.array([0, 0, 0, 1]))
    assert set(means[:, 0]) == {0.25}


def test_draws_in_several_steps_are_as_many_as_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_CELLS_AT_ONCE", 30)
    means = resampled_means(np.arange(10.0)[:, None], 8)
    assert means.shape == (8, 1)
    assert np.isfinite(means).all()
    assert len(set(means[:, 0])) > 1
