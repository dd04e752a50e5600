"""Where an evaluation gets its features from, and how heads are asked about them: cached arrays, or a library."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

import numpy as np

from vtg.datasets import RATED_DATASETS, Sample
from vtg.errors import VtgError
from vtg.evaluation.heads import Heads
from vtg.features.arrays import read_header
from vtg.features.store import FeatureKey, VideoFeatures, read_npy
from vtg.files.hashing import file_fingerprint
from vtg.library.named_files import name_weights
from vtg.library.rows import INDEXED
from vtg.library.settings import SETTINGS, agree_on_model, read_settings
from vtg.recipes import DataRecipe, Recipe

if TYPE_CHECKING:
    import torch

    from vtg.grounding.grounder import Grounder, Grounding
    from vtg.library.stored_features import LibraryFeatures

__all__ = ["FeatureSource", "LibrarySource", "PublishedSource", "open_features", "with_rate_of"]


class FeatureSource(Protocol):
    """Where the features of a data set come from, and what grounds by them."""

    def check(self, model: str, sample: Sample) -> str:
        """Raise a VtgError where a query cannot be asked; else digest the features that its answer depends on."""

    def ground(self, model: str, samples: Sequence[Sample]) -> list[Grounding]:
        """Ground the queries of one video, which is asked whole as far as the method allows."""

    def video(self, sample: Sample) -> VideoFeatures:
        """The features of a query's video."""


class PublishedSource:
    """Cached features in the published layout: an array a video and one a query, so that no CLIP is needed.

    Args:
        data: the recipe's, with ``folder`` where the features are.
        heads: what is asked.
    """

    def __init__(self, data: DataRecipe, heads: Heads) -> None:
        self._data = data
        self._heads = heads
        self._fingerprints: dict[Path, str] = {}  # of the videos, which have many queries each

    def check(self, model: str, sample: Sample) -> str:
        """Look at the files of a query and its video.

        Returns:
            A digest of both.

        Raises:
            VtgError: features are missing or damaged, or the model has no head that reads them.
        """
        if self._heads.find(model) is None:
            raise VtgError(f"{model}: grounds by CLIP's embeddings, which cached features lack; give a library")
        video = self._data.video_feature_file(sample.video_id)
        query = self._data.query_feature_file(sample.query_id, sample.video_id)
        if video not in self._fingerprints:
            read_npy(video, dimensions=4)
            self._fingerprints[video] = file_fingerprint(video)
        read_npy(query, dimensions=3)
        return f"{self._fingerprints[video]} {file_fingerprint(query)}"

    def ground(self, model: str, samples: Sequence[Sample]) -> list[Grounding]:
        """Ground the queries of one video.

        Raises:
            VtgError: features are missing, damaged, not finite or of another CLIP than the head's.
        """
        import torch

        from vtg.grounding.grounder import ground_with_head

        head = self._heads.find(model)
        assert head is not None  # as `check` says
        kept = head.config.layers  # a head that reads fewer layers than are cached was trained on the last ones
        video = self._features(samples[0], head.config.fps)
        assert video.layers is not None  # that is all that there is
        video = replace(video, layers=video.layers[:, -kept:])
        texts = [self._query(sample)[:, -kept:] for sample in samples]
        with torch.inference_mode():
            groundings = ground_with_head(head, video, [sample.query for sample in samples], texts, whole=True)
        if not all(np.isfinite(grounding.saliency.scores).all() for grounding in groundings):
            raise VtgError(f"{self._largest(samples)}: its values give no finite scores; extract it again")
        return groundings

    def _largest(self, samples: Sequence[Sample]) -> Path:
        """The file of the largest values among those of a video and its queries; infinity and NaN are larger still."""
        files = {self._data.video_feature_file(samples[0].video_id): 4}
        files |= {self._data.query_feature_file(sample.query_id, sample.video_id): 3 for sample in samples}

        def largest(file: Path) -> float:
            value = float(np.abs(read_npy(file, files[file])).max())
            return np.inf if np.isnan(value) else value

        return max(files, key=largest)

    def video(self, sample: Sample) -> VideoFeatures:
        """The features of a query's video.

        Raises:
            VtgError: they are missing or damaged.
        """
        return self._features(sample, None)

    def _features(self, sample: Sample, head_fps: float | None) -> VideoFeatures:
        layers = read_npy(self._data.video_feature_file(sample.video_id), dimensions=4)
        fps = self._data.fps
        if fps is None and self._data.dataset not in RATED_DATASETS:
            fps = head_fps
        # Rated videos without a rate have one frame an annotated clip.
        return VideoFeatures(fps or len(layers) / sample.duration, sample.duration, layers, name=sample.video_id)

    def _query(self, sample: Sample) -> torch.Tensor:
        import torch

        layers = read_npy(self._data.query_feature_file(sample.query_id, sample.video_id), dimensions=3)
        return torch.from_numpy(np.array(layers))


