"""Know the preprocessing that the weights of a CLIP were trained with: resizing, interpolation, mean and deviation."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from vtg.clip.catalogue import catalogue_entries, catalogue_entry, check_model
from vtg.errors import VtgError
from vtg.files.text import short_repr
from vtg.video.framing import INTERPOLATIONS, RESIZE_MODES, Framing

__all__ = ["Preprocessing", "earlier_preprocessing", "preprocessing_of"]

OPENAI_MEAN = (0.48145466, 0.4578275, 0.40821073)
OPENAI_STD = (0.26862954, 0.26130258, 0.27577711)
OPENAI_TAG = "openai"
SYNTAX = "a tag of the model, or like resize=squash,interpolation=bicubic,mean=0.5,std=0.5"


@dataclass(frozen=True)
class Preprocessing:
    """How a frame becomes the input of an image tower; the fields are those of open_clip's configuration of a tag.

    Attributes:
        resize: one of `vtg.video.framing.RESIZE_MODES`.
        interpolation: one of `vtg.video.framing.INTERPOLATIONS`.
        mean: of red, green and blue, 0…1.
        std: standard deviation of red, green and blue, 0…1.
        fill: value of borders, 0…255; used by "longest".
    """

    resize: str = "shortest"
    interpolation: str = "bicubic"
    mean: tuple[float, float, float] = OPENAI_MEAN
    std: tuple[float, float, float] = OPENAI_STD
    fill: int = 0

    def framing(self, size: int) -> Framing:
        """How frames become squares of `size` pixels."""
        return Framing(size, self.resize, self.interpolation, self.fill)

    def __str__(self) -> str:
        """In the form that `preprocessing_of` reads."""
        colours = (f"{name}={'/'.join(f'{value:.8g}' for value in getattr(self, name))}" for name in ("mean", "std"))
        fill = f",fill={self.fill}" if self.resize == "longest" else ""
        return f"resize={self.resize},interpolation={self.interpolation},{','.join(colours)}{fill}"


def preprocessing_of(clip: str | None, weights: str, in_file: bool, stated: str | None = None) -> Preprocessing:
    """The preprocessing that a CLIP needs.

    open_clip's catalogue has it for each tag. For a file it is that of the model's tags where these agree; a file whose
    model is not named has OpenAI's parameter names, and OpenAI's preprocessing.

    Args:
        clip: a name in open_clip's catalogue; None for the default, or for a file with OpenAI's parameter names.
        weights: a tag, or the path of a file.
        in_file: whether `weights` is a file.
        stated: instead of that: a tag of the model, or values like "resize=squash,mean=0.5,std=0.5", where those that
            are left out are OpenAI's.

    Raises:
        VtgError: `stated` cannot be read, or the model or the preprocessing of a file is unknown.
    """
    if stated is not None:
        return _tag_or_values(clip, stated)
    if not in_file:
        # The catalogue is not needed for the default, so that a library can be opened without importing open_clip.
        return Preprocessing() if weights == OPENAI_TAG else _of_entry(catalogue_entry(clip, weights))
    if clip is None:
        return Preprocessing()
    check_model(clip)
    known = {tag: _of_entry(entry) for tag, entry in catalogue_entries(clip).items()}
    if len(set(known.values())) == 1:
        return next(iter(known.values()))
    if known:
        different = " or ".join(sorted(map(str, set(known.values()))))
        reason = f"the published weights of {clip} do not agree on it ({different})"
    else:
        reason = f"open_clip knows no weights of {clip}"
    raise VtgError(
        f"{weights}: the preprocessing of these weights is not known: {reason}; give it with --preprocessing: {SYNTAX}"
    )


def earlier_preprocessing(clip: str | None, weights: str, in_file: bool) -> Preprocessing:
    """The preprocessing of vtg 0.1.0: the centre of every frame for all tags, with their mean and deviation."""
    if in_file or weights == OPENAI_TAG:
        return Preprocessing()
    prescribed = _of_entry(catalogue_entry(clip, weights))
    return Preprocessing(mean=prescribed.mean, std=prescribed.std)


def _tag_or_values(clip: str | None, stated: str) -> Preprocessing:
    if "=" not in stated:
        entry = {} if clip is None else catalogue_entry(clip, stated)
        if stated == OPENAI_TAG:
            return Preprocessing()
        if not entry:
            raise VtgError(f"--preprocessing {short_repr(stated)}: no such tag of {clip or 'the CLIP'}; give {SYNTAX}")
        return _of_entry(entry)
    values: dict[str, Any] = {}
    for part in stated.split(","):
        name, _, value = (text.strip() for text in part.partition("="))
        if name in ("resize", "interpolation"):
            values[name] = value
        elif name in ("mean", "std"):
            values[name] = _colours(value)
        elif name == "fill" and value.isascii() and value.isdigit():
            values[name] = int(value)
        else:
            raise VtgError(f"--preprocessing: cannot read {short_repr(part.strip())}; give {SYNTAX}")
    made = Preprocessing(**values)
    if made.resize not in RESIZE_MODES or made.interpolation not in INTERPOLATIONS:
        known = f"resize is {', '.join(RESIZE_MODES)}; interpolation {', '.join(INTERPOLATIONS)}"
        raise VtgError(f"--preprocessing {short_repr(stated)}: {known}")
    if made.fill > 255 or not all(value > 0 for value in made.std):
        raise VtgError(f"--preprocessing {short_repr(stated)}: fill is from 0 to 255, and each std above 0")
    return made


def _of_entry(entry: Mapping[str, Any]) -> Preprocessing:
    return Preprocessing(
        entry.get("resize_mode") or "shortest",
        # open_clip takes anything else as bicubic when no training images are made.
        "bilinear" if entry.get("interpolation") == "bilinear" else "bicubic",
        _three(entry.get("mean") or OPENAI_MEAN),
        _three(entry.get("std") or OPENAI_STD),
        int(entry.get("fill_color") or 0),
    )


def _three(values: Any) -> tuple[float, float, float]:
    red, green, blue = (values,) * 3 if isinstance(values, int | float) else values
    return float(red), float(green), float(blue)


def _colours(text: str) -> tuple[float, float, float]:
    try:
        values = [float(part) for part in text.split("/")]
        if len(values) not in (1, 3) or not all(map(math.isfinite, values)):
            raise ValueError
    except ValueError:
        raise VtgError(f"--preprocessing: {short_repr(text)} is not one value, or three like 0.48/0.46/0.41") from None
    return _three(values[0] if len(values) == 1 else values)
