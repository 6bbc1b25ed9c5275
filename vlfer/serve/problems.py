"""Errors over HTTP: RFC 9457 problem details with the three parts that every message of vlfer has."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from pydantic import BaseModel, Field
from starlette.exceptions import HTTPException

from vlfer import errors
from vlfer.errors import VlferError

MEDIA_TYPE = "application/problem+json"
_TITLES = {
    400: "The request cannot be read", 401: "An API key is needed", 403: "Not allowed", 404: "Not found",
    405: "This method is not allowed here", 408: "The upload took too long", 409: "Not possible now",
    410: "No longer here", 413: "Too large", 415: "Not an image or video", 422: "The request cannot be answered",
    429: "Too many requests", 500: "An error in the service", 501: "Not offered here", 503: "Not ready",
}  # fmt: skip
_STATUS: tuple[tuple[type[VlferError], int], ...] = (
    (errors.SpaceError, 409),
    (errors.EnvironmentProblem, 503),
    (errors.BackboneError, 503),
    (errors.AdapterError, 501),
    (VlferError, 422),
)


class Problem(BaseModel):
    """What went wrong, RFC 9457."""

    type: str = Field(examples=["urn:vlfer:PromptError"])
    title: str = Field(examples=["The request cannot be answered"])
    status: int = Field(examples=[422])
    detail: str = Field(examples=["The label 'joy' is given twice. Labels compete with one another."])
    what: str = Field("", description="What happened, with the actual value.")
    why: str = Field("", description="The cause.")
    fix: str = Field("", description="What to try next.")


class LimitError(VlferError, ValueError):
    """A request asks for more than the service takes on."""


class ServiceProblem(VlferError):  # noqa: N818, it is one of RFC 9457
    """A problem with a status of its own.

    Args:
        status: Of the answer.
        what: What happened.
        why: The cause.
        fix: What to try next.
        headers: Of the answer.
    """

    def __init__(
        self, status: int, what: str, *, why: str = "", fix: str = "", headers: Mapping[str, str] | None = None
    ) -> None:
        super().__init__(what, why=why, fix=fix)
        self.status = status
        self.headers = dict(headers or {})


def problem_of(error: Exception) -> Problem:
    """Return the problem details of an error; of one that nobody foresaw nothing but the fact."""
    if isinstance(error, ServiceProblem):
        return _problem(error.status, kind="about:blank", error=error)
    if isinstance(error, LimitError):
        return _problem(413, kind="urn:vlfer:LimitError", error=error)
    if isinstance(error, VlferError):
        status = next(status for kind, status in _STATUS if isinstance(error, kind))
        return _problem(status, kind=f"urn:vlfer:{type(error).__name__}", error=error)
    return Problem(
        type="about:blank", title=_TITLES[500], status=500, detail="Something was not foreseen; it is in the log."
    )  # fmt: skip


def _problem(status: int, *, kind: str, error: VlferError) -> Problem:
    return Problem(
        type=kind, title=_TITLES.get(status, "Error"), status=status, detail=error.message,
        what=error.what, why=error.why, fix=error.fix,
    )  # fmt: skip


def respond(problem: Problem, *, headers: Mapping[str, str] | None = None) -> JSONResponse:
    """Return the response that carries a problem."""
    return JSONResponse(problem.model_dump(), problem.status, dict(headers or {}), MEDIA_TYPE)


def install(app: FastAPI) -> None:
    """Make every foreseen error of an application a problem; `vlfer.serve.guard` answers for the others."""
    app.add_exception_handler(VlferError, _on_foreseen)
    app.add_exception_handler(HTTPException, _on_http)
    app.add_exception_handler(RequestValidationError, _on_invalid)


def _on_foreseen(request: Request, error: Exception) -> JSONResponse:
    return respond(problem_of(error), headers=getattr(error, "headers", None))


def _on_http(request: Request, error: Exception) -> JSONResponse:
    status = getattr(error, "status_code", 500)
    what = str(getattr(error, "detail", "") or _TITLES.get(status, "Error"))
    problem = Problem(type="about:blank", title=_TITLES.get(status, what), status=status, detail=what, what=what)
    return respond(problem, headers=getattr(error, "headers", None))


def _on_invalid(request: Request, error: Exception) -> JSONResponse:
    # What was sent is not repeated: it may be a picture, or somebody's words.
    found = error.errors() if isinstance(error, RequestValidationError) else []
    mistakes = [f"{'.'.join(str(part) for part in item['loc'][1:]) or 'body'}: {item['msg']}" for item in found]
    what = "; ".join(mistakes[:5]) or "The request is malformed"
    return _on_foreseen(request, ServiceProblem(422, f"{what}.", why="It is not as /openapi.json says."))


def responses(*statuses: int) -> dict[int | str, dict[str, Any]]:
    """Return the OpenAPI description of the problems that a route may answer with."""
    content = {MEDIA_TYPE: {"schema": {"$ref": "#/components/schemas/Problem"}}}
    return {status: {"description": _TITLES[status], "content": content} for status in statuses}
