"""Extract features on one machine; files are fetched, decoded, encoded and written in parallel."""

from __future__ import annotations

import contextlib
import queue
import threading
from collections.abc import Generator, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor

from vtg.errors import VtgError
from vtg.extraction.encoders import EncoderPool
from vtg.extraction.jobs import QueryJob, VideoJob
from vtg.extraction.output import Output, query_claim
from vtg.extraction.plan import Plan
from vtg.extraction.records import Elsewhere, Step, VideoRecord
from vtg.extraction.remote import open_job
from vtg.features.decoding import failure_reason
from vtg.features.pipeline import encode_chunks
from vtg.features.store import EncodedChunk
from vtg.video import Chunk

__all__ = ["extract_here"]

PROGRESS_INTERVAL_SECONDS = 0.5  # between steps if no job ends


class _Stopped(Exception):  # noqa: N818 - not an error
    """The run has ended, by an error elsewhere or by the user."""


def extract_here(plan: Plan, output: Output, encoders: EncoderPool) -> Generator[Step, None, None]:
    """Process a plan, yielding every step; closing the generator stops the work.

    Args:
        plan: the remaining jobs.
        output: the output folder.
        encoders: of this machine; entered and exited here.

    Yields:
        The result of each job when it ends; the number of frames when some have been encoded; 0 at regular intervals.

    Raises:
        OSError: features cannot be written.
    """
    with encoders:
        yield from _Run(plan, output, encoders).steps()


class _Run:
    """Threads that process jobs one by one."""

    def __init__(self, plan: Plan, output: Output, encoders: EncoderPool) -> None:
        self._sizes = plan.sizes
        self._output = output
        self._encoders = encoders
        self._decoding_threads = encoders.decoding_threads(len(plan.videos))
        self._jobs: Iterator[VideoJob | QueryJob] = iter([*plan.videos, *plan.queries])
        self._next_job = threading.Lock()
        self._messages: queue.SimpleQueue[Step | BaseException | None] = queue.SimpleQueue()  # None: a thread has ended
        self._stop = threading.Event()

    def steps(self) -> Iterator[Step]:
        threads = self._encoders.decoders
        with ThreadPoolExecutor(threads, thread_name_prefix="vtg-extract") as pool:
            for _ in range(threads):
                pool.submit(self._work)
            try:
                while threads:
                    try:
                        message = self._messages.get(timeout=PROGRESS_INTERVAL_SECONDS)
                    except queue.Empty:
                        message = 0
                    if message is None:
                        threads -= 1
                    elif isinstance(message, BaseException):
                        raise message
                    else:
                        yield message
            finally:
                self._stop.set()

    def _work(self) -> None:
        try:
            while not self._stop.is_set():
                with self._next_job:
                    job = next(self._jobs, None)
                if job is None:
                    break
                self._messages.put(self._video(job) if isinstance(job, VideoJob) else self._query(job))
        except _Stopped:
            pass
        except BaseException as error:  # raised in the caller, which would wait forever otherwise
            self._messages.put(error)
        finally:
            self._messages.put(None)

    def _video(self, job: VideoJob) -> Step:
        size = self._sizes[job.source]
        if not self._output.claim(job.id):
            return Elsewhere(job)
        try:
            if self._output.has_done(job, size):  # by another process since the plan was made
                return Elsewhere(job)
            return self._extract(job, size)
        except VtgError as error:
            return self._output.write_failure(job, size, failure_reason(error))
        finally:
            self._output.release(job.id)

    def _extract(self, job: VideoJob, size: int) -> VideoRecord:
        with_content = self._output.settings.layout == "store"
        with open_job(job, self._encoders.framing, with_content, self._decoding_threads) as video:
            chunks = encode_chunks(video.chunks, self._submit)
            with contextlib.closing(chunks):
                return self._output.write_video(job, size, video.info.duration, video.content, self._counted(chunks))

    def _submit(self, chunk: Chunk) -> Future[EncodedChunk]:
        future = self._encoders.encode_frames(chunk, lambda: not self._stop.is_set())
        if future is None or self._stop.is_set():
            raise _Stopped
        return future

    def _counted(self, chunks: Iterable[EncodedChunk]) -> Iterator[EncodedChunk]:
        for chunk in chunks:
            if self._stop.is_set():
                raise _Stopped
            self._messages.put(len(chunk.times))
            yield chunk

    def _query(self, job: QueryJob) -> Step:
        name = query_claim(job.id)
        if not self._output.place.claims.take(name):
            return Elsewhere(job)
        try:
            return self._output.write_query(job, self._encoders.encode_text(job.text).result())
        finally:
            self._output.place.claims.release(name)
