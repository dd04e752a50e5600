"""Many videos in one folder: indexed once, kept in step with the disk, and searched."""

from __future__ import annotations

from typing import TYPE_CHECKING

from vtg.lazy import lazy_names

if TYPE_CHECKING:
    from vtg.library.hits import Hit
    from vtg.library.library import Library

__all__ = [
    "Hit",
    "Library",
]

__getattr__, __dir__ = lazy_names(
    __name__,
    {
        "Hit": "hits",
        "Library": "library",
    },
)
