"""Load the weights and the head that a library refers to, if they are safe formats and unchanged.

A library may come from an untrusted source. Files that the user names are loaded as they are; files that only
``library.json`` names are loaded if they are safetensors files, and CLIP weights only with the library's hash.
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
    """Loader of the weights and the head of a library.

    Args:
        folder: of the library.
        requested: the model that the user names; None for the library's.
        model: the model that the library is used with, from `agree_on_model`.
    """

    def __init__(self, folder: Path, requested: ModelSpec | str | None, model: ModelSpec) -> None:
        made_with = read_settings(folder)
        self._folder = folder
        self._model = model
        self._weights_named = (
            made_with is None or isinstance(requested, ModelSpec) or model.encoder != made_with.encoder
        )
        self._head_named = made_with is None or requested is not None

    def fingerprint(self) -> str:
        """The encoder's fingerprint, from the hash in the library or, if the user names the file, from the file.

        Raises:
            VtgError: the file cannot be read.
        """
        encoder = self._model.encoder
        return encoder.fingerprint_of(self._weights_sha256())

    def earlier_fingerprint(self) -> str:
        """The same for features that vtg 0.1.0 made; it differs if the CLIP needs another preprocessing than OpenAI's.

        Raises:
            VtgError: the file cannot be read.
        """
        return self._model.encoder.earlier_fingerprint_of(self._weights_sha256())

    def _weights_sha256(self) -> str | None:
        recorded = None if self._weights_named else read_weights_hash(self._folder)
        return recorded or self._model.encoder.weights_sha256

    def load_encoder(
        self,
        device: str | None,
        encoding: str,
        videos: Callable[[], Collection[VideoEntry]],
        with_layers: bool = True,
        language: str | None = None,
    ) -> ClipEncoder:
        """Load the CLIP.

        Args:
            device: a torch device; None for the best available.
            encoding: precision on a CPU; see `vtg.ClipEncoder`.
            videos: returns the library's entries, whose fingerprints are compared if the settings have no hash.
            with_layers: False where only embeddings are used.
            language: of the queries; see `vtg.ClipEncoder`.

        Raises:
            VtgError: its weights cannot be loaded, or have to be named by the user; the message says how.
        """
        from vtg.grounding.grounder import load_encoder

        if not self._weights_named and self._model.encoder.in_file:
            self._check_weights(videos)
        return load_encoder(self._model.encoder, device, encoding, with_layers=with_layers, language=language)

    def load_head(self) -> R2Head | None:
        """Load the head, downloading it if needed.

        Raises:
            VtgError: it cannot be loaded, or has to be named by the user; the message says how.
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
            expected = {encoder.fingerprint_of(recorded)} if recorded else {one.encoder for one in videos()} - {""}
            if not expected or encoder.fingerprint in expected:
                return
            reason = "have changed: they are other weights than those it was made with"
        named = str(path) if path.is_file() else "FILE"
        line = f"{self._folder}: its CLIP weights {path} {reason}; if you trust them, name them again: "
        raise VtgError(line + _command(self._folder, "--pretrained", named))


def name_weights(
    folder: Path, clip: str | None, pretrained: str, fps: float | None, preprocessing: str | None = None
) -> ModelSpec | None:
    """A library's model with the weights that the user names; None if the library does not exist.

    Args:
        folder: of the library.
        clip: a name of open_clip's catalogue; None for the library's.
        pretrained: a tag or a file.
        fps: frames a second; None for the library's.
        preprocessing: of frames; None for that of the library.

    Raises:
        VtgError: as `read_settings`, or the library's head has to be named too.
    """
    made_with = read_settings(folder)
    if made_with is None:
        return None
    _check_head(folder, made_with)
    stated = preprocessing or made_with.encoder.preprocessing
    encoder = model_spec(ZERO_SHOT, clip or made_with.encoder.clip, pretrained, preprocessing=stated).encoder
    return replace(made_with, encoder=replace(encoder, layers=made_with.encoder.layers), fps=fps or made_with.fps)


def _check_head(folder: Path, model: ModelSpec) -> None:
    """Reject a head that only the library names and that is not a safetensors file, which could run code.

    Raises:
        VtgError: it has to be named by the user; the message says how.
    """
    if model.head is None or model.head in registry() or is_safetensors(model.head):
        return
    raise VtgError(
        f"{folder}: its head {model.head} is not a safetensors file; if you trust it, name it again: "
        f"{_command(folder, '--model', model.head)}"
    )


def _command(folder: Path, option: str, value: str) -> str:
    return f"vtg search QUERY --library {shlex.quote(str(folder))} {option} {shlex.quote(value)}"
