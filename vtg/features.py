"""The feature store: the only module that knows how our own files of features lie on the disk."""

from __future__ import annotations

import hashlib
import json
import os
import secrets
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np

from vtg.errors import VideoError, VtgError
from vtg.hashing import file_sha256
from vtg.published import PublishedFeatures, read_npy

__all__ = [
    "EncodedChunk",
    "FeatureKey",
    "FeatureStore",
    "FeatureWriter",
    "PublishedFeatures",
    "VideoFeatures",
    "content_key",
    "read_npy",
]

HEADER_BYTES = 4096  # room for the header, which is written last, when the number of frames is known
ABANDONED_SECONDS = 3600.0  # an unfinished file that nobody has written to for so long belongs to nobody
READ_BYTES = 1 << 22
FORMAT = "vtg-features-1"


def content_key(path: str | os.PathLike[str]) -> str:
    """Name a video by what is in its file: a renamed file keeps its key, an edited one gets another.

    Args:
        path: the file; all of it is read.

    Returns:
        32 hex digits of its SHA-256.

    Raises:
        VideoError: the file cannot be read.
    """
    try:
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


@dataclass(frozen=True)
class VideoFeatures:
    """The features of one video; from a store they are mapped, and what is not touched takes no memory.

    Attributes:
        fps: frames a second.
        duration: of the video's picture track, seconds.
        layers: [T, K, P, C] float16; None where only embeddings are at hand.
        embedding: [T, E] float32, unit length; None where only layers are at hand.
        encoder: fingerprint of the encoder that made them; "" where nobody said.
        name: the file or id of the video; "" where nobody said.

    Raises:
        ValueError: neither layers nor embedding, or of different lengths.
    """

    fps: float
    duration: float
    layers: np.ndarray | None = None
    embedding: np.ndarray | None = None
    encoder: str = ""
    name: str = ""

    def __post_init__(self) -> None:
        """Refuse what has no length."""
        lengths = {len(array) for array in (self.layers, self.embedding) if array is not None}
        if len(lengths) != 1 or 0 in lengths:
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
    """

    times: np.ndarray
    layers: np.ndarray
    embedding: np.ndarray


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
        return (_key_of(path) for path in self.root.glob("*fps.safetensors"))

    def write(self, key: FeatureKey, duration: float) -> FeatureWriter:
        """Open a writer; the file appears under its name when the writer is left without an error.

        Args:
            key: what the features are of.
            duration: of the video, seconds.
        """
        self.root.mkdir(parents=True, exist_ok=True)
        return FeatureWriter(self.path(key), key, duration)

    def open(self, key: FeatureKey, name: str = "") -> VideoFeatures:
        """Map the features of a video.

        Args:
            key: what they are of.
            name: to call the video by; its content key where empty.

        Raises:
            VtgError: they are not there, or the file is damaged.
        """
        path = self.path(key)
        header = _read_header(path)
        layers, embedding = (_map_array(path, header, name) for name in ("layers", "embedding"))
        duration = float(header["__metadata__"]["duration"])
        return VideoFeatures(key.fps, duration, layers, embedding, key.encoder, name or key.video)

    def verify(self, key: FeatureKey) -> None:
        """Read a file whole and compare it with its checksum.

        Raises:
            VtgError: it is missing or damaged.
        """
        path = self.path(key)
        expected = _read_header(path)["__metadata__"]["sha256"]
        digest = hashlib.sha256()
        with path.open("rb", buffering=0) as file:
            file.seek(HEADER_BYTES)
            while block := file.read(READ_BYTES):
                digest.update(block)
        if digest.hexdigest() != expected:
            raise VtgError(f"{path}: does not match its checksum; remove it and index its video again")

    def remove(self, key: FeatureKey) -> None:
        """Remove the features of a key, if they are there."""
        self.path(key).unlink(missing_ok=True)

    def sweep(self) -> None:
        """Remove unfinished files that a process left behind when it was killed."""
        oldest = time.time() - ABANDONED_SECONDS
        for path in self.root.glob("*.part"):
            try:
                if path.stat().st_mtime < oldest:
                    path.unlink()
            except OSError:
                continue  # another process has just finished or swept it


class FeatureWriter:
    """Writes the features of one video chunk by chunk; use it in a ``with`` statement.

    Whatever happens inside, the final name only ever holds a whole file: the chunks go to a file beside it, which is
    checked and renamed at the end, or removed after an error.
    """

    def __init__(self, path: Path, key: FeatureKey, duration: float) -> None:
        self._path = path
        self._part = path.with_name(f"{path.name}.{secrets.token_hex(4)}.part")
        self._key = key
        self._duration = duration
        self._embeddings: list[np.ndarray] = []
        self._frame_shape: tuple[int, ...] = ()
        self._digest = hashlib.sha256()

    @property
    def sha256(self) -> str:
        """Of the values written so far, which the header gets in the end, in 64 hex digits."""
        return self._digest.hexdigest()

    def __enter__(self) -> FeatureWriter:
        self._file = self._part.open("wb")
        self._file.write(bytes(HEADER_BYTES))
        return self

    def append(self, layers: np.ndarray, embedding: np.ndarray) -> None:
        """Add frames.

        Args:
            layers: [N, K, P, C]; kept as float16.
            embedding: [N, E]; kept as float32.

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
        self._write(layers)

    def _write(self, array: np.ndarray) -> None:
        data = array.reshape(-1).view(np.uint8).data
        self._digest.update(data)
        self._file.write(data)

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            if kind is None:
                self._finish()
        finally:
            self._file.close()
            self._part.unlink(missing_ok=True)

    def _finish(self) -> None:
        if not self._embeddings:
            raise ValueError(f"{self._path}: no frames were written")
        embedding = np.concatenate(self._embeddings)
        layers_shape = [len(embedding), *self._frame_shape]
        layers_bytes = self._file.tell() - HEADER_BYTES
        self._write(embedding)
        total = self._file.tell() - HEADER_BYTES
        header = {
            "__metadata__": {
                "format": FORMAT,
                "video": self._key.video,
                "encoder": self._key.encoder,
                "fps": repr(self._key.fps),
                "duration": repr(self._duration),
                "sha256": self._digest.hexdigest(),
            },
            "layers": {
                "dtype": "F16",
                "shape": layers_shape,
                "data_offsets": [0, layers_bytes],
            },
            "embedding": {"dtype": "F32", "shape": list(embedding.shape), "data_offsets": [layers_bytes, total]},
        }
        text = json.dumps(header).encode()
        self._file.seek(0)
        self._file.write((HEADER_BYTES - 8).to_bytes(8, "little") + text.ljust(HEADER_BYTES - 8))
        self._file.flush()
        os.fsync(self._file.fileno())
        self._file.close()
        _read_header(self._part)
        self._part.replace(self._path)


def _key_of(path: Path) -> FeatureKey:
    video, encoder, rest = path.name.split(".", 2)
    return FeatureKey(video, encoder, float(rest.removesuffix("fps.safetensors")))


def _read_header(path: Path) -> dict[str, Any]:
    try:
        with path.open("rb") as file:
            head = file.read(HEADER_BYTES)
        header = json.loads(head[8:])
        whole = HEADER_BYTES + header["embedding"]["data_offsets"][1] == path.stat().st_size
    except FileNotFoundError:
        raise VtgError(f"{path}: these features are not there; index the video again") from None
    except (ValueError, KeyError, TypeError, OSError):
        whole = False
    if not whole:
        raise VtgError(f"{path}: damaged (its size or header is wrong); remove it and index its video again")
    return dict(header)


def _map_array(path: Path, header: dict[str, Any], name: str) -> np.ndarray:
    entry = header[name]
    kind = {"F16": "<f2", "F32": "<f4"}[entry["dtype"]]
    return np.memmap(path, kind, "r", HEADER_BYTES + entry["data_offsets"][0], tuple(entry["shape"]))
