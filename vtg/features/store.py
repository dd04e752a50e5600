"""The feature store: one memory-mapped file a video, named by content, encoder and rate."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any

import numpy as np

from vtg.errors import VideoError, VtgError
from vtg.features.arrays import HEADER_BYTES, arrays_header, map_arrays, read_header, verify
from vtg.features.npy import PublishedFeatures, read_npy
from vtg.files.hashing import file_sha256
from vtg.files.paths import why_no_file
from vtg.files.whole import WholeFileWriter, remove_abandoned_parts

if TYPE_CHECKING:
    from vtg.features.token_cache import StoredProjection

__all__ = [
    "LAYER_KINDS",
    "LONGEST_SECONDS",
    "CompactLayers",
    "EncodedChunk",
    "FeatureKey",
    "FeatureStore",
    "FeatureWriter",
    "PublishedFeatures",
    "VideoFeatures",
    "content_key",
    "read_npy",
]

LAYER_KINDS = ("float16", "int8", "none")  # what a store keeps of the layers
FORMAT = "vtg-features-1"
MINIATURE = (8, 8, 3)  # of a frame
LONGEST_SECONDS = 1e7  # of a video; what claims to be longer is damaged


def content_key(path: str | os.PathLike[str]) -> str:
    """Name a video by what is in its file: a renamed file keeps its key, an edited one gets another.

    Args:
        path: the file; all of it is read.

    Returns:
        32 hex digits of its SHA-256.

    Raises:
        VideoError: the file cannot be read, or is a folder, a pipe or a device.
    """
    try:
        if not stat.S_ISREG(Path(path).stat().st_mode):  # a pipe would be waited for, a device read for ever
            raise VideoError(path, why_no_file(Path(path)) or "is a folder, not a video: name a file in it")
        return file_sha256(path)[:32]
    except OSError as error:
        raise VideoError(path, f"cannot be read ({error.strerror})") from None


@dataclass(frozen=True)
class FeatureKey:
    """What features are of: which video, which encoder, how many frames a second."""

    video: str  # from content_key
    encoder: str  # ClipEncoder.fingerprint
    fps: float

    @property
    def file_name(self) -> str:
        """The name of its file in a store."""
        return f"{self.video}.{self.encoder}.{self.fps:g}fps.safetensors"


class CompactLayers:
    """Layers kept as int8 with a scale a token; a part of them is an array as soon as it is asked for.

    Args:
        values: [T, K, P, C] int8.
        scale: [T, K, P] float16.
    """

    dtype = np.dtype(np.float16)
    ndim = 4

    def __init__(self, values: np.ndarray, scale: np.ndarray) -> None:
        self._values = values
        self._scale = scale
        self.shape = values.shape
        self.nbytes = values.nbytes + scale.nbytes

    def __len__(self) -> int:
        return len(self._values)

    def __getitem__(self, index: Any) -> np.ndarray:
        """float16; the last axis cannot be indexed, for a token's scale is of all of it."""
        scale = self._scale[index].astype(np.float32)
        return np.asarray(self._values[index] * scale[..., None], dtype=np.float16)

    def __array__(self, dtype: np.dtype | None = None, copy: bool | None = None) -> np.ndarray:
        return self[:] if dtype is None else self[:].astype(dtype)


@dataclass(frozen=True)
class VideoFeatures:
    """The features of one video; from a store they are mapped, and what is not touched takes no memory.

    Attributes:
        fps: frames a second.
        duration: of the video's picture track, seconds.
        layers: [T, K, P, C] float16; None where they are not at hand.
        embedding: [T, E] float32, unit length; None where only layers are at hand.
        encoder: fingerprint of the encoder that made them; "" where nobody said.
        name: the file or id of the video; "" where nobody said.
        projection: what a head made of the layers, in their stead or beside them; None where it is not at hand.
        miniatures: [T, 8, 8, 3] uint8, from `vtg.features.thumbnails`; None where only what CLIP made of the frames is
            at hand.

    Raises:
        ValueError: neither layers nor embedding, or of different lengths.
    """

    fps: float
    duration: float
    layers: np.ndarray | CompactLayers | None = None
    embedding: np.ndarray | None = None
    encoder: str = ""
    name: str = ""
    projection: StoredProjection | None = None
    miniatures: np.ndarray | None = None

    def __post_init__(self) -> None:
        """Refuse what has no length."""
        arrays = (self.layers, self.embedding, self.projection, self.miniatures)
        lengths = {len(array) for array in arrays if array is not None}
        if len(lengths) != 1 or 0 in lengths or (self.layers is None and self.embedding is None):
            raise ValueError(f"layers and embedding need the same number of frames, at least one, not {lengths or 0}")

    def __len__(self) -> int:
        return len(self.layers if self.layers is not None else self.embedding)  # type: ignore[arg-type]

    @property
    def times(self) -> np.ndarray:
        """[T] seconds: the start of the interval that each frame stands for."""
        return np.arange(len(self)) / self.fps


