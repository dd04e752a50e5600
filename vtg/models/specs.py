"""Names of models and what each is made of, without loading any of it."""

from __future__ import annotations

import os
import shlex
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from vtg.clip.specs import DEFAULT_PRETRAINED, DEMO, EncoderSpec, is_safetensors, is_weights_file
from vtg.errors import VtgError
from vtg.models.registry import registry

if TYPE_CHECKING:
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

DEFAULT_RATE = 0.5  # frames a second: one for each 2 s clip of QVHighlights
MOST_CHARACTERS, MOST_LAYERS, MOST_RATE = 4096, 1024, 1e6  # of what a file may say of a model
ZERO_SHOT = "zero-shot"
DEFAULT_MODEL = "r2-qvhighlights"


@dataclass(frozen=True)
class ModelSpec:
    """Names what `vtg.load` puts together.

    Attributes:
        name: as in `available_models`, or the path of a head's checkpoint.
        encoder: its CLIP.
        fps: frames a second that it wants.
        head: a name of the registry or a checkpoint; None for CLIP alone.
    """

    name: str
    encoder: EncoderSpec
    fps: float = DEFAULT_RATE
    head: str | None = None

    def to_dict(self) -> dict[str, Any]:
        """As JSON knows it."""
        return asdict(self)

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> ModelSpec:
        """Read what `to_dict` gave.

        Raises:
            KeyError: something is missing.
            TypeError, ValueError: something is of another kind, or cannot be.
        """
        encoder, name, head = EncoderSpec(**values["encoder"]), values["name"], values["head"]
        texts = (name, encoder.pretrained, *(text for text in (head, encoder.clip) if text is not None))
        if not all(isinstance(text, str) and "\0" not in text and len(text) <= MOST_CHARACTERS for text in texts):
            raise TypeError("a name that is no text")
        if type(encoder.layers) is not int or not 1 <= encoder.layers <= MOST_LAYERS:
            raise ValueError(f"layers must be from 1 to {MOST_LAYERS}")
        fps = float(values["fps"])
        if not 0 < fps <= MOST_RATE:
            raise ValueError(f"fps must be above 0 and at most {MOST_RATE:g}")
        return cls(name, encoder, fps, head)

    def load_head(self) -> R2Head | None:
        """Load the head, downloading it first where it is a published one that is not on this disk.

        Raises:
            VtgError: it cannot be had.
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
    """The names that `vtg.load` knows."""
    return [DEMO, ZERO_SHOT, *(name for name in registry() if name != DEMO)]


def describe_models() -> list[dict[str, Any]]:
    """What there is to choose from.

    Returns:
        One dict a model: name, clip, clip_present and present (its parts are on this disk), fps, purpose; of a
        published head also what the registry says of it.
    """
    purposes = {
        DEMO: "trying things out: knows coloured shapes, needs no network",
        ZERO_SHOT: "anything, by CLIP alone: the baseline",
    }
    rows = []
    downloaded: dict[EncoderSpec, bool] = {}
    for spec in map(model_spec, available_models()):
        if spec.encoder not in downloaded:
            downloaded[spec.encoder] = spec.encoder.present
        entry = registry().get(spec.name)
        rows.append(
            {
                "name": spec.name,
                "clip": str(spec.encoder),
                "clip_present": downloaded[spec.encoder],
                "present": entry.present if entry else downloaded[spec.encoder],
                "fps": spec.fps,
                "purpose": purposes.get(spec.name) or _purpose(entry),
                **(entry.to_dict() if entry else {}),
            }
        )
    return rows


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
) -> ModelSpec:
    """Put together what a model is made of.

    Args:
        name: one of `available_models`, or a head's checkpoint; None is `DEFAULT_MODEL`.
        clip: another CLIP of open_clip's catalogue than the model's own.
        pretrained: other weights than the model's own: a tag or a file.
        fps: another rate than the model's own, frames a second.

    Raises:
        VtgError: no such model, or a rate that is not above 0.
    """
    name = os.fspath(name or DEFAULT_MODEL)
    if fps is not None and not fps > 0:
        raise VtgError(f"{fps:g} frames a second: give a rate above 0")
    if name == DEMO and (clip or pretrained):
        raise VtgError(f"{DEMO}: has a CLIP of its own; name other weights with --model {ZERO_SHOT}")
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
    return replace(spec, encoder=encoder, fps=fps or spec.fps)


def _own_spec(name: str) -> ModelSpec:
    if name == ZERO_SHOT:
        return ModelSpec(name, EncoderSpec())
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
    encoder = EncoderSpec(config.clip_model, config.clip_pretrained or DEFAULT_PRETRAINED, config.layers)
    return ModelSpec(str(path.resolve()), encoder, config.fps, str(path.resolve()))
