"""Identify CLIP models by name, weights and layers, and compute their fingerprint, without loading them."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from pathlib import Path

from vtg.clip.catalogue import DEFAULT_CLIP, is_downloaded
from vtg.clip.preprocessing import Preprocessing, earlier_preprocessing, preprocessing_of
from vtg.errors import VtgError
from vtg.files.hashing import file_sha256
from vtg.weights.bundled import clip_path

__all__ = ["DEFAULT_CLIP", "DEFAULT_PRETRAINED", "DEMO", "EncoderSpec", "is_safetensors", "is_weights_file"]

DEFAULT_PRETRAINED = "openai"
# In the fingerprint of features whose preprocessing is that of vtg 0.1.0, so that they keep their names.
EARLIER_PREPROCESSING = "short side bicubic antialiased, centre crop"
WEIGHT_SUFFIXES = {".safetensors", ".pt", ".pth", ".bin"}
DEMO = "demo"


def is_weights_file(pretrained: str) -> bool:
    """Whether `pretrained` is a file rather than a tag of open_clip's catalogue."""
    path = Path(pretrained).expanduser()
    return path.suffix in WEIGHT_SUFFIXES or path.is_file()


def is_safetensors(path: str) -> bool:
    """Whether a file of weights is safetensors, which may be read without being named by the user."""
    return Path(path).suffix == ".safetensors"


@dataclass(frozen=True)
class EncoderSpec:
    """Identifies a CLIP without loading it.

    Attributes:
        clip: a name in open_clip's catalogue; None for a file of weights from which the architecture is inferred.
        pretrained: a tag of the catalogue, a file of weights, or "demo" for the bundled weights.
        layers: K, how many of the last layers are returned.
        preprocessing: of frames, as `vtg.clip.preprocessing.preprocessing_of` reads it; None for that of the weights.
    """

    clip: str | None = None
    pretrained: str = DEFAULT_PRETRAINED
    layers: int = 4
    preprocessing: str | None = None

    @property
    def weights(self) -> str:
        """The tag, or the path of the file of weights."""
        if self.pretrained == DEMO:
            return str(clip_path())
        return str(Path(self.pretrained).expanduser()) if is_weights_file(self.pretrained) else self.pretrained

    @property
    def fingerprint(self) -> str:
        """16 hex digits that identify model, weights, layers and preprocessing; part of the key of stored features.

        A file of weights is identified by its content, so that a copy has the same fingerprint.

        Raises:
            VtgError: the file of weights cannot be read.
        """
        return self.fingerprint_of(self.weights_sha256)

    def fingerprint_of(self, weights_sha256: str | None) -> str:
        """The fingerprint for a given SHA-256 of the file of weights; None for a tag.

        Raises:
            VtgError: the preprocessing is unknown.
        """
        used = self.frame_preprocessing
        is_earlier = used == earlier_preprocessing(self.clip, self.weights, is_weights_file(self.weights))
        return self._fingerprint(weights_sha256, EARLIER_PREPROCESSING if is_earlier else str(used))

    def earlier_fingerprint_of(self, weights_sha256: str | None) -> str:
        """The fingerprint of features that vtg 0.1.0 made, which took the centre of the frame for every tag."""
        return self._fingerprint(weights_sha256, EARLIER_PREPROCESSING)

    @property
    def frame_preprocessing(self) -> Preprocessing:
        """How frames become the input of the image tower.

        Raises:
            VtgError: it is unknown for a file of weights, or `preprocessing` cannot be read.
        """
        weights = self.weights
        clip = None if self.pretrained == DEMO else self.clip
        return preprocessing_of(clip, weights, is_weights_file(weights), self.preprocessing)

    def _fingerprint(self, weights_sha256: str | None, preprocessing: str) -> str:
        identity = {
            "clip": self.clip or ("" if weights_sha256 else DEFAULT_CLIP),
            "weights": weights_sha256 or self.weights,
            "layers": self.layers,
            "preprocessing": preprocessing,
        }
        return hashlib.sha256(json.dumps(identity, sort_keys=True).encode()).hexdigest()[:16]

    @property
    def in_file(self) -> bool:
        """Whether the weights are a file of the user, not a tag or the bundled weights."""
        return self.pretrained != DEMO and is_weights_file(self.weights)

    @property
    def weights_sha256(self) -> str | None:
        """SHA-256 of the file of weights, bundled or of the user; None for a tag.

        Raises:
            VtgError: the file cannot be read.
        """
        weights = self.weights
        return _sha256(Path(weights)) if is_weights_file(weights) else None

    @property
    def present(self) -> bool:
        """Whether the weights are available locally, without a download."""
        weights = self.weights
        if is_weights_file(weights):
            return Path(weights).is_file()
        return is_downloaded(self.clip or DEFAULT_CLIP, weights)

    def __str__(self) -> str:
        if self.pretrained == DEMO:
            return "the bundled demo CLIP"
        return f"{self.clip or ('' if is_weights_file(self.pretrained) else DEFAULT_CLIP)} {self.pretrained}".strip()


def _sha256(path: Path) -> str:
    try:
        if not path.is_file():  # reading a pipe or a device might never end
            raise VtgError(f"{path}: no such file of CLIP weights; give a file or a tag")
        return file_sha256(path)
    except OSError as error:
        raise VtgError(f"{path}: cannot read these CLIP weights ({error.strerror}); give a file or a tag") from None
