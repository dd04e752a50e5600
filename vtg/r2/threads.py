"""Threads for whole pieces of work: their operators do not split it again, and so never wait for each other."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from functools import lru_cache
from typing import TypeVar

import torch

__all__ = ["run_in_threads"]

Piece = TypeVar("Piece")
Result = TypeVar("Result")


def run_in_threads(run: Callable[[Piece], Result], pieces: Iterable[Piece], threads: int) -> list[Result]:
    """Runs something on each piece, without gradients or autocast.

    Args:
        run: is given a piece.
        pieces: of the work; a thread that is done takes the next.
        threads: at most; with one everything runs here.

    Returns:
        What `run` gave, in the order of the pieces.
    """
    inference = torch.is_inference_mode_enabled()

    def quietly(piece: Piece) -> Result:
        # All three are settings of a thread.
        with torch.inference_mode(inference), torch.no_grad(), torch.autocast("cpu", enabled=False):
            return run(piece)

    if threads <= 1:
        return [quietly(piece) for piece in pieces]
    return list(_threads(threads, os.getpid()).map(quietly, pieces))


@lru_cache(maxsize=1)
def _threads(count: int, process: int) -> ThreadPoolExecutor:
    """Threads whose operators work alone.

    Args:
        count: how many.
        process: that they belong to; a fork has none of its parent's.
    """
    threads = ThreadPoolExecutor(count, "vtg-r2")
    barrier = threading.Barrier(count)

    def single() -> None:
        torch.set_num_threads(1)
        barrier.wait()  # so that each of them comes by here

    for done in [threads.submit(single) for _ in range(count)]:
        done.result()
    torch.set_num_threads(count)  # what threads that torch begins later take over
    return threads
