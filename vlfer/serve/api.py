"""The HTTP API: one application over one pipeline."""

from __future__ import annotations

import asyncio
import logging
import threading
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from importlib.metadata import version
from typing import Any

from fastapi import FastAPI
from fastapi.openapi.utils import get_openapi
from fastapi.responses import Response

from vlfer.pipeline import EmotionPipeline
from vlfer.serve import problems, routes, routes_video
from vlfer.serve.engine import Engine
from vlfer.serve.guard import Guard
from vlfer.serve.jobs import JobStore
from vlfer.serve.metrics import CONTENT_TYPE, Metrics
from vlfer.serve.schemas import READING, State
from vlfer.serve.scratch import Scratch
from vlfer.serve.settings import ServeSettings, check_settings

_log = logging.getLogger("vlfer.serve")

DESCRIPTION = f"""Which expression a face shows, in words of your choice. **{READING}**

Ask only about people who have agreed to it. Uploads are deleted after the answer; nothing is kept.
Errors are RFC 9457 problem details with what happened, why, and what to try."""


class Service:
    """What the routes of one application share.

    Attributes:
        settings: Limits.
        metrics: What is counted.
        jobs: Videos in work.
    """

    def __init__(self, settings: ServeSettings, *, jobs: JobStore | None = None) -> None:
        self.settings = settings
        self.metrics = Metrics()
        self.jobs = jobs or JobStore(most=settings.max_jobs, ttl_s=settings.job_ttl_s)
        self._scratch: Scratch | None = None
        self._engine: Engine | None = None
        self._failure: Exception | None = None

    @property
    def is_ready(self) -> bool:
        """Whether questions are answered."""
        return self._engine is not None

    @property
    def scratch(self) -> Scratch:
        """Where video uploads lie until they are read; the folder is made when it is first needed."""
        if self._scratch is None:
            self._scratch = Scratch()
        return self._scratch

    @property
    def engine(self) -> Engine:
        """What answers.

        Raises:
            ServiceProblem: 503 while it is being loaded.
        """
        if self._engine is None:
            what = "The model is being loaded." if self._failure is None else "The model could not be loaded."
            raise problems.ServiceProblem(503, what, fix="again in a few seconds.", headers={"Retry-After": "5"})
        return self._engine

    def load(self, pipeline_factory: Callable[[], EmotionPipeline]) -> None:
        """Load the model and start the decoders."""
        try:
            engine = Engine(pipeline_factory(), self.settings, self.metrics)
            engine.warm_up()
        except Exception as error:
            self._failure = error
            _log.exception("The model could not be loaded.")
            return
        self._engine = engine

    def close(self) -> None:
        """End everything and delete what is left of uploads."""
        self.jobs.close()
        if self._engine is not None:
            self._engine.close()
        if self._scratch is not None:
            self._scratch.close()


def build_api(
    pipeline_factory: Callable[[], EmotionPipeline],
    settings: ServeSettings | None = None,
    *,
    jobs: JobStore | None = None,
    loads_first: bool = False,
) -> FastAPI:
    """Build the application.

    Args:
        pipeline_factory: Loads the pipeline; called once, in the background, when the application starts.
        settings: Limits and keys.
        jobs: Where videos wait, instead of a store of its own.
        loads_first: Whether no request is taken before everything is loaded.

    Returns:
        The application; ``app.state.service`` is its `Service`.

    Raises:
        ConfigError: If it would be open to others without a key.
    """
    service = Service(check_settings(settings or ServeSettings()), jobs=jobs)

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        loading = threading.Thread(target=service.load, args=(pipeline_factory,), name="vlfer-load", daemon=True)
        loading.start()
        if loads_first:
            await asyncio.to_thread(loading.join)
        yield
        loading.join()
        service.close()

    app = FastAPI(
        title="vlfer", version=version("vlfer"), description=DESCRIPTION, lifespan=lifespan,
        docs_url=None, redoc_url=None,  # these pages would load scripts from elsewhere
        responses=problems.responses(400, 401, 403, 413, 422, 429, 500, 503),
        license_info={"name": "Apache-2.0", "identifier": "Apache-2.0"},
    )  # fmt: skip
    app.state.service = service
    problems.install(app)
    app.add_middleware(Guard, settings=service.settings, metrics=service.metrics)
    app.include_router(routes.router)
    app.include_router(routes_video.router)
    _add_operations(app, service)
    app.openapi = lambda: _openapi(app)  # type: ignore[method-assign]
    return app


def _add_operations(app: FastAPI, service: Service) -> None:
    @app.get("/healthz", tags=["operations"])
    async def healthz() -> State:
        """Tell that the process runs. Needs no key."""
        return State(status="ok")

    @app.get("/readyz", tags=["operations"])
    async def readyz() -> State:
        """Tell whether questions are answered; 503 while the model is being loaded. Needs no key."""
        _ = service.engine
        return State(status="ok")

    @app.get(
        "/metrics", tags=["operations"], response_class=Response,
        responses={200: {"content": {"text/plain": {"schema": {"type": "string"}}}}},
    )  # fmt: skip
    async def metrics() -> Response:
        """Return counters for Prometheus."""
        for state, count in service.jobs.counts().items():
            service.metrics.jobs.labels(state).set(count)
        return Response(service.metrics.text(), media_type=CONTENT_TYPE)


def _openapi(app: FastAPI) -> dict[str, Any]:
    if app.openapi_schema is None:
        schema = get_openapi(
            title=app.title, version=app.version, description=app.description, routes=app.routes,
            license_info=app.license_info,
        )  # fmt: skip
        parts = schema.setdefault("components", {})
        parts.setdefault("schemas", {})["Problem"] = problems.Problem.model_json_schema()
        parts["securitySchemes"] = {
            "key": {"type": "http", "scheme": "bearer", "description": "Needed beyond localhost."},
            "header": {"type": "apiKey", "in": "header", "name": "X-API-Key"},
        }
        schema["security"] = [{}, {"key": []}, {"header": []}]
        app.openapi_schema = schema
    return app.openapi_schema
