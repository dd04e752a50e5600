"""The machine's memory: its size, and giving free memory back to the system."""

from __future__ import annotations

import ctypes
import functools
import os
from collections.abc import Callable

__all__ = ["give_memory_back", "machine_memory"]


def machine_memory() -> int | None:
    """Bytes of memory that the machine has; None where the system does not say."""
    try:
        return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    except (AttributeError, ValueError, OSError):  # there is no such call on Windows
        return None


def give_memory_back() -> None:
    """Give memory that is free back to the system, where its library keeps it.

    Large pieces that one thread takes and another one frees leave holes, which glibc keeps and does not always fill:
    a long video would take a little more with each of its windows.
    """
    trim = _trimmer()
    if trim is not None:
        trim(0)


@functools.cache
def _trimmer() -> Callable[[int], int] | None:
    try:
        trim = ctypes.CDLL(None).malloc_trim  # glibc's; other libraries do it by themselves
    except (AttributeError, OSError, TypeError):
        return None
    return lambda kept: int(trim(kept))
