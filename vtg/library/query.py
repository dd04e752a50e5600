"""Queries of a library: a sentence, a picture, a span of a video, or weighted sums of these."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from vtg.errors import VtgError
from vtg.timespans import format_time, parse_time

if TYPE_CHECKING:
    from vtg.clip.encoder import ClipEncoder

__all__ = ["Part", "Question", "Stretch", "embed_query", "parse_stretch", "parse_weighted"]

_WEIGHTED = re.compile(r"(?P<what>.*?)\s*\*\s*(?P<weight>\d+(?:\.\d*)?|\.\d+)", re.S)


@dataclass(frozen=True)
class Stretch:
    """A span of a video to find similar moments of.

    Attributes:
        video: the file, which is in the library.
        start: seconds.
        end: seconds.
    """

    video: Path
    start: float
    end: float


@dataclass(frozen=True)
class Part:
    """One term of a query.

    Attributes:
        what: a sentence, the path of a picture, or a span of a video.
        weight: its factor in the sum; negative weights subtract.
    """

    what: str | Path | Stretch
    weight: float = 1.0

    def __str__(self) -> str:
        if isinstance(self.what, Stretch):
            times = f"{format_time(self.what.start)}-{format_time(self.what.end)}"
            return f"{self.what.video.name}@{times}"
        return self.what.name if isinstance(self.what, Path) else self.what


@dataclass(frozen=True)
class Question:
    """A query: a weighted sum of terms, and words in the transcript.

    Attributes:
        parts: terms of what is to be seen; none to search the transcript only.
        said: words in the transcript near the moment: any of them or, in quotes, the exact phrase; "" for no condition.
    """

    parts: tuple[Part, ...] = ()
    said: str = ""

    def __post_init__(self) -> None:
        """Check that the query is not empty.

        Raises:
            VtgError: it is empty, or has only negative terms.
        """
        if any(isinstance(part.what, str) and not part.what.strip() for part in self.parts):
            raise VtgError("the query is empty: say what to look for")
        if not self.parts and not self.said.strip().strip('"').strip():
            raise VtgError("the query is empty: say what to look for")
        if self.parts and not any(part.weight > 0 for part in self.parts):
            raise VtgError("the query has only negative terms: add what to look for")

    @property
    def sentence(self) -> str | None:
        """The sentence, if it is the only term: an R² head grounds nothing else."""
        if len(self.parts) == 1 and isinstance(self.parts[0].what, str):
            return self.parts[0].what
        return None

    @property
    def stretches(self) -> list[Stretch]:
        """The spans to find similar moments of."""
        return [part.what for part in self.parts if isinstance(part.what, Stretch)]

    def __str__(self) -> str:
        words = ""
        for part in self.parts:
            sign = "− " if part.weight < 0 else "+ " if words else ""
            times = "" if abs(part.weight) == 1 else f"·{abs(part.weight):g}"
            words += f" {sign}{part}{times}"
        return f"{words} said: {self.said}".strip() if self.said else words.strip()


def parse_weighted(text: str) -> tuple[str, float]:
    """Parse a term written as ``snow`` or, with a weight, as ``snow*0.5``."""
    match = _WEIGHTED.fullmatch(text.strip())
    return (match["what"], float(match["weight"])) if match else (text.strip(), 1.0)


def parse_stretch(text: str) -> Stretch:
    """Parse a span of a video written as ``holiday.mp4@1:20-1:32``.

    Raises:
        VtgError: it has another form, or ends before it begins.
    """
    video, _, times = text.rpartition("@")
    start, _, end = times.partition("-")
    if not video or not end:
        raise VtgError(f"{text}: not a stretch of a video; write it as VIDEO@START-END, such as holiday.mp4@1:20-1:32")
    stretch = Stretch(Path(video).expanduser(), parse_time(start), parse_time(end))
    if stretch.end <= stretch.start:
        raise VtgError(f"{text}: ends before it begins")
    return stretch


def embed_query(
    parts: Sequence[Part],
    encoder: ClipEncoder,
    embed_stretch: Callable[[Stretch], np.ndarray],
    typical_text: np.ndarray,
    typical_frame: np.ndarray,
) -> np.ndarray:
    """Combine the terms of a query into one embedding.

    CLIP's embeddings of texts and of pictures lie in separate regions. Subtracting the typical embedding of each kind
    gives differences that can be added and compared with frames.

    Args:
        parts: at least one term.
        encoder: of the library.
        embed_stretch: returns the embedding [E] of a span.
        typical_text: [E], the mean embedding of neutral sentences.
        typical_frame: [E], the mean embedding of the library's frames.

    Returns:
        [E] float32, unit length.

    Raises:
        VtgError: a picture cannot be read, or positive and negative terms cancel out.
    """
    total = np.zeros(len(typical_text))
    for part in parts:
        if isinstance(part.what, str):
            difference = encoder.encode_text(part.what).embedding.float().numpy() - typical_text
        elif isinstance(part.what, Stretch):
            difference = embed_stretch(part.what) - typical_frame
        else:
            difference = _embed_picture(part.what, encoder) - typical_frame
        total += part.weight * difference / max(float(np.linalg.norm(difference)), 1e-9)
    length = float(np.linalg.norm(total))
    if not math.isfinite(length) or length < 1e-6:
        raise VtgError("the positive and negative query terms cancel out; change a weight")
    return (total / length).astype(np.float32)


def _embed_picture(path: Path, encoder: ClipEncoder) -> np.ndarray:
    from PIL import Image, ImageOps

    from vtg.video.pictures import PictureError, open_picture

    try:
        with open_picture(path) as picture:
            upright = ImageOps.exif_transpose(picture).convert("RGB")
    except FileNotFoundError:
        raise VtgError(f"{path}: no such picture") from None
    except PictureError:
        raise VtgError(f"{path}: is not a picture that can be read; save it as JPEG or PNG") from None
    framing = encoder.framing  # as for frames of videos
    filters = {"bicubic": Image.Resampling.BICUBIC, "bilinear": Image.Resampling.BILINEAR}
    resized = upright.resize(framing.resized(*upright.size), filters[framing.interpolation])
    square = framing.square(np.array(resized)[None])
    return np.asarray(encoder.encode_frames(square).embedding[0].float().numpy())
