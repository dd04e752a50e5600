"""The projection of a video: its CLIP tokens in the head's channels, as floats or int8, independent of the query."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from vtg.features.quantized import quantize_tokens

__all__ = ["LayerTokens", "VideoProjection"]


@dataclass(frozen=True, eq=False)
class LayerTokens:
    """The projected tokens of one CLIP layer.

    Attributes:
        values: [V, T, P, D] of any float dtype, or int8.
        scale: [V, T, P] float16, the scale of each int8 token; None for floats.
    """

    values: Tensor
    scale: Tensor | None

    def chunks(self, frames: int, dtype: torch.dtype) -> Iterator[tuple[Tensor, Tensor | None]]:
        """Tokens [V, F, P, D] and their scales [V, F, P], both of a float dtype, `frames` at a time."""
        if self.scale is None:
            yield from ((values.to(dtype), None) for values in self.values.split(frames, 1))
            return
        for values, scale in zip(self.values.split(frames, 1), self.scale.split(frames, 1), strict=True):
            yield values.to(dtype), scale.to(dtype)

    def class_tokens(self, dtype: torch.dtype) -> Tensor:
        """The dequantised class tokens, [V, T, D]."""
        tokens = self.values[:, :, 0].to(dtype)
        return tokens if self.scale is None else tokens * self.scale[:, :, :1]


@dataclass(frozen=True, eq=False)
class VideoProjection:
    """The query-independent part of the R² block for V equally long windows.

    It depends on the position of a frame in its window, because each token includes its temporal extent.

    Attributes:
        values: [V, K, T, P, D] of any float dtype, or int8; earliest layer first, the class token first. P is 1 for a
            head without spatial pooling.
        scale: [V, K, T, P] float16, the scale of each int8 token; None for floats.
    """

    values: Tensor
    scale: Tensor | None = None

    def quantized(self) -> VideoProjection:
        """The same tokens as int8, with one scale per token."""
        return self if self.scale is not None else VideoProjection(*quantize_tokens(self.values))

    def layers(self) -> list[LayerTokens]:
        """The K layers, earliest first."""
        values = self.values.unbind(1)  # one operator for all layers: one tensor for the gradient
        scales = [None] * len(values) if self.scale is None else self.scale.unbind(1)
        return [LayerTokens(*layer) for layer in zip(values, scales, strict=True)]

    def to(self, device: torch.device) -> VideoProjection:
        """The projection on another device."""
        return VideoProjection(self.values.to(device), None if self.scale is None else self.scale.to(device))

    def select_frames(self, frames: list[int]) -> VideoProjection:
        """Some frames of each window."""
        return VideoProjection(self.values[:, :, frames], None if self.scale is None else self.scale[:, :, frames])

    def __len__(self) -> int:
        return len(self.values)

    def __getitem__(self, windows: slice) -> VideoProjection:
        return VideoProjection(self.values[windows], None if self.scale is None else self.scale[windows])

    @property
    def frames(self) -> int:
        """T, the frames of each window."""
        return self.values.shape[2]

    @property
    def nbytes(self) -> int:
        """Bytes of all arrays."""
        return self.values.nbytes + (0 if self.scale is None else self.scale.nbytes)
