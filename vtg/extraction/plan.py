"""Plan an extraction: compare the jobs with the output folder, without opening a video."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from vtg.extraction.jobs import QueryJob, VideoJob, Work
from vtg.extraction.output import Output
from vtg.extraction.records import VideoRecord

__all__ = ["Plan", "make_plan"]


@dataclass(frozen=True)
class Plan:
    """What is left to do.

    Attributes:
        videos: to be done.
        queries: to be done.
        sizes: bytes of the videos' files, by path or URL; -1 where that cannot be known.
        finished_videos: how many were done before.
        finished_queries: how many were done before.
        failed: what failed before and is not tried again.
        records: of everything in OUT, also what was not asked for.
    """

    videos: tuple[VideoJob, ...]
    queries: tuple[QueryJob, ...]
    sizes: Mapping[str, int]
    finished_videos: int
    finished_queries: int
    failed: tuple[VideoRecord, ...]
    records: tuple[VideoRecord, ...]


def make_plan(work: Work, output: Output, sizes: Mapping[str, int], retry_failed: bool) -> Plan:
    """Find out what is left to do.

    A video is finished when its record is of the same stretch, rate and file (by its size), and its features have the
    size that they were written with. What failed is left alone as long as its file has the same size.

    Args:
        work: what is asked for; of a shard, only its part.
        output: what is there.
        sizes: bytes of the videos' files, by path or URL.
        retry_failed: try again what failed before.
    """
    files = output.place.sizes()
    records = output.video_records()
    videos: list[VideoJob] = []
    failed: list[VideoRecord] = []
    for job in work.videos:
        record = records.get(job.id)
        if record is None or not record.is_of(job, sizes[job.source]):
            videos.append(job)
        elif record.failure:
            if retry_failed:
                videos.append(job)
            else:
                failed.append(record)
        elif files.get(record.file) != record.file_bytes:
            videos.append(job)
    asked: tuple[QueryJob, ...] = work.queries if output.settings.layout == "published" else ()
    known = output.query_records() if asked else {}
    queries = tuple(
        job
        for job in asked
        if (query := known.get(job.id)) is None or query.text != job.text or files.get(query.file) != query.file_bytes
    )
    return Plan(
        tuple(videos),
        queries,
        sizes,
        len(work.videos) - len(videos) - len(failed),
        len(asked) - len(queries),
        tuple(failed),
        tuple(records.values()),
    )
