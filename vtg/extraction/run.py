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
from vtg.features.npy import feature_folders
from vtg.progress import Progress, Reporter, silent
from vtg.video.decoders import chosen_decoder

__all__ = ["ExtractionReport", "WrongWorkError", "extract"]


class WrongWorkError(VtgError):
    """The jobs have problems, and nothing was extracted.

    Args:
        problems: one line each, with file and line number if there is one.
    """

    def __init__(self, problems: tuple[str, ...]) -> None:
        things = "one thing is" if len(problems) == 1 else f"{len(problems)} things are"
        super().__init__(f"{things} wrong, nothing was done; mend them, or leave them out with --skip-wrong")
        self.problems = problems


@dataclass
class ExtractionReport:
    """Result of a run.

    Attributes:
        videos: number of videos extracted by this run.
        queries: number of queries extracted by this run.
        finished: number of videos and queries that were finished before.
        elsewhere: number of videos and queries that another process was working on.
        failed: videos without features, including those that failed in an earlier run.
        problems: of the source, if they were skipped.
        frames: number of encoded frames.
        seconds: duration of the run.
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
        """The fields of the JSON document."""
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
    """Extract the features of videos and queries; finished output is not computed again.

    Args:
        work: from `vtg.extraction.read_source`.
        out: folder or URL.
        encoder: the CLIP.
        layout: "published" (one float16 ``.npy`` a video and a query) or "store" (the files of a `FeatureStore`, no
            queries).
        device: a torch device; None for every GPU, or the best available.
        workers: encoding threads on the CPU (with Ray: parallel encoders); None for the number of cores.
        shard: (i, n) for the i-th of n parts, counted from 1.
        retry_failed: try failed videos again.
        skip_wrong: skip jobs with problems instead of raising.
        ray: the Ray cluster to use ("" for that of ``RAY_ADDRESS``, or else a new one on this machine).
        progress: called at every step and every half second, with the number of videos and queries that have ended,
            successfully or not, and the frames a second as detail.

    Returns:
        The result; videos that cannot be read are listed in it and in ``failures.jsonl``, and do not stop the run.

    Raises:
        WrongWorkError: jobs have problems, and ``skip_wrong`` is not set.
        VtgError: the encoder cannot be loaded, or OUT cannot be written to or has other content.
    """
    began = time.monotonic()
    chosen_decoder()  # raises once for a wrong setting, not for every video
    sizes = source_sizes(work.videos)
    problems = (*work.problems, *missing_files(work, sizes))
    videos, queries = feature_folders(encoder.clip, encoder.pretrained, encoder.layers)
    folders = work.video_folder or videos, work.query_folder or queries
    settings = OutputSettings(encoder.fingerprint, str(encoder), layout, *folders)
    output = Output(out, settings, keep_folders=work.video_folder is None and work.query_folder is None)
    _check(output, problems, skip_wrong)
    there = {source: size for source, size in sizes.items() if size is not None}
    part = work.shard(*shard)
    part = replace(part, videos=tuple(job for job in part.videos if job.source in there))
    report = ExtractionReport(problems=problems)
    try:
        plan = make_plan(part, output, there, retry_failed)
        # Before OUT is created, so that an error of the CLIP or the device leaves nothing behind.
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
    """Raise for an incompatible output and for problems of the jobs, in one error."""
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
