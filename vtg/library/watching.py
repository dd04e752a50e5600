"""Keep a library in step with folders until somebody stops it."""

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
    tell: Callable[[IndexReport], None],
    progress: Reporter = silent,
    stop: Callable[[], bool] = lambda: False,
) -> None:
    """Keep a library in step with folders, until somebody stops it: new, changed, moved and vanished files.

    A file that has changed since the last look may still be on its way in, and waits for the next one.

    Args:
        library: the library.
        folders: what to watch, with all below.
        seconds: from one look to the next.
        tell: told of every look that has changed something.
        progress: told of every step of indexing.
        stop: asked at every step; True ends it.

    Raises:
        VtgError: the encoder cannot be had, or the library cannot be written to.
    """
    before: dict[Path, tuple[int, int]] = {}
    while not stop():
        files, _ = find_videos(folder for folder in folders if is_folder(folder))
        now = {path: (status.st_size, status.st_mtime_ns) for path in files if (status := _status(path))}
        settled = [path for path, state in now.items() if before.get(path) == state]
        before = now
        for report in (library.add(settled, progress, stop=stop), library.refresh(progress, stop=stop)):
            if report.added or report.removed or report.moved or report.warnings:
                tell(report)
        until = time.monotonic() + seconds
        while time.monotonic() < until and not stop():
            time.sleep(min(0.2, seconds))


def _status(path: Path) -> os.stat_result | None:
    try:
        return path.stat()
    except OSError:
        return None
