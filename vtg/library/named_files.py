"""Load the weights and the head that a library refers to, if they are safe formats and unchanged.

A library may come from a stranger. Files that the user names are loaded as they are; what only ``library.json`` names
is loaded if it is a safetensors file, and CLIP weights only with the hash that the library was made with.
"""

from __future__ import annotations

import shlex
from collections.abc import Callable, Collection
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from vtg.clip.specs import is_safetensors
from vtg.errors import VtgError
from vtg.library.settings import read_settings, read_weights_hash
from vtg.models.registry import registry
from vtg.models.specs import ZERO_SHOT, ModelSpec, model_spec

if TYPE_CHECKING:
    from vtg.clip.encoder import ClipEncoder
    from vtg.library.tables import VideoEntry
    from vtg.r2 import R2Head

__all__ = ["NamedFiles", "name_weights"]


class NamedFiles:
    """The weights and the head of a library that is opened, and who names them.

    Args:
        folder: of the library.
        asked: what the user asked for; None for what the library says.
        model: what was agreed on.
    """

    def __init__(self, folder: Path, asked: ModelSpec | str | None, model: ModelSpec) -> None:
        made_with = read_settings(folder)
        self._folder = folder
        self._model = model
        self._weights_named = made_with is None or isinstance(asked, ModelSpec) or model.encoder != made_with.encoder
        self._head_named = made_with is None or asked is not None

    def fingerprint(self) -> str:
        """Of the encoder: by the hash that the library has, or by the file's own where the user names the file.

        Raises:
            VtgError: the file cannot be read.
        """
        encoder = self._model.encoder
        recorded = None if self._weights_named else read_weights_hash(self._folder)
        return encoder.fingerprint_of(recorded) if recorded else encoder.fingerprint

    def load_encoder(
        self, device: str | None, encoding: str, videos: Callable[[], Collection[VideoEntry]]
    ) -> ClipEncoder:
        """Load the CLIP.

        Args:
            device: a torch device; None takes the best there is.
            encoding: what it computes in on a CPU; see `vtg.ClipEncoder`.
            videos: gives the library's files, which say what they were encoded with where its settings have no hash.

        Raises:
            VtgError: its weights cannot be had; or they have to be named, and the line says how.
        """
        from vtg.grounding.grounder import load_encoder

        if not self._weights_named and self._model.encoder.in_file:
            self._check_weights(videos)
        return load_encoder(self._model.encoder, device, encoding)

    def load_head(self) -> R2Head | None:
        """Load the head, or download it first.

        Raises:
            VtgError: it cannot be had; or it has to be named, and the line says how.
        """
        if not self._head_named:
            _check_head(self._folder, self._model)
        return self._model.load_head()

    def _check_weights(self, videos: Callable[[], Collection[VideoEntry]]) -> None:
        encoder = self._model.encoder
        path = Path(encoder.weights)
        recorded = read_weights_hash(self._folder)
        if not path.is_file():
            reason = "are not there any more"
        elif not is_safetensors(encoder.weights):
            reason = "are not a safetensors file"
        else:
            known = {encoder.fingerprint_of(recorded)} if recorded else {one.encoder for one in videos() if one.encoder}
            if not known or encoder.fingerprint in known:
                return
            reason = "have changed: they are other weights than those it was made with"
        named = str(path) if path.is_file() else "FILE"
        line = f"{self._folder}: its CLIP weights {path} {reason}; if you trust them, name them again: "
        raise VtgError(line + _command(self._folder, "--pretrained", named))


def name_weights(folder: Path, clip: str | None, pretrained: str, fps: float | None) -> ModelSpec | None:
    """A library's own model with the weights that the user names; None where there is no library yet.

    Args:
        folder: of the library.
        clip: a name of open_clip's catalogue; None for the library's.
        pretrained: a tag or a file.
        fps: frames a second; None for the library's.

    Raises:
        VtgError: as `read_settings`; or the library's head has to be named too.
    """
    made_with = read_settings(folder)
    if made_with is None:
        return None
    _check_head(folder, made_with)
    encoder = model_spec(ZERO_SHOT, clip or made_with.encoder.clip, pretrained).encoder
    return replace(made_with, encoder=replace(encoder, layers=made_with.encoder.layers), fps=fps or made_with.fps)


def _check_head(folder: Path, model: ModelSpec) -> None:
    """Refuse a head that only a library names, and that is no safetensors file: the library may be a stranger's.

    Raises:
        VtgError: the line says how to name it.
    """
    if model.head is None or model.head in registry() or is_safetensors(model.head):
        return
    raise VtgError(
        f"{folder}: its head {model.head} is not a safetensors file; if you trust it, name it again: "
        f"{_command(folder, '--model', model.head)}"
    )


def _command(folder: Path, option: str, value: str) -> str:
    return f"vtg search QUERY --library {shlex.quote(str(folder))} {option} {shlex.quote(value)}"
