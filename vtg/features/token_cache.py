"""The type of a stored projection: a head's query-independent projection of a video."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

__all__ = ["StoredProjection"]


@dataclass(frozen=True, eq=False)
class StoredProjection:
    """The projection of one video; one from a store is memory-mapped.

    Attributes:
        values: [V, K, W, P, D] int8; float32 or float16 in an older library that cannot be written to.
        scale: [V, K, W, P] float16 for int8; None otherwise.
        frames: T, of the video.
        starts: V first frames of the windows.
    """

    values: np.ndarray
    scale: np.ndarray | None
    frames: int
    starts: list[int]

    def __len__(self) -> int:
        return self.frames

    @property
    def length(self) -> int:
        """W, the frames of a window."""
        return int(self.values.shape[2])

    @property
    def nbytes(self) -> int:
        """Size in bytes."""
        return self.values.nbytes + (0 if self.scale is None else self.scale.nbytes)
