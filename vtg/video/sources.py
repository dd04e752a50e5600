"""Find the video files in folders, by suffix and, for ambiguous suffixes, by their first bytes."""

from __future__ import annotations

import errno
import os
import stat
from collections import deque
from collections.abc import Iterable, Sequence
from pathlib import Path

from vtg.files.paths import DANGLING, is_folder, lies_within, why_no_file

__all__ = [
    "VIDEO_SUFFIXES",
    "below",
    "find_videos",
    "list_videos",
]

# Suffixes that other kinds of files have as well: source code (TypeScript, go.mod, Squirrel, Qt's translations, motion
# capture …) and music modules. Such a file counts as a video only if its first bytes may be those of one.
AMBIGUOUS_SUFFIXES = frozenset(
    {".asf", ".drc", ".dv", ".m2t", ".mod", ".mpe", ".mpv", ".mts", ".nsv", ".nut", ".ogm", ".ogx"}
    | {".qt", ".rm", ".rv", ".tod", ".tp", ".trp", ".ts", ".ty", ".vob", ".vro", ".wm"}
)
VIDEO_SUFFIXES = AMBIGUOUS_SUFFIXES | frozenset(
    {".264", ".265", ".360", ".3g2", ".3gp", ".3gp2", ".3gpp", ".amv", ".avi", ".bik", ".dav", ".divx", ".dvr-ms"}
    | {".evo", ".f4v", ".flc", ".fli", ".flv", ".gxf", ".h264", ".h265", ".hdmov", ".hevc", ".insv", ".ismv", ".ivf"}
    | {".lxf", ".m1v", ".m2p", ".m2ts", ".m2v", ".m4v", ".mj2", ".mjpeg", ".mjpg", ".mk3d", ".mkv", ".mov", ".mp2v"}
    | {".mp4", ".mp4v", ".mpeg", ".mpeg4", ".mpg", ".mpg2", ".mqv", ".mxf", ".nuv", ".ogv", ".pva", ".rmvb", ".smk"}
    | {".vvc", ".webm", ".wmv", ".wtv", ".xvid", ".y4m"}
)

HEAD_BYTES = 8192  # read to classify a file
PROGRAM_STREAM = b"\x00\x00\x01\xba"  # begins each pack of an MPEG program stream, as camcorders write to .mod
SYNC_BYTE, SYNC_STEPS, SYNC_PACKETS = b"\x47", (188, 192, 204), 5  # of an MPEG transport stream


def find_videos(
    paths: Iterable[str | os.PathLike[str]], within: Sequence[Path] = ()
) -> tuple[list[Path], dict[str, str]]:
    """Find the video files that paths name.

    Args:
        paths: files, with any suffix, and folders, searched as by `list_videos`.
        within: resolved folders; files outside of them are skipped, also where links lead to them. Empty: links are
            followed everywhere.

    Returns:
        The resolved absolute paths, each file once; and the paths that cannot be used, with the reason.
    """
    found: dict[Path, None] = {}
    missing: dict[str, str] = {}
    for path in (Path(path).expanduser() for path in paths):
        try:
            if not lies_within(path, within):
                missing[str(path)] = "lies outside the folders that may be read"
            elif path.is_dir():
                walk = _walk(path, within)
                found.update(dict.fromkeys(real for _, real in walk.found))
                missing.update(walk.unreadable)
            elif reason := why_no_file(path):
                missing[str(path)] = reason
            else:
                found[path.resolve()] = None
        except (OSError, RuntimeError, ValueError) as error:  # a loop of links, a name that is too long, a NUL byte
            missing[str(path)] = f"cannot be opened: {_reason(error)}"
    return list(found), missing


def list_videos(folder: str | os.PathLike[str]) -> tuple[list[Path], dict[str, str]]:
    """Find the video files below a folder, by their paths there (links are not resolved).

    Links to folders are followed, after everything else, and no folder is walked twice. Names that start with a dot are
    skipped, as are pipes, sockets and devices.

    Args:
        folder: to search; its own name may start with a dot.

    Returns:
        The absolute paths, sorted within each folder; and the folders and links that cannot be read, with the reason.
    """
    walk = _walk(folder)
    return [named for named, _ in walk.found], walk.unreadable


def below(files: Iterable[str], places: Sequence[Path]) -> list[str]:
    """Select the files that are among some places or below them, directly or by a link in a folder.

    Args:
        files: resolved absolute paths; they need not exist.
        places: resolved absolute paths of files and folders.
    """

    def is_below(file: str, places: Sequence[Path]) -> bool:
        return any(Path(file).is_relative_to(place) for place in places)

    files = list(files)
    folders = [place for place in places if is_folder(place)]
    if folders and not all(is_below(file, places) for file in files):
        places = [*places, *(target for folder in folders for target in _walk(folder).targets)]
    return [file for file in files if is_below(file, places)]


