"""Configuration of a head (shapes, sampling, post-processing) and weights of its training losses."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from typing import Any

from vtg.files.text import read_json, short_repr

__all__ = ["SUPPRESSIONS", "HeadConfig", "LossWeights"]

SUPPRESSIONS = ("normal", "linear", "gaussian")  # kinds of non-maximum suppression

# Upper bounds for values read from a file. Those of published heads are far below; a model is only allocated after its
# tensors were found to have the configured shapes.
MAX_SIZES = {
    "hidden_width": 1 << 20, "video_width": 1 << 20, "query_width": 1 << 20, "layers": 1 << 10, "tokens": 1 << 20,
    "max_patches": 1 << 20, "attention_heads": 1 << 20, "feed_forward_ratio": 64, "max_windows": 1 << 20,
}  # fmt: skip
MAX_STRIDE_FRAMES = 1 << 16  # frames
MAX_NUMBER = 1e6  # for seconds, rates and thresholds
# That the first version of the format did not have.
LATER_FIELDS = ("class_token", "max_patches", "clip_preprocessing", "guessed")


@dataclass(frozen=True)
class HeadConfig:
    """The configuration of an R² head; it is stored in the checkpoint.

    The defaults are those of the published heads (R²-Tuning, ECCV 2024), where all of them agree.

    Attributes:
        name: the model's name in the registry; None if it has none.
        hidden_width: D, the channels of all layers inside the head.
        video_width: Cv, channels of a frame token of the CLIP.
        query_width: Cq, channels of a text token of the CLIP.
        layers: K, how many of the last CLIP layers the head uses.
        tokens: P, tokens per frame (the class token, if any, and the patches); None if the checkpoint does not say.
        class_token: whether the first token of a frame is a class token; without one, as in SigLIP, the mean of the
            patches stands in its place.
        max_patches: how many patches of a frame are projected at most: a larger grid is reduced by average pooling.
            None for all of them.
        strides: of the pyramid levels, in frames: 1, then ascending powers of two.
        moment_retrieval: whether the head predicts moments; a head without is highlight-only.
        temporal_extent: whether the relative (start, end) of a frame in the video is appended to its tokens as two more
            channels.
        spatial_pooling: whether the query-modulated pooling over patches is added to the class token; a head without
            (an ablation) uses class tokens only.
        attention_heads: heads of the temporal attention layers.
        feed_forward_ratio: width of the feed-forward layer over D.
        dropout: probability in the two input projections, in training.
        drop_path: probability of skipping a residual branch, in training.
        fps: sampling rate in frames per second.
        unit: windows are rounded to multiples of this many seconds; None disables rounding.
        nms: kind of non-maximum suppression, one of `SUPPRESSIONS`; None disables it.
        nms_threshold: the IoU from which "normal" suppresses a window.
        nms_sigma: sigma of "gaussian".
        max_windows: windows kept before post-processing.
        clip_model: open_clip's name of the CLIP whose features the head was trained on; None if unknown.
        clip_pretrained: its weights: an open_clip tag or a file; None if unknown.
        clip_preprocessing: of frames, instead of that of the weights: a tag of the CLIP, or values such as
            "resize=squash,mean=0.5,std=0.5"; None for that of the weights.
        window_seconds: length of the windows that longer videos are divided into.
        step_seconds: from the start of one window to the next.
        guessed: whether fps, unit and nms are the defaults of QVHighlights because the checkpoint does not contain
            them.
    """

    name: str | None = None
    hidden_width: int = 256
    video_width: int = 768
    query_width: int = 512
    layers: int = 4
    tokens: int | None = 50
    class_token: bool = True
    max_patches: int | None = None
    strides: tuple[int, ...] = (1, 2, 4, 8)
    moment_retrieval: bool = True
    temporal_extent: bool = True
    spatial_pooling: bool = True
    attention_heads: int = 8
    feed_forward_ratio: int = 4
    dropout: float = 0.5
    drop_path: float = 0.1
    fps: float = 0.5
    unit: float | None = None
    nms: str | None = None
    nms_threshold: float = 0.7
    nms_sigma: float = 0.5
    max_windows: int = 50
    clip_model: str | None = "ViT-B-32-quickgelu"
    clip_pretrained: str | None = "openai"
    clip_preprocessing: str | None = None
    window_seconds: float = 150.0
    step_seconds: float = 100.0
    guessed: bool = False

    def __post_init__(self) -> None:
        """Validate all fields.

        Raises:
            ValueError: with the name of an invalid field and the values it may have.
        """
        for field, most in MAX_SIZES.items():
            value = getattr(self, field)
            if value is None and field in ("tokens", "max_patches"):
                continue
            if not isinstance(value, int) or isinstance(value, bool) or value < 1:
                raise ValueError(f"{field} must be a positive whole number, not {short_repr(value)}")
            if value > most:
                raise ValueError(f"{field} must be at most {most}, not {short_repr(value)}")
        for field in ("class_token", "moment_retrieval", "temporal_extent", "spatial_pooling", "guessed"):
            if not isinstance(getattr(self, field), bool):
                raise ValueError(f"{field} must be true or false, not {short_repr(getattr(self, field))}")
        for field in ("name", "nms", "clip_model", "clip_pretrained", "clip_preprocessing"):
            if not isinstance(getattr(self, field), str | None):
                raise ValueError(f"{field} must be a text or none, not {short_repr(getattr(self, field))}")
        for field in ("fps", "window_seconds", "step_seconds", "nms_sigma", "nms_threshold"):
            if not 0 < getattr(self, field) <= MAX_NUMBER:
                raise ValueError(f"{field} must be positive, not {short_repr(getattr(self, field))}")
        for field in ("dropout", "drop_path"):
            if not 0 <= getattr(self, field) < 1:
                raise ValueError(f"{field} must be a share from 0 to below 1, not {short_repr(getattr(self, field))}")
        if self.hidden_width % self.attention_heads or self.hidden_width % 2:
            raise ValueError(f"hidden_width {self.hidden_width} must be even and a multiple of {self.attention_heads}")
        if self.tokens is not None and self.tokens < 2:
            raise ValueError(f"tokens must be at least 2 (the class token and a patch), not {self.tokens}")
        if self.tokens is not None and self.max_patches is not None:
            patches = self.tokens - self.class_token
            if patches > self.max_patches and math.isqrt(patches) ** 2 != patches:
                raise ValueError(
                    f"max_patches needs a square grid, which {patches} patches are not: set it to none, or class_token "
                    "to false if the frames have no class token"
                )
        powers = all(stride > 0 and stride & (stride - 1) == 0 for stride in self.strides)
        if not powers or self.strides[:1] != (1,) or list(self.strides) != sorted(set(self.strides)):
            raise ValueError(
                f"strides must be 1 and then ascending powers of two, not {short_repr(list(self.strides[:8]))}"
            )
        if self.strides[-1] > MAX_STRIDE_FRAMES:
            raise ValueError(f"strides must be at most {MAX_STRIDE_FRAMES}, not {short_repr(self.strides[-1])}")
        if self.nms not in (None, *SUPPRESSIONS):
            raise ValueError(f"nms must be one of {', '.join(SUPPRESSIONS)} or none, not {short_repr(self.nms)}")
        if self.unit is not None and not 0 < self.unit <= MAX_NUMBER:
            raise ValueError(f"unit must be positive or none, not {short_repr(self.unit)}")
        if self.step_seconds > self.window_seconds:
            raise ValueError(f"step_seconds {self.step_seconds} must not exceed window_seconds {self.window_seconds}")

    @property
    def frame_width(self) -> int:
        """Channels of a frame token including its temporal extent."""
        return self.video_width + 2 * self.temporal_extent

    def pooled_side(self, patches: int) -> int | None:
        """Side of the grid that the patches of a frame are pooled to; None if they are not pooled.

        A pooled patch is the mean of a square of patches, the smallest that leaves at most `max_patches`: with 64,
        24 × 24 patches become 8 × 8, and 14 × 14 become 7 × 7. Where squares do not divide the grid, they overlap.

        Args:
            patches: of a frame, a square grid.
        """
        if self.max_patches is None or patches <= self.max_patches:
            return None
        side = math.isqrt(patches)
        square = -(-side // math.isqrt(self.max_patches))
        return -(-side // square)

    @property
    def read_tokens(self) -> int | None:
        """How many of the first tokens of a frame the head reads; None for all."""
        return None if self.spatial_pooling or not self.class_token else 1

    @property
    def projected_tokens(self) -> int | None:
        """Tokens per frame of a projection; None if `tokens` is unknown."""
        if not self.spatial_pooling:
            return 1
        if self.tokens is None:
            return None
        patches = self.tokens - self.class_token
        side = self.pooled_side(patches)
        return 1 + (patches if side is None else side * side)

    def to_json(self) -> str:
        """The configuration as one JSON object."""
        values = asdict(self)
        for field in LATER_FIELDS:
            if values[field] == getattr(HeadConfig, field):
                del values[field]  # so that earlier versions, which do not have the field, can read most files
        return json.dumps(values)

    @classmethod
    def from_json(cls, text: str) -> HeadConfig:
        """Parse the output of `to_json`.

        Raises:
            ValueError: the text is not a JSON object with valid fields of this class.
        """
        values = read_json(text)
        if not isinstance(values, Mapping):
            raise ValueError("the configuration is not a JSON object")
        return cls.from_values(values)

    @classmethod
    def from_values(cls, values: Mapping[str, Any]) -> HeadConfig:
        """Make a configuration from plain values; missing fields have their defaults.

        Raises:
            ValueError: a field is unknown, or a value is invalid.
        """
        unknown = set(values) - {field.name for field in fields(cls)}
        if unknown:
            raise ValueError(f"the configuration has unknown fields: {', '.join(sorted(unknown))[:160]}")
        plain = dict(values)
        try:
            if "strides" in plain:
                plain["strides"] = tuple(int(stride) for stride in plain["strides"])
            return cls(**plain)
        except (TypeError, OverflowError) as error:
            raise ValueError(f"the configuration has a value of the wrong kind: {error}") from error


@dataclass(frozen=True)
class LossWeights:
    """Weights of the losses in their sum; the defaults are those of QVHighlights.

    Attributes:
        cls: classification of points as moments (a highlight-only head: saliency of their frames).
        reg: regression of the moments' start and end.
        sal: saliency of frames, contrastive within a video and between queries.
        video_cal: granularity calibration between the samples of a batch.
        layer_cal: granularity calibration between the layers of a sample.
    """

    cls: float = 1.0
    reg: float = 0.2
    sal: float = 0.1
    video_cal: float = 0.1
    layer_cal: float = 0.1
