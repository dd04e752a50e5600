"""Sources of features for training and evaluation: cached arrays, or a library."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

import numpy as np

from vtg.datasets import Sample
from vtg.errors import VtgError
from vtg.features.npy import extracted_folders, read_npy
from vtg.features.store import FeatureKey
from vtg.library.named_files import name_weights
from vtg.library.rows import INDEXED
from vtg.library.settings import SETTINGS, read_settings
from vtg.recipes import DataRecipe, Recipe

if TYPE_CHECKING:
    from vtg.library.library import Library

__all__ = ["FeatureSource", "LibrarySource", "PublishedSource", "open_features", "with_rate_of"]


class FeatureSource(Protocol):
    """The layers of videos and queries, memory-mapped.

    Attributes:
        clip: open_clip's name of the CLIP and its weights; None if unknown.
        fps: frames per second; None if unknown.
        class_token: whether the first token of a frame is a class token; None if unknown.
    """

    clip: tuple[str | None, str, str | None] | None
    fps: float | None

    @property
    def class_token(self) -> bool | None: ...

    def video(self, video_id: str) -> np.ndarray:
        """One video's [T, K, P, Cv]."""

    def query(self, sample: Sample) -> np.ndarray:
        """One query's [L, K, Cq]."""

    def video_name(self, video_id: str) -> str:
        """Name of a video's features for error messages."""

    def query_name(self, sample: Sample) -> str:
        """Name of a query's features for error messages."""

    def cache_queries(self, samples: Iterable[Sample]) -> None:
        """Prepare the features of queries that will be read repeatedly."""


class PublishedSource:
    """Cached features in the published layout: one `.npy` per video and per query; no CLIP is needed.

    Args:
        data: the recipe's, with `folder` where the features are.
    """

    clip: tuple[str | None, str, str | None] | None = None
    fps: float | None = None
    class_token: bool | None = None

    def __init__(self, data: DataRecipe) -> None:
        self._data = data

    def video_file(self, video_id: str) -> Path:
        """The file of a video's features."""
        return self._data.video_feature_file(video_id)

    def query_file(self, sample: Sample) -> Path:
        """The file of a query's features."""
        return self._data.query_feature_file(sample.query_id, sample.video_id)

    def video(self, video_id: str) -> np.ndarray:
        """One video's [T, K, P, Cv], mapped.

        Raises:
            VtgError: the file is missing or damaged.
        """
        return read_npy(self.video_file(video_id), dimensions=4)

    def query(self, sample: Sample) -> np.ndarray:
        """One query's [L, K, Cq], mapped.

        Raises:
            VtgError: the file is missing or damaged.
        """
        return read_npy(self.query_file(sample), dimensions=3)

    def video_name(self, video_id: str) -> str:
        """The file."""
        return str(self.video_file(video_id))

    def query_name(self, sample: Sample) -> str:
        """The file."""
        return str(self.query_file(sample))

    def cache_queries(self, samples: Iterable[Sample]) -> None:
        """No effect: files are mapped when they are read."""


class LibrarySource:
    """A library with the data set's videos; its CLIP encodes the queries.

    Args:
        folder: of the library; its files are named by video id.
        data: section of the recipe; the library must have its rate.
        device: for the CLIP; None for the best available.
        pretrained: weights of the CLIP, if the user has to name them.

    Raises:
        VtgError: the library is damaged, or has another rate.

    Attributes:
        library: the open library.
    """

    def __init__(
        self, folder: Path, data: DataRecipe, device: str | None = None, pretrained: str | None = None
    ) -> None:
        from vtg.library.library import Library

        model = None if pretrained is None else name_weights(folder, None, pretrained, None)
        self.library: Library = Library(folder, model, device)
        data.check_rate(folder, self.library.model.fps)
        readable = (entry for entry in self.library.videos() if entry.state == INDEXED and self.library.reads(entry))
        self._contents = {Path(entry.path).stem: entry.video for entry in readable}
        self._queries: dict[str, np.ndarray] = {}
        encoder = self.library.model.encoder
        self.clip: tuple[str | None, str, str | None] | None = encoder.clip, encoder.pretrained, encoder.preprocessing
        self.fps: float | None = self.library.model.fps

    @property
    def class_token(self) -> bool | None:
        """Whether the library's CLIP, which is loaded, has a class token."""
        return self.library.encoder.class_tokens > 0

    def key(self, video_id: str) -> FeatureKey:
        """The key of a video's features.

        Raises:
            VtgError: the library has no such video.
        """
        if video_id not in self._contents:
            raise VtgError(f"{self.library.folder}: has no video {video_id}; index it first")
        return FeatureKey(self._contents[video_id], self.library.fingerprint, self.library.model.fps)

    def video(self, video_id: str) -> np.ndarray:
        """One video's [T, K, P, Cv], mapped.

        Raises:
            VtgError: the library has no such video, its file is damaged, or layers are not kept.
        """
        layers = self.library.features.open(self.key(video_id)).layers
        if layers is None:
            raise VtgError(f"{self.library.folder}: contains no layers; index its videos again with --keep-layers")
        return layers if isinstance(layers, np.ndarray) else layers[:]

    def query(self, sample: Sample) -> np.ndarray:
        """One query's [L, K, Cq]."""
        if sample.query in self._queries:
            return self._queries[sample.query]
        return self.library.encoder.encode_text(sample.query).layers.float().cpu().numpy()

    def video_name(self, video_id: str) -> str:
        """The library and the video."""
        return f"{self.library.folder}: video {video_id}"

    def query_name(self, sample: Sample) -> str:
        """The library and the query."""
        return f"{self.library.folder}: query {sample.query_id}"

    def cache_queries(self, samples: Iterable[Sample]) -> None:
        """Encode the queries of samples, each distinct text once, and keep them as float16."""
        texts = list(dict.fromkeys(sample.query for sample in samples))
        encoded = self.library.encoder.encode_texts(texts)
        self._queries |= {
            text: features.layers.half().cpu().numpy() for text, features in zip(texts, encoded, strict=True)
        }


def open_features(
    folder: Path, data: DataRecipe, device: str | None = None, pretrained: str | None = None
) -> PublishedSource | LibrarySource:
    """Open features in the published layout, or a library.

    Args:
        folder: of the features or the library.
        data: section of the recipe.
        device: for a library's CLIP; None for the best available.
        pretrained: weights of a library's CLIP, if the user has to name them.

    Raises:
        VtgError: the folder is neither, or the library has another rate than the recipe.
    """
    if (folder / SETTINGS).is_file():
        return LibrarySource(folder, data, device, pretrained)
    videos, queries = data.video_features, data.query_features
    if not (folder / videos).is_dir():
        videos, queries = extracted_folders(folder) or (videos, queries)
    if not (folder / videos).is_dir():
        raise VtgError(f"{folder}: has neither {data.video_features}/ nor a library; check --features")
    return PublishedSource(replace(data, folder=folder, video_features=videos, query_features=queries))


def with_rate_of(folder: Path, recipe: Recipe) -> Recipe:
    """Set the rate of a recipe without one to that of the library with its features.

    Raises:
        VtgError: the library's settings are damaged.
    """
    model = read_settings(folder) if (folder / SETTINGS).is_file() else None
    if model is None or recipe.states("data.fps"):
        return recipe
    return replace(recipe, data=replace(recipe.data, fps=model.fps), stated=recipe.stated | {"data.fps"})
