"""Which files of this machine visitors may add by name: those below the folders that the page was started with."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from vtg.errors import VtgError
from vtg.plain_text import from_utf8, to_utf8

__all__ = ["Roots"]


class Roots:
    """Folders that may be read, and nothing else.

    Args:
        folders: may be none.
    """

    def __init__(self, folders: Iterable[Path]) -> None:
        self._roots = tuple(folder.expanduser().resolve() for folder in folders)

    def __bool__(self) -> bool:
        return bool(self._roots)

    def allowed(self, written: str) -> Path:
        """The file or folder that a visitor may add by name.

        Args:
            written: absolute, or relative to one of the roots.

        Raises:
            VtgError: it lies outside the roots, or is not there.
        """
        if not self._roots:
            raise VtgError("This page may read no folders: start it with vtg ui --root FOLDER, or upload files.")
        try:
            path = Path(from_utf8(written.strip())).expanduser()
            candidates = [path] if path.is_absolute() else [root / path for root in self._roots]
            resolved = [candidate.resolve() for candidate in candidates]
        except (ValueError, OSError, RuntimeError):
            raise VtgError(f"{written[:100]}: is not a path") from None
        inside = [path for path in resolved if any(path.is_relative_to(root) for root in self._roots)]
        if not inside:
            raise VtgError(
                f"{written[:200]}: lies outside the folders that this page may read "
                f"({', '.join(map(str, self._roots))}); start it with another --root."
            )
        for path in inside:
            if path.exists():
                return path
        raise VtgError(f"{written[:200]}: no such file or folder.")

    def folders(self, most: int = 300) -> list[str]:
        """The roots and the folders up to two levels below them, for choosing from."""
        found: list[str] = []
        for root in self._roots:
            found.append(to_utf8(str(root)))
            for pattern in ("*/", "*/*/"):
                for path in sorted(root.glob(pattern)):
                    if path.is_dir() and not any(part.startswith(".") for part in path.relative_to(root).parts):
                        found.append(to_utf8(str(path)))
                        if len(found) >= most:
                            return found
        return found
