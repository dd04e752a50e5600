"""How the demo world's models take a step: orthogonalised momentum for their matrices, AdamW for the rest."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, nn

__all__ = ["USES_BFLOAT16", "BlockMatrices", "StepTaker", "stacked_in_clip", "stacked_in_head"]

MOMENTUM = 0.95
# Jordan et al., "Muon" (2024): a quintic that brings all singular values near 1 in five rounds.
QUINTIC = (3.4445, -4.7750, 2.0315)
ROUNDS = 5
SMALLEST_MATRIX = 8  # rows; of fewer, directions cannot be told apart
# Where the processor only emulates bfloat16, float32 is many times faster; older versions of torch do not tell.
_capabilities: Callable[[], dict[str, Any]] = getattr(torch.cpu, "get_capabilities", lambda: {})
USES_BFLOAT16 = bool(_capabilities().get("avx512_bf16", True))
LARGEST_GRADIENT = 2.0  # norm, of AdamW's parameters; orthogonalised steps have no size to clip


def stacked_in_clip(name: str, parameter: nn.Parameter) -> int:
    """How many matrices of a transformer block a parameter of a CLIP holds: query, key and value are one tensor."""
    if "resblocks" not in name or parameter.ndim != 2:
        return 0
    return 3 if "in_proj" in name else 1


def stacked_in_head(_name: str, parameter: nn.Parameter) -> int:
    """How many matrices a parameter of an R² head holds: convolutions are matrices too, single rows are not."""
    return int(parameter.ndim > 1 and len(parameter) >= SMALLEST_MATRIX)


class StepTaker:
    """Updates a model; half the steps of AdamW alone lead to the same loss here.

    Args:
        model: its matrices get orthogonalised steps.
        rate: of AdamW.
        matrix_rate: of the matrices.
        weight_decay: of everything with more than one dimension.
        stacked: how many matrices, above each other, a parameter of a name holds; 0 leaves it to AdamW.
    """

    def __init__(
        self,
        model: nn.Module,
        rate: float,
        matrix_rate: float,
        weight_decay: float,
        stacked: Callable[[str, nn.Parameter], int] = stacked_in_clip,
    ) -> None:
        named = list(model.named_parameters())
        groups: dict[tuple[int, torch.Size], list[nn.Parameter]] = {}
        self._others = []
        for name, parameter in named:
            joint = stacked(name, parameter)
            if joint:
                groups.setdefault((joint, parameter.shape), []).append(parameter)
            else:
                self._others.append(parameter)
        self._matrices = [BlockMatrices(same, joint, matrix_rate, weight_decay) for (joint, _), same in groups.items()]
        self._rate = rate
        self._adam = torch.optim.AdamW(
            [
                {"params": [p for p in self._others if p.ndim > 1], "weight_decay": weight_decay},
                {"params": [p for p in self._others if p.ndim <= 1], "weight_decay": 0.0},
            ],
            lr=rate,
            betas=(0.9, 0.98),
        )

    def step(self, factor: float) -> None:
        """Takes one step by the gradients that the parameters hold, with all rates times `factor`."""
        nn.utils.clip_grad_norm_(self._others, LARGEST_GRADIENT)
        for group in self._adam.param_groups:
            group["lr"] = self._rate * factor
        self._adam.step()
        for matrices in self._matrices:
            matrices.step(factor)


class BlockMatrices:
    """Matrices of one shape, updated together.

    Args:
        parameters: of shape [joint · R, …], whose other dimensions are the columns of a matrix.
        joint: how many matrices one parameter holds, above each other.
        rate: the change of a matrix in one step, as a share of an orthogonal one.
        weight_decay: relative to the rate.
    """

    def __init__(self, parameters: Sequence[nn.Parameter], joint: int, rate: float, weight_decay: float) -> None:
        self._parameters = parameters
        self._joint = joint
        self._rate = rate
        self._weight_decay = weight_decay
        self._momentum = torch.zeros((len(parameters), *parameters[0].flatten(1).shape))

    @torch.no_grad()
    def step(self, factor: float) -> None:
        """Takes one step by the gradients that the parameters hold, with the rate times `factor`."""
        gradients = torch.stack(
            [(p.grad if p.grad is not None else torch.zeros_like(p)).flatten(1) for p in self._parameters]
        )
        self._momentum.lerp_(gradients, 1 - MOMENTUM)
        ahead = gradients.lerp(self._momentum, MOMENTUM)
        count, rows, columns = ahead.shape
        directions = _orthogonalised(ahead.view(count * self._joint, rows // self._joint, columns)).view_as(ahead)
        rate = self._rate * factor
        stretch = max(1.0, rows / self._joint / columns) ** 0.5  # tall matrices would else change too little
        for parameter, direction in zip(self._parameters, directions, strict=True):
            change = direction.view_as(parameter)
            parameter.mul_(1 - rate * self._weight_decay).add_(change, alpha=-rate * stretch)


def _orthogonalised(matrices: Tensor) -> Tensor:
    """The nearest (semi-)orthogonal matrices, nearly: [N, R, C] → [N, R, C]."""
    a, b, c = QUINTIC
    tall = matrices.shape[-2] > matrices.shape[-1]
    near = matrices.mT if tall else matrices
    near = (near / (near.norm(dim=(-2, -1), keepdim=True) + 1e-7)).to(
        torch.bfloat16 if USES_BFLOAT16 else torch.float32
    )
    for _ in range(ROUNDS):
        gram = near @ near.mT
        near = a * near + (b * gram + c * gram @ gram) @ near
    return (near.mT if tall else near).to(matrices.dtype)
