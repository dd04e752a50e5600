"""Long work in the background: one thread a worker, so that the page never waits and a reload loses nothing."""

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
KEPT = 50  # finished jobs that can still be asked for
log = logging.getLogger(__name__)


class Cancelled(Exception):  # noqa: N818 - not an error
    """Raised inside a job's work when somebody has cancelled it."""


@dataclass
class Job:
    """One piece of work; the worker's thread writes it, everybody reads it.

    Attributes:
        number: its place among all jobs of its worker.
        kind: what sort of work, such as "index".
        title: for people.
        work: does it; may return what the page shows in the end.
        give_up: called where the job has failed or was cancelled, also before it began; None for nothing to be undone.
        state: one of this module's states.
        share: done, 0…1.
        note: what is being done at the moment.
        result: what the work returned.
        error: why it failed, one line.
    """

    number: int
    kind: str
    title: str
    work: Callable[[Job], Any] = field(repr=False)
    give_up: Callable[[], None] | None = field(default=None, repr=False)
    state: str = WAITING
    share: float = 0.0
    note: str = ""
    result: Any = None
    error: str = ""
    _stop: threading.Event = field(default_factory=threading.Event, repr=False)

    @property
    def active(self) -> bool:
        """Whether it is still to come to an end."""
        return self.state in (WAITING, RUNNING)

    @property
    def stopping(self) -> bool:
        """Whether somebody has cancelled it."""
        return self._stop.is_set()

    def cancel(self) -> None:
        """Ask it to end; it does at its next step."""
        self._stop.set()

    def report(self, state: Progress, note: str = "") -> None:
        """Take the progress of the work: a `Reporter` of vtg.

        Args:
            state: of the work as a whole.
            note: for people; "" for what the state says is being done.

        Raises:
            Cancelled: somebody has asked it to end.
        """
        if self.stopping:
            raise Cancelled
        self.share, self.note = min(1.0, max(0.0, state.share)), note or state.step


class Worker:
    """Does jobs one after the other, in a thread that ends with the process.

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
        self, kind: str, title: str, work: Callable[[Job], Any], give_up: Callable[[], None] | None = None
    ) -> Job:
        """Queue work.

        Args:
            kind: what sort of work.
            title: for people.
            work: called with its job in the worker's thread.
            give_up: called in that thread where the job has failed or was cancelled.
        """
        with self._changed:
            job = Job(next(self._numbers), kind, title, work, give_up)
            self._waiting.append(job)
            self._all.append(job)
            ended = [old for old in self._all if not old.active]
            for old in ended[: max(0, len(ended) - KEPT)]:
                self._all.remove(old)
            self._changed.notify()
            return job

    def jobs(self, kind: str | None = None) -> list[Job]:
        """Those that wait, run or ended lately, oldest first."""
        with self._changed:
            return [job for job in self._all if kind is None or job.kind == kind]

    def find(self, number: int) -> Job | None:
        """The job of a number, as long as it is kept."""
        return next((job for job in self.jobs() if job.number == number), None)

    def dismiss(self, job: Job) -> None:
        """Forget a job that has ended."""
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
            if end != DONE and job.give_up is not None:
                try:
                    job.give_up()
                except Exception:
                    log.exception("job %s could not be undone", job.title)
            job.state = end  # last: who sees that it has ended finds nothing of it any more

    @staticmethod
    def _do(job: Job) -> str:
        """Work, and give the state in which that ended."""
        job.state = RUNNING
        try:
            job.result = job.work(job)
        except Cancelled:
            return CANCELLED
        except VtgError as error:
            job.error = str(error)
        except OSError as error:  # a full disk, a folder that went
            where = f"{error.filename}: " if error.filename else ""
            job.error = f"{where}{error.strerror or error}"
        except Exception:
            # The worker serves everybody: one broken job must not end it.
            log.exception("job %s failed", job.title)
            job.error = "it failed in a way that nobody foresaw; the server's log says more"
        else:
            if job.stopping:
                return CANCELLED
            job.share = 1.0
            return DONE
        return FAILED
