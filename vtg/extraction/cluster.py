"""Extract features on many machines with Ray Data, with the same stages as on one machine."""

from __future__ import annotations

import contextlib
import functools
import logging
import os
import re
import socket
import sys
from collections.abc import Generator, Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from vtg.clip.specs import EncoderSpec
from vtg.errors import VideoError, VtgError
from vtg.extraction.jobs import VideoJob
from vtg.extraction.output import Output
from vtg.extraction.plan import Plan
from vtg.extraction.records import Elsewhere, OutputSettings, Step, VideoRecord
from vtg.extraction.remote import is_url, open_job
from vtg.features.decoding import failure_reason
from vtg.features.store import EncodedChunk
from vtg.files.text import error_line

if TYPE_CHECKING:
    from vtg.video import Chunk
    from vtg.video.framing import Framing

__all__ = ["extract_on_cluster", "require_ray"]

SEGMENT_CHUNKS = 4  # maximum number of chunks in a segment: 128 frames
# Cores that Ray reserves for a task of each stage. They differ so that Ray does not fuse the stages.
ENCODE_CPUS = 0.5
DECODE_CPUS = 0.25
DECODE_CPUS_BESIDE_GPU = 1.0  # with encoding on the GPU, decoding limits the speed
WRITE_CPUS = 0.1
CONNECT_SECONDS = 10.0


@dataclass(frozen=True)
class _Task:
    """A job to be decoded."""

    job: VideoJob
    source_bytes: int


@dataclass(frozen=True)
class _Segment:
    """A segment of a video, passed from stage to stage.

    Attributes:
        task: the job.
        duration: of the whole video, seconds.
        content: content key of the file; "" if not needed.
        first: number of its first frame.
        is_last: whether the video ends with it.
        chunks: decoded frames to be encoded, one batch each.
        encoded: features to be written; None if there are no frames.
        length: number of frames that have been written.
        failure: the reason if the video failed; "" otherwise.
    """

    task: _Task
    duration: float = 0.0
    content: str = ""
    first: int = 0
    is_last: bool = True
    chunks: tuple[Chunk, ...] = ()
    encoded: EncodedChunk | None = None
    length: int = 0
    failure: str = ""


@dataclass
class _LongVideo:
    """A video that is written in segments, which are joined when all of them are complete."""

    task: _Task
    duration: float
    content: str
    lengths: dict[int, int] = field(default_factory=dict)  # frames of each segment, by its first frame
    total: int | None = None

    @property
    def is_complete(self) -> bool:
        return self.total is not None and sum(self.lengths.values()) == self.total


def extract_on_cluster(
    plan: Plan,
    output: Output,
    encoder: EncoderSpec,
    address: str | None,
    device: str | None = None,
    workers: int | None = None,
) -> Generator[Step, None, None]:
    """Process a plan on a Ray cluster, yielding every step; queries are encoded on this machine.

    Ray's workers must have vtg installed, and access to the videos, OUT and the weights under the same paths. Jobs of
    lost workers are repeated.

    Args:
        plan: the remaining jobs.
        output: the output folder.
        encoder: the CLIP.
        address: of the cluster; None for that of ``RAY_ADDRESS``, or else a new one on this machine.
        device: "cpu" or "cuda"; None for the cluster's GPUs if it has any.
        workers: number of parallel encoders; None for one a GPU, or one a core.

    Yields:
        As `vtg.extraction.machine.extract_here`.

    Raises:
        VtgError: Ray is not installed, there is no cluster at the address, or features cannot be written.
    """
    claimed: list[VideoJob] = []
    try:
        tasks = []
        for job in plan.videos:
            if not output.claim(job.id):
                yield Elsewhere(job)
                continue
            claimed.append(job)
            if output.has_done(job, plan.sizes[job.source]):  # since the plan was made
                yield Elsewhere(job)
            else:
                tasks.append(_Task(job, plan.sizes[job.source]))
        if tasks:
            yield from _run_connected(tasks, output, encoder, address, device, workers)
    finally:
        for job in claimed:
            output.release(job.id)
    if plan.queries:
        # Imported here, as workers that do not encode need no torch.
        from vtg.extraction.encoders import EncoderPool
        from vtg.extraction.machine import extract_here

        encoders = EncoderPool(encoder, None if device == "cuda" else device, workers)
        yield from extract_here(replace(plan, videos=()), output, encoders)


