"""Run an extraction, from its sources to features and a report."""

from __future__ import annotations

import time
from collections.abc import Generator
from dataclasses import dataclass, field, replace
from typing import Any

from vtg.clip.specs import EncoderSpec
from vtg.errors import VtgError
from vtg.extraction.jobs import Work
from vtg.extraction.output import Output
from vtg.extraction.plan import Plan, make_plan
from vtg.extraction.records import Layout, OutputSettings, QueryRecord, Step, VideoRecord
from vtg.extraction.sources import missing_files, source_sizes
from vtg.progress import Progress, Reporter, silent
from vtg.video.decoders import chosen_decoder

__all__ = ["ExtractionReport", "WrongWorkError", "extract"]


class WrongWorkError(VtgError):
    """Something is wrong with what is to be done, and nothing has been done yet.

    Args:
        problems: one line each, with file and line number where there is one.
    """

    def __init__(self, problems: tuple[str, ...]) -> None:
        things = "one thing is" if len(problems) == 1 else f"{len(problems)} things are"
        super().__init__(f"{things} wrong, nothing was done; mend them, or leave them out with --skip-wrong")
        self.problems = problems


@dataclass
class ExtractionReport:
    """What a run did.

    Attributes:
        videos: that now have their features and had not.
        queries: the same of queries.
        finished: videos and queries that had theirs before.
        elsewhere: videos and queries that another process was at work on.
        failed: videos that have none, also those that failed in an earlier run.
        problems: of the source, where they were to be left out.
        frames: encoded.
        seconds: that it took.
    """

    videos: int = 0
    queries: int = 0
    finished: int = 0
    elsewhere: int = 0
    failed: list[VideoRecord] = field(default_factory=list)
    problems: tuple[str, ...] = ()
    frames: int = 0
    seconds: float = 0.0

    def to_dict(self) -> dict[str, Any]:
        """As JSON knows it."""
        return {
            "videos": self.videos,
            "queries": self.queries,
            "finished_before": self.finished,
            "elsewhere": self.elsewhere,
            "failed": [record.failure_fields() for record in self.failed],
            "problems": list(self.problems),
            "frames": self.frames,
            "seconds": round(self.seconds, 3),
            "frames_per_second": round(self.frames / self.seconds, 2) if self.seconds else 0.0,
        }


def extract(
    work: Work,
    out: str,
    encoder: EncoderSpec,
    layout: Layout = "published",
    device: str | None = None,
    workers: int | None = None,
    shard: tuple[int, int] = (1, 1),
    retry_failed: bool = False,
    skip_wrong: bool = False,
    ray: str | None = None,
    progress: Reporter = silent,
) -> ExtractionReport:
    """Extract the features of videos and queries; what is there and whole is never done again.

    Args:
        work: from `vtg.extraction.read_source`.
        out: folder or URL.
        encoder: the CLIP.
        layout: "published" (one float16 ``.npy`` a video and a query) or "store" (the files of a `FeatureStore`, no
            queries).
        device: a torch device; None takes every GPU, or the best that there is.
        workers: encoding threads on the CPU (with Ray: encoders at a time); None takes as many as there are cores.
        shard: (i, n) does the i-th of n parts, counted from 1.
        retry_failed: try again what failed before.
        skip_wrong: leave out what is wrong in the work instead of refusing it.
        ray: do it on this Ray cluster ("" for that of ``RAY_ADDRESS``, or else one of this machine's own).
        progress: told of every step, and every half second: videos and queries that have ended, well or badly, with the
            frames that are encoded and their number a second as its detail.

    Returns:
        What was done; a video that cannot be read is named there, and in ``failures.jsonl``, and stops nothing.

    Raises:
        WrongWorkError: something is wrong with the work, and ``skip_wrong`` is not set.
        VtgError: the encoder cannot be had, or OUT cannot be written to or holds something else.
    """
    began = time.monotonic()
    chosen_decoder()  # a wrong choice is no fault of the videos
    sizes = source_sizes(work.videos)
    problems = (*work.problems, *missing_files(work, sizes))
    settings = OutputSettings(encoder.fingerprint, str(encoder), layout, work.video_folder, work.query_folder)
    output = Output(out, settings)
    _check(output, problems, skip_wrong)
    there = {source: size for source, size in sizes.items() if size is not None}
    part = work.shard(*shard)
    part = replace(part, videos=tuple(job for job in part.videos if job.source in there))
    report = ExtractionReport(problems=problems)
    try:
        plan = make_plan(part, output, there, retry_failed)
        # Before OUT is begun: a CLIP or a device that cannot be had leaves nothing behind.
        steps = _steps(plan, output, encoder, device, workers, ray) if plan.videos or plan.queries else None
        _carry_out(plan, steps, output, report, progress)
    except OSError as error:
        place, reason = error.filename or out, error.strerror or " ".join(str(error).split())
        raise VtgError(f"{place}: {reason}; what is finished is kept, the same command goes on from there") from error
    finally:
        output.place.claims.close()
    report.seconds = time.monotonic() - began
    return report


