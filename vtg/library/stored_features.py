"""Read, write and remove the features and projections of a library together."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable
from dataclasses import replace
from functools import cached_property
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING

from vtg.errors import VtgError
from vtg.features.arrays import read_header
from vtg.features.store import EncodedChunk, FeatureKey, FeatureStore, FeatureWriter, VideoFeatures
from vtg.grounding.projections import ProjectionKey, ProjectionStore, ProjectionWriter, head_fingerprint
from vtg.library.settings import Storage

if TYPE_CHECKING:
    from vtg.r2 import R2Head

__all__ = ["LibraryFeatures"]

PROJECTED_FRAMES = 64  # projected at a time


class LibraryFeatures(FeatureStore):
    """The features of a library: embeddings, projections by its head and, if its settings say so, layers.

    Args:
        folder: of the library.
        storage: features to store of a video that is added.
        head: name or checkpoint of the model's head; None for a model without.
        load_head: returns that head; called only if there is something to project.
    """

    def __init__(
        self, folder: Path, storage: Storage, head: str | None, load_head: Callable[[], R2Head | None]
    ) -> None:
        super().__init__(folder / "features")
        self.storage = storage
        self.projections = ProjectionStore(folder / "projections")
        self._head_name = head
        self._load_head = load_head
        self._fingerprint = ""
        self._listed: tuple[int, dict[tuple[str, str, float], list[ProjectionKey]]] = (-1, {})

    def __contains__(self, key: FeatureKey) -> bool:
        """Whether all features that this library stores of a video exist, for its current model."""
        return self.frames_of(key) > 0

    def frames_of(self, key: FeatureKey) -> int:
        """The number of stored frames of a video; 0 if something is missing or damaged and has to be made again."""
        try:
            header = read_header(self.path(key))
            frames = int(header["embedding"]["shape"][0])
            wanted = self._projection_key(key)
            if "layers" in header:
                return frames  # a projection can be made from them
            if self.storage.keep_layers:
                return 0
            if wanted is not None:
                read_header(self.projections.path(wanted))
        except (VtgError, LookupError):
            return 0
        return frames

    def blocking_folder(self, key: FeatureKey) -> Path | None:
        """A folder at the path of a file that would be written for a key; None if there is none."""
        wanted = self._projection_key(key)
        paths = [self.path(key)] if wanted is None else [self.path(key), self.projections.path(wanted)]
        return next((path for path in paths if path.is_dir()), None)

    def check_folders(self) -> None:
        """Check that its folders are folders.

        Raises:
            VtgError: one is a file.
        """
        for folder in (self.root, self.projections.root):
            if os.path.lexists(folder) and not folder.is_dir():
                raise VtgError(f"{folder}: is no folder; remove it, and index the videos again")

    def open(self, key: FeatureKey, name: str = "") -> VideoFeatures:
        """Map the features of a video, with the projection by the library's head if it exists.

        Args:
            key: of the features.
            name: of the video, for results and messages; its content key if empty.

        Raises:
            VtgError: they do not exist, or a file is damaged.
        """
        features = super().open(key, name)
        wanted = self._projection_key(key)
        if wanted is None or wanted not in self.projections:
            return features
        projection = self.projections.open(wanted)
        if len(projection) != len(features):
            path = self.projections.path(wanted)
            raise VtgError(f"{path}: damaged (of another number of frames); remove it and index its video again")
        return replace(features, projection=projection)

    def write(
        self, key: FeatureKey, duration: float, layers: str | None = None, computed: str = "float32"
    ) -> _VideoWriter:
        """Open a writer of all features that the library stores; the files appear if it exits without an error.

        Args:
            key: of the features.
            duration: of the video, seconds.
            layers: their format, one of `vtg.features.store.LAYER_KINDS`; None for the library's setting.
            computed: precision that the encoder computed in.
        """
        head = self._head  # first, as it may be downloaded, which gives it a fingerprint
        wanted = self._projection_key(key)
        if layers is None:
            layers = self.storage.layers
            if self._head_name is not None and head is None:
                # Without the head nothing can be projected: store the layers, for a projection later.
                layers = replace(self.storage, keep_layers=True).layers
        features = super().write(key, duration, layers, computed)
        return _VideoWriter(features, None if wanted is None or head is None else self.projections.write(wanted, head))

    def project(self, key: FeatureKey) -> None:
        """Write a missing projection if there are layers, as each query would have to compute it.

        Args:
            key: of the features.

        Raises:
            VtgError: the features do not exist, or are damaged.
        """
        wanted = self._projection_key(key)
        if wanted is None or wanted in self.projections or not self.keeps_layers(key) or self._head is None:
            return
        layers = super().open(key).layers
        assert layers is not None  # from `keeps_layers`
        # If it cannot be written, queries use the layers.
        with contextlib.suppress(OSError), self.projections.write(wanted, self._head) as writer:
            for first in range(0, len(layers), PROJECTED_FRAMES):
                writer.append(layers[first : first + PROJECTED_FRAMES])

    def verify(self, key: FeatureKey) -> None:
        """Read the files of a video completely and compare them with their checksums.

        Raises:
            VtgError: one is missing or damaged.
        """
        super().verify(key)
        for own in self._projections_of(key):
            self.projections.verify(own)

    def remove(self, key: FeatureKey) -> None:
        """Remove all features of a key, with the projections of every head."""
        for own in self._projections_of(key):
            self.projections.remove(own)
        # The list remains valid for the others: reading the whole folder again for each key would be slow.
        self._listed = self._projections_changed(), self._listed[1]
        super().remove(key)

    def sweep(self) -> None:
        """Remove unfinished files that a process left behind when it was killed."""
        super().sweep()
        self.projections.sweep()

    def bytes_of(self, key: FeatureKey) -> int:
        """Size on the disk, in bytes, of all features of a key."""
        projected = sum(self.projections.path(own).stat().st_size for own in self._projections_of(key))
        return super().bytes_of(key) + projected

    def _projections_of(self, key: FeatureKey) -> list[ProjectionKey]:
        changed = self._projections_changed()
        if self._listed[0] != changed:
            listed: dict[tuple[str, str, float], list[ProjectionKey]] = {}
            for own in self.projections:
                listed.setdefault((own.video, own.encoder, own.fps), []).append(own)
            self._listed = changed, listed
        return list(self._listed[1].get((key.video, key.encoder, key.fps), ()))

    def _projections_changed(self) -> int:
        """Modification time of the folder of projections, ns since 1970; 0 if it does not exist."""
        try:
            return self.projections.root.stat().st_mtime_ns
        except OSError:
            return 0

    @property
    def head_fingerprint(self) -> str:
        """From `vtg.grounding.projections.head_fingerprint`; "" if there is no head, or it is not downloaded."""
        if self._head_name is not None and not self._fingerprint:
            self._fingerprint = head_fingerprint(self._head_name)
        return self._fingerprint

    def _projection_key(self, key: FeatureKey) -> ProjectionKey | None:
        """The projection's key; None if there is no head, or it is not downloaded."""
        if not self.head_fingerprint:
            return None
        return ProjectionKey(key.video, key.encoder, key.fps, self.head_fingerprint)

    @cached_property
    def _head(self) -> R2Head | None:
        if self._head_name is None:
            return None
        with contextlib.suppress(VtgError):  # raised again by a query
            return self._load_head()
        return None


class _VideoWriter(FeatureWriter):
    """Writer of features and their projection; use it in a ``with`` statement."""

    def __init__(self, features: FeatureWriter, projection: ProjectionWriter | None) -> None:
        self._features = features
        self._projection = projection
        self._open = contextlib.ExitStack()

    @property
    def sha256(self) -> str:
        """SHA-256 of the features written so far."""
        return self._features.sha256

    def __enter__(self) -> _VideoWriter:
        # The features, by which a video counts as stored, are renamed last: the stack is closed in reverse order.
        self._open.enter_context(self._features)
        if self._projection is not None:
            self._open.enter_context(self._projection)
        return self

    def append(self, chunk: EncodedChunk) -> None:
        """Write the features of the next frames, and their projection; see `FeatureWriter.append`."""
        self._features.append(chunk)
        if self._projection is not None:
            self._projection.append(chunk.layers)

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._open.__exit__(kind, error, trace)
