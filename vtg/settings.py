"""A library's settings: knows where a library is and what it was made with."""

from __future__ import annotations

import json
import os
from pathlib import Path

from vtg.errors import VtgError
from vtg.specs import ModelSpec

__all__ = ["SETTINGS", "default_library_path", "read_settings", "write_settings"]

SETTINGS = "library.json"
FORMAT = 1  # of the folder; a library of a later one is refused


def default_library_path() -> Path:
    """The folder of ``VTG_LIBRARY``, else one in the user's data folder."""
    if chosen := os.environ.get("VTG_LIBRARY"):
        return Path(chosen).expanduser()
    from platformdirs import user_data_path

    return user_data_path("vtg", appauthor=False) / "library"


def read_settings(folder: Path) -> ModelSpec | None:
    """The model that a library was made with; None where there is no library yet.

    Raises:
        VtgError: the folder holds something else, or the settings are damaged or of a later version.
    """
    path = folder / SETTINGS
    if not path.is_file():
        if folder.is_file() or (folder.is_dir() and any(folder.iterdir())):
            raise VtgError(f"{folder}: is there and is not a library; name another folder with --library")
        return None
    try:
        settings = json.loads(path.read_text("utf-8"))
        if settings["format"] > FORMAT:
            raise VtgError(f"{folder}: was made by a later vtg; update with: pip install -U vtg")
        return ModelSpec.from_dict(settings["model"])
    except (ValueError, KeyError, TypeError, OSError):
        raise VtgError(f"{path}: damaged; restore it, or delete the folder and index again") from None


def write_settings(folder: Path, model: ModelSpec) -> None:
    """Begin a library: make its folder and say what it is made with; one that was begun keeps its settings.

    Raises:
        VtgError: the folder cannot be written to.
    """
    path = folder / SETTINGS
    if path.is_file():
        return
    try:
        folder.mkdir(parents=True, exist_ok=True)
        part = path.with_name(f"{SETTINGS}.{os.getpid()}.part")
        part.write_text(json.dumps({"format": FORMAT, "model": model.to_dict()}, indent=1), "utf-8")
        part.replace(path)
    except OSError as error:
        raise VtgError(f"{folder}: cannot be written to ({error.strerror}); choose another --library") from None
