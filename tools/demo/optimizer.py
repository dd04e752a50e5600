"""The optimizer of the demo models: Muon (orthogonalised momentum) for matrices, AdamW for the other parameters."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, nn

__all__ = ["USES_BFLOAT16", "MatrixGroup", "MuonAdamW", "count_clip_matrices", "count_head_matrices"]

MOMENTUM = 0.95
# Jordan et al., "Muon" (2024): the coefficients of Newton–Schulz iterations, which bring all singular values near 1.
QUINTIC_COEFFICIENTS = (3.4445, -4.7750, 2.0315)
ITERATIONS = 5
MIN_MATRIX_ROWS = 8  # parameters with fewer rows are left to AdamW
# Where the processor only emulates bfloat16, float32 is much faster; older versions of PyTorch do not report it.
_capabilities: Callable[[], dict[str, Any]] = getattr(torch.cpu, "get_capabilities", lambda: {})
USES_BFLOAT16 = bool(_capabilities().get("avx512_bf16", True))
MAX_GRADIENT_NORM = 2.0  # of AdamW's parameters; orthogonalised steps do not depend on the gradient's norm


def count_clip_matrices(name: str, parameter: nn.Parameter) -> int:
    """Number of matrices in a parameter of a tower's transformer blocks: query, key and value are one tensor."""
    if "blocks." not in name or parameter.ndim != 2:
        return 0
    return 3 if "in_proj" in name or "qkv" in name else 1


def count_head_matrices(_name: str, parameter: nn.Parameter) -> int:
    """Number of matrices in a parameter of an R² head: 1 for matrices and convolutions, else 0."""
    return int(parameter.ndim > 1 and len(parameter) >= MIN_MATRIX_ROWS)


class MuonAdamW:
    """Updates matrices with Muon and other parameters with AdamW; needs half as many steps here as AdamW alone.

    Args:
        model: the model to train.
        learning_rate: learning rate of AdamW.
        matrix_learning_rate: learning rate of Muon.
        weight_decay: weight decay of parameters with more than one dimension.
        count_matrices: returns the number of matrices stacked in a parameter, given its name; 0 leaves it to AdamW.
    """

    def __init__(
        self,
        model: nn.Module,
        learning_rate: float,
        matrix_learning_rate: float,
        weight_decay: float,
        count_matrices: Callable[[str, nn.Parameter], int] = count_clip_matrices,
    ) -> None:
        named = list(model.named_parameters())
        groups: dict[tuple[int, torch.Size], list[nn.Parameter]] = {}
        self._others = []
        for name, parameter in named:
            stacked = count_matrices(name, parameter)
            if stacked:
                groups.setdefault((stacked, parameter.shape), []).append(parameter)
            else:
                self._others.append(parameter)
        self._matrices = [
            MatrixGroup(same, stacked, matrix_learning_rate, weight_decay) for (stacked, _), same in groups.items()
        ]
        self._learning_rate = learning_rate
        self._adam = torch.optim.AdamW(
            [
                {"params": [p for p in self._others if p.ndim > 1], "weight_decay": weight_decay},
                {"params": [p for p in self._others if p.ndim <= 1], "weight_decay": 0.0},
            ],
            lr=learning_rate,
            betas=(0.9, 0.98),
        )

    def step(self, factor: float) -> None:
        """Update all parameters from their gradients, with all learning rates multiplied by `factor`."""
        nn.utils.clip_grad_norm_(self._others, MAX_GRADIENT_NORM)
        for group in self._adam.param_groups:
            group["lr"] = self._learning_rate * factor
        self._adam.step()
        for matrices in self._matrices:
            matrices.step(factor)


class MatrixGroup:
    """Matrices of the same shape, updated together with Muon.

    Args:
        parameters: of shape [stacked · R, …]; the other dimensions are flattened into the columns of a matrix.
        stacked: number of matrices in each parameter.
        learning_rate: step size relative to an orthogonal matrix.
        weight_decay: relative to the learning rate.
    """

    def __init__(
        self, parameters: Sequence[nn.Parameter], stacked: int, learning_rate: float, weight_decay: float
    ) -> None:
        self._parameters = parameters
        self._stacked = stacked
        self._learning_rate = learning_rate
        self._weight_decay = weight_decay
        self._momentum = torch.zeros((len(parameters), *parameters[0].flatten(1).shape))

    @torch.no_grad()
    def step(self, factor: float) -> None:
        """Update the matrices from their gradients, with the learning rate multiplied by `factor`."""
        gradients = torch.stack(
            [(p.grad if p.grad is not None else torch.zeros_like(p)).flatten(1) for p in self._parameters]
        )
        self._momentum.lerp_(gradients, 1 - MOMENTUM)
        ahead = gradients.lerp(self._momentum, MOMENTUM)
        count, rows, columns = ahead.shape
        directions = _orthogonalise(ahead.view(count * self._stacked, rows // self._stacked, columns)).view_as(ahead)
        rate = self._learning_rate * factor
        stretch = max(1.0, rows / self._stacked / columns) ** 0.5  # otherwise tall matrices would change too little
        for parameter, direction in zip(self._parameters, directions, strict=True):
            change = direction.view_as(parameter)
            parameter.mul_(1 - rate * self._weight_decay).add_(change, alpha=-rate * stretch)


def _orthogonalise(matrices: Tensor) -> Tensor:
    """Approximate the nearest (semi-)orthogonal matrices by Newton–Schulz iterations: [N, R, C] → [N, R, C]."""
    a, b, c = QUINTIC_COEFFICIENTS
    tall = matrices.shape[-2] > matrices.shape[-1]
    near = matrices.mT if tall else matrices
    near = (near / (near.norm(dim=(-2, -1), keepdim=True) + 1e-7)).to(
        torch.bfloat16 if USES_BFLOAT16 else torch.float32
    )
    for _ in range(ITERATIONS):
        gram = near @ near.mT
        near = a * near + (b * gram + c * gram @ gram) @ near
    return (near.mT if tall else near).to(matrices.dtype)