def require_ray() -> Any:
    """Import Ray, with usage statistics off.

    Raises:
        VtgError: it is not installed.
    """
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")  # no usage statistics without the user's consent
    os.environ.setdefault("RAY_BACKEND_LOG_LEVEL", "fatal")
    try:
        import ray
        import ray.data
    except ImportError:
        raise VtgError("--ray needs Ray; install it with: pip install 'vtground[ray]'") from None
    return ray


def _run_connected(
    tasks: list[_Task],
    output: Output,
    encoder: EncoderSpec,
    address: str | None,
    device: str | None,
    workers: int | None,
) -> Iterator[Step]:
    ray = require_ray()
    was_connected = ray.is_initialized()
    if not was_connected:
        _connect(ray, address)
    try:
        yield from _run(ray, tasks, output, encoder, device, workers)
    except ray.exceptions.RayError as error:
        raise VtgError(f"a worker failed: {_cause(error)}") from None
    finally:
        if not was_connected:
            ray.shutdown()


def _connect(ray: Any, address: str | None) -> None:
    # Workers of a local cluster import the same modules as this process, also from a checkout.
    paths = os.pathsep.join(path for path in sys.path if path)
    environment = {"env_vars": {"PYTHONPATH": paths}} if address is None else None
    try:
        _check_address(address)
        ray.init(address, logging_level=logging.ERROR, log_to_driver=False, runtime_env=environment)
    except Exception as error:  # Ray raises many types, also Exception itself
        reason = error_line(error)
        if address is None:
            raise VtgError(f"Ray did not start or was not found ({reason}); try again, or leave --ray out") from None
        raise VtgError(f"{address}: no cluster there ({reason}); start one with: ray start --head") from None
    logging.getLogger("ray.data").setLevel(logging.CRITICAL)  # errors are raised as exceptions


