"""What is on the disk: models, and the library."""

from __future__ import annotations

import os
import shutil
import time
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from vtg.doctor.report import ABSENT, OK, WARNING, Check, check_of_error
from vtg.errors import VtgError
from vtg.progress import Progress
from vtg.timespans import format_time

if TYPE_CHECKING:
    from vtg.library.library import Library

__all__ = ["check_library", "check_models", "check_space"]

SHOWN_PROBLEMS = 5  # of a library
VERIFY_SECONDS = 10.0  # in which the quick check of a library must end
LEAST_FREE = 1 << 30  # bytes


def check_models() -> Iterator[Check]:
    """The bundled weights, the default CLIP and the published heads, and the folder that downloads go to."""
    from vtg.clip.specs import DEMO
    from vtg.files.paths import cache_folder
    from vtg.models.specs import DEFAULT_MODEL, describe_models
    from vtg.weights.bundled import clip_path, head_path

    missing = [path.name for path in (clip_path(), head_path()) if not path.is_file()]
    if missing:
        again = "pip install --force-reinstall --no-deps vtground"
        yield Check("models", DEMO, WARNING, f"the bundled weights are missing: {', '.join(missing)}", again)
    else:
        yield Check("models", DEMO, OK, "the bundled CLIP and head are there")
    rows = {row["name"]: row for row in describe_models() if row["name"] != DEMO}
    clip = rows[DEFAULT_MODEL]["clip"]
    if rows[DEFAULT_MODEL]["clip_present"]:
        yield Check("models", "CLIP", OK, f"{clip}, the default, is on this disk")
    else:
        found = f"{clip}, the default, is not on this disk; it is downloaded when first needed (about 600 MB)"
        advice = "without a network, name a file of its weights with --pretrained FILE"
        yield Check("models", "CLIP", ABSENT, found, advice)
    heads = {name: row["present"] for name, row in rows.items() if row.get("repository")}
    names = ", ".join(name for name, present in heads.items() if present)
    found = f"{sum(heads.values())} of {len(heads)} published heads are on this disk{f': {names}' if names else ''}"
    if heads[DEFAULT_MODEL]:
        yield Check("models", "heads", OK, found)
    else:
        found = f"{found}; {DEFAULT_MODEL}, the default, is downloaded when first needed (11 MB)"
        yield Check("models", "heads", ABSENT, found, f"vtg models pull {DEFAULT_MODEL}")
    folder = cache_folder()
    if is_writable(folder):
        yield Check("models", "cache", OK, str(folder))
    else:
        yield Check("models", "cache", WARNING, f"{folder} cannot be written to", "set VTG_CACHE to a folder that can")


def check_library(folder: Path | None) -> Iterator[Check]:
    """What a library holds, and what a quick check finds wrong with it.

    Args:
        folder: of the library; None for the default.
    """
    from vtg.library.library import Library
    from vtg.library.settings import default_library_path

    folder = default_library_path() if folder is None else folder.expanduser()
    try:
        library = Library(folder)
        if not library.exists:
            found = f"{folder}: there is no library yet"
            yield Check("library", "folder", ABSENT, found, "make one with: vtg index PATH")
            return
        facts = library.describe()
    except VtgError as error:
        yield check_of_error("library", "folder", WARNING, error)
        return
    yield Check("library", "folder", OK, str(folder))
    size = f"{facts['bytes'] / 1e6:.1f} MB"
    held = f"{facts['videos']} ({format_time(facts['seconds'])}), {size}, made with {facts['encoder']}"
    if facts["failed"]:
        advice = "see why with: vtg library list; try again with: vtg index PATH --retry-failed"
        yield Check("library", "videos", WARNING, f"{held}; {facts['failed']} files could not be indexed", advice)
    else:
        yield Check("library", "videos", OK, held)
    if not is_writable(folder):
        found = f"{folder} cannot be written to: videos cannot be added"
        yield Check("library", "rights", WARNING, found, "change the rights of the folder")
    yield from _problems(library)


class _TooLongError(Exception):
    """The quick check takes longer than it may."""


def _problems(library: Library) -> Iterator[Check]:
    end = time.monotonic() + VERIFY_SECONDS

    def watch_time(state: Progress) -> None:
        if time.monotonic() > end:
            raise _TooLongError(f"{state.done:.0f} of {state.total} files were examined in {VERIFY_SECONDS:.0f} s")

    everything = "vtg library verify"
    try:
        problems = library.verify(progress=watch_time)
    except _TooLongError as error:
        yield Check("library", "problems", OK, f"not examined to the end: {error}", f"examine all with: {everything}")
        return
    except VtgError as error:
        yield check_of_error("library", "problems", WARNING, error)
        return
    if not problems:
        yield Check("library", "problems", OK, "none found")
    for problem in problems[:SHOWN_PROBLEMS]:
        found, _, advice = problem.what.rpartition("; ")
        yield Check("library", "problem", WARNING, f"{problem.where}: {found or advice}", advice if found else "")
    if len(problems) > SHOWN_PROBLEMS:
        yield Check("library", "problems", WARNING, f"{len(problems)} in all", f"see all with: {everything}")


def check_space(folder: Path | None) -> Iterator[Check]:
    """The free space where a library is, or would be.

    Args:
        folder: of the library; None for the default.
    """
    from vtg.library.settings import default_library_path

    place = nearest_folder(default_library_path() if folder is None else folder.expanduser())
    free = shutil.disk_usage(place).free
    found = f"{free / 1e9:.1f} GB free at {place}"
    if free < LEAST_FREE:
        yield Check("library", "disk", WARNING, found, "free some disk space, or choose another folder with --library")
    else:
        yield Check("library", "disk", OK, found)


def nearest_folder(path: Path) -> Path:
    """The folder, or the first above it that is there."""
    path = path.absolute()
    return next((place for place in (path, *path.parents) if place.is_dir()), Path(path.anchor))


def is_writable(folder: Path) -> bool:
    """Whether files can be made in a folder, or the folder itself can be made."""
    return not folder.is_file() and os.access(nearest_folder(folder), os.W_OK | os.X_OK)
