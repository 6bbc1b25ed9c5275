"""Routes for videos: an id at once, progress by asking or by server-sent events, cancelling, the result."""

from __future__ import annotations

import asyncio
import contextlib
import json
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from functools import partial
from pathlib import Path as FilePath
from typing import Annotated, Any

from fastapi import APIRouter, File, Form, Path, Request, UploadFile
from fastapi.responses import StreamingResponse

from vlfer.reporting import Analysis
from vlfer.serve.engine import Engine
from vlfer.serve.jobs import Job, Tell
from vlfer.serve.problems import ServiceProblem, responses
from vlfer.serve.routes import Labels, Top, compared, engine_of, face_answer, in_thread, service_of
from vlfer.serve.schemas import JobAnswer, Segment, Track, VideoAnswer
from vlfer.types import LabelSet

router = APIRouter(prefix="/v1/video", tags=["video"])

JobId = Annotated[str, Path(max_length=64, examples=["sGgQ0Fv1i2xWk1mJ4bFZ9A"])]
_EVERY_S = 0.2
_STILL_THERE_S = 10.0


@router.post("", status_code=202, responses=responses(408, 415))
async def submit(
    request: Request,
    file: Annotated[UploadFile, File(description="MP4, MOV, WebM, MKV, AVI, animated GIF.")],
    labels: Labels = "ekman7",
    fps: Annotated[float, Form(ge=0.5, le=60, description="Frames looked at per second.")] = 8.0,
    top: Top = None,
) -> JobAnswer:
    """Hand in a video; the answer is an id to ask with."""
    service, engine = service_of(request), engine_of(request)
    chosen = await in_thread(partial(engine.labels, labels))
    path = await in_thread(partial(service.scratch.keep, file.file))

    def work(path: FilePath, tell: Tell) -> dict[str, Any]:
        analysis = engine.answer_video(path, chosen, tell, fps=fps, top=top)
        return video_answer(analysis, engine, chosen).model_dump()

    try:
        job = await in_thread(partial(service.jobs.submit, path, work, owner=request.state.owner))
    except ServiceProblem:
        path.unlink(missing_ok=True)
        raise
    return _job_answer(job)


@router.get("/{job_id}", responses=responses(404))
async def state(request: Request, job_id: JobId) -> JobAnswer:
    """Tell how far a video is."""
    return _job_answer(await in_thread(partial(_find, request, job_id)))


@router.get(
    "/{job_id}/events", response_class=StreamingResponse,
    responses={
        200: {"description": "Server-sent events: `progress`, then `end`.",
              "content": {"text/event-stream": {"schema": {"type": "string"}}}},
        **responses(404),
    },
)  # fmt: skip
async def events(request: Request, job_id: JobId) -> StreamingResponse:
    """Send progress as it comes, until the video is over."""
    find = partial(in_thread, partial(_find, request, job_id))
    return StreamingResponse(_events(await find(), find), media_type="text/event-stream")


@router.get("/{job_id}/result", responses=responses(404, 409))
async def result(request: Request, job_id: JobId) -> VideoAnswer:
    """Return the answer; 409 while there is none."""
    job = await in_thread(partial(_find, request, job_id))
    if job.problem is not None:
        problem = job.problem
        raise ServiceProblem(problem.status, problem.what or problem.detail, why=problem.why, fix=problem.fix)
    if job.result is None:
        raise ServiceProblem(409, f"The video is {job.state}.", fix=f"GET /v1/video/{job.id} until it is done.")
    return VideoAnswer.model_validate(job.result)


@router.delete("/{job_id}", responses=responses(404))
async def cancel(request: Request, job_id: JobId) -> JobAnswer:
    """Stop a video, or forget its result."""
    service = service_of(request)
    return _job_answer(await in_thread(partial(service.jobs.cancel, job_id, owner=request.state.owner)))


def video_answer(analysis: Analysis, engine: Engine, labels: LabelSet) -> VideoAnswer:
    """Return the analysis of a video as it is sent."""
    report = analysis.report
    segments = [
        Segment(**face_answer(one).model_dump(), start_s=one.start_s, end_s=one.end_s) for one in report.predictions
    ]
    tracks = [
        Track(
            face=line.track_id, start_s=line.start_s.tolist(), end_s=line.end_s.tolist(),
            probability=line.scores.probability.round(5).tolist(),
        )
        for line in analysis.timelines
    ]  # fmt: skip
    return VideoAnswer(
        status="ok" if report.status == "ok" else "error", message=report.message, segments=segments, tracks=tracks,
        **compared(engine, labels),
    )  # fmt: skip


def _find(request: Request, job_id: str) -> Job:
    job: Job = service_of(request).jobs.find(job_id, owner=request.state.owner)
    return job


def _job_answer(job: Job) -> JobAnswer:
    link = f"/v1/video/{job.id}"
    return JobAnswer(
        id=job.id, state=job.state, done=job.done, total=job.total,
        expires_in_s=None if job.expires_s is None else max(0.0, round(job.expires_s - time.time(), 1)),
        problem=None if job.problem is None else job.problem.model_dump(),
        links={"self": link, "events": f"{link}/events", "result": f"{link}/result"},
    )  # fmt: skip


async def _events(job: Job, find: Callable[[], Awaitable[Job]]) -> AsyncIterator[str]:
    seen, spoken = -1, time.monotonic()
    while True:
        if job.version != seen:
            seen, spoken = job.version, time.monotonic()
            kind = "end" if job.is_over else "progress"
            yield f"event: {kind}\ndata: {json.dumps(_job_answer(job).model_dump())}\n\n"
            if kind == "end":
                return
        elif time.monotonic() - spoken > _STILL_THERE_S:
            spoken = time.monotonic()
            yield ": still there\n\n"
        await asyncio.sleep(_EVERY_S)
        with contextlib.suppress(ServiceProblem):  # forgotten in the meantime: what is known stands
            job = await find()
