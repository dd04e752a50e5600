"""A library's settings: knows where a library is and what it was made with."""

from __future__ import annotations

import json
import os
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from vtg.errors import VtgError
from vtg.specs import ZERO_SHOT, ModelSpec, model_spec

__all__ = [
    "PRECISIONS",
    "SETTINGS",
    "Storage",
    "agree_on_model",
    "default_library_path",
    "read_settings",
    "read_storage",
    "write_settings",
]

SETTINGS = "library.json"
FORMAT = 1  # of the folder; a library of a later one is refused
PRECISIONS = ("float32", "float16", "int8")


@dataclass(frozen=True)
class Storage:
    """What a library keeps of a video beside its embeddings.

    Attributes:
        precision: of the layers that are kept, one of `PRECISIONS`: int8, or float16 for the others. Projections are
            int8 whatever it says.
        keep_layers: whether the layers are kept too: then any other head can be asked later, and the library takes
            several times the space.
    """

    precision: str = "int8"
    keep_layers: bool = False

    def __post_init__(self) -> None:
        """Refuse what cannot be kept.

        Raises:
            VtgError: another precision.
        """
        if self.precision not in PRECISIONS:
            raise VtgError(f"{self.precision}: no such precision; choose {', '.join(PRECISIONS)}")

    @property
    def layers(self) -> str:
        """How a `vtg.features.FeatureStore` keeps the layers."""
        if not self.keep_layers:
            return "none"
        return "int8" if self.precision == "int8" else "float16"


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
    found = _read(folder)
    return found and found[0]


def read_storage(folder: Path) -> Storage | None:
    """What a library keeps of its videos; None where there is no library yet.

    Raises:
        VtgError: as `read_settings`.
    """
    found = _read(folder)
    return found and found[1]


def _read(folder: Path) -> tuple[ModelSpec, Storage] | None:
    path = folder / SETTINGS
    if not path.is_file():
        if folder.is_file() or (folder.is_dir() and any(folder.iterdir())):
            raise VtgError(f"{folder}: is there and is not a library; name another folder with --library")
        return None
    try:
        settings = json.loads(path.read_text("utf-8"))
        if settings["format"] > FORMAT:
            raise VtgError(f"{folder}: was made by a later vtg; update with: pip install -U vtg")
        return ModelSpec.from_dict(settings["model"]), Storage(**settings.get("storage", {}))
    except (ValueError, KeyError, TypeError, OSError):
        raise VtgError(f"{path}: damaged; restore it, or delete the folder and index again") from None


def agree_on_model(folder: Path, model: ModelSpec | str | None) -> ModelSpec:
    """The model that a library is used with: what is asked for, where it reads what is there.

    Args:
        folder: of the library, which may not be there yet.
        model: what is asked for; None for what the library was made with, or for a new one the default.

    Raises:
        VtgError: the library was made with another CLIP or rate, or the folder is not a library.
    """
    made_with = read_settings(folder)
    asked = model_spec(model) if isinstance(model, str) else model
    if made_with is None or asked is None:
        return asked or made_with or model_spec()
    if isinstance(model, str):
        # By name alone: CLIP without a head reads any library, and a head of the same published CLIP means the
        # weights that this library was given for it.
        if asked.name == ZERO_SHOT:
            asked = replace(asked, encoder=made_with.encoder, fps=made_with.fps)
        elif asked.encoder == model_spec(made_with.name).encoder:
            asked = replace(asked, encoder=made_with.encoder)
    if asked.encoder.fingerprint != made_with.encoder.fingerprint:
        raise VtgError(
            f"{folder}: was made with {made_with.encoder}, not with {asked.encoder}; "
            "name another folder with --library, or leave the model out"
        )
    if asked.fps != made_with.fps:
        raise VtgError(f"{folder}: has {made_with.fps:g} frames a second, not {asked.fps:g}; name another --library")
    return asked


def write_settings(folder: Path, model: ModelSpec, storage: Storage | None = None) -> None:
    """Begin a library: make its folder and say what it is made with; one that was begun keeps its model.

    Args:
        folder: of the library.
        model: what it is made with.
        storage: what it keeps of the videos that are added from now on; None for what it kept before.

    Raises:
        VtgError: the folder cannot be written to.
    """
    path = folder / SETTINGS
    before = _read(folder) if path.is_file() else None
    if before is not None and storage in (None, before[1]):
        return
    settings: dict[str, Any] = {
        "format": FORMAT,
        "model": (model if before is None else before[0]).to_dict(),
        "storage": asdict(storage or Storage()),
    }
    try:
        folder.mkdir(parents=True, exist_ok=True)
        part = path.with_name(f"{SETTINGS}.{os.getpid()}.part")
        part.write_text(json.dumps(settings, indent=1), "utf-8")
        part.replace(path)
    except OSError as error:
        raise VtgError(f"{folder}: cannot be written to ({error.strerror}); choose another --library") from None
