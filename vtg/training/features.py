"""Cached features for training, checked to be complete and of one CLIP."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

import numpy as np

from vtg.datasets import Sample
from vtg.errors import VtgError
from vtg.features.store import FeatureKey, read_npy
from vtg.r2.config import HeadConfig
from vtg.recipes import DataRecipe

if TYPE_CHECKING:
    from vtg.library.library import Library

__all__ = ["FeatureFiles", "FeatureShape", "check_features", "open_feature_files"]

ODD_FRAMES = 5  # so many frames more or less than duration · rate are usual: rates are rounded, videos cut off
ODD_SHARE = 0.1  # of the frames; beyond both, the features were made at another rate


@dataclass(frozen=True)
class FeatureShape:
    """What all features of a data set have in common: K layers of P tokens, Cv wide, and query tokens Cq wide."""

    layers: int
    tokens: int
    video_width: int
    query_width: int


class FeatureFiles(Protocol):
    """The features of videos and queries, mapped from the disk.

    Attributes:
        clip: open_clip's name of the CLIP that made them and its weights, where the files say.
        fps: frames a second, where the files say.
    """

    clip: tuple[str | None, str] | None
    fps: float | None

    def video(self, video_id: str) -> np.ndarray:
        """One video's [T, K, P, Cv]."""

    def query(self, sample: Sample) -> np.ndarray:
        """One query's [L, K, Cq]."""

    def video_name(self, video_id: str) -> str:
        """What to call a video's features in an error."""

    def query_name(self, sample: Sample) -> str:
        """What to call a query's features in an error."""


class PublishedFiles:
    """The published layout: one `.npy` a video, one a query.

    Args:
        data: the recipe's, with `folder` where the features are.
    """

    clip: tuple[str | None, str] | None = None
    fps: float | None = None

    def __init__(self, data: DataRecipe) -> None:
        self._data = data

    def video(self, video_id: str) -> np.ndarray:
        """One video's [T, K, P, Cv], mapped.

        Raises:
            VtgError: the file is missing or damaged.
        """
        return read_npy(self._data.video_feature_file(video_id), dimensions=4)

    def query(self, sample: Sample) -> np.ndarray:
        """One query's [L, K, Cq], mapped.

        Raises:
            VtgError: the file is missing or damaged.
        """
        return read_npy(self._data.query_feature_file(sample.query_id, sample.video_id), dimensions=3)

    def video_name(self, video_id: str) -> str:
        """The file."""
        return str(self._data.video_feature_file(video_id))

    def query_name(self, sample: Sample) -> str:
        """The file."""
        return str(self._data.query_feature_file(sample.query_id, sample.video_id))


class LibraryFiles:
    """A library's features; its CLIP encodes the queries, each distinct text once.

    Args:
        library: its files are named by video id.
        samples: whose queries will be asked for.
    """

    def __init__(self, library: Library, samples: Sequence[Sample]) -> None:
        self._library = library
        self._keys = {Path(entry.path).stem: entry.video for entry in library.videos() if entry.state == "indexed"}
        texts = list(dict.fromkeys(sample.query for sample in samples))
        encoded = library.encoder.encode_texts(texts)
        self._queries = {
            text: features.layers.half().cpu().numpy() for text, features in zip(texts, encoded, strict=True)
        }
        encoder = library.model.encoder
        self.clip: tuple[str | None, str] | None = (encoder.clip, encoder.pretrained)
        self.fps: float | None = library.model.fps

    def video(self, video_id: str) -> np.ndarray:
        """One video's [T, K, P, Cv], mapped.

        Raises:
            VtgError: the library has no such video, or its file is damaged.
        """
        if video_id not in self._keys:
            raise VtgError(f"{self._library.folder}: has no video {video_id}; index it first")
        key = FeatureKey(self._keys[video_id], self._library.fingerprint, self._library.model.fps)
        layers = self._library.features.open(key).layers
        if layers is None:
            raise VtgError(f"{self._library.folder}: does not keep layers; index its videos again with --keep-layers")
        return layers if isinstance(layers, np.ndarray) else layers[:]

    def query(self, sample: Sample) -> np.ndarray:
        """One query's [L, K, Cq]."""
        return self._queries[sample.query]

    def video_name(self, video_id: str) -> str:
        """The library and the video."""
        return f"{self._library.folder}: video {video_id}"

    def query_name(self, sample: Sample) -> str:
        """The library and the query."""
        return f"{self._library.folder}: query {sample.query_id}"


