"""Options of the page's server."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from vtg.models.specs import ModelSpec

__all__ = ["Options"]


@dataclass(frozen=True)
class Options:
    """Options of `vtg ui`.

    Attributes:
        folder: of the library; None for the default one.
        roots: folders from which visitors may add videos.
        model: of a new library, or head and weights for an existing one; None for its own.
        device: a torch device; None for the best.
        upload_bytes: maximum size of an uploaded file; 0 forbids uploads.
        host: name or address to listen on.
        allow_hosts: further host names of the page; see `origins.OwnAddresses`.
        password: of the page; None for none.
        language: of the queries; see `vtg.ClipEncoder`.
    """

    folder: Path | None = None
    roots: tuple[Path, ...] = ()
    model: ModelSpec | str | None = None
    device: str | None = None
    upload_bytes: int = 4_000_000_000
    host: str = "127.0.0.1"
    allow_hosts: tuple[str, ...] = ()
    password: str | None = field(default=None, repr=False)
    language: str | None = None