def _cause(error: Exception) -> str:
    """The original error in a message with the tracebacks of several workers."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return next((line for line in lines if re.match(r"[\w.]*(Error|Exception): ", line)), lines[-1] if lines else "?")


def _check_address(address: str | None) -> None:
    """Raise OSError if the address does not accept connections: Ray itself would retry for over a minute."""
    found = re.fullmatch(r"([\w.-]+):(\d+)", address or "")
    if found:
        socket.create_connection((found[1], int(found[2])), CONNECT_SECONDS).close()


def _run(
    ray: Any, tasks: list[_Task], output: Output, encoder: EncoderSpec, device: str | None, workers: int | None
) -> Iterator[Step]:
    with_gpu = device != "cpu" and ray.cluster_resources().get("GPU", 0) >= 1
    out = output.out if is_url(output.out) else str(Path(output.out).expanduser().absolute())
    where = (out, output.settings)  # an absolute path, as workers have another working directory
    results = _pipeline(ray, tasks, where, encoder, with_gpu, workers)
    long_videos: dict[str, _LongVideo] = {}
    joining: dict[Any, str] = {}
    join = ray.remote(num_cpus=WRITE_CPUS, max_retries=-1)(_join)
    for row in results.iter_rows():
        result = row["result"]
        if isinstance(result, VideoRecord):
            if not result.failure:
                yield result.shape[0]
            yield result
            continue
        video = long_videos.setdefault(result.task.job.id, _LongVideo(result.task, result.duration, result.content))
        video.lengths[result.first] = result.length
        video.total = result.first + result.length if result.is_last else video.total
        yield result.length
        if video.is_complete:
            joining[join.remote(long_videos.pop(result.task.job.id), where)] = result.task.job.id
    while joining:
        done, _ = ray.wait(list(joining), num_returns=1)
        for reference in done:
            del joining[reference]
            yield ray.get(reference)


def _pipeline(
    ray: Any,
    tasks: list[_Task],
    where: tuple[str, OutputSettings],
    encoder: EncoderSpec,
    with_gpu: bool,
    workers: int | None,
) -> Any:
    """Decode on any core, encode on a pool of actors, write on any core; Ray limits the queues between the stages."""
    from vtg.extraction.encoders import load_encoder

    cpus = int(ray.cluster_resources().get("CPU", 1))
    count = workers or int(ray.cluster_resources()["GPU"] if with_gpu else cpus)
    context = ray.data.DataContext.get_current()
    context.enable_progress_bars = False
    context.print_on_execution_start = False
    framing = load_encoder(encoder, "cpu").framing
    with_content = where[1].layout == "store"
    rows = ray.data.from_items([{"task": task} for task in tasks], override_num_blocks=len(tasks))
    frames = rows.flat_map(
        functools.partial(_decode, framing=framing, with_content=with_content),
        num_cpus=DECODE_CPUS_BESIDE_GPU if with_gpu else DECODE_CPUS,
        compute=ray.data.TaskPoolStrategy(size=max(1, min(cpus, len(tasks)))),
    )
    features = frames.map(
        _Encode,
        fn_constructor_args=(encoder, "cuda" if with_gpu else "cpu"),
        compute=ray.data.ActorPoolStrategy(min_size=1, max_size=count),
        num_cpus=ENCODE_CPUS,
        num_gpus=1 if with_gpu else None,
    )
    return features.map(functools.partial(_write, where=where), num_cpus=WRITE_CPUS)


def _decode(row: dict[str, Any], framing: Framing, with_content: bool) -> Iterator[dict[str, Any]]:
    """The segments of one video; the last may be a failure."""
    task: _Task = row["task"]
    try:
        with open_job(task.job, framing, with_content) as video:
            segment = _Segment(task, video.info.duration, video.content)
            first = 0
            chunks: list[Chunk] = []
            for chunk in video.chunks:
                if len(chunks) == SEGMENT_CHUNKS:
                    yield {"segment": replace(segment, first=first, is_last=False, chunks=tuple(chunks))}
                    first += sum(len(times) for times, _ in chunks)
                    chunks = []
                chunks.append(chunk)
            yield {"segment": replace(segment, first=first, chunks=tuple(chunks))}
    except VtgError as error:
        yield {"segment": _Segment(task, failure=failure_reason(error))}


class _Encode:
    """One encoder of the pool."""

    def __init__(self, spec: EncoderSpec, device: str) -> None:
        import torch

        from vtg.extraction.encoders import load_encoder

        if device == "cpu":
            torch.set_num_threads(1)  # of this worker process; see `use_one_thread`
        self._encoder = load_encoder(spec, device)

    def __call__(self, row: dict[str, Any]) -> dict[str, Any]:
        from vtg.features.pipeline import encode_chunks, encode_now

        segment: _Segment = row["segment"]
        parts = list(encode_chunks(segment.chunks, functools.partial(encode_now, self._encoder)))
        return {"segment": replace(segment, chunks=(), encoded=_joined(parts) if parts else None)}


def _joined(parts: list[EncodedChunk]) -> EncodedChunk:
    fields = [name for name, value in vars(parts[0]).items() if value is not None]
    return EncodedChunk(**{name: np.concatenate([getattr(part, name) for part in parts]) for name in fields})


def _write(row: dict[str, Any], where: tuple[str, OutputSettings]) -> dict[str, Any]:
    """Write a short video whole, or one segment of a long one."""
    with _opened(where) as output:
        return {"result": _written(output, row["segment"])}


@contextlib.contextmanager
def _opened(where: tuple[str, OutputSettings]) -> Iterator[Output]:
    """The output in a worker, with its own locks; the driver process holds the claims of the videos."""
    output = Output(*where)
    output.place.make()
    try:
        yield output
    finally:
        output.place.claims.close()


def _written(output: Output, segment: _Segment) -> VideoRecord | _Segment:
    job, size, encoded = segment.task.job, segment.task.source_bytes, segment.encoded
    if segment.failure:
        return output.write_failure(job, size, segment.failure)
    if encoded is not None and not (segment.first == 0 and segment.is_last):
        output.write_segment(job, segment.first, encoded)
        return replace(segment, encoded=None, length=len(encoded.times))
    try:
        return output.write_video(job, size, segment.duration, segment.content, [] if encoded is None else [encoded])
    except VideoError as error:
        return output.write_failure(job, size, failure_reason(error))


def _join(video: _LongVideo, where: tuple[str, OutputSettings]) -> VideoRecord:
    """Join the segments of a long video to one file."""
    job = video.task.job
    with _opened(where) as output:
        chunks = output.read_segments(job, video.lengths)
        record = output.write_video(job, video.task.source_bytes, video.duration, video.content, chunks)
        output.remove_segments(job, video.lengths)
    return record
