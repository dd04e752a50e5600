"""What no query changes about a video: its tokens in the block's space, computed once, kept small, read quickly."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from vtg.compact import compact_tokens

__all__ = ["PRECISIONS", "VideoProjection"]

PRECISIONS = ("float32", "float16", "int8")


@dataclass(frozen=True, eq=False)
class VideoProjection:
    """The query-independent half of the R² block for V equally long windows.

    It depends on where a window begins, as each of its tokens carries the frame's temporal extent within the window.

    Attributes:
        values: [V, K, T, P, D] float32, float16 or int8; earliest layer first, the class token first. P is 1 where the
            head pools no patches.
        scale: [V, K, T, P] float16, what the int8 values of a token are multiplied by; None for other types.
    """

    values: Tensor
    scale: Tensor | None = None

    @classmethod
    def of(cls, mapped: Tensor, precision: str) -> VideoProjection:
        """Keeps mapped tokens.

        Args:
            mapped: [V, K, T, P, D], from `R2Block.map_video`.
            precision: one of `PRECISIONS`; "int8" keeps each token as whole numbers to ±127 and a scale of its own.
        """
        if precision == "int8":
            return cls(*compact_tokens(mapped))
        return cls(mapped.to(getattr(torch, precision)))

    def __len__(self) -> int:
        return len(self.values)

    def __getitem__(self, windows: slice) -> VideoProjection:
        return VideoProjection(self.values[windows], None if self.scale is None else self.scale[windows])

    @property
    def frames(self) -> int:
        """T, of each window."""
        return self.values.shape[2]

    @property
    def nbytes(self) -> int:
        """What it takes in memory or on a disk."""
        return self.values.nbytes + (0 if self.scale is None else self.scale.nbytes)

    def tokens(self, window: int, layer: int, frames: Sequence[int], like: Tensor) -> Tensor:
        """[frames, P, D]: chosen frames of one window, as numbers of `like`'s kind and place."""
        chosen = list(frames)
        tokens = self.values[window, layer][chosen].to(like)
        return tokens if self.scale is None else tokens * self.scale[window, layer][chosen].to(like)[..., None]
