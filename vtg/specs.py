"""Which models there are and what each is made of: knows names and fingerprints, and loads nothing."""

from __future__ import annotations

import hashlib
import json
import os
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from vtg.errors import VtgError

__all__ = [
    "DEFAULT_CLIP",
    "DEFAULT_PRETRAINED",
    "DEMO",
    "ZERO_SHOT",
    "EncoderSpec",
    "ModelSpec",
    "available_models",
    "describe_models",
    "is_weights_file",
    "model_spec",
]

DEFAULT_CLIP = "ViT-B-32-quickgelu"
DEFAULT_PRETRAINED = "openai"
DEFAULT_RATE = 0.5  # frames a second: one for each 2 s clip of QVHighlights
PREPROCESSING = "short side bicubic antialiased, centre crop"  # part of every fingerprint: change it with the pixels
WEIGHT_SUFFIXES = {".safetensors", ".pt", ".pth", ".bin"}
DEMO = "demo"
ZERO_SHOT = "zero-shot"
READ_BYTES = 1 << 22


def is_weights_file(pretrained: str) -> bool:
    """Whether a name of weights is a file rather than a tag of open_clip's catalogue."""
    path = Path(pretrained).expanduser()
    return path.suffix in WEIGHT_SUFFIXES or path.is_file()


@dataclass(frozen=True)
class EncoderSpec:
    """Names a CLIP without loading it.

    Attributes:
        clip: a name of open_clip's catalogue; None for a file of weights that says its own architecture.
        pretrained: a tag of the catalogue, a file of weights, or "demo" for the bundled weights.
        layers: K, how many of the last layers are kept.
    """

    clip: str | None = None
    pretrained: str = DEFAULT_PRETRAINED
    layers: int = 4

    @property
    def weights(self) -> str:
        """The tag, or the path of the file of weights."""
        if self.pretrained == DEMO:
            from vtg.demo import clip_path

            return str(clip_path())
        return str(Path(self.pretrained).expanduser()) if is_weights_file(self.pretrained) else self.pretrained

    @property
    def fingerprint(self) -> str:
        """16 hex digits over model, weights, layers and preprocessing: features of two encoders never mix.

        A file of weights counts by its content, so a copy of it is the same encoder.

        Raises:
            VtgError: the file of weights cannot be read.
        """
        weights = self.weights
        in_file = is_weights_file(weights)
        identity = {
            "clip": self.clip or ("" if in_file else DEFAULT_CLIP),
            "weights": _sha256(Path(weights)) if in_file else weights,
            "layers": self.layers,
            "preprocessing": PREPROCESSING,
        }
        return hashlib.sha256(json.dumps(identity, sort_keys=True).encode()).hexdigest()[:16]

    @property
    def present(self) -> bool:
        """Whether the weights are on this disk, so that nothing has to be downloaded."""
        weights = self.weights
        if is_weights_file(weights):
            return Path(weights).is_file()
        from vtg.clip import is_downloaded

        return is_downloaded(self.clip or DEFAULT_CLIP, weights)

    def __str__(self) -> str:
        if self.pretrained == DEMO:
            return "the bundled demo CLIP"
        return f"{self.clip or ('' if is_weights_file(self.pretrained) else DEFAULT_CLIP)} {self.pretrained}".strip()


@dataclass(frozen=True)
class ModelSpec:
    """Names what `vtg.load` puts together.

    Attributes:
        name: as in `available_models`.
        encoder: its CLIP.
        fps: frames a second that it wants.
    """

    name: str
    encoder: EncoderSpec
    fps: float = DEFAULT_RATE

    def to_dict(self) -> dict[str, object]:
        """As JSON knows it; `model_spec` reads it back by its values."""
        return asdict(self)


def available_models() -> list[str]:
    """The names that `vtg.load` knows."""
    return [DEMO, ZERO_SHOT]


def describe_models() -> list[dict[str, Any]]:
    """What there is to choose from.

    Returns:
        One dict a model: name, clip, present (its weights are on this disk), fps, purpose.
    """
    purposes = {
        DEMO: "trying things out: knows coloured shapes, needs no network",
        ZERO_SHOT: "your own videos, by CLIP alone; the default",
    }
    specs = [model_spec(name) for name in available_models()]
    return [
        {
            "name": spec.name,
            "clip": str(spec.encoder),
            "present": spec.encoder.present,
            "fps": spec.fps,
            "purpose": purposes[spec.name],
        }
        for spec in specs
    ]


def model_spec(
    name: str | None = None,
    clip: str | None = None,
    pretrained: str | os.PathLike[str] | None = None,
    fps: float | None = None,
) -> ModelSpec:
    """Put together what a model is made of.

    Args:
        name: one of `available_models`; None is "zero-shot".
        clip: another CLIP of open_clip's catalogue than the model's own.
        pretrained: other weights than the model's own: a tag or a file.
        fps: another rate than the model's own, frames a second.

    Raises:
        VtgError: no such model, or a rate that is not above 0.
    """
    name = name or ZERO_SHOT
    if name not in available_models():
        raise VtgError(f"{name}: no such model; known are: {', '.join(available_models())}")
    if name == DEMO and (clip or pretrained):
        raise VtgError("demo: has a CLIP of its own; name other weights with --model zero-shot")
    if fps is not None and not fps > 0:
        raise VtgError(f"{fps:g} frames a second: give a rate above 0")
    own = EncoderSpec(pretrained=DEMO) if name == DEMO else EncoderSpec(clip=clip)
    if pretrained is not None:
        weights = os.fspath(pretrained)
        own = EncoderSpec(clip, str(Path(weights).expanduser().resolve()) if is_weights_file(weights) else weights)
    return ModelSpec(name, own, fps or DEFAULT_RATE)


def _sha256(path: Path) -> str:
    digest = hashlib.sha256()
    try:
        with path.open("rb", buffering=0) as file:
            while block := file.read(READ_BYTES):
                digest.update(block)
    except OSError as error:
        raise VtgError(f"{path}: cannot read these CLIP weights ({error.strerror}); give a file or a tag") from None
    return digest.hexdigest()
