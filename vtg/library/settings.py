"""A library's folder and settings: the model and storage that it was made with."""

from __future__ import annotations

import json
import os
import re
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from vtg.clip.specs import EncoderSpec, is_safetensors
from vtg.errors import VtgError
from vtg.files.text import read_json
from vtg.files.whole import write_whole
from vtg.models.specs import ZERO_SHOT, ModelSpec, available_models, model_spec

__all__ = [
    "PRECISIONS",
    "SETTINGS",
    "Storage",
    "agree_on_model",
    "default_library_path",
    "read_settings",
    "read_storage",
    "read_weights_hash",
    "write_settings",
]

SETTINGS = "library.json"
FORMAT = 1  # version of the folder's format; later versions are rejected
MAX_SETTINGS_BYTES = 1 << 20  # usual size: 400 bytes
PRECISIONS = ("float32", "float16", "int8")


@dataclass(frozen=True)
class Storage:
    """Which features a library stores in addition to embeddings.

    Attributes:
        precision: of stored layers, one of `PRECISIONS`: int8, or float16 for the others. Projections are always int8.
        keep_layers: whether layers are stored too, so that other heads can be used later; the library takes several
            times the space.
    """

    precision: str = "int8"
    keep_layers: bool = False

    def __post_init__(self) -> None:
        """Check the precision.

        Raises:
            VtgError: it is not one of `PRECISIONS`.
        """
        if self.precision not in PRECISIONS:
            raise VtgError(f"{self.precision}: no such precision; choose {', '.join(PRECISIONS)}")

    @property
    def layers(self) -> str:
        """The layer format of a `vtg.features.store.FeatureStore`, one of its `LAYER_KINDS`."""
        if not self.keep_layers:
            return "none"
        return "int8" if self.precision == "int8" else "float16"


def default_library_path() -> Path:
    """The folder of ``VTG_LIBRARY``, else one in the user's data folder."""
    if chosen := os.environ.get("VTG_LIBRARY"):
        return Path(chosen).expanduser()
    from platformdirs import user_data_path

    return user_data_path("vtg", appauthor=False) / "library"


@dataclass(frozen=True)
class _Settings:
    """Settings of a library.

    Attributes:
        model: that it was made with.
        storage: features that it stores.
        weights_sha256: of its file of CLIP weights; None if a tag names them, and in libraries of earlier versions.
    """

    model: ModelSpec
    storage: Storage
    weights_sha256: str | None = None

    @property
    def fingerprint(self) -> str:
        """Fingerprint of the encoder that the library was made with.

        Raises:
            VtgError: the settings have no hash of the weights, and their file cannot be read.
        """
        encoder = self.model.encoder
        return encoder.fingerprint_of(self.weights_sha256) if self.weights_sha256 else encoder.fingerprint


def read_settings(folder: Path) -> ModelSpec | None:
    """The model that a library was made with; None if the library does not exist.

    Raises:
        VtgError: the folder is not a library, or the settings are damaged or of a later version.
    """
    found = _read(folder)
    return found.model if found else None


def read_storage(folder: Path) -> Storage | None:
    """The features that a library stores; None if the library does not exist.

    Raises:
        VtgError: as `read_settings`.
    """
    found = _read(folder)
    return found.storage if found else None


def read_weights_hash(folder: Path) -> str | None:
    """SHA-256 of the file of CLIP weights that a library was made with; None if its settings have none.

    Raises:
        VtgError: as `read_settings`.
    """
    found = _read(folder)
    return found.weights_sha256 if found else None


def _read(folder: Path) -> _Settings | None:
    path = folder / SETTINGS
    if not path.is_file():
        if folder.is_file() or (folder.is_dir() and any(folder.iterdir())):
            raise VtgError(f"{folder}: is there and is not a library; name another folder with --library")
        return None
    try:
        if path.stat().st_size > MAX_SETTINGS_BYTES:
            raise ValueError("too large for settings")
        settings = read_json(path.read_text("utf-8"))
        if settings["format"] > FORMAT:
            raise VtgError(f"{folder}: was made by a later vtg; update with: pip install -U vtground")
        weights = settings.get("weights_sha256")
        if weights is not None and not re.fullmatch("[0-9a-f]{64}", weights):
            raise ValueError("a hash that is none")
        return _Settings(ModelSpec.from_dict(settings["model"]), _storage(settings.get("storage", {})), weights)
    except (ValueError, KeyError, TypeError, AttributeError, OverflowError, RecursionError, OSError):
        raise VtgError(f"{path}: damaged; restore it, or delete the folder and index again") from None