class _Walk:
    """A walk through folders that visits each of them once.

    Attributes:
        found: video files so far: the path as named, and the resolved path.
        unreadable: folders and links that cannot be read, with the reason.
        links: links to folders that have not been followed yet.
        targets: resolved targets of links.

    Args:
        within: resolved folders outside of which no link is followed; empty for everywhere.
    """

    def __init__(self, within: Sequence[Path] = ()) -> None:
        self._within = within
        self.found: list[tuple[Path, Path]] = []
        self.unreadable: dict[str, str] = {}
        self.links: deque[Path] = deque()
        self.targets: list[Path] = []
        self._visited: set[tuple[int, int]] = set()

    def enter(self, named: Path, real: Path) -> list[tuple[Path, Path]]:
        """Collect the video files of a folder; return its subfolders that are not links, sorted."""
        try:
            status = real.stat()
            if (status.st_dev, status.st_ino) in self._visited:
                return []
            self._visited.add((status.st_dev, status.st_ino))
            with os.scandir(real) as listing:
                entries = sorted(listing, key=lambda entry: entry.name)
        except OSError as error:
            self.unreadable[str(named)] = f"cannot be read: {_reason(error)}"
            return []
        inner = []
        for entry in entries:
            if entry.name.startswith("."):
                continue
            path = named / entry.name
            try:
                if _is_link(entry) and not lies_within(Path(entry.path), self._within):
                    continue
                if not _is_folder(entry):
                    self._collect(path, entry)
                elif _is_link(entry):
                    self.links.append(path)
                else:
                    inner.append((path, real / entry.name))
            except FileNotFoundError:
                self.unreadable[str(path)] = DANGLING
            except OSError as error:
                self.unreadable[str(path)] = f"cannot be read: {_reason(error)}"
        return inner

    def _collect(self, named: Path, entry: os.DirEntry[str]) -> None:
        suffix = named.suffix.lower()
        if suffix not in VIDEO_SUFFIXES or not stat.S_ISREG(entry.stat().st_mode):
            return
        if suffix in AMBIGUOUS_SUFFIXES and not _may_be_video(named):
            return
        real = Path(entry.path)
        if _is_link(entry):
            real = real.resolve()
            self.targets.append(real)
        self.found.append((named, real))


def _walk(folder: str | os.PathLike[str], within: Sequence[Path] = ()) -> _Walk:
    walk = _Walk(within)
    root = Path(folder).expanduser().resolve()
    waiting = [(root, root)]
    while True:
        while waiting:
            waiting += reversed(walk.enter(*waiting.pop()))
        if not walk.links:
            return walk
        link = walk.links.popleft()
        walk.targets.append(link.resolve())
        waiting = [(link, link.resolve())]


def _is_folder(entry: os.DirEntry[str]) -> bool:
    try:
        return entry.is_dir()
    except OSError as error:
        if error.errno == errno.ELOOP:
            return False  # a link to itself
        raise


def _is_link(entry: os.DirEntry[str]) -> bool:
    # Windows has links to folders that are no symbolic links.
    return entry.is_symlink() or getattr(entry, "is_junction", lambda: False)()


def _may_be_video(path: Path) -> bool:
    """Whether a file with a suffix of `AMBIGUOUS_SUFFIXES` may be a video; True where it cannot be read."""
    try:
        with path.open("rb") as file:
            head = file.read(HEAD_BYTES)
    except OSError:
        return True  # opening it later reports the reason
    if _is_transport_stream(head):
        return True
    if path.suffix.lower() == ".mod":  # most binary files with this suffix are music or compiled Fortran
        return PROGRAM_STREAM in head
    return not _is_text(head)


def _is_transport_stream(head: bytes) -> bool:
    return any(
        all(head[first + step * packet : first + step * packet + 1] == SYNC_BYTE for packet in range(SYNC_PACKETS))
        for step in SYNC_STEPS
        for first in range(step)
    )


def _is_text(head: bytes) -> bool:
    """Whether bytes are text: all video containers have a zero among their first bytes, and of texts only UTF-16."""
    return b"\0" not in head or head.startswith((b"\xff\xfe", b"\xfe\xff"))


def _reason(error: Exception) -> str:
    return (isinstance(error, OSError) and error.strerror) or str(error)
