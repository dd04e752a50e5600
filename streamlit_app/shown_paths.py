"""Convert paths for display: absolute paths are shown only to visitors on this machine."""

from __future__ import annotations

import re
from collections.abc import Iterable
from pathlib import Path

from .origins import is_local, parse_authority

__all__ = ["ShownPaths", "may_know_paths"]

# The folders of an absolute path, of either system, up to its last part. Not within a word, an address or a fraction.
_FOLDERS = re.compile(
    r"""(?<![\w.:/~\\-])/(?:[^/\s:'",;()]+/)*(?=[^/\s])"""
    r"""|(?<!\w)(?:[A-Za-z]:[\\/]|\\\\)(?:[^\\/\s:'",;()]+[\\/])*"""
)


def may_know_paths(host: str, allow_hosts: Iterable[str]) -> bool:
    """Whether the page can only be reached from this machine.

    Args:
        host: name or address to listen on.
        allow_hosts: further host names of the page.
    """
    names = (parse_authority(name) for name in allow_hosts)
    return is_local(host) and all(parsed is not None and is_local(parsed[0]) for parsed in names)


class ShownPaths:
    """Converts paths for display.

    Args:
        known: visitors may see absolute paths, so that nothing is changed.
        folders: display names and the folders they stand for.
    """

    def __init__(self, known: bool, folders: Iterable[tuple[str, Path]]) -> None:
        self.known = known
        self._folders = sorted(folders, key=lambda item: len(str(item[1])), reverse=True)

    def path(self, path: str | Path) -> str:
        """The displayed path: relative to a named folder, or else only the last part."""
        path = Path(path)
        if self.known:
            return str(path)
        for name, folder in self._folders:
            if path.is_relative_to(folder):
                return "/".join((name, *path.relative_to(folder).parts))
        return path.name or "/"

    def text(self, text: str) -> str:
        """A message, with the paths in it converted."""
        if self.known:
            return text
        for name, folder in self._folders:
            text = re.sub(rf"{re.escape(str(folder))}(?![\w-])", lambda _, name=name: name, text)  # type: ignore[misc]
        return _FOLDERS.sub("", text)
