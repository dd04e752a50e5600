"""Make jobs from a folder, a pattern, a manifest, annotations or a URL."""

from __future__ import annotations

import glob
import os
import posixpath
import stat
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from vtg.datasets.charades import looks_like_charades
from vtg.datasets.files import lines_of, read_text
from vtg.errors import VtgError
from vtg.extraction.benchmarks import annotated_work, recipe_work
from vtg.extraction.jobs import VideoJob, Work, repeated_ids, why_no_file_name
from vtg.extraction.manifest import looks_like_manifest, manifest_jobs
from vtg.extraction.remote import is_url, local_path, matching_urls, read_remote, remote_size, videos_below
from vtg.files.paths import why_no_file
from vtg.recipes import available_recipes
from vtg.video.sources import VIDEO_SUFFIXES, list_videos

__all__ = ["missing_files", "read_source", "source_sizes"]

MANIFEST_SUFFIXES = frozenset({".txt", ".tsv", ".jsonl", ".ndjson", ".json"})
BINARY_BYTES = 1024  # every container of videos has a zero in its first bytes
NO_BINARIES = (b"\x1f\x8b", b"\xff\xfe", b"\xfe\xff")  # beginnings of gzip and of UTF-16, which have zeros too
UNASKED = ("http", "https")  # of these, whether 10,000 files are there is not asked beforehand


def read_source(
    source: str,
    fps: float | None = None,
    default_fps: float = 0.5,
    videos: str | None = None,
    dataset: str | None = None,
    split: str | None = None,
) -> Work:
    """Turn a source into jobs.

    Args:
        source: a video, a folder with all below it, a pattern with ``*``, a manifest, a benchmark's annotation file,
            the name of a recipe or its ``.toml`` file; or the URL of a video, a folder, a pattern or a manifest.
        fps: frames a second; None for the benchmark's, or ``default_fps`` where there is none.
        default_fps: frames a second where nothing else says.
        videos: folder of a benchmark's videos; None for the recipe's, or ``videos`` beside the annotations.
        dataset: what the annotations are of; recognised from the file where None.
        split: only this part of a benchmark.

    Raises:
        VtgError: there is no such source, or it cannot be read. What is wrong with single jobs is in the result.
    """
    source = local_path(source)
    if is_url(source):
        return _remote_work(source, fps or default_fps)
    path = Path(source).expanduser()
    if path.suffix == ".toml" or (source in available_recipes() and not path.exists()):
        return recipe_work(source, fps, default_fps, videos, split)
    if path.is_dir():
        files, unreadable = list_videos(path)
        problems = [f"{place}: {reason}" for place, reason in unreadable.items()]
        return _files_work(source, [str(file) for file in files], str(path.resolve()), fps or default_fps, problems)
    if path.is_file() and (path.suffix.lower() in VIDEO_SUFFIXES or _is_binary(path)):
        return _files_work(source, [str(path.absolute())], str(path.absolute().parent), fps or default_fps)
    if path.is_file():
        return _listed_work(path, fps, default_fps, videos, dataset, split)
    if glob.has_magic(source):
        return _files_work(source, *_matching_files(str(path)), fps or default_fps)
    if path.exists():
        raise VtgError(f"{source}: {why_no_file(path)}")
    raise VtgError(f"{source}: no such file, folder or recipe; give videos, a manifest or annotations")


def _listed_work(
    path: Path, fps: float | None, default_fps: float, videos: str | None, dataset: str | None, split: str | None
) -> Work:
    text = read_text(path)
    if dataset is not None or looks_like_charades(text) or not looks_like_manifest(text):
        return annotated_work(path, fps, default_fps, videos, dataset, split)
    if next(lines_of(text), None) is None:
        raise VtgError(f"{path}: is empty; give one video a line")
    folder = path.resolve().parent

    def resolve(name: str) -> str:
        name = local_path(name)
        return name if is_url(name) else str(folder / Path(name).expanduser())

    jobs, problems = manifest_jobs(text, str(path), resolve, fps or default_fps)
    return Work(str(path), tuple(jobs), problems=tuple(problems))


def _is_binary(path: Path) -> bool:
    """Whether a file is neither text nor packed text: a video, whatever its name ends in."""
    with path.open("rb") as file:
        head = file.read(BINARY_BYTES)
    return b"\0" in head and not head.startswith(NO_BINARIES)


