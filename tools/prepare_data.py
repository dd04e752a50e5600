"""Prepare benchmark data: check the files of a folder, and download published annotations and features.

python tools/prepare_data.py check tacos
python tools/prepare_data.py fetch tacos --features
"""

from __future__ import annotations

import argparse
import io
import json
import math
import shutil
import sys
import tarfile
import zlib
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import BinaryIO

import numpy as np

from vtg.datasets import DATASETS, RATED_DATASETS, Sample, read_annotations
from vtg.errors import VtgError
from vtg.files.text import error_line
from vtg.recipes import DataRecipe, load_recipe
from vtg.weights.downloads import fetch_from_hub

REPOSITORY = "yeliudev/R2-Tuning"
PUBLISHED = tuple(name for name in DATASETS if name != "demo")
MAX_SHOWN_FINDINGS = 20  # findings of one kind that are printed one by one

# Suffixes of the parts of the video features' archive; other data sets have a single file.
_ARCHIVE_PARTS = {"qvhighlights": "aa ab ac ad ae", "ego4d": "aa ab", "charades": "aa ab"}
_FRAME_TOLERANCE = 5  # frames; the frame count must differ by less than this from duration × fps


@dataclass(frozen=True)
class Finding:
    """A problem of a kind: "missing", "malformed" (cannot be used) or "note" (harmless)."""

    kind: str
    what: str


@dataclass(frozen=True)
class Checked:
    """The result of checking the files of a data set.

    Attributes:
        dataset: name of the data set.
        folder: the folder that was checked.
        queries: number of queries in each part.
        features: number of videos and queries with features.
        findings: all problems.
    """

    dataset: str
    folder: str
    queries: dict[str, int]
    features: dict[str, int]
    findings: tuple[Finding, ...]

    @property
    def is_ready(self) -> bool:
        """Whether nothing is missing or malformed."""
        return all(finding.kind == "note" for finding in self.findings)


def check(dataset: str, folder: Path | None = None, with_features: bool = True) -> Checked:
    """Check all annotations and feature files of a data set.

    Args:
        dataset: one of `PUBLISHED`.
        folder: folder of the files; `data/<dataset>` if None.
        with_features: whether to check cached features too.

    Raises:
        VtgError: the folder does not exist.
    """
    data = _data(dataset, folder)
    if not data.folder.is_dir():
        raise VtgError(f"{data.folder}: there is no such folder; see data/README.md, or run `fetch {dataset}`")
    findings: list[Finding] = []
    queries: dict[str, int] = {}
    samples: dict[tuple[object, str], Sample] = {}
    for part in data.annotations:
        try:
            annotations = read_annotations(data.annotation_file(part), dataset)
        except VtgError as error:
            kind = "missing" if "no annotations for" in str(error) else "malformed"
            findings.append(Finding(kind, str(error)))
            continue
        for problem in annotations.problems:
            findings.append(Finding("note" if problem.is_repaired else "malformed", str(problem)))
        of_part = [sample for sample in annotations.samples if dataset not in RATED_DATASETS or sample.split == part]
        queries[part] = len(of_part)
        samples.update({(sample.query_id, sample.video_id): sample for sample in of_part})
    features = _check_features(data, list(samples.values()), findings) if with_features else {}
    return Checked(dataset, str(data.folder), queries, features, tuple(findings))


def fetch(dataset: str, folder: Path | None = None, with_features: bool = False) -> Path:
    """Download the published annotations of a data set, and optionally features, to the folder that recipes use.

    Existing files are kept. An interrupted download continues when it is started again.

    Args:
        dataset: one of `PUBLISHED`.
        folder: folder to write to; `data/<dataset>` if None.
        with_features: whether to download features of CLIP ViT-B/32 too, up to 100 GB.

    Returns:
        The folder.

    Raises:
        VtgError: there is no network, the hub does not provide a file, or an archive is damaged.
    """
    data = _data(dataset, folder)
    data.folder.mkdir(parents=True, exist_ok=True)
    downloads = data.folder / ".download"
    for name in dict.fromkeys(names[0] for names in data.annotations.values()):
        if not (data.folder / name).exists():
            _download(dataset, name, downloads).replace(data.folder / name)
    if with_features:
        video_archive = f"{dataset}_{data.video_features}.tar.gz"
        parts = [f"{video_archive}.{part}" for part in _ARCHIVE_PARTS.get(dataset, "").split()] or [video_archive]
        _fetch_features(dataset, parts, data.folder / data.video_features, downloads)
        query_archive = f"{dataset}_{data.query_features}.tar.gz"
        _fetch_features(dataset, [query_archive], data.folder / data.query_features, downloads)
    shutil.rmtree(downloads, ignore_errors=True)
    return data.folder