def _storage(values: dict[str, Any]) -> Storage:
    if values.get("precision", PRECISIONS[0]) not in PRECISIONS or type(values.get("keep_layers", False)) is not bool:
        raise ValueError("no such storage")
    return Storage(**values)


def agree_on_model(folder: Path, model: ModelSpec | str | None) -> ModelSpec:
    """The model that a library is used with: the requested one, if it fits the library.

    Args:
        folder: of the library, which need not exist.
        model: the requested model; None for that of the library, or for the default if the library is new.

    Raises:
        VtgError: the library was made with another CLIP or frame rate, or the folder is not a library.
    """
    settings = _read(folder)
    requested = model_spec(model) if isinstance(model, str) else model
    if settings is None or requested is None:
        return requested or (settings.model if settings else model_spec())
    made_with = settings.model
    if requested.encoder.layers < made_with.encoder.layers:  # a head with fewer layers uses the last ones
        requested = replace(requested, encoder=replace(requested.encoder, layers=made_with.encoder.layers))
    if isinstance(model, str):
        # Only a name is given: zero-shot works with any library, and a head of the same published CLIP is used with
        # the weights of this library.
        if requested.name == ZERO_SHOT:
            requested = replace(requested, encoder=made_with.encoder, fps=made_with.fps)
        elif requested.name == made_with.name or requested.encoder == _own_encoder(made_with.name):
            requested = replace(requested, encoder=made_with.encoder)
    # Whether the library's own weights file has changed or is missing is checked on loading.
    if requested.encoder != made_with.encoder and requested.encoder.fingerprint != settings.fingerprint:
        raise VtgError(
            f"{folder}: was made with {made_with.encoder}{_layers(made_with, requested)}, not with "
            f"{requested.encoder}{_layers(requested, made_with)}; "
            "name another folder with --library, or leave the model out"
        )
    if requested.fps != made_with.fps:
        raise VtgError(
            f"{folder}: has {made_with.fps:g} frames a second, not {requested.fps:g}; name another --library"
        )
    return requested


def _layers(model: ModelSpec, other: ModelSpec) -> str:
    """The number of layers, if that is what two models differ in."""
    return f" ({model.encoder.layers} layers)" if model.encoder.layers != other.encoder.layers else ""


def _own_encoder(name: str) -> EncoderSpec | None:
    """The CLIP that belongs to a model; None if only a library names its file and it is not a safetensors file."""
    if name not in available_models() and not is_safetensors(name):
        return None
    try:
        return model_spec(name).encoder
    except VtgError:
        return None


def write_settings(folder: Path, model: ModelSpec, storage: Storage | None = None, loaded: bool = False) -> None:
    """Create a library's folder and settings, or update the settings; an existing library keeps its model.

    Args:
        folder: of the library.
        model: of a new library.
        storage: features to store of videos added from now on; None to keep the setting.
        loaded: whether the model's weights were just loaded; then their path and hash are recorded.

    Raises:
        VtgError: the folder cannot be written to.
    """
    path = folder / SETTINGS
    before = _read(folder) if path.is_file() else None
    settings = before or _Settings(model, Storage())
    if storage is not None:
        settings = replace(settings, storage=storage)
    if model.encoder.in_file and (loaded or before is None):
        made_with = replace(settings.model, encoder=model.encoder)
        settings = replace(settings, model=made_with, weights_sha256=model.encoder.weights_sha256)
    if settings == before:
        return
    content: dict[str, Any] = {
        "format": FORMAT,
        "model": settings.model.to_dict(),
        "storage": asdict(settings.storage),
    }
    if settings.weights_sha256:
        content["weights_sha256"] = settings.weights_sha256
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with write_whole(path) as beside:
            beside.write_text(json.dumps(content, indent=1), "utf-8")
    except OSError as error:
        raise VtgError(f"{folder}: cannot be written to ({error.strerror}); choose another --library") from None
