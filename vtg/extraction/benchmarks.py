"""Make extraction jobs from the annotations of a benchmark: its videos, queries, rate and file names."""

from __future__ import annotations

import posixpath
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path

from vtg.clip.specs import EncoderSpec
from vtg.datasets import DATASETS, RATED_DATASETS, Annotations, Sample, read_annotations
from vtg.errors import VtgError
from vtg.extraction.jobs import QueryJob, VideoJob, Work, why_no_file_name
from vtg.extraction.remote import is_url, local_path, videos_below
from vtg.recipes import DataRecipe, available_recipes, load_recipe
from vtg.video.sources import list_videos

__all__ = ["annotated_work", "recipe_work"]


def recipe_work(name: str, fps: float | None, default_fps: float, videos: str | None, split: str | None) -> Work:
    """The jobs for a recipe's data set.

    Args:
        name: of a published recipe, or a ``.toml`` file.
        fps: frames a second; None for the recipe's.
        default_fps: frames a second if the recipe has none.
        videos: folder of the videos; None for the recipe's.
        split: a part; None for all parts whose annotation files exist.

    Raises:
        VtgError: the recipe, the part or the annotation file does not exist.
    """
    recipe = load_recipe(name)
    data, model = recipe.data, recipe.model
    files = [data.annotation_file(split)] if split is not None else _annotation_files(data)
    dataset = data.dataset if data.dataset in DATASETS else None
    annotations = [read_annotations(file, dataset) for file in files]
    work = _work(name, annotations, data, fps or data.fps or default_fps, videos, split)
    stated = "data.video_features" in recipe.stated, "data.query_features" in recipe.stated
    return replace(
        work,
        video_folder=data.video_features if stated[0] else None,
        query_folder=data.query_features if stated[1] else None,
        clip=None
        if model.clip_pretrained is None
        else EncoderSpec(model.clip_model, model.clip_pretrained, model.layers, model.clip_preprocessing),
    )


def annotated_work(
    path: Path, fps: float | None, default_fps: float, videos: str | None, dataset: str | None, split: str | None
) -> Work:
    """The jobs for one annotation file.

    Args:
        path: the file.
        fps: frames a second; None for the benchmark's.
        default_fps: frames a second of other data sets.
        videos: folder of the videos; None for ``videos`` beside the file.
        dataset: one of `vtg.datasets.DATASETS`; None to recognise it from the file.
        split: only the videos of this part, for data sets with several parts in one file.

    Raises:
        VtgError: the file cannot be read, or its data set is ambiguous and neither `dataset` nor `fps` is given.
    """
    annotations = read_annotations(path, dataset)
    found = annotations.dataset
    if found is None and fps is None:
        raise VtgError(
            f"{path}: several data sets have files like it; say which with --dataset, or the rate with --fps"
        )
    data = load_recipe(found).data if found in available_recipes() else DataRecipe()
    data = replace(data, folder=path.parent)
    return _work(str(path), [annotations], data, fps or data.fps or default_fps, videos, split)


def _annotation_files(data: DataRecipe) -> list[Path]:
    """The annotation files of all parts, as far as they exist."""
    files: dict[Path, None] = {}
    errors = []
    for part in data.annotations:
        try:
            files[data.annotation_file(part)] = None
        except VtgError as error:
            errors.append(error)
    if not files:
        raise errors[0] if errors else VtgError(f"{data.folder}: the recipe names no annotations")
    return list(files)


def _work(
    source: str,
    annotations: list[Annotations],
    data: DataRecipe,
    fps: float,
    videos: str | None,
    split: str | None,
) -> Work:
    problems = [str(problem) for file in annotations for problem in file.problems if not problem.is_repaired]
    samples = [
        (file.path, sample) for file in annotations for sample in file.samples if _is_wanted(sample, data, split)
    ]
    folder = videos or str(data.folder / data.videos)
    files = _files_by_name(folder)
    if not files:
        raise VtgError(f"{folder}: no videos there; name their folder with --videos")
    jobs: dict[str, VideoJob] = {}
    queries: dict[str, QueryJob] = {}
    reported: set[str] = set()
    for path, sample in samples:
        video = data.video_name.format(vid=sample.video_id)
        query = data.query_name.format(qid=sample.query_id, vid=sample.video_id)
        where = f"{path}:{sample.line}: " if sample.line else f"{path}: "
        why = why_no_file_name(video) or why_no_file_name(query)
        if why:
            problems.append(f"{where}the id {video!r} or {query!r} {why}")
            continue
        if queries.setdefault(query, QueryJob(query, sample.query, sample.line)).text != sample.query:
            problems.append(f"{where}query {query}: is there twice, with different words")
        if video in files:
            jobs.setdefault(video, _job(video, files[video], sample, data, fps))
        elif video not in reported:
            reported.add(video)
            problems.append(f"{where}no video {video} in {folder}")
    return Work(source, tuple(jobs.values()), tuple(queries.values()), tuple(problems))


def _is_wanted(sample: Sample, data: DataRecipe, split: str | None) -> bool:
    is_in_part = split is None or sample.split is None or sample.split == split
    return is_in_part and (data.domain is None or sample.domain == data.domain)


def _job(video: str, file: str, sample: Sample, data: DataRecipe, fps: float) -> VideoJob:
    if data.dataset in RATED_DATASETS and data.fps is None and sample.ratings is not None:
        # One frame for each annotated clip; clips are evenly spaced over the whole video.
        return VideoJob(video, file, clips=len(sample.ratings), line=sample.line)
    return VideoJob(video, file, fps, line=sample.line)


def _files_by_name(folder: str) -> dict[str, str]:
    """Path or URL of every video below a folder by its name without the suffix; the first of several."""
    found: Iterable[str]
    folder = local_path(folder)
    if is_url(folder):
        found = videos_below(folder)
    else:
        found = [str(path) for path in list_videos(folder)[0]]
    files: dict[str, str] = {}
    for file in found:
        name = posixpath.basename(file) if is_url(file) else Path(file).name
        files.setdefault(posixpath.splitext(name)[0], file)
    return files