def main(words: Sequence[str] | None = None) -> int:
    """Run the command with the given arguments, by default those of the command line; 0 if all is well, 1 if not."""
    arguments = _parser().parse_args(words)
    try:
        if arguments.command == "fetch":
            print(f"{fetch(arguments.dataset, arguments.folder, arguments.features)}: fetched")
            return 0
        checked = check(arguments.dataset, arguments.folder, not arguments.annotations_only)
    except VtgError as error:
        print(error, file=sys.stderr)
        return 1
    if arguments.json:
        print(json.dumps({**asdict(checked), "ready": checked.is_ready}, ensure_ascii=False))
    else:
        _print(checked)
    return 0 if checked.is_ready else 1


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        description=(__doc__ or "").splitlines()[0],
        epilog="example: python tools/prepare_data.py check qvhighlights --annotations-only",
    )
    commands = parser.add_subparsers(dest="command", required=True)
    checking = commands.add_parser("check", help="report missing and malformed files")
    checking.add_argument("--annotations-only", action="store_true", help="do not check features")
    checking.add_argument("--json", action="store_true", help="print one JSON document")
    fetching = commands.add_parser("fetch", help="download published files from the hub")
    fetching.add_argument("--features", action="store_true", help="also download features, up to 100 GB")
    for command in (checking, fetching):
        command.add_argument("dataset", choices=PUBLISHED)
        command.add_argument("folder", type=Path, nargs="?", help="folder of the files (default: data/<dataset>)")
    return parser


def _data(dataset: str, folder: Path | None) -> DataRecipe:
    data = load_recipe(dataset).data
    return data if folder is None else replace(data, folder=Path(folder))


def _print(checked: Checked) -> None:
    print(f"{checked.dataset} in {checked.folder}")
    one, many = ("video", "videos") if checked.dataset in RATED_DATASETS else ("query", "queries")
    for part, count in checked.queries.items():
        print(f"  {part}: {count} {one if count == 1 else many}")
    for kind, count in checked.features.items():
        print(f"  features of {count} {kind}")
    for kind in ("missing", "malformed", "note"):
        found = [finding.what for finding in checked.findings if finding.kind == kind]
        for what in found[:MAX_SHOWN_FINDINGS]:
            print(f"  {kind}: {what}")
        if len(found) > MAX_SHOWN_FINDINGS:
            print(f"  {kind}: {len(found) - MAX_SHOWN_FINDINGS} more; all of them with --json")
    print("ready" if checked.is_ready else "not ready")


def _check_features(data: DataRecipe, samples: Sequence[Sample], findings: list[Finding]) -> dict[str, int]:
    videos = {data.video_feature_file(sample.video_id): sample for sample in samples}
    queries = {data.query_feature_file(sample.query_id, sample.video_id): sample for sample in samples}
    video_names = {path: f"video {sample.video_id}" for path, sample in videos.items()}
    query_names = {path: f"query {sample.query_id}" for path, sample in queries.items()}
    if data.dataset in RATED_DATASETS:  # their only query is the title; its id is that of the video
        query_names = {path: f"the title of video {sample.video_id}" for path, sample in queries.items()}
    return {
        "videos": _check_files(
            videos, video_names, lambda path, sample: _video_fault(path, sample, data.fps), findings
        ),
        "queries": _check_files(queries, query_names, lambda path, _: _shape_fault(_shape(path), "L K C"), findings),
    }


def _check_files(
    files: dict[Path, Sample],
    names: dict[Path, str],
    fault_of: Callable[[Path, Sample], str | None],
    findings: list[Finding],
) -> int:
    """Count the valid files; append a finding with the name of its video or query for each other file."""
    names_by_folder: dict[Path, set[str]] = {}
    valid = 0
    for path, sample in files.items():
        # Each folder is listed once: tens of thousands of single queries are slow on network disks.
        if path.parent not in names_by_folder:
            names_by_folder[path.parent] = _names_in(path.parent)
            if not names_by_folder[path.parent]:
                findings.append(Finding("missing", f"{path.parent}: no features in it; fetch or extract them"))
        if not names_by_folder[path.parent]:
            continue
        fault = None
        if path.name not in names_by_folder[path.parent]:
            findings.append(Finding("missing", f"{path}: features of {names[path]}"))
        else:
            try:
                fault = fault_of(path, sample)
            except (OSError, ValueError) as error:
                fault = f"not a NumPy file ({error})"
            if fault:
                findings.append(Finding("malformed", f"{path}: {fault}"))
            else:
                valid += 1
    return valid


