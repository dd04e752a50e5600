"""What a recipe consists of: its sections as data classes, with the defaults that hold where a file says nothing."""

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

POSITIVES = ("above 0", "above half", "above median")  # the saliency from which a frame may stand for its query
PRECISIONS = ("float32", "bf16", "fp16")
MODEL_KEYS = (  # the fields of a `HeadConfig` that a recipe's section [model] has
    *("hidden_width", "layers", "strides", "moment_retrieval", "temporal_extent", "spatial_pooling"),
    *("attention_heads", "feed_forward_ratio", "dropout", "drop_path", "fps", "clip_model", "clip_pretrained"),
    *("window_seconds", "step_seconds"),
)
NO_CLIP = HeadConfig(clip_model=None, clip_pretrained=None)  # what holds where a recipe says nothing of its head


@dataclass(frozen=True)
class DataRecipe:
    """What a data set consists of, and where.

    Attributes:
        dataset: one of `vtg.datasets.DATASETS`, or a name of one's own.
        folder: holds everything else; `data/<dataset>` under the working directory if a published recipe does not say,
            the recipe's own folder if one's own does not.
        annotations: file names by part ("train", "val", "test"): the first that is there is used.
        videos: folder of the videos.
        video_features: folder of one `.npy` a video.
        query_features: folder of one `.npy` a query.
        video_name: the name of a video's file and features, without the ending, of {vid}.
        query_name: the name of a query's features, without the ending, of {qid} or {vid}.
        fps: frames a second in the features; None: one frame an annotated clip.
        min_duration: shorter videos, in seconds, are left out of training.
        domain: the only domain that is used; None for all, or where there are none.
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
            VtgError: the recipe knows no such part, or none of its files is there.
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
    """How the head is trained: AdamW that decays every parameter; its losses count as `LossWeights` says.

    Attributes:
        split: the part that is trained on.
        validation: the part that decides which epoch was the best; None keeps the last.
        validate_every: epochs from one validation to the next; the last epoch is always followed by one.
        batch: samples that are contrasted in one pass, of all processes together; all of them where there are fewer.
        accumulate: passes whose gradients are summed before a step; each contrasts its own batch alone.
        epochs: how many.
        repeats: how often every sample comes in an epoch.
        queries_per_video: queries of the same video that come in the same batch; above 1 they share the video's map and
            its dropout, which is that much quicker and no longer what was published.
        rate: of learning, after the warm-up.
        rate_drop_epoch: the rate is a tenth after this many epochs; None never.
        warmup_steps: steps in which the rate grows in a line from a thousandth.
        weight_decay: of all parameters.
        clip_norm: the longest gradient that is not cut.
        precision: "float32", "bf16" or "fp16" for the block; heads and losses are always float32.
        seed: of everything that is random.
        positive: the saliency from which a frame may be drawn as a query's positive, one of `POSITIVES`.
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
    """How predictions are made ready and what decides which head is the best.

    Attributes:
        split: the part that figures are published on.
        metric: the brief figure that decides, by its published name.
        unit: windows are rounded to this many seconds; None leaves them.
        nms: how windows that overlap a better one are rescored: "normal", "linear", "gaussian", or None.
        nms_threshold: the IoU from which "normal" drops a window.
    """

    split: str = "val"
    metric: str = "MR-full-mAP"
    unit: float | None = None
    nms: str | None = None
    nms_threshold: float = 0.7


@dataclass(frozen=True)
class Recipe:
    """One benchmark, one of its domains, or a data set of one's own.

    Attributes:
        name: of the recipe: `r2-<name>` is the published head's.
        data: what it is trained and evaluated on.
        evaluation: how it is evaluated.
        model: the head that is trained, by the fields of `MODEL_KEYS`; the widths of its CLIP come from the features,
            the rest from the other sections.
        train: how it is trained.
        members: names of the recipes that make it up: one a domain, their mean is the figure; empty for a recipe on its
            own.
        stated: the keys, like "data.fps", to which its file, its base or a setting gives a value, "none" included; the
            others have their default.
    """

    name: str
    data: DataRecipe
    evaluation: EvaluationRecipe
    model: HeadConfig = NO_CLIP
    train: TrainRecipe = TrainRecipe()
    members: tuple[str, ...] = ()
    stated: frozenset[str] = frozenset()

    def states(self, key: str) -> bool:
        """Whether a value was chosen, and is not only a default that nobody thought of.

        Args:
            key: like "data.fps".
        """
        section, _, name = key.partition(".")
        own = getattr(self, section)
        usual = NO_CLIP if section == "model" else type(own)()
        return key in self.stated or getattr(own, name) != getattr(usual, name)
