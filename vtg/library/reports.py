"""Report of an indexing run."""

from __future__ import annotations

from dataclasses import dataclass, field

__all__ = ["IndexReport"]


@dataclass
class IndexReport:
    """Result of an indexing run.

    Attributes:
        added: files that are new or had changed.
        moved: for those of them that were moved, the old path.
        removed: files that no longer exist and were removed.
        away: missing files that are kept because their whole folder is missing, as on a disk that is not connected.
        unchanged: files that were in the library already.
        failed: files that cannot be indexed, with the reason.
        warnings: one line for each subtitle file that cannot be read, with the reason.
        seconds: of video that were encoded.
        stopped: the run was stopped; the file in progress is not in the library.
    """

    added: list[str] = field(default_factory=list)
    moved: dict[str, str] = field(default_factory=dict)
    removed: list[str] = field(default_factory=list)
    away: list[str] = field(default_factory=list)
    unchanged: list[str] = field(default_factory=list)
    failed: dict[str, str] = field(default_factory=dict)
    warnings: list[str] = field(default_factory=list)
    seconds: float = 0.0
    stopped: bool = False
