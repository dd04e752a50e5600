"""Find the video files below folders: by their names, and where a name is shared with other kinds, by a first look."""

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

# Endings that files of other kinds have as well: text of programmers (TypeScript, go.mod, Squirrel, Qt's translations,
# motion capture …) and music modules. Such a file is a video only if its first bytes may be those of one.
SHARED_SUFFIXES = frozenset(
    {".asf", ".drc", ".dv", ".m2t", ".mod", ".mpe", ".mpv", ".mts", ".nsv", ".nut", ".ogm", ".ogx"}
    | {".qt", ".rm", ".rv", ".tod", ".tp", ".trp", ".ts", ".ty", ".vob", ".vro", ".wm"}
)
VIDEO_SUFFIXES = SHARED_SUFFIXES | frozenset(
    {".264", ".265", ".360", ".3g2", ".3gp", ".3gp2", ".3gpp", ".amv", ".avi", ".bik", ".dav", ".divx", ".dvr-ms"}
    | {".evo", ".f4v", ".flc", ".fli", ".flv", ".gxf", ".h264", ".h265", ".hdmov", ".hevc", ".insv", ".ismv", ".ivf"}
    | {".lxf", ".m1v", ".m2p", ".m2ts", ".m2v", ".m4v", ".mj2", ".mjpeg", ".mjpg", ".mk3d", ".mkv", ".mov", ".mp2v"}
    | {".mp4", ".mp4v", ".mpeg", ".mpeg4", ".mpg", ".mpg2", ".mqv", ".mxf", ".nuv", ".ogv", ".pva", ".rmvb", ".smk"}
    | {".vvc", ".webm", ".wmv", ".wtv", ".xvid", ".y4m"}
)

HEAD_BYTES = 8192  # that a first look reads
PROGRAM_STREAM = b"\x00\x00\x01\xba"  # begins each pack of an MPEG program stream, as camcorders write to .mod
SYNC_BYTE, SYNC_STEPS, SYNC_PACKETS = b"\x47", (188, 192, 204), 5  # of an MPEG transport stream


def find_videos(
    paths: Iterable[str | os.PathLike[str]], within: Sequence[Path] = ()
) -> tuple[list[Path], dict[str, str]]:
    """Find the video files that paths name.

    Args:
        paths: files, taken whatever their name ends in, and folders, searched as `list_videos` does.
        within: folders without links; what is really outside of them is passed over, wherever links lead. None: links
            are followed everywhere.

    Returns:
        The absolute paths without links, each file once; and what cannot be had, with the reason.
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
        except (OSError, RuntimeError, ValueError) as error:  # a circle of links, a name that is too long, a zero byte
            missing[str(path)] = f"cannot be opened: {_reason(error)}"
    return list(found), missing


def list_videos(folder: str | os.PathLike[str]) -> tuple[list[Path], dict[str, str]]:
    """Find the video files below a folder, under the names that they have there.

    Links to folders are followed, after everything that is really there, and no folder is walked twice. Names that
    begin with a dot are passed over, as are pipes, sockets and devices.

    Args:
        folder: where to look; its own name may be anything.

    Returns:
        The absolute paths, sorted within each folder; and the folders and links that cannot be read, with the reason.
    """
    walk = _walk(folder)
    return [named for named, _ in walk.found], walk.unreadable


def below(files: Iterable[str], places: Sequence[Path]) -> list[str]:
    """Those of some files that are among some places or below them: really, or by a link in a folder.

    Args:
        files: absolute paths without links; they need not be there.
        places: files and folders, absolute and without links.
    """

    def is_below(file: str, places: Sequence[Path]) -> bool:
        return any(Path(file).is_relative_to(place) for place in places)

    files = list(files)
    folders = [place for place in places if is_folder(place)]
    if folders and not all(is_below(file, places) for file in files):
        places = [*places, *(target for folder in folders for target in _walk(folder).targets)]
    return [file for file in files if is_below(file, places)]


class _Walk:
    """A walk through folders that remembers where it has been.

    Attributes:
        found: video files so far: the path as it is named, and the same without links.
        unreadable: folders and links that cannot be read, with the reason.
        links: links to folders that have not been followed yet.
        targets: what links lead to, without links.

    Args:
        within: folders, without links, outside of which no link is followed; none for everywhere.
    """

    def __init__(self, within: Sequence[Path] = ()) -> None:
        self._within = within
        self.found: list[tuple[Path, Path]] = []
        self.unreadable: dict[str, str] = {}
        self.links: deque[Path] = deque()
        self.targets: list[Path] = []
        self._been: set[tuple[int, int]] = set()

    def enter(self, named: Path, real: Path) -> list[tuple[Path, Path]]:
        """Take the video files of a folder, and give the folders that are really in it, sorted."""
        try:
            status = real.stat()
            if (status.st_dev, status.st_ino) in self._been:
                return []
            self._been.add((status.st_dev, status.st_ino))
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
                    self._take(path, entry)
                elif _is_link(entry):
                    self.links.append(path)
                else:
                    inner.append((path, real / entry.name))
            except FileNotFoundError:
                self.unreadable[str(path)] = DANGLING
            except OSError as error:
                self.unreadable[str(path)] = f"cannot be read: {_reason(error)}"
        return inner

    def _take(self, named: Path, entry: os.DirEntry[str]) -> None:
        suffix = named.suffix.lower()
        if suffix not in VIDEO_SUFFIXES or not stat.S_ISREG(entry.stat().st_mode):
            return
        if suffix in SHARED_SUFFIXES and not _may_be_video(named):
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
            return False  # a link to itself leads to nothing
        raise


def _is_link(entry: os.DirEntry[str]) -> bool:
    # Windows has links to folders that are no symbolic links.
    return entry.is_symlink() or getattr(entry, "is_junction", lambda: False)()


def _may_be_video(path: Path) -> bool:
    """Whether a file with an ending of `SHARED_SUFFIXES` may be a video; True where it cannot be looked at."""
    try:
        with path.open("rb") as file:
            head = file.read(HEAD_BYTES)
    except OSError:
        return True  # and whoever opens it says why it cannot be read
    if _is_transport_stream(head):
        return True
    if path.suffix.lower() == ".mod":  # of the binary files with this ending, most are music or compiled Fortran
        return PROGRAM_STREAM in head
    return not _is_text(head)


def _is_transport_stream(head: bytes) -> bool:
    return any(
        all(head[first + step * packet : first + step * packet + 1] == SYNC_BYTE for packet in range(SYNC_PACKETS))
        for step in SYNC_STEPS
        for first in range(step)
    )


def _is_text(head: bytes) -> bool:
    """Whether bytes are text: all containers of videos have a zero in their first bytes, and only UTF-16 has too."""
    return b"\0" not in head or head.startswith((b"\xff\xfe", b"\xfe\xff"))


def _reason(error: Exception) -> str:
    return (isinstance(error, OSError) and error.strerror) or str(error)
