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

import numpy as np

from vtg.errors import VtgError
from vtg.features.arrays import read_header
from vtg.features.store import FeatureKey, FeatureStore, FeatureWriter, VideoFeatures
from vtg.grounding.projections import ProjectionKey, ProjectionStore, ProjectionWriter, head_fingerprint
from vtg.library.settings import Storage

if TYPE_CHECKING:
    from vtg.r2 import R2Head

__all__ = ["LibraryFeatures"]

PROJECTED_FRAMES = 64  # of stored layers projected at a time


class LibraryFeatures(FeatureStore):
    """The features of a library: embeddings always, what its head made of the layers, and the layers if it keeps them.

    Args:
        folder: the library's.
        storage: what is kept of a video that is added.
        head: name or checkpoint of the model's head; None for a model without.
        load_head: gives that head; asked only when there is something to project.
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
        """Whether all that this library keeps of a video is there, for its model as it is now."""
        return self.frames_of(key) > 0

    def frames_of(self, key: FeatureKey) -> int:
        """How many frames are stored of a video; 0 where something is missing or damaged, and has to be made again."""
        try:
            header = read_header(self.path(key))
            frames = int(header["embedding"]["shape"][0])
            wanted = self._projection_key(key)
            if "layers" in header:
                return frames  # whatever else is wanted follows from them
            if self.storage.keep_layers:
                return 0
            if wanted is not None:
                read_header(self.projections.path(wanted))
        except (VtgError, LookupError):
            return 0
        return frames

    def in_the_way(self, key: FeatureKey) -> Path | None:
        """A folder that lies where a file of a key would be written; None where there is none."""
        wanted = self._projection_key(key)
        paths = [self.path(key)] if wanted is None else [self.path(key), self.projections.path(wanted)]
        return next((path for path in paths if path.is_dir()), None)

    def check_folders(self) -> None:
        """Make sure that files can be put into its folders.

        Raises:
            VtgError: something else has the name of one.
        """
        for folder in (self.root, self.projections.root):
            if os.path.lexists(folder) and not folder.is_dir():
                raise VtgError(f"{folder}: is no folder; remove it, and index the videos again")

    def open(self, key: FeatureKey, name: str = "") -> VideoFeatures:
        """Map the features of a video, with their projection for the library's head where there is one.

        Args:
            key: what they are of.
            name: to call the video by; its content key where empty.

        Raises:
            VtgError: they are not there, or a file is damaged.
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
        """Open a writer of all that is kept; the files appear when it is left without an error.

        Args:
            key: what the features are of.
            duration: of the video, seconds.
            layers: how they are kept, one of `vtg.features.store.LAYER_KINDS`; None for what the library's settings
                say.
            computed: what the encoder computed in.
        """
        head = self._head  # first: a head that is not on this disk yet is downloaded
        wanted = self._projection_key(key)
        if layers is None:
            layers = self.storage.layers
            if self._head_name is not None and head is None:
                # Without the head the layers are all that it can be asked with later.
                layers = replace(self.storage, keep_layers=True).layers
        features = super().write(key, duration, layers, computed)
        return _VideoWriter(features, None if wanted is None or head is None else self.projections.write(wanted, head))

    def project(self, key: FeatureKey) -> None:
        """Make up for a projection that is not there, where there are layers: a question would need it in any case.

        Args:
            key: what the features are of.

        Raises:
            VtgError: the features are not there, or damaged.
        """
        wanted = self._projection_key(key)
        if wanted is None or wanted in self.projections or not self.keeps_layers(key) or self._head is None:
            return
        layers = super().open(key).layers
        assert layers is not None  # as the file says
        # Where it cannot be kept, the question is asked of the layers.
        with contextlib.suppress(OSError), self.projections.write(wanted, self._head) as writer:
            for first in range(0, len(layers), PROJECTED_FRAMES):
                writer.append(layers[first : first + PROJECTED_FRAMES])

    def verify(self, key: FeatureKey) -> None:
        """Read the files of a video whole and compare them with their checksums.

        Raises:
            VtgError: one is missing or damaged.
        """
        super().verify(key)
        for own in self._projections_of(key):
            self.projections.verify(own)

    def remove(self, key: FeatureKey) -> None:
        """Remove all that is kept of a key, of every head."""
        for own in self._projections_of(key):
            self.projections.remove(own)
        # What was listed is still true of the others: reading the whole folder anew for each would take long.
        self._listed = self._projections_changed(), self._listed[1]
        super().remove(key)

    def sweep(self) -> None:
        """Remove unfinished files that a process left behind when it was killed."""
        super().sweep()
        self.projections.sweep()

    def bytes_of(self, key: FeatureKey) -> int:
        """What all that is kept of a key takes on the disk."""
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
        """When a file last came to the folder of projections or went from it, ns since 1970; 0 where it is not."""
        try:
            return self.projections.root.stat().st_mtime_ns
        except OSError:
            return 0

    @property
    def head_fingerprint(self) -> str:
        """From `vtg.grounding.projections.head_fingerprint`; "" where there is no head, or none on this disk."""
        if self._head_name is not None and not self._fingerprint:
            self._fingerprint = head_fingerprint(self._head_name)
        return self._fingerprint

    def _projection_key(self, key: FeatureKey) -> ProjectionKey | None:
        """None where there is no head, or none on this disk."""
        if not self.head_fingerprint:
            return None
        return ProjectionKey(key.video, key.encoder, key.fps, self.head_fingerprint)

    @cached_property
    def _head(self) -> R2Head | None:
        if self._head_name is None:
            return None
        with contextlib.suppress(VtgError):  # a question will say what the matter is
            return self._load_head()
        return None


class _VideoWriter(FeatureWriter):
    """Writes features and their projection side by side; use it in a ``with`` statement."""

    def __init__(self, features: FeatureWriter, projection: ProjectionWriter | None) -> None:
        self._features = features
        self._projection = projection
        self._open = contextlib.ExitStack()

    @property
    def sha256(self) -> str:
        """Of the features written so far."""
        return self._features.sha256

    def __enter__(self) -> _VideoWriter:
        # The features, by which a video counts as stored, get their name last: the stack is left from its end.
        self._open.enter_context(self._features)
        if self._projection is not None:
            self._open.enter_context(self._projection)
        return self

    def append(self, layers: np.ndarray, embedding: np.ndarray, miniatures: np.ndarray | None = None) -> None:
        """Add frames; see `FeatureWriter.append` and `ProjectionWriter.append`."""
        self._features.append(layers, embedding, miniatures)
        if self._projection is not None:
            self._projection.append(layers)

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._open.__exit__(kind, error, trace)