def open_feature_files(
    folder: Path, data: DataRecipe, samples: Sequence[Sample], device: str | None, pretrained: str | None = None
) -> FeatureFiles:
    """Features in the published layout, or a library.

    Args:
        folder: of either.
        data: the recipe's.
        samples: whose features will be asked for.
        device: that a library's CLIP runs on; None takes the best there is.
        pretrained: weights of a library's CLIP, where they have to be named by the user.

    Raises:
        VtgError: the folder is neither, or the library has another rate than the recipe.
    """
    if (folder / "library.json").is_file():
        from vtg.library.library import Library
        from vtg.library.named_files import name_weights

        model = None if pretrained is None else name_weights(folder, None, pretrained, None)
        library = Library(folder, model, device)
        data.check_rate(folder, library.model.fps)
        return LibraryFiles(library, samples)
    if not (folder / data.video_features).is_dir():
        raise VtgError(f"{folder}: has neither {data.video_features}/ nor a library; check --features")
    return PublishedFiles(replace(data, folder=folder))


def check_features(
    files: FeatureFiles,
    samples: Sequence[Sample],
    data: DataRecipe,
    model: HeadConfig,
    progress: Callable[[int, int], None],
) -> tuple[FeatureShape, list[int], list[int]]:
    """Looks at the header of every file, before anything is trained.

    Args:
        files: where the features are.
        samples: that need them.
        data: the recipe's: features of another rate than its `fps` are refused.
        model: the recipe's: features of fewer layers, or of another CLIP than it names, are refused.
        progress: told of samples done, and how many there are.

    Returns:
        The shape that all features share; T of each sample's video; L of each sample's query.

    Raises:
        VtgError: the first file that is missing, damaged, of another shape than the others, or not of the recipe.
    """
    wanted = _clip_shape(model)
    shape: FeatureShape | None = None
    lengths: dict[str, int] = {}
    tokens, odd = [], []
    for done, sample in enumerate(samples):
        name = files.video_name(sample.video_id)
        if sample.video_id not in lengths:
            found = files.video(sample.video_id).shape
            lengths[sample.video_id] = found[0]
            if shape is None:
                shape = FeatureShape(found[1], found[2], found[3], files.query(sample).shape[2])
            _check(name, found[1:], (shape.layers, shape.tokens, shape.video_width), "T, K, P, Cv")
            if data.fps is not None and _is_odd(found[0], sample.duration * data.fps):
                odd.append(f"{name}: has {found[0]} frames for {sample.duration:g} s")
        assert shape is not None  # the first sample has a video
        text = files.query(sample).shape
        _check(files.query_name(sample), text[1:], (shape.layers, shape.query_width), "L, K, Cq")
        if done == 0:
            _check_recipe(name, shape, model, wanted)
        tokens.append(text[0])
        progress(done + 1, len(samples))
    if 2 * len(odd) > len(lengths):
        raise VtgError(f"{odd[0]}, which is not the recipe's {data.fps:g} a second; --set data.fps=RATE, or check ids")
    assert shape is not None  # a part has samples
    return shape, [lengths[sample.video_id] for sample in samples], tokens


def _is_odd(found: int, expected: float) -> bool:
    return abs(found - expected) > max(ODD_FRAMES, ODD_SHARE * expected)


def _check(name: str, found: tuple[int, ...], wanted: tuple[int, ...], axes: str) -> None:
    if found != wanted:
        raise VtgError(
            f"{name}: [{axes}] is [_, {', '.join(map(str, found))}] and not [_, {', '.join(map(str, wanted))}] like "
            "the features before it; extract all of them with one CLIP and as many layers"
        )


def _check_recipe(name: str, shape: FeatureShape, model: HeadConfig, wanted: tuple[int, int, int] | None) -> None:
    if shape.layers < model.layers:
        raise VtgError(
            f"{name}: has {shape.layers} layers, and the recipe reads {model.layers}; extract as many, or "
            f"--set model.layers={shape.layers}"
        )
    found = (shape.tokens, shape.video_width, shape.query_width)
    if wanted is not None and found != wanted:
        raise VtgError(
            f"{name}: has {found[0]} tokens a frame, {found[1]} wide, and queries {found[2]} wide; {model.clip_model} "
            f"has {wanted[0]}, {wanted[1]} and {wanted[2]}: name the CLIP of the features with --set model.clip_model="
        )


def _clip_shape(model: HeadConfig) -> tuple[int, int, int] | None:
    """P, Cv and Cq of the CLIP that a recipe names; None where it names none, or one that is not a plain ViT."""
    if model.clip_model is None:
        return None
    import open_clip

    config = open_clip.get_model_config(model.clip_model)
    if config is None:
        raise VtgError(f"{model.clip_model}: open_clip does not know it; set model.clip_model to one, or none")
    vision = config["vision_cfg"]
    if not isinstance(vision.get("patch_size"), int) or "width" not in vision:
        return None
    return (vision["image_size"] // vision["patch_size"]) ** 2 + 1, vision["width"], config["text_cfg"]["width"]
