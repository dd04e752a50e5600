"""The machine that a training runs on: its processes, device and precision, and how one is asked to stop."""

from __future__ import annotations

import importlib.util
import signal
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from types import FrameType
from typing import TYPE_CHECKING, Any

import torch

from vtg.errors import VtgError
from vtg.recipes import TrainRecipe
from vtg.training.batches import most_together
from vtg.training.data import TrainingSample

if TYPE_CHECKING:
    from accelerate import Accelerator

__all__ = ["any_interrupted", "batch_size", "interrupts", "make_accelerator", "require_packages"]

PACKAGES = ("accelerate", "tensorboard")  # of the extra "train"


def require_packages() -> None:
    """Make sure that the packages which only training needs are installed.

    Raises:
        VtgError: one is not.
    """
    for name in PACKAGES:
        if importlib.util.find_spec(name) is None:
            raise VtgError(f"training needs {name}, which is not installed; run: pip install 'vtground[train]'")


def make_accelerator(recipe: TrainRecipe, device: str | None, some_unused: bool) -> Accelerator:
    """The processes and the device, with mixed precision.

    Args:
        recipe: says which precision.
        device: "cuda", "mps" or "cpu"; None takes the best there is.
        some_unused: whether a batch may leave a parameter without gradient, as a level of the pyramid whose stride
            exceeds the frames.

    Raises:
        VtgError: there is no such device, or it cannot have the precision.
    """
    from accelerate import Accelerator, DistributedDataParallelKwargs
    from accelerate.state import AcceleratorState

    precision = {"float32": "no"}.get(recipe.precision, recipe.precision)
    # A training before this one in the same process may have had another precision, or another device.
    AcceleratorState._reset_state(reset_partial_state=not torch.distributed.is_initialized())
    try:
        accelerator = Accelerator(
            mixed_precision=precision,
            cpu=device == "cpu",
            kwargs_handlers=[DistributedDataParallelKwargs(find_unused_parameters=some_unused)],
        )
    except (ValueError, NotImplementedError) as error:
        raise VtgError(f"precision {recipe.precision}: {error}; --set train.precision=float32 works anywhere") from None
    if device is not None and accelerator.device.type != device:
        raise VtgError(f"there is no device {device} here; accelerate found {accelerator.device.type}")
    return accelerator


def batch_size(recipe: TrainRecipe, samples: Sequence[TrainingSample], processes: int) -> int:
    """The recipe's batch, or all samples where there are fewer.

    Raises:
        VtgError: the processes cannot share it equally.
    """
    together = recipe.queries_per_video
    batch = min(recipe.batch, most_together(samples, together))
    batch -= batch % (processes * together) if batch < recipe.batch else 0
    if batch == 0 or batch % (processes * together):
        raise VtgError(
            f"a batch of {batch or recipe.batch} does not divide among {processes} processes with {together} queries a "
            "video; choose another --set train.batch="
        )
    return batch


@contextmanager
def interrupts() -> Iterator[Callable[[], bool]]:
    """Whether Ctrl-C (or a polite kill) asked to stop; a second one stops at once, as it would without this."""
    asked = False
    before: dict[int, Any] = {}

    def give_back() -> None:
        for number, handler in before.items():
            signal.signal(number, handler)

    def note(number: int, frame: FrameType | None) -> None:
        nonlocal asked
        asked = True
        give_back()

    try:
        for number in (signal.SIGINT, signal.SIGTERM):
            before[number] = signal.signal(number, note)
    except ValueError:
        pass  # not the main thread: who runs it there stops it in another way
    try:
        yield lambda: asked
    finally:
        give_back()


def any_interrupted(accelerator: Accelerator, own: bool) -> bool:
    """Whether any process was interrupted: all have to stop after the same step."""
    if accelerator.num_processes == 1:
        return own
    total: torch.Tensor = accelerator.reduce(torch.tensor([float(own)], device=accelerator.device), "sum")
    return bool(total.item() > 0)
