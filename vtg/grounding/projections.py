"""Store projections of videos on disk as int8, and convert the float projections of older libraries."""

from __future__ import annotations

import contextlib
import hashlib
import os
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING

import numpy as np

from vtg.errors import VtgError
from vtg.features.arrays import HEADER_BYTES, arrays_header, map_arrays, read_header, verify
from vtg.features.token_cache import StoredProjection
from vtg.files.hashing import file_sha256
from vtg.files.whole import WholeFileWriter, remove_abandoned_parts
from vtg.grounding.window_layout import WindowGrid
from vtg.weights.memory import trim_memory

if TYPE_CHECKING:
    from vtg.r2 import R2Head, VideoProjection

__all__ = ["ProjectionKey", "ProjectionStore", "ProjectionWriter", "head_fingerprint", "quantized_windows"]

FORMAT = "vtg-projection-1"
FLOAT_PRECISIONS = ("float32", "float16")  # of older libraries; new projections are int8
WINDOWS_PER_TRIM = 16  # of memory, for long videos


def head_fingerprint(name: str) -> str:
    """16 hex digits that identify a head by the content of its file; "" if it is not on this disk.

    Args:
        name: in the registry, or a checkpoint.
    """
    from vtg.models.registry import registry

    entry = registry().get(name)
    path = Path(name).expanduser() if entry is None else entry.path
    try:
        if not path.is_file():  # reading a pipe or a device might never end
            return ""
        content = file_sha256(path)
    except OSError:
        return ""
    # A published file does not contain the window length; it is in the registry and part of the fingerprint.
    settings = "" if entry is None else repr((entry.window_seconds, entry.step_seconds))
    return hashlib.sha256(f"{content} {settings}".encode()).hexdigest()[:16]


@dataclass(frozen=True)
class ProjectionKey:
    """Identifies a projection.

    Attributes:
        video: from `vtg.features.store.content_key`.
        encoder: fingerprint of the CLIP.
        fps: frames per second; with the head's window length it determines the windows.
        head: from `head_fingerprint`.
        precision: "int8", or one of `FLOAT_PRECISIONS` in an older library.
    """

    video: str
    encoder: str
    fps: float
    head: str
    precision: str = "int8"

    @property
    def file_name(self) -> str:
        """The name of its file in a store."""
        return f"{self.video}.{self.encoder}.{self.head}.{self.precision}.{self.fps:g}fps.safetensors"


def quantized_windows(stored: StoredProjection, chosen: slice = slice(None)) -> VideoProjection:
    """Windows of a stored projection for a `vtg.r2.Predictor`; int8 data are not read yet."""
    import torch

    from vtg.r2 import VideoProjection

    scale = None if stored.scale is None else torch.from_numpy(stored.scale[chosen])
    return VideoProjection(torch.from_numpy(stored.values[chosen]), scale).quantized()


class ProjectionStore:
    """A folder of projections, with one safetensors file per key; files are written atomically.

    Args:
        root: the folder; made when first written to.
    """

    def __init__(self, root: str | os.PathLike[str]) -> None:
        self.root = Path(root)

    def path(self, key: ProjectionKey) -> Path:
        """The path of the projection of a key, whether or not it exists."""
        return self.root / key.file_name

    def __contains__(self, key: ProjectionKey) -> bool:
        return self.path(key).is_file() or self._older(key) is not None

    def _older(self, key: ProjectionKey) -> ProjectionKey | None:
        """The key of an existing float projection of the same video, the most precise one."""
        kept = (replace(key, precision=precision) for precision in FLOAT_PRECISIONS)
        return next((own for own in kept if self.path(own).is_file()), None)

    def __iter__(self) -> Iterator[ProjectionKey]:
        """The keys of all its files; files with other names are ignored."""
        keys = map(_key_of, self.root.glob("*fps.safetensors"))
        return (key for key in keys if key is not None)

    def write(self, key: ProjectionKey, head: R2Head) -> ProjectionWriter:
        """Open a writer; the file gets its final name when the ``with`` statement ends without an error.

        Args:
            key: of the projection.
            head: the head of the key.
        """
        return ProjectionWriter(self.path(key), key, head)

    def open(self, key: ProjectionKey) -> StoredProjection:
        """Map a projection; a float projection of an older library is converted to int8 first.

        Raises:
            VtgError: it does not exist, or the file is damaged.
        """
        older = None if self.path(key).is_file() else self._older(key)
        if older is not None:
            try:
                self._convert(older, key)
            except OSError:  # a read-only library: windows are converted at each query
                return self._map(older)
        return self._map(key)

    def _map(self, key: ProjectionKey) -> StoredProjection:
        path = self.path(key)
        header = read_header(path)
        values, scale = map_arrays(path, header, ("values", "scale"))
        try:
            frames, step = (int(header["__metadata__"][name]) for name in ("frames", "step"))
            if header["__metadata__"].get("video", key.video) != key.video:
                raise ValueError("of another video")
            _check_arrays(values, scale, frames, step)
        except (ValueError, KeyError):
            raise VtgError(
                f"{path}: damaged (not a projection of its video); remove it, and index the video again"
            ) from None
        assert values is not None  # checked above
        length = values.shape[2]  # may be less than the head's step for a short video
        return StoredProjection(values, scale, frames, WindowGrid(length, min(step, length)).starts(frames))

    def _convert(self, older: ProjectionKey, key: ProjectionKey) -> None:
        verify(self.path(older))  # otherwise a damaged file would get a valid checksum
        stored = self._map(older)
        step = int(read_header(self.path(older))["__metadata__"]["step"])
        with _WindowsFile(self.path(key), key) as file:
            for window in range(len(stored.starts)):
                file.append(quantized_windows(stored, slice(window, window + 1)))
            file.finish(len(stored), step)
        del stored
        with contextlib.suppress(OSError):  # on Windows, a file that another process has mapped cannot be removed
            self.path(older).unlink()

    def bytes_of(self, video: str) -> int:
        """Size of all projections of a video on disk, bytes."""
        return sum(path.stat().st_size for path in self.root.glob(f"{video}.*fps.safetensors"))

    def verify(self, key: ProjectionKey) -> None:
        """Read a whole file and compare it with its checksum.

        Raises:
            VtgError: it is missing or damaged.
        """
        verify(self.path(key))

    def remove(self, key: ProjectionKey) -> None:
        """Remove a projection, if it exists."""
        self.path(key).unlink(missing_ok=True)

    def sweep(self) -> None:
        """Remove unfinished files of killed processes."""
        remove_abandoned_parts(self.root)


