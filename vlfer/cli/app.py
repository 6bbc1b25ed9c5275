"""`vlfer app`: the web app on this machine."""

from __future__ import annotations

from typing import Annotated

import typer

from vlfer.cli.exits import say


def app(
    labels: Annotated[str | None, typer.Option(help="What is asked at first. [ekman7]")] = None,
    backbone: Annotated[str | None, typer.Option(help="See: vlfer backbones list. [bundled]")] = None,
    device: Annotated[str | None, typer.Option(help="auto, cpu, cuda, cuda:1, mps. [auto]")] = None,
    host: Annotated[str, typer.Option(help="127.0.0.1 serves this machine only.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=0, max=65535, help="Where to listen; 0 takes a free port.")] = 7860,
    open_browser: Annotated[bool, typer.Option("--open/--no-open", help="Open a browser window.")] = False,
) -> None:
    """Open the web app: photo, video, webcam, micro-expressions, search and comparison, asked in any words.

    It shows the PERCEIVED expression, not the felt emotion. Nothing is stored and nothing is sent elsewhere. It knows
    no passwords: to serve other machines, put it behind something that does, or take `vlfer serve`.
    """
    try:
        from vlfer.serve.ui import serve_ui
    except ModuleNotFoundError as error:
        from vlfer.errors import EnvironmentProblem

        raise EnvironmentProblem(
            f"The app needs {error.name}, which is not installed.",
            fix='uv run --extra app vlfer app, or pip install "vlfer[app]"',
        ) from error
    from vlfer.pipeline import load_pipeline

    say("Loading the model...")
    pipeline = load_pipeline(backbone, labels=labels, **({"device": device} if device else {}))
    serve_ui(pipeline, host=host, port=port, open_browser=open_browser, ready=lambda url: say(f"The app is at {url}"))
