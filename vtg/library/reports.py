"""Report of an indexing run."""

from __future__ import annotations

from dataclasses import dataclass, field

__all__ = ["IndexReport"]


@dataclass
class IndexReport:
    """Result of an indexing run.

    Attributes:
        added: files that are now in the library and were not, or had changed.
        moved: of these, the ones whose content was known under another path, which is gone: that path.
        removed: files that are forgotten, for they are not there any more.
        away: files that are kept although they cannot be seen: all of their folder is away, as a disk may be.
        unchanged: files that were there already.
        failed: files that cannot be indexed, with the reason.
        warnings: a line for each subtitle file, of those read now, that nothing can be read of, with the reason.
        seconds: of video that were encoded.
        stopped: the run was asked to stop; the file at work then is not in the library.
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
