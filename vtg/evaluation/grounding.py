"""Ground the queries of a data set with named models, from cached features or from a library."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

import numpy as np

from vtg.datasets import RATED_DATASETS, Sample
from vtg.errors import VtgError
from vtg.evaluation.heads import Heads
from vtg.evaluation.sources import FeatureSource, LibrarySource, PublishedSource
from vtg.features.arrays import read_header
from vtg.features.npy import read_npy
from vtg.features.store import VideoFeatures
from vtg.files.hashing import file_fingerprint
from vtg.library.settings import agree_on_model
from vtg.recipes import DataRecipe

if TYPE_CHECKING:
    from vtg.grounding.grounder import Grounder, Grounding
    from vtg.library.stored_features import LibraryFeatures
    from vtg.r2 import R2Head

__all__ = ["CacheGrounder", "LibraryGrounder", "SampleGrounder", "ground_samples", "sample_grounder"]


def ground_samples(
    head: R2Head, source: FeatureSource, samples: Sequence[Sample], fps: float | None
) -> list[Grounding]:
    """Ground the queries of one video with a head, from layers, without windows up to `WHOLE_FRAMES`.

    Args:
        head: in eval mode.
        source: of the features.
        samples: of one video.
        fps: frames a second; None to derive it from the number of frames and the duration.

    Raises:
        VtgError: features are missing, damaged, or not of the head's CLIP.
    """
    import torch

    from vtg.grounding.windows import ground_with_head

    first = samples[0]
    layers = source.video(first.video_id)
    video = VideoFeatures(fps or len(layers) / first.duration, first.duration, layers, name=first.video_id)
    texts = [torch.from_numpy(np.array(source.query(sample))) for sample in samples]
    with torch.inference_mode():
        return ground_with_head(head, video, [sample.query for sample in samples], texts, whole=True)


class SampleGrounder(Protocol):
    """Grounds the queries of a data set."""

    def check(self, model: str, sample: Sample) -> str:
        """A digest of the features for a query; raises a VtgError if it cannot be grounded."""

    def ground(self, model: str, samples: Sequence[Sample]) -> list[Grounding]:
        """Ground the queries of one video."""

    def video(self, sample: Sample) -> VideoFeatures:
        """The features of a query's video."""


class CacheGrounder:
    """Grounds with heads from cached features.

    Args:
        source: of the features.
        data: section of the recipe.
        heads: to evaluate.
    """

    def __init__(self, source: PublishedSource, data: DataRecipe, heads: Heads) -> None:
        self._source = source
        self._data = data
        self._heads = heads
        self._fingerprints: dict[str, str] = {}  # per video

    def check(self, model: str, sample: Sample) -> str:
        """Check the files of a query and its video.

        Returns:
            A digest of both.

        Raises:
            VtgError: features are missing or damaged, or the model has no head for them.
        """
        if self._heads.find(model) is None:
            raise VtgError(f"{model}: needs CLIP's embeddings, which cached features lack; give a library")
        if sample.video_id not in self._fingerprints:
            self._source.video(sample.video_id)
            self._fingerprints[sample.video_id] = file_fingerprint(self._source.video_file(sample.video_id))
        self._source.query(sample)
        return f"{self._fingerprints[sample.video_id]} {file_fingerprint(self._source.query_file(sample))}"

    def ground(self, model: str, samples: Sequence[Sample]) -> list[Grounding]:
        """Ground the queries of one video.

        Raises:
            VtgError: features are missing, damaged, not finite or of another CLIP than the head's.
        """
        head = self._heads.find(model)
        assert head is not None  # as `check` says
        groundings = ground_samples(head, self._source, samples, self._fps(head.config.fps))
        if not all(np.isfinite(grounding.saliency.scores).all() for grounding in groundings):
            raise VtgError(f"{self._largest(samples)}: its values give no finite scores; extract it again")
        return groundings

    def video(self, sample: Sample) -> VideoFeatures:
        """The features of a query's video.

        Raises:
            VtgError: they are missing or damaged.
        """
        layers = self._source.video(sample.video_id)
        fps = self._fps(None) or len(layers) / sample.duration
        return VideoFeatures(fps, sample.duration, layers, name=sample.video_id)

    def _fps(self, head_fps: float | None) -> float | None:
        """Frames per second; rated videos without a rate have one frame per annotated clip."""
        is_rated = self._data.dataset in RATED_DATASETS
        return self._data.fps if self._data.fps is not None or is_rated else head_fps

    def _largest(self, samples: Sequence[Sample]) -> Path:
        """The file with the largest absolute value among those of a video and its queries; NaN counts as infinity."""
        files = {self._source.video_file(samples[0].video_id): 4}
        files |= {self._source.query_file(sample): 3 for sample in samples}

        def largest(file: Path) -> float:
            value = float(np.abs(read_npy(file, files[file])).max())
            return np.inf if np.isnan(value) else value

        return max(files, key=largest)


