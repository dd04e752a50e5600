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
    """The remaining jobs of an extraction.

    Attributes:
        videos: to extract.
        queries: to extract.
        sizes: bytes of the videos' files, by path or URL; -1 if unknown.
        finished_videos: number of videos that are complete.
        finished_queries: number of queries that are complete.
        failed: videos that failed before and are not tried again.
        records: of all videos in OUT, including those that are not requested.
    """

    videos: tuple[VideoJob, ...]
    queries: tuple[QueryJob, ...]
    sizes: Mapping[str, int]
    finished_videos: int
    finished_queries: int
    failed: tuple[VideoRecord, ...]
    records: tuple[VideoRecord, ...]


def make_plan(work: Work, output: Output, sizes: Mapping[str, int], retry_failed: bool) -> Plan:
    """Compare the requested jobs with the output.

    A video is finished if its record has the same span, frame rate and file (by its size), and its features file has
    the recorded size. A failed video is skipped as long as its file has the same size.

    Args:
        work: the requested jobs, of one shard only.
        output: the output folder.
        sizes: bytes of the videos' files, by path or URL.
        retry_failed: try failed videos again.
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
    requested: tuple[QueryJob, ...] = work.queries if output.settings.layout == "published" else ()
    known = output.query_records() if requested else {}
    queries = tuple(
        job
        for job in requested
        if (query := known.get(job.id)) is None or query.text != job.text or files.get(query.file) != query.file_bytes
    )
    return Plan(
        tuple(videos),
        queries,
        sizes,
        len(work.videos) - len(videos) - len(failed),
        len(requested) - len(queries),
        tuple(failed),
        tuple(records.values()),
    )