class LibrarySource:
    """A library that has the data set's videos: its features, and its own CLIP for the queries.

    Args:
        folder: the library's; its files are named by video id.
        data: the recipe's, whose rate the library must have.
        heads: what is asked, beside CLIP alone.
        device: that the CLIP runs on; None takes the best there is.
        pretrained: weights of the CLIP, where the library's own have to be named by the user.

    Raises:
        VtgError: the library is damaged, or has another rate.
    """

    def __init__(
        self, folder: Path, data: DataRecipe, heads: Heads, device: str | None, pretrained: str | None = None
    ) -> None:
        from vtg.library.library import Library

        model = None if pretrained is None else name_weights(folder, None, pretrained, None)
        self._library = Library(folder, model, device)
        data.check_rate(folder, self._library.model.fps)
        self._heads = heads
        readable = (entry for entry in self._library.videos() if entry.state == INDEXED and self._library.reads(entry))
        self._entries = {Path(entry.path).stem: entry for entry in readable}
        self._grounders: dict[str, Grounder] = {}
        self._stores: dict[str | None, LibraryFeatures] = {}

    def check(self, model: str, sample: Sample) -> str:
        """Look at what is kept of a query's video.

        Returns:
            A digest of it and of the library's CLIP.

        Raises:
            VtgError: the video is not in the library, or the model cannot be asked by what is kept of it.
        """
        from vtg.grounding.windows import check_askable

        grounder, features = self._grounder(model), self._features(model, sample)
        used = ""
        if grounder.head is not None:
            check_askable(grounder.head, features, whole=True)
            if features.layers is None and features.projection is not None:
                used = f"projection {features.projection.values.dtype} of {self._stores[model].head_fingerprint}"
        header = read_header(self._library.features.path(self._key(sample)))
        return f"{features.encoder} {header['__metadata__']['sha256']} {used}"

    def ground(self, model: str, samples: Sequence[Sample]) -> list[Grounding]:
        """Ground the queries of one video.

        Raises:
            VtgError: the video is not in the library, or the model cannot be asked by what is kept of it.
        """
        from vtg.grounding.grounder import ground_with_head

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
        """What is kept of a video, with its projection for a head."""
        from vtg.library.stored_features import LibraryFeatures

        if model not in self._stores:
            head = None if model is None else self._heads.spec(model).head
            self._stores[model] = LibraryFeatures(
                self._library.folder, self._library.features.storage, head, load_head=lambda: None
            )
        return self._stores[model].open(self._key(sample), sample.video_id)

    def _key(self, sample: Sample) -> FeatureKey:
        if sample.video_id not in self._entries:
            raise VtgError(f"{self._library.folder}: has no video {sample.video_id}; index it first")
        return FeatureKey(self._entries[sample.video_id].video, self._library.fingerprint, self._library.model.fps)

    def _grounder(self, model: str) -> Grounder:
        """What answers by a model; the encoder is the library's for all of them."""
        from vtg.grounding.grounder import Grounder

        if model not in self._grounders:
            head = self._heads.find(model)
            if reads := self._heads.whose_clip(model):
                agree_on_model(self._library.folder, reads)
            self._grounders[model] = Grounder(self._library.encoder, head, self._library.model.fps)
        return self._grounders[model]


def open_features(
    folder: Path, data: DataRecipe, heads: Heads, device: str | None = None, pretrained: str | None = None
) -> FeatureSource:
    """Features in the published layout, or a library.

    Args:
        folder: of either.
        data: the recipe's.
        heads: what is asked.
        device: that a library's CLIP runs on; None takes the best there is.
        pretrained: weights of a library's CLIP, where they have to be named by the user.

    Raises:
        VtgError: the folder is neither, or the library has another rate than the recipe.
    """
    if (folder / SETTINGS).is_file():
        return LibrarySource(folder, data, heads, device, pretrained)
    if not (folder / data.video_features).is_dir():
        raise VtgError(f"{folder}: has neither {data.video_features}/ nor a library; check --features")
    return PublishedSource(replace(data, folder=folder), heads)


def with_rate_of(folder: Path, recipe: Recipe) -> Recipe:
    """A recipe that does not say its rate, with that of the library that its features are in.

    Raises:
        VtgError: the library's settings are damaged.
    """
    model = read_settings(folder) if (folder / SETTINGS).is_file() else None
    if model is None or recipe.states("data.fps"):
        return recipe
    return replace(recipe, data=replace(recipe.data, fps=model.fps), stated=recipe.stated | {"data.fps"})