def _files_work(source: str, files: list[str], root: str, fps: float, problems: Sequence[str] = ()) -> Work:
    """One job a file, named by its path below the root without its ending."""
    if not files:
        raise VtgError("; ".join(problems) or f"{source}: no videos there")
    jobs = [VideoJob(Path(os.path.relpath(file, root)).with_suffix("").as_posix(), file, fps) for file in files]
    work = _checked(source, jobs)
    return replace(work, problems=(*problems, *work.problems))


def _matching_files(pattern: str) -> tuple[list[str], str]:
    """The files that a pattern fits, and the folder before its first part with a wildcard."""
    fixed = Path()
    for part in Path(pattern).parts[:-1]:
        if glob.has_magic(part):
            break
        fixed /= part
    # Not resolved: what a link is called is what its features are to be called.
    found = [Path(file).absolute() for file in glob.glob(pattern, recursive=True)]  # noqa: PTH207 - may begin with /
    return sorted(str(file) for file in found if file.is_file()), str(fixed.absolute())


def _checked(source: str, jobs: list[VideoJob]) -> Work:
    jobs, repeated = repeated_ids(jobs, source)
    problems = [reason for _, reason in repeated]
    for job in jobs:
        why = why_no_file_name(job.id)
        if why:
            problems.append(f"{job.source}: the id {job.id!r} {why}; give another one in a manifest")
    wrong = {job.id for job in jobs if why_no_file_name(job.id)}
    return Work(source, tuple(job for job in jobs if job.id not in wrong), problems=tuple(problems))


def _remote_work(url: str, fps: float) -> Work:
    suffix = posixpath.splitext(url)[1].lower()
    if suffix in MANIFEST_SUFFIXES:
        base = posixpath.dirname(url)

        def resolve(name: str) -> str:
            return name if is_url(name) else f"{base}/{name.lstrip('/')}"

        jobs, problems = manifest_jobs(_decoded(url, read_remote(url)), url, resolve, fps)
        return Work(url, tuple(jobs), problems=tuple(problems))
    if glob.has_magic(url.split("://", 1)[1]):
        files = matching_urls(url)
        fixed = url[: min(url.index(sign) for sign in "*?[" if sign in url)]
        root = posixpath.dirname(fixed)
    elif suffix in VIDEO_SUFFIXES:
        files, root = [url], posixpath.dirname(url)
    else:
        files, root = videos_below(url), url.rstrip("/")
    if not files:
        raise VtgError(f"{url}: no videos there")
    jobs = [VideoJob(_below(file, root), file, fps) for file in files]
    return _checked(url, jobs)


def _below(url: str, root: str) -> str:
    # A file system may write its URLs another way than the user did (memory:///a for memory://a).
    path, folder = (text.split("://", 1)[1].strip("/") for text in (url, root))
    return posixpath.splitext(path.removeprefix(folder).lstrip("/"))[0]


def _decoded(url: str, content: bytes) -> str:
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError:
        raise VtgError(f"{url}: not a text file; give a manifest") from None


def source_sizes(jobs: Iterable[VideoJob]) -> dict[str, int | None]:
    """Bytes of the file of each job, by its path or URL: -1 where that cannot be known, None where it is not there."""
    return {source: _size(source) for source in dict.fromkeys(job.source for job in jobs)}


def _size(source: str) -> int | None:
    if is_url(source):
        return -1 if source.split("://", 1)[0] in UNASKED else remote_size(source)
    try:
        status = os.stat(source)  # noqa: PTH116 - 10,000 of these, each half as slow as a Path's
    except OSError:
        return None
    return status.st_size if stat.S_ISREG(status.st_mode) else None


def missing_files(work: Work, sizes: Mapping[str, int | None]) -> list[str]:
    """A line for each job whose file is not there, or is a folder."""
    lines = []
    for job in work.videos:
        if sizes[job.source] is None:
            where = f"{work.source}:{job.line}: " if job.line else ""
            path = Path(job.source)
            why = "no such file" if not path.exists() else why_no_file(path) or "a folder, not a video"
            lines.append(f"{where}{job.source}: {why}")
    return lines
