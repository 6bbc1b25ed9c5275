"""The web app: one page, a tab for each way of asking. Layout only; each tab lives in a module of its own."""

from __future__ import annotations

import atexit
import os
import socket
from collections.abc import Callable
from tempfile import TemporaryDirectory
from typing import cast

import gradio as gr

from vlfer.errors import EnvironmentProblem
from vlfer.pipeline import EmotionPipeline
from vlfer.serve.decoders import DecoderPool
from vlfer.serve.theme import appearance, asset
from vlfer.serve.ui_api import add_api
from vlfer.serve.ui_compare import compare_tab
from vlfer.serve.ui_engine import Engine, Limits
from vlfer.serve.ui_micro import micro_tab
from vlfer.serve.ui_photo import photo_tab
from vlfer.serve.ui_search import search_tab
from vlfer.serve.ui_video import video_tab
from vlfer.serve.ui_webcam import webcam_tab

__all__ = ["appearance", "build_ui", "serve_ui"]

_SWEEP_S, _LIFE_S = 120, 1800


def build_ui(
    pipeline: EmotionPipeline, *, limits: Limits | None = None, pool: Callable[[], DecoderPool] | None = None
) -> gr.Blocks:
    """Build the app around a pipeline.

    Mount it with ``gr.mount_gradio_app(app, build_ui(pipeline), path="/", **appearance())``. Uploads lie in a folder
    that only this user can read, for half an hour at most.

    Args:
        pipeline: Answers everything; it is shared by all sessions.
        limits: How much one request may be.
        pool: Gives the decoding processes of a service that runs beside the app; None starts some of its own.
    """
    _use_private_folder()
    engine = Engine(pipeline, limits=limits, pool=pool)
    engine.uploads.warm_up()
    with gr.Blocks(
        title="vlfer: any expression, in your words", analytics_enabled=False, delete_cache=(_SWEEP_S, _LIFE_S)
    ) as blocks:
        gr.HTML(asset("header.html"), apply_default_css=False, elem_id="vl-header")
        with gr.Tabs(elem_id="vl-tabs"):
            for name, build in TABS.items():
                with gr.Tab(name, id=name.lower()):
                    build(engine)
        add_api(engine)
        gr.HTML(asset("footer.html"), apply_default_css=False, elem_id="vl-footer")
    blocks.queue(default_concurrency_limit=2, max_size=64)
    return cast(gr.Blocks, blocks)


def _use_private_folder() -> None:
    """Give uploads a folder that only this user can read and that goes with the process.

    Gradio reads its place from the environment when components are built; by default it shares one under /tmp.
    """
    if not os.environ.get("GRADIO_TEMP_DIR"):
        folder = TemporaryDirectory(prefix="vlfer-", ignore_cleanup_errors=True)
        os.environ["GRADIO_TEMP_DIR"] = folder.name
        atexit.register(folder.cleanup)


def serve_ui(
    pipeline: EmotionPipeline,
    *,
    host: str = "127.0.0.1",
    port: int = 7860,
    limits: Limits | None = None,
    open_browser: bool = False,
    ready: Callable[[str], None] | None = None,
) -> None:
    """Serve the app until it is interrupted; uploads lie in a private folder that goes with it.

    Args:
        pipeline: Answers everything.
        host: Address to listen on.
        port: Port to listen on; 0 takes a free one.
        limits: How much one request may be.
        open_browser: Whether to open a window.
        ready: Told the address once it listens.

    Raises:
        EnvironmentProblem: If the port is taken.
    """
    blocks = build_ui(pipeline, limits=limits)
    try:
        _, url, _ = blocks.launch(
            server_name=host, server_port=port or free_port(host), quiet=True, inbrowser=open_browser, share=False,
            prevent_thread_lock=True, enable_monitoring=False, **appearance(limits),
        )  # fmt: skip
    except OSError as error:
        raise EnvironmentProblem(
            f"The app cannot listen on {host}:{port}.", why="Another program has the port.",
            fix=f"vlfer app --port {port + 1}",
        ) from error  # fmt: skip
    if ready is not None:
        ready(url)
    try:
        blocks.block_thread()
    finally:
        blocks.close(verbose=False)


def free_port(host: str = "127.0.0.1") -> int:
    """Return a port that nobody listens on."""
    with socket.socket() as probe:
        probe.bind((host, 0))
        return int(probe.getsockname()[1])


TABS = {
    "Photo": photo_tab,
    "Video": video_tab,
    "Webcam": webcam_tab,
    "Micro-expression": micro_tab,
    "Search": search_tab,
    "Compare": compare_tab,
}
