"""Names of models, and their components (head, CLIP, sampling rate) without loading them."""

from __future__ import annotations

import os
import shlex
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from vtg.clip.specs import DEFAULT_PRETRAINED, DEMO, EncoderSpec, is_safetensors, is_weights_file
from vtg.errors import VtgError
from vtg.models.encoders import ENCODERS
from vtg.models.registry import registry

if TYPE_CHECKING:
    from vtg.models.encoders import EncoderEntry
    from vtg.models.registry import ModelEntry
    from vtg.r2 import R2Head

__all__ = [
    "DEFAULT_MODEL",
    "ZERO_SHOT",
    "ModelSpec",
    "available_models",
    "describe_models",
    "model_spec",
]

DEFAULT_FPS = 0.5  # frames per second: one per 2 s clip of QVHighlights
MAX_NAME_CHARACTERS, MAX_LAYERS, MAX_FPS = 4096, 1024, 1e6  # bounds for values read from a file
ZERO_SHOT = "zero-shot"
DEFAULT_MODEL = "r2-qvhighlights"


@dataclass(frozen=True)
class ModelSpec:
    """The components of a model, as `vtg.load` combines them.

    Attributes:
        name: as in `available_models`, or the path of a head's checkpoint.
        encoder: its CLIP.
        fps: sampling rate, frames per second.
        head: a name in the registry or a checkpoint; None for CLIP only.
    """

    name: str
    encoder: EncoderSpec
    fps: float = DEFAULT_FPS
    head: str | None = None

    def to_dict(self) -> dict[str, Any]:
        """As plain values for JSON; a preprocessing that is that of the weights is left out."""
        values = asdict(self)
        if self.encoder.preprocessing is None:
            del values["encoder"]["preprocessing"]
        return values

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> ModelSpec:
        """Read the output of `to_dict`.

        Raises:
            KeyError: a field is missing.
            TypeError, ValueError: a field has a wrong type or value.
        """
        encoder, name, head = EncoderSpec(**values["encoder"]), values["name"], values["head"]
        optional = (head, encoder.clip, encoder.preprocessing)
        texts = (name, encoder.pretrained, *(text for text in optional if text is not None))
        if not all(isinstance(text, str) and "\0" not in text and len(text) <= MAX_NAME_CHARACTERS for text in texts):
            raise TypeError("a name is not a string")
        if type(encoder.layers) is not int or not 1 <= encoder.layers <= MAX_LAYERS:
            raise ValueError(f"layers must be from 1 to {MAX_LAYERS}")
        fps = float(values["fps"])
        if not 0 < fps <= MAX_FPS:
            raise ValueError(f"fps must be above 0 and at most {MAX_FPS:g}")
        return cls(name, encoder, fps, head)

    def load_head(self) -> R2Head | None:
        """Load the head; a published one that is not on this disk is downloaded first.

        Raises:
            VtgError: it cannot be downloaded or loaded.
        """
        if self.head is None:
            return None
        from vtg.models.registry import load_head, pull, registry

        if self.head in registry():
            try:
                pull(self.head)
            except VtgError as error:
                raise VtgError(f"{error}; or ground without training, with --model {ZERO_SHOT}") from None
        return load_head(self.head)


def available_models() -> list[str]:
    """The model names for `vtg.load`."""
    encoders = [entry.name for entry in ENCODERS]
    return [DEMO, ZERO_SHOT, *encoders, *(name for name in registry() if name != DEMO)]


def describe_models() -> list[dict[str, Any]]:
    """Describe all available models.

    Returns:
        One dict per model: name, clip, clip_present and present (whether CLIP and model are on this disk), fps,
            purpose;
        for a recommended encoder also the fields of `vtg.models.encoders.EncoderEntry`, for a published head those of
            the registry.
    """
    purposes = {
        DEMO: "trying vtg without a network: coloured shapes only",
        ZERO_SHOT: "any video, with CLIP only and without training: the baseline",
    }
    rows = []
    downloaded: dict[EncoderSpec, bool] = {}
    for spec in map(model_spec, available_models()):
        if spec.encoder not in downloaded:
            downloaded[spec.encoder] = spec.encoder.present
        entry = registry().get(spec.name)
        encoder = _encoders().get(spec.name)
        rows.append(
            {
                "name": spec.name,
                "clip": str(spec.encoder),
                "clip_present": downloaded[spec.encoder],
                "present": entry.present if entry else downloaded[spec.encoder],
                "fps": spec.fps,
                "purpose": purposes.get(spec.name) or (encoder.strength if encoder else _purpose(entry)),
                **(entry.to_dict() if entry else encoder.to_dict() if encoder else {}),
            }
        )
    return rows


