"""Run long jobs in background threads, independent of sessions and reloads."""

from __future__ import annotations

import itertools
import logging
import threading
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from vtg.errors import VtgError
from vtg.progress import Progress

__all__ = ["CANCELLED", "DONE", "FAILED", "RUNNING", "WAITING", "Cancelled", "Job", "Worker"]

WAITING, RUNNING, DONE, FAILED, CANCELLED = "waiting", "running", "done", "failed", "cancelled"
MAX_FINISHED_JOBS = 50  # kept for display
log = logging.getLogger(__name__)


class Cancelled(Exception):  # noqa: N818 - not an error
    """Raised in a job's work when the job was cancelled."""


@dataclass
class Job:
    """One job; written by the worker's thread, read by all threads.

    Attributes:
        number: of the job in its worker.
        kind: of work, such as "index".
        title: for display.
        work: the function; it may return a result.
        on_failure: called after the job failed or was cancelled, also before its start; None for no cleanup.
        state: one of this module's states.
        share: done, 0…1.
        note: the current step.
        result: return value of the work.
        error: one line; "" without an error.
    """

    number: int
    kind: str
    title: str
    work: Callable[[Job], Any] = field(repr=False)
    on_failure: Callable[[], None] | None = field(default=None, repr=False)
    state: str = WAITING
    share: float = 0.0
    note: str = ""
    result: Any = None
    error: str = ""
    _stop: threading.Event = field(default_factory=threading.Event, repr=False)

    @property
    def active(self) -> bool:
        """Whether it has not ended yet."""
        return self.state in (WAITING, RUNNING)

    @property
    def stopping(self) -> bool:
        """Whether it was cancelled."""
        return self._stop.is_set()

    def cancel(self) -> None:
        """Cancel the job; it ends at its next step."""
        self._stop.set()

    def report(self, state: Progress, note: str = "") -> None:
        """Update the progress: a `Reporter` of vtg.

        Args:
            state: of the work as a whole.
            note: for people; "" for the step of `state`.

        Raises:
            Cancelled: the job was cancelled.
        """
        if self.stopping:
            raise Cancelled
        self.share, self.note = min(1.0, max(0.0, state.share)), note or state.step


class Worker:
    """Runs jobs one after the other in a daemon thread.

    Args:
        name: of the thread.
    """

    def __init__(self, name: str) -> None:
        self._waiting: deque[Job] = deque()
        self._all: deque[Job] = deque()
        self._numbers = itertools.count(1)
        self._changed = threading.Condition()
        threading.Thread(target=self._run, name=name, daemon=True).start()

    def submit(
        self, kind: str, title: str, work: Callable[[Job], Any], on_failure: Callable[[], None] | None = None
    ) -> Job:
        """Queue work.

        Args:
            kind: of work.
            title: for display.
            work: called with its job in the worker's thread.
            on_failure: called in that thread after the job failed or was cancelled.
        """
        with self._changed:
            job = Job(next(self._numbers), kind, title, work, on_failure)
            self._waiting.append(job)
            self._all.append(job)
            ended = [old for old in self._all if not old.active]
            for old in ended[: max(0, len(ended) - MAX_FINISHED_JOBS)]:
                self._all.remove(old)
            self._changed.notify()
            return job

    def jobs(self, kind: str | None = None) -> list[Job]:
        """The jobs that wait, run or ended recently, oldest first."""
        with self._changed:
            return [job for job in self._all if kind is None or job.kind == kind]

    def find(self, number: int) -> Job | None:
        """The job with a number; None if it is not kept any more."""
        return next((job for job in self.jobs() if job.number == number), None)

    def dismiss(self, job: Job) -> None:
        """Remove a job that has ended."""
        with self._changed:
            if not job.active and job in self._all:
                self._all.remove(job)

    @property
    def busy(self) -> bool:
        """Whether anything waits or runs."""
        return any(job.active for job in self.jobs())

    def _run(self) -> None:
        while True:
            with self._changed:
                while not self._waiting:
                    self._changed.wait()
                job = self._waiting.popleft()
            end = CANCELLED if job.stopping else self._do(job)
            if end != DONE and job.on_failure is not None:
                try:
                    job.on_failure()
                except Exception:
                    log.exception("job %s could not be undone", job.title)
            job.state = end  # last, so that cleanup is complete when the job counts as ended

    @staticmethod
    def _do(job: Job) -> str:
        """Run a job; return its final state."""
        job.state = RUNNING
        try:
            job.result = job.work(job)
        except Cancelled:
            return CANCELLED
        except VtgError as error:
            job.error = str(error)
        except OSError as error:  # such as a full disk or a deleted folder
            where = f"{error.filename}: " if error.filename else ""
            job.error = f"{where}{error.strerror or error}"
        except Exception:
            # A failing job must not end the worker, which all sessions share.
            log.exception("job %s failed", job.title)
            job.error = "unexpected error: see the server's log, and try again"
        else:
            if job.stopping:
                return CANCELLED
            job.share = 1.0
            return DONE
        return FAILED
