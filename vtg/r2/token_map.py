"""The map from CLIP tokens into the space of the R² block."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

__all__ = ["Dropout", "TokenMap"]

DRAWS = 1 << 16  # on a CPU the probability is rounded to a multiple of 1 / DRAWS


class Dropout(nn.Dropout):
    """Dropout whose random numbers take a fifth of the time on a CPU: 16 random bits an element.

    PyTorch draws one number an element, in one thread, which would take more of a training step than all else.
    """

    def forward(self, values: Tensor) -> Tensor:
        """Zeroes elements and scales the others so that the expected value stays."""
        if not self.training or self.p == 0 or not values.is_cpu:
            return F.dropout(values, self.p, self.training)
        count = values.numel()
        bits = torch.empty(-(-count // 4), dtype=torch.int64).random_(-(1 << 63), None).view(torch.int16)
        dropped = round(self.p * DRAWS)
        kept = bits[:count].view(values.shape) >= dropped - DRAWS // 2
        return values * kept.to(values.dtype).mul_(DRAWS / (DRAWS - dropped))


class TokenMap(nn.Sequential):
    """Two linear layers, each after normalisation and dropout, the same for all K layers (Sec. 3, R² Block).

    Args:
        width: of a token, with its temporal extent.
        hidden_width: D.
        dropout: probability, in training.
    """

    def __init__(self, width: int, hidden_width: int, dropout: float) -> None:
        super().__init__(
            nn.LayerNorm(width),
            Dropout(dropout),
            nn.Linear(width, hidden_width),
            nn.ReLU(),
            nn.LayerNorm(hidden_width),
            Dropout(dropout),
            nn.Linear(hidden_width, hidden_width),
        )
