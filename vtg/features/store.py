"""The feature store: one memory-mapped file a video, named by content key, encoder and frame rate."""

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
    "MAX_DURATION_SECONDS",
    "EncodedChunk",
    "FeatureKey",
    "FeatureStore",
    "FeatureWriter",
    "PublishedFeatures",
    "QuantizedLayers",
    "VideoFeatures",
    "content_key",
    "read_npy",
]

LAYER_KINDS = ("float16", "int8", "none")  # formats in which layers are stored
FORMAT = "vtg-features-1"
THUMBNAIL_SHAPE = (8, 8, 3)
MAX_DURATION_SECONDS = 1e7  # files with a longer one are damaged


def content_key(path: str | os.PathLike[str]) -> str:
    """The content key of a video: a renamed file keeps its key, an edited one gets another.

    Args:
        path: the file, which is read completely.

    Returns:
        32 hex digits of its SHA-256.

    Raises:
        VideoError: the file cannot be read, or is a folder, a pipe or a device.
    """
    try:
        if not stat.S_ISREG(Path(path).stat().st_mode):  # reading a pipe or device might never end
            raise VideoError(path, why_no_file(Path(path)) or "is a folder, not a video: name a file in it")
        return file_sha256(path)[:32]
    except OSError as error:
        raise VideoError(path, f"cannot be read ({error.strerror})") from None


@dataclass(frozen=True)
class FeatureKey:
    """The key of stored features: video, encoder and frame rate."""

    video: str  # from content_key
    encoder: str  # ClipEncoder.fingerprint
    fps: float

    @property
    def file_name(self) -> str:
        """The name of its file in a store."""
        return f"{self.video}.{self.encoder}.{self.fps:g}fps.safetensors"


