"""Beyond one process: the same application on Ray Serve, in replicas that know of one another's videos.

A request may come to any replica. Images, vectors and texts are answered where they come; a video is worked on where
it was handed in, and a ledger tells the other replicas how far it is, so that it can be asked about, and cancelled,
anywhere.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from vlfer.batch.cluster import import_ray
from vlfer.pipeline import EmotionPipeline
from vlfer.serve.jobs import Job, JobStore, Tell, Work
from vlfer.serve.problems import Problem
from vlfer.serve.settings import ServeSettings

NAME = "vlfer"
_LEDGER = "vlfer-ledger"
_TOLD_EVERY_S = 0.5
_AT_ONCE = 128


class Ledger:
    """What every replica has told about its videos; lives as a Ray actor."""

    def __init__(self, ttl_s: float) -> None:
        self._ttl_s = ttl_s
        self._told: dict[str, tuple[float, dict[str, Any]]] = {}
        self._unwanted: set[str] = set()

    def tell(self, job_id: str, told: dict[str, Any]) -> bool:
        """Take in how far a video is; return whether it is to be cancelled."""
        now = time.monotonic()
        self._told[job_id] = (now, told)
        for old in [key for key, (when, _) in self._told.items() if now - when > 2 * self._ttl_s]:
            del self._told[old]
            self._unwanted.discard(old)
        return job_id in self._unwanted

    def find(self, job_id: str) -> dict[str, Any] | None:
        """Return what was told last about a video."""
        return self._told.get(job_id, (0.0, None))[1]

    def cancel(self, job_id: str) -> None:
        """Have a video cancelled by the replica that works on it, and forget its result."""
        self._unwanted.add(job_id)
        if job_id in self._told:
            when, told = self._told[job_id]
            self._told[job_id] = (when, {**told, "result": None, "problem": None, "state": "cancelled"})


class SharedJobs(JobStore):
    """Jobs of this replica, told to the ledger; those of others, as the ledger knows them."""

    def __init__(self, ledger: Any, *, most: int, ttl_s: float) -> None:
        super().__init__(most=most, ttl_s=ttl_s)
        self._ledger = ledger
        self._ray = import_ray()

    def submit(self, file: Path, work: Work, *, owner: str) -> Job:
        """Put a video in the queue of this replica; see `JobStore.submit`."""
        job = super().submit(file, self._telling(work), owner=owner)
        self._tell(job)
        return job

    def find(self, job_id: str, *, owner: str) -> Job:
        """Return a job of any replica; see `JobStore.find`."""
        if job_id not in self._jobs:
            told = self._ray.get(self._ledger.find.remote(job_id))
            if told is not None and told["owner"] == owner:
                return _job(job_id, told)
        return super().find(job_id, owner=owner)

    def cancel(self, job_id: str, *, owner: str) -> Job:
        """Stop a job of any replica; see `JobStore.cancel`."""
        job = self.find(job_id, owner=owner)
        self._ray.get(self._ledger.cancel.remote(job_id))
        if job_id in self._jobs:
            return super().cancel(job_id, owner=owner)
        job.state, job.result, job.problem = "cancelled", None, None
        return job

    def _telling(self, work: Work) -> Work:
        def run(path: Path, tell: Tell) -> dict[str, Any]:
            job = next(one for one in list(self._jobs.values()) if one.file == path)
            last_s = 0.0

            def told(done: int, total: int) -> None:
                nonlocal last_s
                if time.monotonic() - last_s > _TOLD_EVERY_S:
                    last_s = time.monotonic()
                    if self._tell(job):
                        job.is_cancelled.set()
                tell(done, total)

            return work(path, told)

        return run

    def _end(self, job: Job, state: Any) -> None:
        super()._end(job, state)
        self._tell(job)

    def _tell(self, job: Job) -> bool:
        told = {
            "owner": job.owner, "state": job.state, "done": job.done, "total": job.total, "result": job.result,
            "problem": None if job.problem is None else job.problem.model_dump(), "created_s": job.created_s,
            "expires_s": job.expires_s, "version": job.version,
        }  # fmt: skip
        return bool(self._ray.get(self._ledger.tell.remote(job.id, told)))


def _job(job_id: str, told: dict[str, Any]) -> Job:
    problem = told.pop("problem")
    return Job(
        id=job_id, file=Path("/nonexistent"), problem=None if problem is None else Problem(**problem), **told
    )  # fmt: skip


def build_replicas(
    pipeline_factory: Callable[[], EmotionPipeline], settings: ServeSettings, *, replicas: int, cpus: float = 1.0
) -> Any:
    """Return the Ray Serve application; give it to ``ray.serve.run``.

    Args:
        pipeline_factory: Loads the pipeline in each replica.
        settings: As for one process; rates and queues count in each replica for itself.
        replicas: How many.
        cpus: That Ray sets aside for each.
    """
    import_ray()
    from ray import serve

    values = settings.model_dump()

    def build() -> Any:
        import ray

        from vlfer.serve.api import build_api

        own = ServeSettings(**values)
        ledger = (
            ray.remote(Ledger)
            .options(name=_LEDGER, namespace=NAME, get_if_exists=True, lifetime="detached", num_cpus=0)
            .remote(own.job_ttl_s)
        )
        pipeline = pipeline_factory()
        return build_api(
            lambda: pipeline, own, jobs=SharedJobs(ledger, most=own.max_jobs, ttl_s=own.job_ttl_s), loads_first=True
        )

    return serve.deployment(
        name=NAME, num_replicas=replicas, max_ongoing_requests=_AT_ONCE, ray_actor_options={"num_cpus": cpus}
    )(serve.ingress(build)()).bind()


def serve_replicas(
    pipeline_factory: Callable[[], EmotionPipeline], settings: ServeSettings, *, replicas: int, address: str | None
) -> None:
    """Serve until Ctrl-C, on a cluster or on this machine.

    Args:
        pipeline_factory: Loads the pipeline in each replica.
        settings: As for one process.
        replicas: How many.
        address: Of a running Ray cluster; None starts one here.

    Raises:
        EnvironmentProblem: If Ray is not installed or the cluster cannot be reached.
    """
    from vlfer.batch.cluster import connection

    with connection(address) as ray:
        from ray import serve

        serve.start(http_options={"host": settings.host, "port": settings.port})
        try:
            serve.run(build_replicas(pipeline_factory, settings, replicas=replicas), name=NAME, blocking=True)
        finally:
            serve.shutdown()  # type: ignore[no-untyped-call]
            with contextlib.suppress(ValueError):  # no replica came to life
                ray.kill(ray.get_actor(_LEDGER, namespace=NAME))
