"""Painting on frames."""

from __future__ import annotations

import numpy as np

from vtg.pictures import paint_attention


def test_attention_is_painted_where_it_is() -> None:
    frame = np.full((70, 70, 3), 90, np.uint8)
    attention = np.zeros((7, 7), np.float32)
    attention[1, 5] = 0.3
    painted = paint_attention(frame, attention)
    changed = np.abs(painted.astype(int) - 90).sum(axis=2)
    assert np.unravel_index(changed.argmax(), changed.shape)[0] in range(10, 20)
    assert np.unravel_index(changed.argmax(), changed.shape)[1] in range(50, 60)
    assert changed[40:, :30].max() == 0


def test_no_attention_leaves_the_frame() -> None:
    frame = np.random.default_rng(0).integers(0, 256, (16, 16, 3), dtype=np.uint8)
    np.testing.assert_array_equal(paint_attention(frame, np.zeros((2, 2), np.float32)), frame)