class LibraryGrounder:
    """Grounds with heads, or with CLIP only, from the features in a library.

    Args:
        source: of the features.
        heads: to evaluate.
    """

    def __init__(self, source: LibrarySource, heads: Heads) -> None:
        self._source = source
        self._heads = heads
        self._grounders: dict[str, Grounder] = {}
        self._stores: dict[str | None, LibraryFeatures] = {}

    def check(self, model: str, sample: Sample) -> str:
        """Check the stored features of a query's video.

        Returns:
            A digest of it and of the library's CLIP.

        Raises:
            VtgError: the video is not in the library, or its stored features are not sufficient for the model.
        """
        from vtg.grounding.windows import check_groundable

        grounder, features = self._grounder(model), self._features(model, sample)
        used = ""
        if grounder.head is not None:
            check_groundable(grounder.head, features, whole=True)
            if features.layers is None and features.projection is not None:
                used = f"projection {features.projection.values.dtype} of {self._stores[model].head_fingerprint}"
        header = read_header(self._source.library.features.path(self._source.key(sample.video_id)))
        return f"{features.encoder} {header['__metadata__']['sha256']} {used}"

    def ground(self, model: str, samples: Sequence[Sample]) -> list[Grounding]:
        """Ground the queries of one video.

        Raises:
            VtgError: the video is not in the library, or its stored features are not sufficient for the model.
        """
        from vtg.grounding.windows import ground_with_head

        grounder, features = self._grounder(model), self._features(model, samples[0])
        queries = [sample.query for sample in samples]
        texts = grounder.encoder.encode_texts(queries)
        if grounder.head is None:
            return grounder.ground_texts(features, queries, texts)
        return ground_with_head(grounder.head, features, queries, [text.layers for text in texts], whole=True)

    def video(self, sample: Sample) -> VideoFeatures:
        """The features of a query's video.

        Raises:
            VtgError: the video is not in the library, or its file is damaged.
        """
        return self._features(None, sample)

    def _features(self, model: str | None, sample: Sample) -> VideoFeatures:
        """The stored features of a video, with its projection for a head."""
        from vtg.library.stored_features import LibraryFeatures

        if model not in self._stores:
            head = None if model is None else self._heads.spec(model).head
            library = self._source.library
            self._stores[model] = LibraryFeatures(
                library.folder, library.features.storage, head, load_head=lambda: None
            )
        return self._stores[model].open(self._source.key(sample.video_id), sample.video_id)

    def _grounder(self, model: str) -> Grounder:
        """The grounder of a model, with the library's encoder."""
        from vtg.grounding.grounder import Grounder

        if model not in self._grounders:
            library, head = self._source.library, self._heads.find(model)
            if reads := self._heads.clip_source(model):
                agree_on_model(library.folder, reads)
            self._grounders[model] = Grounder(library.encoder, head, library.model.fps)
        return self._grounders[model]


def sample_grounder(source: PublishedSource | LibrarySource, data: DataRecipe, heads: Heads) -> SampleGrounder:
    """The grounder for a source of features.

    Args:
        source: from `vtg.evaluation.sources.open_features`.
        data: section of the recipe.
        heads: to evaluate.
    """
    if isinstance(source, LibrarySource):
        return LibraryGrounder(source, heads)
    return CacheGrounder(source, data, heads)
