"""Thumbnails: mean colours, and a measure of change that neither light nor small things mislead."""

from __future__ import annotations

import numpy as np
import pytest

from vtg.features.thumbnails import frame_differences, make_thumbnails


@pytest.mark.parametrize("side", [8, 64, 224, 100])
def test_a_thumbnail_has_the_mean_colours(side: int) -> None:
    quarters = np.zeros((2, side, side, 3), np.uint8)
    quarters[0, : side // 2, : side // 2] = (200, 10, 30)
    quarters[1, side // 2 :, :] = (0, 250, 0)
    small = make_thumbnails(quarters)
    assert (small.shape, small.dtype) == ((2, 8, 8, 3), np.uint8)
    assert small[0, 1, 1].tolist() == [200, 10, 30]
    assert small[0, 6, 6].tolist() == [0, 0, 0]
    assert small[1, 7, 0].tolist() == [0, 250, 0]


def test_what_moves_within_a_picture_changes_it_little() -> None:
    background = np.random.default_rng(0).integers(0, 256, (8, 8, 3)).repeat(8, axis=0).repeat(8, axis=1)
    frames = np.stack([background] * 3).astype(np.uint8)
    frames[1, 8:24, 8:24] = frames[2, 40:56, 40:56] = 255
    assert frame_differences(make_thumbnails(frames)).max() < 0.3


@pytest.mark.parametrize("light", [1.0, 0.2])
def test_pictures_that_have_nothing_to_do_with_each_other_are_one_contrast_apart(light: float) -> None:
    frames = (np.random.default_rng(1).integers(0, 256, (40, 8, 8, 3)) * light).astype(np.uint8)
    changes = frame_differences(frames)
    assert changes.shape == (39,)
    assert np.mean(changes) == pytest.approx(1.1, abs=0.1)
    assert changes.min() > 0.9


def test_noise_on_black_is_no_change() -> None:
    frames = np.random.default_rng(2).integers(0, 3, (10, 8, 8, 3)).astype(np.uint8)
    assert frame_differences(frames).max() < 0.4
    assert frame_differences(frames[:1]).shape == (0,)
