"""Select a torch device: the one that is named, or the best available."""

from __future__ import annotations

import torch

from vtg.errors import VtgError

__all__ = ["choose_device"]


def choose_device(name: str | torch.device | None) -> torch.device:
    """Return an available device.

    Args:
        name: "cuda", "cuda:1", "mps", "cpu" or another device of torch; None selects the first available of cuda, mps
            and cpu.

    Raises:
        VtgError: the device is not available on this machine.
    """
    if name is None:
        if torch.cuda.is_available():
            return torch.device("cuda")
        return torch.device("mps" if torch.backends.mps.is_available() else "cpu")
    try:
        device = torch.device(name)
        torch.zeros(1, device=device)
    except (RuntimeError, AssertionError, NotImplementedError):  # what torch raises differs between devices
        raise VtgError(f"there is no device {name} here; name cuda, mps or cpu, or leave out --device") from None
    return device