class ProjectionWriter:
    """Projects a video window by window while its layers are appended; use it in a ``with`` statement.

    It keeps the layers of about one window in memory. The file is written atomically.

    Args:
        path: the final name.
        key: of the projection.
        head: computes the projection.
    """

    def __init__(self, path: Path, key: ProjectionKey, head: R2Head) -> None:
        self._key = key
        self._head = head
        grid = WindowGrid.of(head.config.window_seconds, head.config.step_seconds, key.fps)
        self._length, self._step = grid.length, grid.step
        self._layers: np.ndarray | None = None  # frames from `_first` on
        self._first = 0
        self._received = 0
        self._starts: list[int] = []
        self._file = _WindowsFile(path, key)

    def __enter__(self) -> ProjectionWriter:
        self._file.__enter__()
        return self

    def append(self, layers: np.ndarray) -> None:
        """Add frames.

        Args:
            layers: [N, K, P, C]; the last ones are used if the head has fewer.

        Raises:
            VtgError: they do not have the shape that the head needs.
        """
        layers = layers[:, -self._head.config.layers :]
        self._layers = layers if self._layers is None else np.concatenate((self._layers, layers))
        self._received += len(layers)
        # A window that ends before the last received frame is final; the start of the last one is known at the end.
        while (start := len(self._starts) * self._step) + self._length < self._received:
            self._write_window(start)
        kept = max(self._first, min(len(self._starts) * self._step, self._received - self._length))
        self._layers, self._first = self._layers[kept - self._first :], kept

    def _write_window(self, start: int) -> None:
        import torch

        assert self._layers is not None  # set by `append`
        begin = start - self._first
        window = torch.from_numpy(np.array(self._layers[begin : begin + self._length]))
        with torch.no_grad():
            self._file.append(self._head.project([window]).quantized())
        self._starts.append(start)
        if len(self._starts) % WINDOWS_PER_TRIM == 0:
            trim_memory()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            if kind is None:
                self._finish()
        finally:
            self._file.__exit__(kind, error, trace)

    def _finish(self) -> None:
        if not self._received:
            raise ValueError(f"{self._key.file_name}: no frames were written")
        self._write_window(max(0, self._received - self._length))
        self._file.finish(self._received, self._step)


class _WindowsFile:
    """Writer of the int8 windows of one video, and their scales after them; use it in a ``with`` statement."""

    def __init__(self, path: Path, key: ProjectionKey) -> None:
        self._key = key
        self._file = WholeFileWriter(path, HEADER_BYTES)
        self._scales: list[np.ndarray] = []
        self._shape: tuple[int, ...] = ()

    def __enter__(self) -> _WindowsFile:
        self._file.__enter__()
        return self

    def append(self, windows: VideoProjection) -> None:
        """Add quantised windows."""
        assert windows.scale is not None
        self._shape = tuple(windows.values.shape[1:])
        self._file.write(windows.values.cpu().numpy())
        self._scales.append(windows.scale.cpu().numpy())

    def finish(self, frames: int, step: int) -> None:
        """Write the header and rename the file."""
        scale = np.concatenate(self._scales)
        self._file.write(scale)
        metadata = {
            "format": FORMAT,
            "video": self._key.video,
            "encoder": self._key.encoder,
            "head": self._key.head,
            "precision": self._key.precision,
            "fps": repr(self._key.fps),
            "frames": str(frames),
            "step": str(step),
        }
        arrays = {"values": ("|i1", (len(scale), *self._shape)), "scale": ("<f2", scale.shape)}
        self._file.complete(arrays_header(metadata, arrays, self._file.sha256), read_header)

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._file.__exit__(kind, error, trace)


def _check_arrays(values: np.ndarray | None, scale: np.ndarray | None, frames: int, step: int) -> None:
    """Check that arrays have the shapes and types of a `ProjectionWriter`.

    Raises:
        ValueError: one does not.
    """
    kinds = ("int8",) if scale is not None else ("float32", "float16")
    if values is None or values.ndim != 5 or values.dtype not in kinds or 0 in values.shape:
        raise ValueError("no values, or of another kind")
    if scale is not None and (scale.dtype != "float16" or scale.shape != values.shape[:4]):
        raise ValueError("scales of other values")
    windows, _, length = values.shape[:3]
    # Before computing the windows: with too large a number of frames their list would fill the memory.
    if not (step > 0 and length <= frames <= windows * max(step, length) + length):
        raise ValueError("another number of frames")
    if len(WindowGrid(length, min(step, length)).starts(frames)) != windows:
        raise ValueError("another number of windows")


def _key_of(path: Path) -> ProjectionKey | None:
    """Parse the key from a file name; None for other files."""
    try:
        video, encoder, head, precision, rest = path.name.split(".", 4)
        key = ProjectionKey(video, encoder, float(rest.removesuffix("fps.safetensors")), head, precision)
        return key if key.file_name == path.name and path.is_file() else None
    except (ValueError, OSError):
        return None
