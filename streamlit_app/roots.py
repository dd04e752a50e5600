"""The folders from which visitors may add files by path, and checks that paths stay within them."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path

from vtg.errors import VtgError
from vtg.files.paths import is_there
from vtg.files.text import from_utf8, to_utf8

__all__ = ["Roots"]

FOLDER_LEVELS = 2  # of folders below a root that are listed


class Roots:
    """The folders that may be read; links are resolved before a path is checked.

    Args:
        folders: may be empty.
        known: visitors may see the absolute paths; otherwise only the names of the folders.

    Attributes:
        named: the resolved folders by the names that visitors use: their own, with a number where two are equal.
    """

    def __init__(self, folders: Iterable[Path], known: bool = True) -> None:
        self._known = known
        self.named: dict[str, Path] = {}
        for folder in dict.fromkeys(folder.expanduser().resolve() for folder in folders):
            name, number = folder.name or "root", 2
            while name in self.named:
                name, number = f"{folder.name or 'root'} ({number})", number + 1
            self.named[name] = folder

    def __bool__(self) -> bool:
        return bool(self.named)

    @property
    def places(self) -> tuple[Path, ...]:
        """The resolved folders."""
        return tuple(self.named.values())

    def hold(self, path: Path) -> bool:
        """Whether a resolved file or folder is below one of the folders."""
        try:
            real = path.resolve()
        except (OSError, RuntimeError, ValueError):
            return False
        return any(real.is_relative_to(root) for root in self.places)

    def escapes(self, path: Path) -> bool:
        """Whether a path below one of the folders leaves all of them by links."""
        return any(path.is_relative_to(root) for root in self.places) and not self.hold(path)

    def allowed(self, written: str) -> Path:
        """Resolve the path of a file or folder that a visitor wants to add.

        Args:
            written: absolute, relative to one of the roots, or starting with the name of one.

        Returns:
            The resolved path.

        Raises:
            VtgError: it lies outside the roots, or does not exist.
        """
        if not self:
            raise VtgError("This page may read no folders: start it with vtg ui --root FOLDER, or upload files.")
        try:
            resolved = [path.resolve() for path in self._candidates(from_utf8(written.strip()))]
        except (ValueError, OSError, RuntimeError):
            raise VtgError(f"{written[:100]}: is not a path") from None
        inside = [path for path in resolved if self.hold(path)]
        if not inside:
            roots = ", ".join(map(str, self.places) if self._known else self.named)
            raise VtgError(
                f"{written[:200]}: lies outside the folders that this page may read ({roots}); "
                "start it with another --root."
            )
        for path in inside:
            if is_there(path):
                return path
        raise VtgError(f"{written[:200]}: no such file or folder.")

    def _candidates(self, written: str) -> list[Path]:
        path = Path(written)
        if written == "~" or written.startswith("~/"):  # not `~user`, which would show whether a user exists
            path = path.expanduser()
        if path.is_absolute():
            return [path]
        first, *rest = path.parts or (".",)
        named = [self.named[first].joinpath(*rest)] if first in self.named else []
        return [*named, *(root / path for root in self.places)]

    def folders(self, most: int = 300) -> list[str]:
        """The roots and their subfolders up to two levels, for a list of choices.

        Args:
            most: maximum number of folders.
        """
        found: list[str] = []
        for name, root in self.named.items():
            for path in (root, *_below(root, FOLDER_LEVELS)):
                inner = path.relative_to(root).parts
                found.append(to_utf8(str(path)) if self._known else to_utf8("/".join((name, *inner))))
                if len(found) >= most:
                    return found
        return found


def _below(folder: Path, levels: int) -> Iterator[Path]:
    """Subfolders that are neither links nor hidden, level by level."""
    level = [folder]
    for _ in range(levels):
        inner: list[Path] = []
        for each in level:
            try:
                entries = sorted(each.iterdir())
            except OSError:
                continue
            inner += [path for path in entries if not path.name.startswith(".") and _is_folder(path)]
        yield from inner
        level = inner


def _is_folder(path: Path) -> bool:
    try:
        return path.is_dir() and not path.is_symlink() and not getattr(path, "is_junction", lambda: False)()
    except OSError:
        return False
