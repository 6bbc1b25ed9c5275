"""`vlfer serve`: the HTTP API, with the web app in front."""

from __future__ import annotations

import functools
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from vlfer.cli.exits import say

if TYPE_CHECKING:
    from fastapi import FastAPI

    from vlfer.pipeline import EmotionPipeline
    from vlfer.serve.settings import ServeSettings


def serve(
    host: Annotated[str, typer.Option(help="127.0.0.1 serves this machine only; elsewhere a key is needed.")] = (
        "127.0.0.1"
    ),
    port: Annotated[int, typer.Option(min=0, max=65535, help="Where to listen.")] = 8000,
    labels: Annotated[str | None, typer.Option(help="What the app asks at first. [ekman7]")] = None,
    backbone: Annotated[str | None, typer.Option(help="See: vlfer backbones list. [bundled]")] = None,
    device: Annotated[str | None, typer.Option(help="auto, cpu, cuda. [auto]")] = None,
    index: Annotated[Path | None, typer.Option(help="Index for searching, see vlfer index.")] = None,
    keys_file: Annotated[Path | None, typer.Option(help="API keys, one a line; else $VLFER_API_KEYS.")] = None,
    allow_host: Annotated[list[str] | None, typer.Option(help="A name the service is called by.")] = None,
    max_image_mb: Annotated[float, typer.Option(help="Largest image upload.")] = 25.0,
    max_video_mb: Annotated[float, typer.Option(help="Largest video upload.")] = 200.0,
    max_video_s: Annotated[float, typer.Option(help="Longest video.")] = 600.0,
    max_pixels: Annotated[int, typer.Option(help="Largest image, decoded.")] = 40_000_000,
    rate: Annotated[int, typer.Option(help="POST requests a minute and client; 0 for no limit.")] = 600,
    max_batch: Annotated[int, typer.Option(min=1, help="Faces through the tower at once; 1 joins no requests.")] = 32,
    decoders: Annotated[int, typer.Option(min=1, help="Processes that decode and find faces.")] = 2,
    replicas: Annotated[int, typer.Option(min=1, help="More than one: on Ray Serve, the API alone.")] = 1,
    address: Annotated[str | None, typer.Option(help="Of a running Ray cluster, for --replicas.")] = None,
    ui: Annotated[bool, typer.Option("--ui/--no-ui", help="Also serve the web app.")] = True,
) -> None:
    """Serve the HTTP API and the web app.

    It tells the PERCEIVED expression, not the felt emotion. Uploads are deleted after the answer and nothing is kept.
    Without --host only this machine can ask. The API is described at /openapi.json.
    """
    settings = _settings(
        keys_file, host=host, port=port, index_dir=index, allowed_hosts=tuple(allow_host or ()),
        max_image_mb=max_image_mb, max_video_mb=max_video_mb, max_video_s=max_video_s, max_pixels=max_pixels,
        rate_per_minute=rate, max_batch=max_batch, decoders=decoders,
    )  # fmt: skip
    try:
        import uvicorn

        from vlfer.serve.api import build_api
    except ModuleNotFoundError as error:
        from vlfer.errors import EnvironmentProblem

        raise EnvironmentProblem(
            f"The service needs {error.name}, which is not installed.",
            fix='uv run --extra app vlfer serve, or pip install "vlfer[app]"',
        ) from error
    from vlfer.pipeline import load_pipeline

    load = functools.partial(load_pipeline, backbone, labels=labels, **({"device": device} if device else {}))
    if replicas > 1:
        from vlfer.serve.replicas import serve_replicas

        say(f"Starting {replicas} replicas at http://{host}:{port}/ (Ctrl-C ends them)")
        serve_replicas(load, settings, replicas=replicas, address=address)
        return
    say("Loading the model...")
    pipeline = load()
    api = build_api(lambda: pipeline, settings)
    _log_requests()
    app = _with_app(api, pipeline) if ui else api
    say(f"vlfer answers at http://{host}:{port}/ (Ctrl-C ends it); the API is described at /openapi.json")
    uvicorn.run(
        app, host=host, port=port, access_log=False, log_level="warning", server_header=False, timeout_keep_alive=15,
        timeout_graceful_shutdown=10,
    )  # fmt: skip


def _settings(keys_file: Path | None, **values: Any) -> ServeSettings:
    from pydantic import ValidationError

    from vlfer.errors import ConfigError
    from vlfer.serve.settings import ServeSettings, check_settings, keys_from_environment

    keys = keys_from_environment()
    if keys_file is not None:
        try:
            keys += tuple(line.strip() for line in keys_file.read_text("ascii").splitlines() if line.strip())
        except (OSError, UnicodeDecodeError) as error:
            raise ConfigError(f"The keys cannot be read from {str(keys_file)!r}: {error}.") from error
    try:
        return check_settings(ServeSettings(api_keys=keys, **values))
    except ValidationError as error:
        mistakes = "; ".join(f"{item['loc'][0]} is {item['input']!r}: {item['msg']}" for item in error.errors())
        raise ConfigError(f"{mistakes}.", fix="vlfer serve --help") from error


def _with_app(api: FastAPI, pipeline: EmotionPipeline) -> Any:
    """Put the web app in front of the API, behind the same door."""
    try:
        import gradio

        from vlfer.serve import ui
    except ImportError as error:
        say(f"The web app is left out: {error}.")
        return api
    blocks = ui.build_ui(pipeline, pool=lambda: api.state.service.engine.decoders)
    return gradio.mount_gradio_app(api, blocks, path="/", **ui.appearance())


def _log_requests() -> None:
    import logging

    handler = logging.StreamHandler()
    handler.setFormatter(logging.Formatter("%(asctime)s %(message)s"))
    log = logging.getLogger("vlfer.serve")
    log.addHandler(handler)
    log.setLevel(logging.INFO)