def _names_in(folder: Path) -> set[str]:
    return {path.name for path in folder.iterdir()} if folder.is_dir() else set()


def _video_fault(path: Path, sample: Sample, fps: float | None) -> str | None:
    shape = _shape(path)
    fault = _shape_fault(shape, "T K P C")
    if fault:
        return fault
    if fps is None:
        clips = 0 if sample.ratings is None else len(sample.ratings)
        return None if shape[0] == clips else f"{shape[0]} frames for {clips} annotated clips"
    expected = round(sample.duration * fps)
    if abs(shape[0] - expected) >= _FRAME_TOLERANCE:
        return f"{shape[0]} frames for {sample.duration:g} s at {fps:g} a second, about {expected} expected"
    return None


def _shape_fault(shape: tuple[int, ...], axes: str) -> str | None:
    names = axes.split()
    if len(shape) == len(names) and all(shape):
        return None
    return f"shape {list(shape)} instead of [{', '.join(names)}]"


def _shape(path: Path) -> tuple[int, ...]:
    """The shape in the header of a `.npy` file, after checking that the file is complete.

    Raises:
        ValueError: it is not a `.npy` file, is truncated, or contains no floats.
    """
    with path.open("rb") as file:
        version = np.lib.format.read_magic(file)
        read_header = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
        shape, _, kind = read_header(file)
        if kind.kind != "f":
            raise ValueError(f"holds {kind}, not floats")
        missing = file.tell() + math.prod(shape) * kind.itemsize - path.stat().st_size
    if missing > 0:
        raise ValueError(f"cut off, {missing} bytes are missing")
    return tuple(shape)


def _download(dataset: str, name: str, folder: Path) -> Path:
    remote = f"datasets/{dataset}/{name}"
    try:
        return fetch_from_hub(REPOSITORY, remote, folder=folder)
    except VtgError:
        raise
    # The hub's client does not wrap the errors of its HTTP library; all of them mean the same to the user.
    except Exception as error:
        raise VtgError(
            f"{remote}: cannot be fetched from {REPOSITORY} ({error_line(error)}); check the network, then try again"
        ) from error


def _fetch_features(dataset: str, archive_parts: Sequence[str], folder: Path, downloads: Path) -> None:
    if folder.is_dir() and any(folder.iterdir()):
        return
    parts = [_download(dataset, name, downloads) for name in archive_parts]
    # Unpacked under another name and then renamed, so that an existing folder of features is always complete.
    unfinished = folder.with_name(f".{folder.name}.unfinished")
    shutil.rmtree(unfinished, ignore_errors=True)
    unfinished.mkdir()
    try:
        _unpack(parts, unfinished)
    except (tarfile.TarError, EOFError, OSError, zlib.error) as error:
        shutil.rmtree(unfinished, ignore_errors=True)
        raise VtgError(f"{archive_parts[0]}: cannot be unpacked ({error}); free disk space or fetch again") from error
    if folder.is_dir():
        folder.rmdir()
    unfinished.replace(folder)
    for part in parts:
        part.unlink()


def _unpack(parts: Iterable[Path], folder: Path) -> None:
    """Unpack the `.npy` files of an archive that is split into parts, without its folders."""
    with io.BufferedReader(_JoinedFiles(parts)) as joined, tarfile.open(fileobj=joined, mode="r|gz") as archive:
        for member in archive:
            # Only the last part of the name is used: an archive cannot write outside the folder.
            name = Path(member.name).name
            content = archive.extractfile(member) if member.isfile() and name.endswith(".npy") else None
            if content is not None:
                with (folder / name).open("wb") as file:
                    shutil.copyfileobj(content, file)


class _JoinedFiles(io.RawIOBase):
    """Reads several files as one, without a joined copy of 100 GB on the disk."""

    def __init__(self, parts: Iterable[Path]) -> None:
        self._parts = iter(list(parts))
        self._file: BinaryIO | None = None

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: memoryview) -> int:  # type: ignore[override]
        while True:
            if self._file is None:
                part = next(self._parts, None)
                if part is None:
                    return 0
                self._file = part.open("rb")
            count = self._file.readinto(buffer)  # type: ignore[attr-defined]
            if count:
                return int(count)
            self._file.close()
            self._file = None

    def close(self) -> None:
        if self._file is not None:
            self._file.close()
        super().close()


if __name__ == "__main__":
    sys.exit(main())