@dataclass(frozen=True)
class EncodedChunk:
    """Consecutive frames of one video.

    Attributes:
        times: [N] seconds.
        layers: [N, K, P, C] float16.
        embedding: [N, E] float32, unit length.
        miniatures: [N, 8, 8, 3] uint8, from `vtg.features.thumbnails`.
    """

    times: np.ndarray
    layers: np.ndarray
    embedding: np.ndarray
    miniatures: np.ndarray


class FeatureStore:
    """A folder of features, one safetensors file a video, encoder and rate; a file that is there is whole.

    Args:
        root: the folder; made when first written to.
    """

    def __init__(self, root: str | os.PathLike[str]) -> None:
        self.root = Path(root)

    def path(self, key: FeatureKey) -> Path:
        """Where the features of a key are, or would be."""
        return self.root / key.file_name

    def __contains__(self, key: FeatureKey) -> bool:
        return self.path(key).is_file()

    def __iter__(self) -> Iterator[FeatureKey]:
        """The keys of all its files; what has another name is none of them."""
        keys = map(_key_of, self.root.glob("*fps.safetensors"))
        return (key for key in keys if key is not None)

    def write(
        self, key: FeatureKey, duration: float, layers: str = "float16", computed: str = "float32"
    ) -> FeatureWriter:
        """Open a writer; the file appears under its name when the writer is left without an error.

        Args:
            key: what the features are of.
            duration: of the video, seconds.
            layers: how they are kept, one of `LAYER_KINDS`.
            computed: what the encoder computed in, which the file then says.
        """
        return FeatureWriter(self.path(key), key, duration, layers, computed)

    def open(self, key: FeatureKey, name: str = "") -> VideoFeatures:
        """Map the features of a video.

        Args:
            key: what they are of.
            name: to call the video by; its content key where empty.

        Raises:
            VtgError: they are not there, or the file is damaged.
        """
        path = self.path(key)
        header = read_header(path)
        parts = ("layers", "layers_scale", "embedding", "miniatures")
        values, scale, embedding, miniatures = map_arrays(path, header, parts)
        try:
            _check_arrays(values, scale, embedding, miniatures)
            metadata = header["__metadata__"]
            duration = float(metadata["duration"])
            if not 0 <= duration < LONGEST_SECONDS or metadata.get("video", key.video) != key.video:
                raise ValueError("of no video, or of another")
            layers = values if values is None or scale is None else CompactLayers(values, scale)
            return VideoFeatures(
                key.fps, duration, layers, embedding, key.encoder, name or key.video, miniatures=miniatures
            )
        except (ValueError, KeyError):
            raise VtgError(f"{path}: damaged (not the features of its video); remove it and index it again") from None

    def keeps_layers(self, key: FeatureKey) -> bool:
        """Whether the file of a key has layers, and not embeddings alone.

        Raises:
            VtgError: it is not there, or damaged.
        """
        return "layers" in read_header(self.path(key))

    def bytes_of(self, key: FeatureKey) -> int:
        """What the features of a key take on the disk; 0 where they are not there."""
        return self.path(key).stat().st_size if key in self else 0

    def verify(self, key: FeatureKey) -> None:
        """Read a file whole and compare it with its checksum.

        Raises:
            VtgError: it is missing or damaged.
        """
        verify(self.path(key))

    def remove(self, key: FeatureKey) -> None:
        """Remove the features of a key, if they are there."""
        self.path(key).unlink(missing_ok=True)

    def sweep(self) -> None:
        """Remove unfinished files that a process left behind when it was killed."""
        remove_abandoned_parts(self.root)


