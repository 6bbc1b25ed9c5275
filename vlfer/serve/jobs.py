"""Videos in work: a queue, progress, cancelling, results that expire. Everything in memory, nothing outlives it."""

from __future__ import annotations

import contextlib
import logging
import secrets
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from vlfer.errors import VlferError
from vlfer.serve.problems import Problem, ServiceProblem, problem_of

_log = logging.getLogger("vlfer.serve")

State = Literal["queued", "running", "done", "failed", "cancelled"]
Tell = Callable[[int, int], None]
Work = Callable[[Path, Tell], dict[str, Any]]
_MOST_KEPT = 256


class CancelledError(Exception):
    """The client does not want the answer any more."""


@dataclass(slots=True)
class Job:
    """One video on its way.

    Attributes:
        id: Cannot be guessed; who knows it, and holds the key it was made with, may read and cancel it.
        owner: Who made it.
        file: The upload; gone as soon as it was read.
        state: Where it is.
        done: Frames looked at.
        total: Frames to expect, 0 where that is not known.
        result: The answer.
        problem: Why it failed.
        created_s: When it was made, seconds since the epoch.
        expires_s: When it will be forgotten, None while it is in work.
        version: Grows with every change.
    """

    owner: str
    file: Path
    id: str = field(default_factory=lambda: secrets.token_urlsafe(16))
    state: State = "queued"
    done: int = 0
    total: int = 0
    result: dict[str, Any] | None = None
    problem: Problem | None = None
    created_s: float = field(default_factory=time.time)
    expires_s: float | None = None
    version: int = 0
    is_cancelled: threading.Event = field(default_factory=threading.Event)

    @property
    def is_over(self) -> bool:
        """Whether nothing will change any more."""
        return self.state in ("done", "failed", "cancelled")


class JobStore:
    """Runs jobs one after another and keeps their results for a while. Safe from several threads.

    Args:
        workers: Videos at once.
        most: Videos waiting or running; more are refused.
        ttl_s: How long a result is kept.
    """

    def __init__(self, *, workers: int = 1, most: int = 16, ttl_s: float = 900.0) -> None:
        self._pool = ThreadPoolExecutor(max_workers=workers, thread_name_prefix="vlfer-video")
        self._most = most
        self._ttl_s = ttl_s
        self._jobs: dict[str, Job] = {}
        self._lock = threading.Lock()

    def submit(self, file: Path, work: Work, *, owner: str) -> Job:
        """Put a video in the queue; ``file`` is deleted when the job is over, whatever comes.

        Raises:
            ServiceProblem: 503 if too many are waiting.
        """
        job = Job(owner, file)
        with self._lock:
            self._sweep()
            waiting = sum(not other.is_over for other in self._jobs.values())
            if waiting >= self._most:
                raise ServiceProblem(
                    503, f"{waiting} videos are waiting.", why="The queue is full.", fix="again in a minute.",
                    headers={"Retry-After": "60"},
                )  # fmt: skip
            self._jobs[job.id] = job
        self._pool.submit(self._run, job, work)
        return job

    def find(self, job_id: str, *, owner: str) -> Job:
        """Return a job.

        Raises:
            ServiceProblem: 404 if there is none of this owner; expired ones are forgotten.
        """
        with self._lock:
            self._sweep()
            job = self._jobs.get(job_id)
        if job is None or job.owner != owner:
            raise ServiceProblem(
                404, "There is no such video.", why=f"It never was, or {self._ttl_s:.0f} s have passed since it ended."
            )  # fmt: skip
        return job

    def cancel(self, job_id: str, *, owner: str) -> Job:
        """Stop a job and forget its result.

        Raises:
            ServiceProblem: 404 as for `find`.
        """
        job = self.find(job_id, owner=owner)
        job.is_cancelled.set()
        with self._lock:
            if job.state in ("queued", "done", "failed"):
                self._end(job, "cancelled")
        return job

    def counts(self) -> dict[State, int]:
        """Return the number of jobs in each state."""
        with self._lock:
            self._sweep()
            states: tuple[State, ...] = ("queued", "running", "done", "failed", "cancelled")
            return {state: sum(job.state == state for job in self._jobs.values()) for state in states}

    def close(self) -> None:
        """Cancel everything."""
        for job in list(self._jobs.values()):
            job.is_cancelled.set()
        self._pool.shutdown(wait=True, cancel_futures=True)
        for job in self._jobs.values():
            _delete(job.file)

    def _run(self, job: Job, work: Work) -> None:
        def tell(done: int, total: int) -> None:
            if job.is_cancelled.is_set():
                raise CancelledError
            job.done, job.total, job.version = done, total, job.version + 1

        try:
            with self._lock:
                if job.is_over:
                    return
                job.state, job.version = "running", job.version + 1
            job.result = work(job.file, tell)
            outcome: State = "done"
        except CancelledError:
            outcome = "cancelled"
        except Exception as error:
            if not isinstance(error, VlferError):
                _log.error("A video failed.", exc_info=error)
            job.problem, outcome = problem_of(error), "failed"
        finally:
            _delete(job.file)
        with self._lock:
            self._end(job, "cancelled" if job.is_cancelled.is_set() else outcome)

    def _end(self, job: Job, state: State) -> None:
        job.state = state
        if state == "cancelled":
            job.result = job.problem = None
        job.expires_s = time.time() + self._ttl_s
        job.version += 1

    def _sweep(self) -> None:
        now = time.time()
        over = [job for job in self._jobs.values() if job.is_over]
        for number, job in enumerate(sorted(over, key=lambda one: one.created_s, reverse=True)):
            if number >= _MOST_KEPT or (job.expires_s is not None and job.expires_s < now):
                del self._jobs[job.id]


def _delete(file: Path) -> None:
    with contextlib.suppress(OSError):
        file.unlink(missing_ok=True)
