"""How the page was started."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from vtg.models.specs import ModelSpec

__all__ = ["Options"]


@dataclass(frozen=True)
class Options:
    """What the command line says of the page.

    Attributes:
        folder: of the library; None for the default one.
        roots: folders that visitors may add videos from.
        model: what a new library is made with, or the head and the weights that an old one is asked with; None for its
            own.
        device: a torch device; None for the best.
        upload_bytes: the largest file that may be uploaded; 0 forbids uploads.
        host: name or address that is listened on.
        allow_hosts: further names that the page is reached under; see `origins.OwnAddresses`.
        password: that visitors have to give; None for none.
    """

    folder: Path | None = None
    roots: tuple[Path, ...] = ()
    model: ModelSpec | str | None = None
    device: str | None = None
    upload_bytes: int = 4_000_000_000
    host: str = "127.0.0.1"
    allow_hosts: tuple[str, ...] = ()
    password: str | None = field(default=None, repr=False)
