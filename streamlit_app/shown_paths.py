"""What visitors are told of this machine's paths: all of them on this machine itself, nothing absolute elsewhere."""

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
    """Whether all visitors are on this machine.

    Args:
        host: that is listened on.
        allow_hosts: further names that the page is reached under.
    """
    names = (parse_authority(name) for name in allow_hosts)
    return is_local(host) and all(parsed is not None and is_local(parsed[0]) for parsed in names)


class ShownPaths:
    """How paths are written for visitors.

    Args:
        known: whether they may know the paths of this machine, so that nothing is changed.
        folders: names for visitors, and the folders that have them.
    """

    def __init__(self, known: bool, folders: Iterable[tuple[str, Path]]) -> None:
        self.known = known
        self._folders = sorted(folders, key=lambda item: len(str(item[1])), reverse=True)

    def path(self, path: str | Path) -> str:
        """A file or folder: below a folder with a name as such a path, else by its own name alone."""
        path = Path(path)
        if self.known:
            return str(path)
        for name, folder in self._folders:
            if path.is_relative_to(folder):
                return "/".join((name, *path.relative_to(folder).parts))
        return path.name or "/"

    def text(self, text: str) -> str:
        """A message, in which paths may be."""
        if self.known:
            return text
        for name, folder in self._folders:
            text = re.sub(rf"{re.escape(str(folder))}(?![\w-])", lambda _, name=name: name, text)  # type: ignore[misc]
        return _FOLDERS.sub("", text)
