"""Mounts and networks that only this process and those it starts see; needs the rights of root, and Linux."""

from __future__ import annotations

import ctypes
import fcntl
import os
import socket
import stat
import struct
import sys
import tempfile
from collections.abc import Iterable
from pathlib import Path

__all__ = ["READ_ONLY", "REMOUNT", "have_own_mounts", "have_own_network", "let_others_reach", "mount", "unmount"]

NEW_MOUNTS, NEW_NETWORK = 0x20000, 0x40000000
READ_ONLY, REMOUNT, BIND, RECURSIVE, PRIVATE = 1, 32, 4096, 16384, 1 << 18
DETACH = 2
GET_FLAGS, SET_FLAGS, IS_UP = 0x8913, 0x8914, 1

_libc = ctypes.CDLL(None, use_errno=True)


def have_own_mounts() -> bool:
    """From now on, what this process mounts is seen by it and its children alone; False where that is not allowed."""
    if not sys.platform.startswith("linux") or os.getuid() or _libc.unshare(NEW_MOUNTS):
        return False
    return not _libc.mount(b"none", b"/", None, RECURSIVE | PRIVATE, None)


def have_own_network() -> bool:
    """From now on, this process and its children reach each other and nobody else; False where that is not allowed."""
    if not sys.platform.startswith("linux") or os.getuid() or _libc.unshare(NEW_NETWORK):
        return False
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as any_socket:  # the loopback is down at first
        request = struct.pack("16sh14x", b"lo", 0)
        flags = struct.unpack("16sh14x", fcntl.ioctl(any_socket, GET_FLAGS, request))[1]
        fcntl.ioctl(any_socket, SET_FLAGS, struct.pack("16sh14x", b"lo", flags | IS_UP))
    return True


def mount(place: Path, kind: str = "tmpfs", source: Path | None = None, flags: int = 0, options: str = "") -> None:
    """Mount something on a folder.

    Args:
        place: the folder.
        kind: of file system; "" for another view of `source`.
        source: a folder to show there.
        flags: of mount(2), such as `READ_ONLY`.
        options: of the file system.

    Raises:
        OSError: that is not allowed.
    """
    words = [os.fsencode(source or "none"), os.fsencode(place), kind.encode() or None]
    if _libc.mount(*words, flags | (0 if kind else BIND), options.encode() or None):
        raise OSError(ctypes.get_errno(), "cannot be mounted", str(place))
    if not kind and flags and _libc.mount(None, words[1], None, flags | BIND | REMOUNT, None):
        raise OSError(ctypes.get_errno(), "cannot be mounted", str(place))


def unmount(place: Path) -> None:
    """Take away what was mounted on a folder, as soon as nobody uses it."""
    _libc.umount2(os.fsencode(place), DETACH)


def let_others_reach(folders: Iterable[Path]) -> None:
    """Let users without rights read folders that lie below one that they may not enter, such as root's home.

    Only in the mounts of this process, and nothing else of that folder is shown to anybody.
    """
    wanted = [folder.resolve() for folder in folders]
    for folder in wanted:
        for above in reversed(folder.parents):
            if not above.stat().st_mode & stat.S_IXOTH:
                _show_only(above, [other for other in wanted if above in other.parents])


def _show_only(above: Path, folders: list[Path]) -> None:
    aside = [Path(tempfile.mkdtemp(prefix="vtg-hostile-")) for _ in folders]
    for place, folder in zip(aside, folders, strict=True):
        mount(place, "", folder)
    mount(above, options="mode=755,size=1m")
    for place, folder in zip(aside, folders, strict=True):
        folder.mkdir(parents=True, exist_ok=True)
        mount(folder, "", place)
        unmount(place)
        place.rmdir()
