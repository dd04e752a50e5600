"""Recommended encoders for grounding without a head, with their published figures; and their speed on this machine."""

from __future__ import annotations

import statistics
import time
from dataclasses import asdict, dataclass
from typing import Any

from vtg.clip.specs import EncoderSpec

__all__ = ["ENCODERS", "EncoderEntry", "measure_speed"]

MEASURED_FRAMES, MEASURED_ROUNDS = 16, 3


@dataclass(frozen=True)
class EncoderEntry:
    """An encoder that can be chosen by its name; grounding is zero-shot.

    Attributes:
        name: for `vtg.load` and ``--model``.
        clip: the model in open_clip's catalogue.
        pretrained: the tag of its weights.
        strength: what it is recommended for.
        million_parameters: of the image and of the text tower.
        languages: of queries.
        licence: of the weights.
        imagenet: published zero-shot accuracy on ImageNet-1k, in percent.
        source: of that figure.
    """

    name: str
    clip: str
    pretrained: str
    strength: str
    million_parameters: tuple[float, float]
    languages: str
    licence: str
    imagenet: float
    source: str

    @property
    def spec(self) -> EncoderSpec:
        """Its CLIP."""
        return EncoderSpec(self.clip, self.pretrained)

    @property
    def download_gb(self) -> float:
        """Size of the weights in float32, GB."""
        return round(sum(self.million_parameters) * 4e-3, 1)

    def to_dict(self) -> dict[str, Any]:
        """As plain values for JSON, without the names that `vtg.models.describe_models` gives itself."""
        values = asdict(self)
        for name in ("name", "clip", "pretrained"):
            del values[name]
        return {**values, "download_gb": self.download_gb}


ENCODERS = (
    EncoderEntry(
        name="mobileclip2-s2",
        clip="MobileCLIP2-S2",
        pretrained="dfndr2b",
        strength="small and quick",
        million_parameters=(35.7, 63.4),
        languages="English",
        licence="Apple ML Research Model License (research only)",
        imagenet=77.2,
        source="arXiv:2508.20691",
    ),
    EncoderEntry(
        name="pe-core-b",
        clip="PE-Core-B-16",
        pretrained="meta",
        strength="strong",
        million_parameters=(93.7, 354.0),
        languages="English",
        licence="Apache 2.0",
        imagenet=78.4,
        source="arXiv:2504.13181",
    ),
    EncoderEntry(
        name="pe-core-l",
        clip="PE-Core-L-14-336",
        pretrained="meta",
        strength="strongest, and slow without a GPU",
        million_parameters=(317.2, 354.0),
        languages="English",
        licence="Apache 2.0",
        imagenet=83.5,
        source="arXiv:2504.13181",
    ),
    EncoderEntry(
        name="siglip2-b",
        clip="ViT-B-16-SigLIP2",
        pretrained="webli",
        strength="many languages; needs pip install 'vtground[siglip]'",
        million_parameters=(92.9, 282.3),
        languages="about 100",
        licence="Apache 2.0",
        imagenet=78.2,
        source="arXiv:2502.14786",
    ),
)


def measure_speed(spec: EncoderSpec, device: str | None = None) -> dict[str, Any]:
    """Measure how many frames a second a CLIP encodes on this machine, embeddings alone.

    Weights that are not on this disk are not downloaded: random ones are as fast.

    Args:
        spec: of the CLIP.
        device: a torch device; None for the best available.

    Returns:
        clip, device, computes (arithmetic), image_size (pixels), frames_per_second (the median of 3 rounds of 16
        frames), and random_weights (whether it was measured with such).

    Raises:
        VtgError: the encoder cannot be loaded.
    """
    import numpy as np

    from vtg.clip.encoder import ClipEncoder

    preprocessing = str(spec.frame_preprocessing)
    if spec.present:
        encoder = ClipEncoder(spec.clip, spec.weights, 0, device, encoding="auto", preprocessing=preprocessing)
    else:
        encoder = ClipEncoder(spec.clip, None, 0, device, preprocessing=preprocessing)
    size = encoder.image_size
    frames = np.random.default_rng(0).integers(0, 256, (MEASURED_FRAMES, size, size, 3), dtype=np.uint8)
    encoder.encode_frames(frames)
    seconds = []
    for _ in range(MEASURED_ROUNDS):
        begin = time.perf_counter()
        encoder.encode_frames(frames)
        seconds.append(time.perf_counter() - begin)
    return {
        "clip": str(spec),
        "device": str(encoder.device),
        "computes": encoder.computes,
        "image_size": size,
        "frames_per_second": MEASURED_FRAMES / statistics.median(seconds),
        "random_weights": not spec.present,
    }