def _encoders() -> dict[str, EncoderEntry]:
    return {entry.name: entry for entry in ENCODERS}


def _purpose(entry: ModelEntry | None) -> str:
    if entry is None:
        return ""
    domain = f" ({entry.domain})" if entry.domain else ""
    figures = ", ".join(f"{metric} {value:g}" for metric, value in entry.figures.items())
    return f"{entry.dataset}{domain}: {entry.task}; {figures}"


def model_spec(
    name: str | os.PathLike[str] | None = None,
    clip: str | None = None,
    pretrained: str | os.PathLike[str] | None = None,
    fps: float | None = None,
    preprocessing: str | None = None,
) -> ModelSpec:
    """Determine the components of a model.

    Args:
        name: one of `available_models`, or a head's checkpoint; None for `DEFAULT_MODEL`.
        clip: a CLIP in open_clip's catalogue that replaces the model's.
        pretrained: weights that replace those of the model's CLIP: a tag or a file.
        fps: sampling rate that replaces the model's, frames per second.
        preprocessing: of frames, instead of that of the weights; as `vtg.ClipEncoder` takes it.

    Raises:
        VtgError: unknown model, or a rate that is not above 0.
    """
    name = os.fspath(name or DEFAULT_MODEL)
    if fps is not None and not fps > 0:
        raise VtgError(f"{fps:g} frames a second: give a rate above 0")
    if name == DEMO and (clip or pretrained or preprocessing):
        raise VtgError(f"{DEMO}: always uses its own CLIP; use other weights with --model {ZERO_SHOT}")
    spec = _own_spec(name)
    encoder = spec.encoder
    if pretrained is None and spec.head == spec.name and encoder.in_file and not is_safetensors(encoder.pretrained):
        named = f"--pretrained {shlex.quote(encoder.pretrained)}"
        raise VtgError(f"{name}: names CLIP weights that are not safetensors; if you trust them, add {named}")
    if pretrained is not None:
        weights = os.fspath(pretrained)
        weights = str(Path(weights).expanduser().resolve()) if is_weights_file(weights) else weights
        encoder = EncoderSpec(clip, weights, encoder.layers)
    elif clip is not None:
        encoder = EncoderSpec(clip, encoder.pretrained, encoder.layers)
    if preprocessing is not None:
        encoder = replace(encoder, preprocessing=preprocessing)
        encoder.frame_preprocessing  # noqa: B018 - raises for one that cannot be read
    return replace(spec, encoder=encoder, fps=fps or spec.fps)


def _own_spec(name: str) -> ModelSpec:
    if name == ZERO_SHOT:
        return ModelSpec(name, EncoderSpec())
    if name in _encoders():
        return ModelSpec(name, _encoders()[name].spec)
    entry = registry().get(name)
    if entry is not None:
        encoder = EncoderSpec(entry.clip_model, entry.clip_pretrained or DEFAULT_PRETRAINED)
        return ModelSpec(name, encoder, entry.fps, name)
    if name == DEMO:
        return ModelSpec(name, EncoderSpec(pretrained=DEMO))
    path = Path(name).expanduser()
    if not path.is_file():
        raise VtgError(f"{name}: no such model or checkpoint; 'vtg models' lists the names")
    from vtg.models.registry import load_head

    config = load_head(path).config
    pretrained = config.clip_pretrained or DEFAULT_PRETRAINED
    encoder = EncoderSpec(config.clip_model, pretrained, config.layers, config.clip_preprocessing)
    return ModelSpec(str(path.resolve()), encoder, config.fps, str(path.resolve()))
