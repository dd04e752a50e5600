"""The sections of a recipe as data classes, with their defaults."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from vtg.datasets import DATASETS, RATED_DATASETS, Sample, load_samples
from vtg.errors import VtgError
from vtg.r2.config import HeadConfig, LossWeights

__all__ = [
    "MODEL_KEYS",
    "NO_CLIP",
    "POSITIVES",
    "PRECISIONS",
    "DataRecipe",
    "EvaluationRecipe",
    "Recipe",
    "TrainRecipe",
]

POSITIVES = ("above 0", "above half", "above median")  # minimum saliency of positive frames
PRECISIONS = ("float32", "bf16", "fp16")
MODEL_KEYS = (  # the fields of `HeadConfig` in the section [model]
    *("hidden_width", "layers", "strides", "moment_retrieval", "temporal_extent", "spatial_pooling"),
    *("attention_heads", "feed_forward_ratio", "dropout", "drop_path", "fps", "clip_model", "clip_pretrained"),
    *("clip_preprocessing", "class_token", "max_patches", "window_seconds", "step_seconds"),
)
MAX_PATCHES = 64  # of new heads, so that their projections are hardly larger than the published heads' of 49 patches
# Default of the section [model].
NO_CLIP = HeadConfig(clip_model=None, clip_pretrained=None, tokens=None, max_patches=MAX_PATCHES)


@dataclass(frozen=True)
class DataRecipe:
    """The files of a data set.

    Attributes:
        dataset: one of `vtg.datasets.DATASETS`, or another name.
        folder: of all files; by default `data/<dataset>` in the working directory for a published recipe, and the
            folder of the recipe for a custom one.
        annotations: file names by split ("train", "val", "test"): the first existing one is used.
        videos: folder of the videos.
        video_features: folder of one `.npy` per video; without a value, it is named after the CLIP that [model] names.
        query_features: folder of one `.npy` per query; named in the same way.
        video_name: the name of a video's file and features, without the ending, of {vid}.
        query_name: the name of a query's features, without the ending, of {qid} or {vid}.
        fps: frames per second of the features; None: one frame per annotated clip.
        min_duration: minimum duration of training videos in seconds.
        domain: the domain to use; None for all.
    """

    dataset: str = "own"
    folder: Path = Path()
    annotations: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    videos: str = "videos"
    video_features: str = "clip_b32_vid_k4"
    query_features: str = "clip_b32_txt_k4"
    video_name: str = "{vid}"
    query_name: str = "{qid}"
    fps: float | None = None
    min_duration: float = 0.0
    domain: str | None = None

    def annotation_file(self, split: str) -> Path:
        """The annotation file of a part.

        Raises:
            VtgError: the recipe has no such part, or none of its files is there.
        """
        if split not in self.annotations:
            known = ", ".join(self.annotations) or "none"
            raise VtgError(f"{self.folder}: the data set {self.dataset} has no part {split!r}; it has {known}")
        names = self.annotations[split]
        for name in names:
            if (self.folder / name).is_file():
                return self.folder / name
        raise VtgError(f"{self.folder}: no annotations for {split}; put {' or '.join(names)} there")

    def samples(self, split: str, file: Path | None = None) -> list[Sample]:
        """The samples of a part: of its domain if it has one, without videos that are too short to train on.

        Args:
            split: a part; what is not "train" keeps short videos.
            file: an annotation file to read in place of `annotation_file(split)`.

        Raises:
            VtgError: the file is not there or malformed, or has no sample of this part.
        """
        file = self.annotation_file(split) if file is None else file
        samples = load_samples(file, self.dataset if self.dataset in DATASETS else None)
        if self.dataset in RATED_DATASETS:
            samples = [sample for sample in samples if sample.split == split]
        if self.domain is not None:
            samples = [sample for sample in samples if sample.domain == self.domain]
        if split == "train":
            samples = [sample for sample in samples if sample.duration >= self.min_duration]
        if not samples:
            domain = f" in the domain {self.domain}" if self.domain else ""
            raise VtgError(f"{file}: no samples for {split}{domain}; give the file of that part")
        return samples

    def check_rate(self, folder: Path, fps: float) -> None:
        """Compare the rate with that of a library.

        Args:
            folder: the library's, for the error.
            fps: its frames a second.

        Raises:
            VtgError: they differ; a data set without a rate takes any.
        """
        if self.fps is not None and self.fps != fps:
            raise VtgError(
                f"{folder}: has {fps:g} frames a second, the recipe {self.fps:g}; index at that rate, or "
                f"--set data.fps={fps:g}"
            )

    def video_feature_file(self, video_id: str) -> Path:
        """Where the published layout has the features of a video."""
        return self.folder / self.video_features / f"{self.video_name.format(vid=video_id)}.npy"

    def query_feature_file(self, query_id: int | str, video_id: str) -> Path:
        """Where the published layout has the features of a query."""
        return self.folder / self.query_features / f"{self.query_name.format(qid=query_id, vid=video_id)}.npy"


@dataclass(frozen=True)
class TrainRecipe(LossWeights):
    """How the head is trained, with AdamW and weight decay of all parameters; loss weights are inherited.

    Attributes:
        split: training split.
        validation: split that determines the best epoch; None to keep the last epoch.
        validate_every: epochs between validations; the last epoch is always validated.
        batch: batch size over all processes; limited by the number of samples.
        accumulate: batches whose gradients are accumulated per step; contrastive losses are within one batch.
        epochs: number of epochs.
        repeats: passes over the samples per epoch.
        queries_per_video: queries of a video in the same batch; above 1 they share its projection and dropout, which is
            faster and differs from the published training.
        rate: learning rate after the warm-up.
        rate_drop_epoch: epoch from which the learning rate is a tenth; None for never.
        warmup_steps: steps of linear warm-up from a thousandth of the learning rate.
        weight_decay: of all parameters.
        clip_norm: maximum norm of the gradient.
        precision: "float32", "bf16" or "fp16" for the block; heads and losses are always float32.
        seed: of all random numbers.
        positive: minimum saliency of positive frames, one of `POSITIVES`.
    """

    split: str = "train"
    validation: str | None = "val"
    validate_every: int = 1
    batch: int = 32
    accumulate: int = 1
    epochs: int = 30
    repeats: int = 1
    queries_per_video: int = 1
    rate: float = 2.5e-4
    rate_drop_epoch: int | None = None
    warmup_steps: int = 500
    weight_decay: float = 1e-4
    clip_norm: float = 35.0
    precision: str = "float32"
    seed: int = 0
    positive: str = "above 0"


@dataclass(frozen=True)
class EvaluationRecipe:
    """Post-processing of predictions, and the metric that determines the best head.

    Attributes:
        split: split of the published figures.
        metric: the deciding figure, by its published name.
        unit: windows are rounded to multiples of this many seconds; None disables rounding.
        nms: kind of non-maximum suppression: "normal", "linear", "gaussian", or None.
        nms_threshold: the IoU from which "normal" suppresses a window.
    """

    split: str = "val"
    metric: str = "MR-full-mAP"
    unit: float | None = None
    nms: str | None = None
    nms_threshold: float = 0.7


@dataclass(frozen=True)
class Recipe:
    """A benchmark, one of its domains, or a custom data set.

    Attributes:
        name: of the recipe: `r2-<name>` is the published head's.
        data: files of the data set.
        evaluation: settings of the evaluation.
        model: configuration of the head, the fields in `MODEL_KEYS`; the others come from features and other sections.
        train: settings of the training.
        members: names of its recipes, one per domain, whose mean is the figure; empty for a single recipe.
        stated: keys, like "data.fps", with a value (including "none") in its file, its base or a setting; the others
            have their default.
    """

    name: str
    data: DataRecipe
    evaluation: EvaluationRecipe
    model: HeadConfig = NO_CLIP
    train: TrainRecipe = TrainRecipe()
    members: tuple[str, ...] = ()
    stated: frozenset[str] = frozenset()

    def states(self, key: str) -> bool:
        """Whether a value is stated explicitly, or differs from the default.

        Args:
            key: like "data.fps".
        """
        section, _, name = key.partition(".")
        own = getattr(self, section)
        usual = NO_CLIP if section == "model" else type(own)()
        return key in self.stated or getattr(own, name) != getattr(usual, name)