class FeatureWriter:
    """Writes the features of one video chunk by chunk; use it in a ``with`` statement.

    Args:
        path: the file that appears when the writer is left without an error; nothing does after one.
        key: what the features are of.
        duration: of the video, seconds.
        layers: how they are kept, one of `LAYER_KINDS`.
        computed: what the encoder computed in.
    """

    def __init__(self, path: Path, key: FeatureKey, duration: float, layers: str, computed: str) -> None:
        self._path = path
        self._key = key
        self._duration = duration
        self._kept = layers
        self._computed = computed
        self._embeddings: list[np.ndarray] = []
        self._miniatures: list[np.ndarray | None] = []
        self._scales: list[np.ndarray] = []
        self._frame_shape: tuple[int, ...] = ()
        self._file = WholeFileWriter(path, HEADER_BYTES)

    @property
    def sha256(self) -> str:
        """Of the values written so far, which the header gets in the end, in 64 hex digits."""
        return self._file.sha256

    def __enter__(self) -> FeatureWriter:
        self._file.__enter__()
        return self

    def append(self, layers: np.ndarray, embedding: np.ndarray, miniatures: np.ndarray | None = None) -> None:
        """Add frames.

        Args:
            layers: [N, K, P, C]; kept as the writer was told.
            embedding: [N, E]; kept as float32.
            miniatures: [N, 8, 8, 3] uint8, from `vtg.features.thumbnails`; kept if all frames come with theirs.

        Raises:
            ValueError: a shape differs from the frames before.
        """
        layers = np.ascontiguousarray(layers, dtype="<f2")
        if (
            layers.ndim != 4
            or len(layers) != len(embedding)
            or layers.shape[1:] != (self._frame_shape or layers.shape[1:])
        ):
            raise ValueError(
                f"layers {layers.shape} and embedding {embedding.shape} do not continue {self._frame_shape}"
            )
        self._frame_shape = layers.shape[1:]
        self._embeddings.append(np.array(embedding, dtype="<f4"))
        self._miniatures.append(miniatures)
        if self._kept == "int8":
            self._write_compact(layers)
        elif self._kept == "float16":
            self._file.write(layers)

    def _write_compact(self, layers: np.ndarray) -> None:
        import torch

        from vtg.features.quantized import quantize_tokens

        values, scale = quantize_tokens(torch.from_numpy(np.array(layers)))
        self._file.write(values.numpy())
        self._scales.append(scale.numpy())

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            if kind is None:
                self._finish()
        finally:
            self._file.__exit__(kind, error, trace)

    def _finish(self) -> None:
        if not self._embeddings:
            raise ValueError(f"{self._path}: no frames were written")
        embedding = np.concatenate(self._embeddings)
        shape = (len(embedding), *self._frame_shape)
        arrays: dict[str, tuple[str, tuple[int, ...]]] = {}
        if self._kept == "float16":
            arrays["layers"] = ("<f2", shape)
        elif self._kept == "int8":
            arrays |= {"layers": ("|i1", shape), "layers_scale": ("<f2", shape[:3])}
            self._file.write(np.concatenate(self._scales))
        self._file.write(embedding)
        arrays["embedding"] = ("<f4", embedding.shape)
        whole = [part for part in self._miniatures if part is not None]
        if len(whole) == len(self._miniatures):
            miniatures = np.concatenate(whole)
            self._file.write(miniatures)
            arrays["miniatures"] = ("|u1", miniatures.shape)
        metadata = {
            "format": FORMAT,
            "video": self._key.video,
            "encoder": self._key.encoder,
            "fps": repr(self._key.fps),
            "duration": repr(self._duration),
        }
        if self._computed != "float32":
            metadata["computed"] = self._computed
        self._file.complete(arrays_header(metadata, arrays, self._file.sha256), read_header)


def _check_arrays(
    layers: np.ndarray | None, scale: np.ndarray | None, embedding: np.ndarray | None, miniatures: np.ndarray | None
) -> None:
    """Whether arrays of a file have the shapes and types that a `FeatureWriter` gives them.

    Raises:
        ValueError: one has not.
    """
    compact = scale is not None
    checks = (
        (layers, 4, "int8" if compact else "float16"),
        (scale, 3, "float16"),
        (embedding, 2, "float32"),
        (miniatures, 4, "uint8"),
    )
    if any(array is not None and (array.ndim != ndim or array.dtype != kind) for array, ndim, kind in checks):
        raise ValueError("an array of another kind")
    if scale is not None and (layers is None or layers.shape[:3] != scale.shape):
        raise ValueError("scales of other layers")
    if embedding is None or 0 in embedding.shape or (miniatures is not None and miniatures.shape[1:] != MINIATURE):
        raise ValueError("no embeddings, or miniatures of another size")


def _key_of(path: Path) -> FeatureKey | None:
    """What a file is of, by its name; None for one that no store has written."""
    try:
        video, encoder, rest = path.name.split(".", 2)
        key = FeatureKey(video, encoder, float(rest.removesuffix("fps.safetensors")))
        return key if key.file_name == path.name and path.is_file() else None
    except (ValueError, OSError):
        return None
