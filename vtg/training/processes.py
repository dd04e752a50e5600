"""Set up processes, device and precision of a training with accelerate, and watch for interrupts."""

from __future__ import annotations

import signal
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from types import FrameType
from typing import TYPE_CHECKING, Any

import torch

from vtg.errors import VtgError
from vtg.recipes import TrainRecipe
from vtg.training.batches import max_batch_size
from vtg.training.data import TrainingSample

if TYPE_CHECKING:
    from accelerate import Accelerator

__all__ = ["any_interrupted", "batch_size", "make_accelerator", "watch_interrupts"]


def make_accelerator(recipe: TrainRecipe, device: str | None, some_unused: bool) -> Accelerator:
    """Make an `Accelerator` with mixed precision.

    Args:
        recipe: determines the precision.
        device: "cuda", "mps" or "cpu"; None for the best available.
        some_unused: whether some parameters may have no gradient, such as pyramid levels whose stride exceeds T.

    Raises:
        VtgError: the device is not available, or does not support the precision.
    """
    from accelerate import Accelerator, DistributedDataParallelKwargs
    from accelerate.state import AcceleratorState

    precision = {"float32": "no"}.get(recipe.precision, recipe.precision)
    # A training before this one in the same process may have had another precision, or another device. accelerate has
    # no public way to begin anew: an Accelerator of another precision is refused until the state is cleared.
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
    """The recipe's batch size, or the number of samples if it is smaller.

    Raises:
        VtgError: it is not divisible by the number of processes.
    """
    together = recipe.queries_per_video
    batch = min(recipe.batch, max_batch_size(samples, together))
    batch -= batch % (processes * together) if batch < recipe.batch else 0
    if batch == 0 or batch % (processes * together):
        raise VtgError(
            f"a batch of {batch or recipe.batch} does not divide among {processes} processes with {together} queries a "
            "video; choose another --set train.batch="
        )
    return batch


@contextmanager
def watch_interrupts() -> Iterator[Callable[[], bool]]:
    """A function that returns whether SIGINT or SIGTERM was received; a second signal has its default effect."""
    interrupted = False
    before: dict[int, Any] = {}

    def restore_handlers() -> None:
        for number, handler in before.items():
            signal.signal(number, handler)

    def handle_signal(number: int, frame: FrameType | None) -> None:
        nonlocal interrupted
        interrupted = True
        restore_handlers()

    try:
        for number in (signal.SIGINT, signal.SIGTERM):
            before[number] = signal.signal(number, handle_signal)
    except ValueError:
        pass  # not in the main thread, where signals cannot be handled
    try:
        yield lambda: interrupted
    finally:
        restore_handlers()


def any_interrupted(accelerator: Accelerator, own: bool) -> bool:
    """Whether any process was interrupted, as all have to stop after the same step."""
    if accelerator.num_processes == 1:
        return own
    total: torch.Tensor = accelerator.reduce(torch.tensor([float(own)], device=accelerator.device), "sum")
    return bool(total.item() > 0)