def _check(output: Output, problems: tuple[str, ...], skip_wrong: bool) -> None:
    """Refuse an output of something else, and wrong work, in one error."""
    try:
        output.check()
    except VtgError as error:
        if problems:
            raise WrongWorkError((*problems, str(error))) from None
        raise
    if problems and not skip_wrong:
        raise WrongWorkError(problems)


def _carry_out(
    plan: Plan,
    steps: Generator[Step, None, None] | None,
    output: Output,
    report: ExtractionReport,
    progress: Reporter,
) -> None:
    report.finished = plan.finished_videos + plan.finished_queries
    report.failed.extend(plan.failed)
    output.begin()
    output.sweep()
    if steps is None:
        output.write_failures(plan.records)
        return
    _follow(steps, plan, report, progress)
    output.sweep()
    output.write_failures(output.video_records().values())


def _steps(
    plan: Plan, output: Output, encoder: EncoderSpec, device: str | None, workers: int | None, ray: str | None
) -> Generator[Step, None, None]:
    """What does the work, one step after the other; nothing is written before the first.

    Raises:
        VtgError: the encoder cannot be had.
    """
    if ray is not None:
        from vtg.clip.building import check_clip_names
        from vtg.extraction.cluster import extract_on_cluster, require_ray

        require_ray()
        check_clip_names(encoder.clip, encoder.weights)  # the cluster's own workers load it
        return extract_on_cluster(plan, output, encoder, ray or None, device, workers)
    from vtg.extraction.encoders import EncoderPool
    from vtg.extraction.machine import extract_here

    return extract_here(plan, output, EncoderPool(encoder, device, workers))


def _follow(
    steps: Generator[Step, None, None],
    plan: Plan,
    report: ExtractionReport,
    progress: Reporter,
) -> None:
    began = time.monotonic()
    done = 0
    jobs = len(plan.videos) + len(plan.queries)
    progress(_progress(0, jobs, 0, 0.0))
    try:
        for step in steps:
            if isinstance(step, int):
                report.frames += step
            else:
                done += 1
                _enter(step, report)
            progress(_progress(done, jobs, report.frames, time.monotonic() - began))
    finally:
        steps.close()


def _progress(done: int, jobs: int, frames: int, seconds: float) -> Progress:
    speed = frames / seconds if seconds else 0.0
    return Progress("extracting", done, jobs, "videos and queries", detail=f"{frames} frames, {speed:.1f}/s")


def _enter(step: Step, report: ExtractionReport) -> None:
    if isinstance(step, QueryRecord):
        report.queries += 1
    elif not isinstance(step, VideoRecord):
        report.elsewhere += 1
    elif step.failure:
        report.failed.append(step)
    else:
        report.videos += 1
