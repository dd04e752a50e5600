"""Size of the machine's memory, and release of free memory to the operating system."""

from __future__ import annotations

import ctypes
import functools
import os
from collections.abc import Callable

__all__ = ["total_memory", "trim_memory"]


def total_memory() -> int | None:
    """Physical memory of the machine in bytes; None if the system does not report it."""
    try:
        return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    except (AttributeError, ValueError, OSError):  # there is no such call on Windows
        return None


def trim_memory() -> None:
    """Release free memory of the C library to the operating system (glibc's `malloc_trim`; elsewhere no effect).

    Large blocks that are allocated in one thread and freed in another fragment glibc's heap, so that memory use would
    grow with each window of a long video.
    """
    trim = _trimmer()
    if trim is not None:
        trim(0)


@functools.cache
def _trimmer() -> Callable[[int], int] | None:
    try:
        trim = ctypes.CDLL(None).malloc_trim  # other C libraries release memory themselves
    except (AttributeError, OSError, TypeError):
        return None
    return lambda kept: int(trim(kept))
