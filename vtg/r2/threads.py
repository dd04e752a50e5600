"""Threads for whole pieces of work: their operators do not split it again, and so never wait for each other."""

from __future__ import annotations

import contextlib
import os
import threading
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from functools import lru_cache
from typing import Generic, TypeVar

import torch

__all__ = ["Ahead", "run_in_threads", "run_together"]

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
    quietly = _quiet(run)
    if threads <= 1:
        return [quietly(piece) for piece in pieces]
    return list(_threads(threads, os.getpid()).map(quietly, pieces))


def run_together(run: Callable[[], object], helpers: int, threads: int) -> None:
    """Runs something here and in other threads at the same time, that share the work among each other.

    Args:
        run: does whatever nobody else does yet; a helper that is busy elsewhere may never call it.
        helpers: other threads that may call it, fewer than `threads`.
        threads: as `run_in_threads` has.
    """
    others: list[Future[object]] = []
    try:
        for _ in range(helpers):
            others.append(_threads(threads, os.getpid()).submit(run))
        run()
    finally:  # whatever happens here: what is shared stays until nobody works on it
        for other in others:
            if not other.cancel():
                other.result()


class Ahead(Generic[Piece, Result]):
    """Pieces of work that other threads do ahead of the one that needs them, which meanwhile does something else.

    A piece that has not begun when it is needed is done by whoever needs it: no thread ever waits for one that is busy
    elsewhere. Another thread is called once, not for each piece: while it is told what to do, nobody else can go on.

    Args:
        run: is given a piece.
        pieces: in the order in which they will be needed.
        threads: as `run_in_threads` has.
    """

    def __init__(self, run: Callable[[Piece], Result], pieces: Sequence[Piece], threads: int) -> None:
        self._run = run
        self._pieces = pieces
        self._claims = [threading.Lock() for _ in pieces]
        self._done: list[Future[Result]] = [Future() for _ in pieces]
        if threads > 1 and pieces:
            pool = _threads(threads, os.getpid())
            help_out = _quiet(lambda _: self._help())
            for _ in range(min(threads - 1, len(pieces))):
                pool.submit(help_out, None)

    def take(self, place: int) -> Result:
        """What `run` gives for the piece at a place, which is taken once."""
        if self._claims[place].acquire(blocking=False):
            return self._run(self._pieces[place])
        return self._done[place].result()

    def _help(self) -> None:
        for place in range(len(self._pieces)):
            if self._claims[place].acquire(blocking=False):
                try:
                    self._done[place].set_result(self._run(self._pieces[place]))
                except BaseException as error:  # whoever needs the piece is told
                    self._done[place].set_exception(error)


def _quiet(run: Callable[[Piece], Result]) -> Callable[[Piece], Result]:
    inference = torch.is_inference_mode_enabled()

    def quietly(piece: Piece) -> Result:
        # All three are settings of a thread. Leaving an autocast that nobody entered takes longer than a small piece.
        with contextlib.ExitStack() as settings:
            settings.enter_context(torch.inference_mode(inference))
            settings.enter_context(torch.no_grad())
            if torch.is_autocast_enabled("cpu"):
                settings.enter_context(torch.autocast("cpu", enabled=False))
            return run(piece)

    return quietly


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
        torch.get_num_threads()  # a thread takes over the process's number when first asked, and would do so later
        torch.set_num_threads(1)
        barrier.wait()  # so that each of them comes by here

    for done in [threads.submit(single) for _ in range(count)]:
        done.result()
    torch.set_num_threads(count)  # what threads that torch begins later take over
    return threads
