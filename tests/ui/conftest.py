"""The app around the bundled model, once for all tests of it."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

sys.path.insert(0, str(Path(__file__).parent))


@pytest.fixture(scope="session")
def engine() -> Iterator[Any]:
    from vlfer.pipeline import load_pipeline
    from vlfer.serve.ui_engine import Engine, Limits

    limits = Limits(labels=30, video_s=30.0, upload_mb=5, photo_mb=2, pixels=4_000_000)
    engine = Engine(load_pipeline(device="cpu"), limits=limits)
    yield engine
    engine.uploads.close()


@pytest.fixture(scope="session")
def portrait() -> str:
    from vlfer.serve.ui_samples import portrait_path

    return str(portrait_path())


@pytest.fixture(scope="session")
def clips(engine: Any, tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    from vlfer.serve.ui_samples import clip_path

    folder = tmp_path_factory.mktemp("clips")
    return {scene: str(clip_path(folder, scene, detector=engine.detector())) for scene in ("moods", "micro")}


@pytest.fixture(scope="session")
def app_url(engine: Any) -> Iterator[str]:
    """The address of a running app."""
    from vlfer.serve.ui import appearance, build_ui, free_port

    blocks = build_ui(engine.pipeline, limits=engine.limits, pool=lambda: engine.uploads.pool)
    _, url, _ = blocks.launch(
        server_name="127.0.0.1", server_port=free_port(), quiet=True, prevent_thread_lock=True, share=False,
        **appearance(engine.limits),
    )  # fmt: skip
    yield url
    blocks.close(verbose=False)