class QuantizedLayers:
    """Layers stored as int8 with one scale a token; indexing dequantises the selected part.

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
        """The selected part as float16; the last axis cannot be indexed, as the scale applies to whole tokens."""
        scale = self._scale[index].astype(np.float32)
        return np.asarray(self._values[index] * scale[..., None], dtype=np.float16)

    def __array__(self, dtype: np.dtype | None = None, copy: bool | None = None) -> np.ndarray:
        return self[:] if dtype is None else self[:].astype(dtype)


@dataclass(frozen=True)
class VideoFeatures:
    """The features of one video; those from a store are memory-mapped.

    Attributes:
        fps: frames a second.
        duration: of the video track, seconds.
        layers: [T, K, P, C] float16; None if not available.
        embedding: [T, E] float32, unit length; None if not available.
        encoder: fingerprint of the encoder; "" if unknown.
        name: the file or id of the video; "" if unknown.
        projection: of the layers by a head; None if not available.
        thumbnails: [T, 8, 8, 3] uint8, from `vtg.features.thumbnails`; None if not available.

    Raises:
        ValueError: there are neither layers nor embeddings, or their lengths differ.
    """

    fps: float
    duration: float
    layers: np.ndarray | QuantizedLayers | None = None
    embedding: np.ndarray | None = None
    encoder: str = ""
    name: str = ""
    projection: StoredProjection | None = None
    thumbnails: np.ndarray | None = None

    def __post_init__(self) -> None:
        """Check the lengths."""
        arrays = (self.layers, self.embedding, self.projection, self.thumbnails)
        lengths = {len(array) for array in arrays if array is not None}
        if len(lengths) != 1 or 0 in lengths or (self.layers is None and self.embedding is None):
            raise ValueError(f"layers and embedding need the same number of frames, at least one, not {lengths or 0}")

    def __len__(self) -> int:
        return len(self.layers if self.layers is not None else self.embedding)  # type: ignore[arg-type]

    @property
    def times(self) -> np.ndarray:
        """[T] seconds: the start of each sampled interval."""
        return np.arange(len(self)) / self.fps


@dataclass(frozen=True)
class EncodedChunk:
    """Consecutive frames of one video.

    Attributes:
        times: [N] seconds.
        layers: [N, K, P, C] float16.
        embedding: [N, E] float32, unit length.
        thumbnails: [N, 8, 8, 3] uint8, from `vtg.features.thumbnails`; None if they were not computed.
    """

    times: np.ndarray
    layers: np.ndarray
    embedding: np.ndarray
    thumbnails: np.ndarray | None = None


class FeatureStore:
    """A folder of features, one safetensors file a video, encoder and frame rate.

    Files are written atomically: every existing file is complete.

    Args:
        root: the folder; created on the first write.
    """

    def __init__(self, root: str | os.PathLike[str]) -> None:
        self.root = Path(root)

    def path(self, key: FeatureKey) -> Path:
        """The path of the features of a key."""
        return self.root / key.file_name

    def __contains__(self, key: FeatureKey) -> bool:
        return self.path(key).is_file()

    def __iter__(self) -> Iterator[FeatureKey]:
        """The keys of all its files; files with other names are ignored."""
        keys = map(_key_of, self.root.glob("*fps.safetensors"))
        return (key for key in keys if key is not None)

    def write(
        self, key: FeatureKey, duration: float, layers: str = "float16", computed: str = "float32"
    ) -> FeatureWriter:
        """Open a writer; the file appears under its name if the writer exits without an error.

        Args:
            key: of the features.
            duration: of the video, seconds.
            layers: their format, one of `LAYER_KINDS`.
            computed: precision that the encoder computed in, which is recorded in the file.
        """
        return FeatureWriter(self.path(key), key, duration, layers, computed)

    def open(self, key: FeatureKey, name: str = "") -> VideoFeatures:
        """Map the features of a video.

        Args:
            key: of the features.
            name: of the video, for results and messages; its content key if empty.

        Raises:
            VtgError: they do not exist, or the file is damaged.
        """
        path = self.path(key)
        header = read_header(path)
        parts = ("layers", "layers_scale", "embedding", "miniatures")
        values, scale, embedding, thumbnails = map_arrays(path, header, parts)
        try:
            _check_arrays(values, scale, embedding, thumbnails)
            metadata = header["__metadata__"]
            duration = float(metadata["duration"])
            if not 0 <= duration < MAX_DURATION_SECONDS or metadata.get("video", key.video) != key.video:
                raise ValueError("of no video, or of another")
            layers = values if values is None or scale is None else QuantizedLayers(values, scale)
            embedding = None if embedding is None else embedding.astype(np.float32, copy=False)
            return VideoFeatures(
                key.fps, duration, layers, embedding, key.encoder, name or key.video, thumbnails=thumbnails
            )
        except (ValueError, KeyError):
            raise VtgError(f"{path}: damaged (not the features of its video); remove it and index it again") from None

    def keeps_layers(self, key: FeatureKey) -> bool:
        """Whether the file of a key has layers.

        Raises:
            VtgError: it does not exist, or is damaged.
        """
        return "layers" in read_header(self.path(key))

    def bytes_of(self, key: FeatureKey) -> int:
        """Size on the disk, in bytes, of the features of a key; 0 if they do not exist."""
        return self.path(key).stat().st_size if key in self else 0

    def verify(self, key: FeatureKey) -> None:
        """Read a file completely and compare it with its checksum.

        Raises:
            VtgError: it is missing or damaged.
        """
        verify(self.path(key))

    def remove(self, key: FeatureKey) -> None:
        """Remove the features of a key, if they exist."""
        self.path(key).unlink(missing_ok=True)

    def sweep(self) -> None:
        """Remove unfinished files that a process left behind when it was killed."""
        remove_abandoned_parts(self.root)


class FeatureWriter:
    """Writer of the features of one video, chunk by chunk; use it in a ``with`` statement.

    Args:
        path: the file, which appears if the writer exits without an error.
        key: of the features.
        duration: of the video, seconds.
        layers: their format, one of `LAYER_KINDS`.
        computed: precision that the encoder computed in.
    """

    def __init__(self, path: Path, key: FeatureKey, duration: float, layers: str, computed: str) -> None:
        self._path = path
        self._key = key
        self._duration = duration
        self._kept = layers
        self._computed = computed
        self._embeddings: list[np.ndarray] = []
        self._thumbnails: list[np.ndarray | None] = []
        self._scales: list[np.ndarray] = []
        self._frame_shape: tuple[int, ...] = ()
        self._file = WholeFileWriter(path, HEADER_BYTES)

    @property
    def sha256(self) -> str:
        """SHA-256 of the values written so far, in 64 hex digits; the header records it."""
        return self._file.sha256

    def __enter__(self) -> FeatureWriter:
        self._file.__enter__()
        return self

    def append(self, chunk: EncodedChunk) -> None:
        """Write the features of the next frames; thumbnails are stored only if every chunk has them.

        Raises:
            ValueError: a shape differs from the frames before.
        """
        embedding = chunk.embedding
        layers = np.ascontiguousarray(chunk.layers, dtype="<f2")
        if (
            layers.ndim != 4
            or len(layers) != len(embedding)
            or layers.shape[1:] != (self._frame_shape or layers.shape[1:])
        ):
            raise ValueError(
                f"layers {layers.shape} and embedding {embedding.shape} do not continue {self._frame_shape}"
            )
        self._frame_shape = layers.shape[1:]
        self._embeddings.append(np.array(embedding, dtype="<f2"))
        self._thumbnails.append(chunk.thumbnails)
        if self._kept == "int8":
            self._write_quantized(layers)
        elif self._kept == "float16":
            self._file.write(layers)

    def _write_quantized(self, layers: np.ndarray) -> None:
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
        arrays["embedding"] = ("<f2", embedding.shape)
        whole = [part for part in self._thumbnails if part is not None]
        if len(whole) == len(self._thumbnails):
            thumbnails = np.concatenate(whole)
            self._file.write(thumbnails)
            arrays["miniatures"] = ("|u1", thumbnails.shape)
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
    layers: np.ndarray | None, scale: np.ndarray | None, embedding: np.ndarray | None, thumbnails: np.ndarray | None
) -> None:
    """Check that arrays of a file have the shapes and types of a `FeatureWriter`; embeddings were float32 in vtg 0.1.0.

    Raises:
        ValueError: one has not.
    """
    is_quantized = scale is not None
    checks = (
        (layers, 4, "int8" if is_quantized else "float16"),
        (scale, 3, "float16"),
        (embedding, 2, "float32" if embedding is not None and embedding.dtype == "float32" else "float16"),
        (thumbnails, 4, "uint8"),
    )
    if any(array is not None and (array.ndim != ndim or array.dtype != kind) for array, ndim, kind in checks):
        raise ValueError("an array of another kind")
    if scale is not None and (layers is None or layers.shape[:3] != scale.shape):
        raise ValueError("scales of other layers")
    if (
        embedding is None
        or 0 in embedding.shape
        or (thumbnails is not None and thumbnails.shape[1:] != THUMBNAIL_SHAPE)
    ):
        raise ValueError("no embeddings, or thumbnails of another size")


def _key_of(path: Path) -> FeatureKey | None:
    """Parse the key from a file name; None for other files."""
    try:
        video, encoder, rest = path.name.split(".", 2)
        key = FeatureKey(video, encoder, float(rest.removesuffix("fps.safetensors")))
        return key if key.file_name == path.name and path.is_file() else None
    except (ValueError, OSError):
        return None
