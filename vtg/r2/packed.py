"""Linear maps for small batches of rows: the only module that knows how weights are laid out for the processor."""

from __future__ import annotations

import torch
from torch import Tensor

__all__ = ["PackedLinear"]

ROWS_EXPECTED = 75  # of inputs; others are taken too, and no slower than without packing


class PackedLinear:
    """A linear map of fixed weights, in bfloat16 laid out once as the processor multiplies them.

    torch lays the weights of a bfloat16 product out anew in each call, which for few rows takes longer than the
    product. The operator that takes them as they are is what torch's own compiler uses; where there is none, the result
    is that of the public one.

    Args:
        weight: [out, in].
        bias: [out].
        dtype: of the product.
        rectified: whether negative results become 0.
    """

    def __init__(self, weight: Tensor, bias: Tensor, dtype: torch.dtype, rectified: bool = False) -> None:
        self.dtype = dtype
        self._rectified = rectified
        self._bias = bias.detach().to(dtype)
        self._packed = _packed(weight.detach().to(dtype))
        if self._packed is not None:
            self._product = torch.ops.mkldnn._linear_pointwise.default
            self._after = "relu" if rectified else "none"
        # Transposed: small products of other types read it quicker.
        self._weight = None if self._packed is not None else weight.detach().T.contiguous().to(dtype)

    def __call__(self, inputs: Tensor) -> Tensor:
        """[rows, in], any float dtype → [rows, out] of the product's dtype."""
        inputs = inputs.to(self.dtype)
        if self._packed is not None:
            packed: Tensor = self._product(inputs, self._packed, self._bias, self._after, [], "")
            return packed
        assert self._weight is not None  # one of both is there
        product = torch.addmm(self._bias, inputs, self._weight)
        return product.relu_() if self._rectified else product


def _packed(weight: Tensor) -> Tensor | None:
    if weight.device.type != "cpu" or weight.dtype != torch.bfloat16:
        return None
    try:
        return torch.ops.mkldnn._reorder_linear_weight(weight, ROWS_EXPECTED)
    except (AttributeError, RuntimeError):  # another torch, or one that was built without the operator
        return None
