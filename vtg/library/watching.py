"""Watch folders and synchronize a library with them."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Sequence
from pathlib import Path

from vtg.files.paths import is_folder
from vtg.library.library import Library
from vtg.library.reports import IndexReport
from vtg.progress import Reporter, silent
from vtg.video.sources import find_videos

__all__ = ["watch"]


def watch(
    library: Library,
    folders: Sequence[Path],
    seconds: float,
    on_change: Callable[[IndexReport], None],
    progress: Reporter = silent,
    stop: Callable[[], bool] = lambda: False,
) -> None:
    """Synchronize a library with folders until stopped: new, changed, moved and missing files.

    A file that has changed since the last scan may still be being written, and is indexed after the next one.

    Args:
        library: the library.
        folders: to watch, with all below.
        seconds: from one scan to the next.
        on_change: called with the report of every scan that has changed something.
        progress: called at every step of indexing.
        stop: called at every step; True ends the function.

    Raises:
        VtgError: the encoder cannot be loaded, or the library cannot be written to.
    """
    before: dict[Path, tuple[int, int]] = {}
    while not stop():
        files, _ = find_videos(folder for folder in folders if is_folder(folder))
        now = {path: (status.st_size, status.st_mtime_ns) for path in files if (status := _status(path))}
        settled = [path for path, state in now.items() if before.get(path) == state]
        before = now
        for report in (library.add(settled, progress, stop=stop), library.refresh(progress, stop=stop)):
            if report.added or report.removed or report.moved or report.warnings:
                on_change(report)
        until = time.monotonic() + seconds
        while time.monotonic() < until and not stop():
            time.sleep(min(0.2, seconds))


def _status(path: Path) -> os.stat_result | None:
    try:
        return path.stat()
    except OSError:
        return None
