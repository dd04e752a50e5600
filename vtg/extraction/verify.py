"""Check extracted features: every file is there, whole and finite."""

from __future__ import annotations

import os
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from vtg.errors import VtgError
from vtg.extraction.output import Output, header_sha256
from vtg.extraction.records import QueryRecord, VideoRecord
from vtg.features.npy import NPY_HEADER_BYTES, read_npy
from vtg.features.store import FeatureKey, FeatureStore
from vtg.files.hashing import file_sha256
from vtg.files.whole import PART
from vtg.progress import Progress, Reporter, silent

__all__ = ["VerificationReport", "verify"]

READ_BYTES = 1 << 22
TOLERATED_FRAMES = 1.0  # a file's own duration and that of its last frame's interval differ by less

Record = VideoRecord | QueryRecord


@dataclass
class VerificationReport:
    """What is wrong with what was extracted.

    Attributes:
        checked: files that were looked at.
        problems: (file, what is wrong with it), by file.
        failed: videos that have no features because they could not be read.
    """

    checked: int = 0
    problems: list[tuple[str, str]] = field(default_factory=list)
    failed: list[VideoRecord] = field(default_factory=list)

    def to_dict(self) -> dict[str, Any]:
        """As JSON knows it."""
        return {
            "checked": self.checked,
            "problems": [{"file": file, "reason": reason} for file, reason in self.problems],
            "failed": [record.failure_fields() for record in self.failed],
        }


def verify(out: str, progress: Reporter = silent) -> VerificationReport:
    """Read every file of an OUT whole: shape, type, NaN and infinity, checksum, frames against duration.

    Args:
        out: folder or URL.
        progress: told of every file.

    Raises:
        VtgError: nothing was extracted to it.
    """
    output = Output.open(out)
    videos = output.video_records().values()
    records: list[Record] = [record for record in videos if not record.failure]
    records += output.query_records().values()
    report = VerificationReport(len(records), failed=[record for record in videos if record.failure])
    files = output.place.sizes()
    report.problems.extend(_strays(output, files, {record.file for record in records}))
    with ThreadPoolExecutor(os.cpu_count()) as pool:  # hashing and looking for NaN both let others run
        reasons = pool.map(lambda record: _why_wrong(output, record, files.get(record.file)), records)
        for done, (record, reason) in enumerate(zip(records, reasons, strict=True), start=1):
            progress(Progress("checking", done, len(records), "files"))
            if reason:
                report.problems.append((record.file, reason))
    report.problems.sort()
    return report


def _strays(output: Output, files: dict[str, int], recorded: set[str]) -> Iterator[tuple[str, str]]:
    """Unfinished files, and features that nobody has a record of."""
    folders = (f"{output.settings.videos}/", f"{output.settings.queries}/")
    for name in files:
        if name.endswith(PART):
            yield name, "unfinished; extract again, which removes it if nobody is at work on it"
        elif name in recorded:
            continue
        elif name.startswith(folders) or name.endswith(".safetensors"):
            yield name, "there is no record of it; extract again, or remove it"


def _why_wrong(output: Output, record: Record, size: int | None) -> str:
    """What is wrong with one file; "" if nothing is."""
    if size is None:
        return "is missing; extract again"
    if size != record.file_bytes:
        return f"has {size} bytes instead of {record.file_bytes}; extract again"
    try:
        with output.place.as_file(record.file) as path:
            if output.settings.layout == "store" and isinstance(record, VideoRecord):
                return _why_wrong_in_store(path, record, output.settings.encoder)
            return _why_wrong_npy(path, record)
    except (VtgError, OSError) as error:
        return str(error).removeprefix(f"{record.file}: ").removeprefix(f"{output.place.name}/{record.file}: ")


def _why_wrong_npy(path: Path, record: Record) -> str:
    dimensions = 4 if isinstance(record, VideoRecord) else 3
    array = read_npy(path, dimensions)
    if array.dtype != np.dtype("<f2"):
        return f"has the type {array.dtype}, not float16"
    if array.shape != record.shape:
        return _wrong_shape(array, record)
    if header_sha256(path) != record.header_sha256:
        return "has a damaged header; extract again"
    if file_sha256(path, NPY_HEADER_BYTES) != record.sha256:
        return "does not match its checksum; extract again"
    return _why_wrong_values(array, record)


def _why_wrong_in_store(path: Path, record: VideoRecord, encoder: str) -> str:
    store, key = FeatureStore(path.parent), FeatureKey(path.name.partition(".")[0], encoder, record.rate)
    if key.file_name != path.name:
        return f"has another name than its record says, {key.file_name}; extract again"
    if header_sha256(path) != record.header_sha256:
        return "has a damaged header; extract again"
    store.verify(key)
    features = store.open(key)
    if features.layers is None or features.embedding is None:
        return "has no layers or no embedding"
    return _why_wrong_values(np.asarray(features.layers), record) or _why_not_finite(features.embedding)


def _why_wrong_values(array: np.ndarray, record: Record) -> str:
    if array.shape != record.shape:
        return _wrong_shape(array, record)
    if isinstance(record, VideoRecord):
        until = record.duration if record.end is None else min(record.end, record.duration)
        expected = (until - record.start) * record.rate
        # Beyond whole intervals inside a stretch, up to one at each of its ends falls away.
        fewest = expected - (2.0 if record.start or record.end is not None else TOLERATED_FRAMES)
        if not max(1.0, fewest) <= len(array) <= max(1.0, expected + TOLERATED_FRAMES):
            return f"has {len(array)} frames where {until - record.start:.1f} s should give {expected:.1f}"
    return _why_not_finite(array)


def _wrong_shape(array: np.ndarray, record: Record) -> str:
    return f"has shape {list(array.shape)} instead of {list(record.shape)}"


def _why_not_finite(array: np.ndarray) -> str:
    rows = max(1, READ_BYTES // max(1, array[0].nbytes))
    for first in range(0, len(array), rows):
        finite = np.isfinite(array[first : first + rows])
        if not finite.all():
            frame = first + int((~finite).reshape(len(finite), -1).any(axis=1).argmax())
            return f"has a value that is not a finite number, first at {frame} of {len(array)}"
    return ""
