"""The map from CLIP tokens into the block's space, quick on a CPU: nearly all of training's work is done here."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from vtg.r2.threads import run_in_threads

__all__ = ["TokenMap"]

CHUNK_TOKENS = 1024  # mapped at once: what lies between the steps stays in the cache
NORM_EPSILON = 1e-5  # torch's default
DRAWS = 1 << 16  # a dropout probability is rounded to so many parts, as each element draws 16 random bits

Mask = npt.NDArray[np.bool_] | None
Packed = npt.NDArray[np.uint8] | None  # a mask, eight elements a byte
Chunks = Sequence[tuple[int, slice]]  # numbers, and frames
Result = TypeVar("Result")


class TokenMap(nn.Sequential):
    """Two linear layers, each after normalisation and dropout, the same for all K layers (Sec. 3, R² Block).

    On a CPU the generic operators would spend most of a training step on drawing dropout's random numbers and on moving
    activations to memory and back. `frames` computes the same function chunk by chunk, one thread a chunk, straight
    from float16 features, with random bits that cost a fiftieth, and keeps one activation for the way back.

    Args:
        width: of a token, with its temporal extent.
        hidden_width: D.
        dropout: probability, in training.
    """

    def __init__(self, width: int, hidden_width: int, dropout: float) -> None:
        super().__init__(
            nn.LayerNorm(width, eps=NORM_EPSILON),
            nn.Dropout(dropout),
            nn.Linear(width, hidden_width),
            nn.ReLU(),
            nn.LayerNorm(hidden_width, eps=NORM_EPSILON),
            nn.Dropout(dropout),
            nn.Linear(hidden_width, hidden_width),
        )
        self.dropout = dropout

    def frames(self, tokens: Tensor, extent: Tensor | None, mask: Tensor | None = None) -> Tensor:
        """Maps the tokens of frames.

        Args:
            tokens: [F, P, C], any float dtype; on a CPU without a gradient of their own.
            extent: [F, 2], two more inputs of each of a frame's tokens; None for none.
            mask: [F], true where a frame is real; the tokens of others count as zeros. None if all are.

        Returns:
            [F, P, D], in the dtype of the weights, or of autocast.
        """
        weight: Tensor = self[2].weight  # type: ignore[assignment]
        if tokens.device.type != "cpu" or weight.device.type != "cpu" or weight.dtype != torch.float32:
            inputs = tokens.to(weight)
            if mask is not None:
                inputs = inputs.masked_fill(~mask[:, None, None], 0)
            if extent is not None:
                inputs = torch.cat((inputs, extent.to(weight)[:, None].expand(-1, tokens.shape[1], -1)), dim=2)
            generic: Tensor = self(inputs)
            return generic
        drops = self.training and self.dropout > 0
        settings = _Settings(
            dropped=round(self.dropout * DRAWS) if drops else 0,
            seed=int(torch.randint(1 << 62, ())) if drops else 0,
            dtype=torch.get_autocast_dtype("cpu") if torch.is_autocast_enabled("cpu") else torch.float32,
            keep=torch.is_grad_enabled(),
        )
        parameters = [parameter for layer in (self[0], self[2], self[4], self[6]) for parameter in layer.parameters()]
        mapped: Tensor = _MapFrames.apply(_Frames(tokens, extent, mask), settings, *parameters)
        return mapped


@dataclass(frozen=True, eq=False)
class _Frames:
    """What is mapped: the arguments of `TokenMap.frames`."""

    tokens: Tensor
    extent: Tensor | None
    mask: Tensor | None

    def inputs(self, part: slice) -> Tensor:
        """Some frames, with their temporal extents, as [N, C + 2] float32."""
        tokens = self.tokens[part]
        inputs = torch.empty(*tokens.shape[:2], tokens.shape[2] + (0 if self.extent is None else 2))
        inputs[..., : tokens.shape[2]] = tokens
        if self.extent is not None:
            inputs[..., tokens.shape[2] :] = self.extent[part, None]
        if self.mask is not None and not self.mask[part].all():
            inputs[~self.mask[part], :, : tokens.shape[2]] = 0
        return inputs.flatten(0, 1)


@dataclass(frozen=True)
class _Settings:
    """Of one call.

    Attributes:
        dropped: the share of elements that dropout drops, of `DRAWS`.
        seed: of dropout.
        dtype: of matrix products.
        keep: whether there will be a way back.
    """

    dropped: int
    seed: int
    dtype: torch.dtype
    keep: bool

    @property
    def scale(self) -> float:
        """What the kept elements are multiplied by, so that the expected value stays."""
        return DRAWS / (DRAWS - self.dropped)


class _MapFrames(torch.autograd.Function):
    """`TokenMap.frames` and its derivative by the parameters; the features are frozen and have none."""

    @staticmethod
    def forward(ctx: Any, frames: _Frames, settings: _Settings, *parameters: Tensor) -> Tensor:
        """See `TokenMap.frames`."""
        gain1, shift1, weight1, bias1, gain2, shift2, weight2, bias2 = parameters
        shape, dtype = (*frames.tokens.shape[:2], len(bias1)), settings.dtype
        mapped = torch.empty(shape, dtype=dtype)
        hidden = torch.empty(shape, dtype=dtype) if settings.keep else None
        weight1, bias1, weight2, bias2 = (part.to(dtype) for part in (weight1, bias1, weight2, bias2))

        masks: dict[int, tuple[Packed, Packed]] = {}

        def run(chunks: Chunks) -> None:
            for number, part in chunks:
                inputs = _normalised(frames.inputs(part), gain1, shift1)[0]
                mask1, mask2 = _draw(settings, number, inputs.shape, (len(inputs), shape[2]))
                first = hidden[part].flatten(0, 1) if hidden is not None else mapped.new_empty(len(inputs), shape[2])
                torch.addmm(bias1, _drop(inputs, mask1).to(dtype), weight1.T, alpha=settings.scale, out=first).relu_()
                inputs = _drop(_normalised(first.float(), gain2, shift2)[0], mask2).to(dtype)
                torch.addmm(bias2, inputs, weight2.T, alpha=settings.scale, out=mapped[part].flatten(0, 1))
                if settings.keep:
                    masks[number] = _packed(mask1), _packed(mask2)

        _in_threads(run, frames.tokens)
        if settings.keep:
            ctx.frames, ctx.settings, ctx.masks = frames, settings, masks
            ctx.save_for_backward(hidden, *parameters)
        return mapped

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        """The gradients of the eight parameters, summed over the chunks."""
        hidden, *parameters = ctx.saved_tensors
        gain1, shift1, weight1, _, gain2, shift2, weight2, _ = parameters
        settings: _Settings = ctx.settings
        dtype = settings.dtype
        low1, low2 = weight1.to(dtype), weight2.to(dtype)

        def run(chunks: Chunks) -> list[Tensor]:
            sums = [torch.zeros_like(parameter) for parameter in parameters]
            d_gain1, d_shift1, d_weight1, d_bias1, d_gain2, d_shift2, d_weight2, d_bias2 = sums
            for number, part in chunks:
                packed1, packed2 = ctx.masks[number]
                gradient = gradients[0][part].flatten(0, 1).to(dtype)
                first = hidden[part].flatten(0, 1).float()
                normal, *moments = _normalised(first, gain2, shift2)
                mask = _unpacked(packed2, normal.shape)
                _add_product(d_weight2, gradient, _drop(normal, mask), settings)
                d_bias2 += gradient.sum(0, dtype=torch.float32)
                gradient = _drop((gradient @ low2).float(), mask).mul_(settings.scale)
                gradient, gains, shifts = _normalised_backward(gradient, first, moments, gain2, shift2)
                d_gain2 += gains
                d_shift2 += shifts
                gradient = _drop(gradient, first.numpy() > 0)
                d_bias1 += gradient.sum(0)
                gradient = gradient.to(dtype)
                inputs = ctx.frames.inputs(part)
                normal, *moments = _normalised(inputs, gain1, shift1)
                mask = _unpacked(packed1, normal.shape)
                _add_product(d_weight1, gradient, _drop(normal, mask), settings)
                gradient = _drop((gradient @ low1).float(), mask).mul_(settings.scale)
                _, gains, shifts = _normalised_backward(gradient, inputs, moments, gain1, shift1, of_inputs=False)
                d_gain1 += gains
                d_shift1 += shifts
            return sums

        of_threads = _in_threads(run, ctx.frames.tokens)
        return None, None, *(torch.stack(same).sum(0) for same in zip(*of_threads, strict=True))


def _in_threads(run: Callable[[Chunks], Result], tokens: Tensor) -> list[Result]:
    """Runs something on the chunks of [F, P, C], each thread on its share of them; one result a thread."""
    frames, patches, _ = tokens.shape
    each = max(1, CHUNK_TOKENS // patches)
    chunks = [(number, slice(start, start + each)) for number, start in enumerate(range(0, frames, each))]
    threads = min(torch.get_num_threads(), len(chunks))
    return run_in_threads(run, [chunks[first::threads] for first in range(threads)], threads)


def _normalised(inputs: Tensor, gain: Tensor, shift: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Layer norm of [N, C]; also the mean and the reciprocal deviation of each row."""
    return torch.native_layer_norm(inputs, inputs.shape[1:], gain, shift, NORM_EPSILON)


def _normalised_backward(
    gradient: Tensor, inputs: Tensor, moments: list[Tensor], gain: Tensor, shift: Tensor, of_inputs: bool = True
) -> tuple[Tensor, Tensor, Tensor]:
    """The gradients of the inputs (if they are wanted), of the gain and of the shift."""
    gradients: tuple[Tensor, Tensor, Tensor] = torch.ops.aten.native_layer_norm_backward(
        gradient, inputs, inputs.shape[1:], *moments, gain, shift, [of_inputs, True, True]
    )
    return gradients


def _add_product(sums: Tensor, gradient: Tensor, inputs: Tensor, settings: _Settings) -> None:
    """Adds gradientᵀ · inputs; the sum over chunks stays in float32."""
    if settings.dtype == torch.float32:
        sums.addmm_(gradient.T, inputs, alpha=settings.scale)
    else:
        sums.add_((gradient.T @ inputs.to(settings.dtype)).float(), alpha=settings.scale)


def _draw(settings: _Settings, number: int, *shapes: Sequence[int]) -> list[Mask]:
    """For each shape, which elements of a chunk are kept; None where nothing is dropped."""
    if not settings.dropped:
        return [None for _ in shapes]
    # A generator for each chunk: it does not matter which thread comes first, or how many there are.
    random = np.random.Generator(np.random.SFC64([settings.seed, number]))
    masks: list[Mask] = []
    for shape in shapes:
        count = math.prod(shape)
        bits = random.integers(0, 1 << 64, size=-(-count // 4), dtype=np.uint64).view(np.uint16)[:count]
        masks.append((bits >= settings.dropped).reshape(shape))
    return masks


def _drop(values: Tensor, mask: Mask) -> Tensor:
    """Zeroes what is not kept, in place."""
    if mask is not None:
        array = values.numpy()
        np.multiply(array, mask, out=array)  # several times quicker than torch's operators on booleans
    return values


def _packed(mask: Mask) -> Packed:
    return None if mask is None else np.packbits(mask.reshape(-1))


def _unpacked(packed: Packed, shape: Sequence[int]) -> Mask:
    return None if packed is None else np.unpackbits(packed, count=math.prod(shape)).view(np.bool_).reshape(shape)
