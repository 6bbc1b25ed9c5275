"""The commands of the docs do what they say: every curl line and every client call, against the real server."""

from __future__ import annotations

import base64
import json
import os
import re
import shutil
import subprocess
import sys
import threading
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import uvicorn
from PIL import Image

from vlfer.cli.serve import _with_app
from vlfer.pipeline import EmotionPipeline
from vlfer.search import SearchIndex, find_moments
from vlfer.serve.api import build_api
from vlfer.serve.settings import ServeSettings
from vlfer.serve.ui_samples import clip_path, moving_frames

ROOT = Path(__file__).parents[2]
PAGES = ("README.md", "docs/service.md", "docs/app.md")
BLOCK = re.compile(r"^```(\w+)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
ADDRESS = re.compile(r"http://127\.0\.0\.1:(?:7860|8000)")

pytestmark = pytest.mark.slow


def blocks(page: str, language: str, *words: str) -> list[str]:
    """Return the code blocks of a page that hold one of the words."""
    found = BLOCK.findall((ROOT / page).read_text("utf-8"))
    return [code for kind, code in found if kind == language and any(word in code for word in words)]


@pytest.fixture(scope="module")
def folder(
    tmp_path_factory: pytest.TempPathFactory, portrait: bytes, film: bytes, bundled_pipeline: EmotionPipeline
) -> Path:
    """A folder with the files that the docs speak of, and an index of one of them."""
    place = tmp_path_factory.mktemp("docs")
    (place / "photo.jpg").write_bytes(portrait)
    (place / "film.mp4").write_bytes(film)
    detector = bundled_pipeline.detector
    assert detector is not None
    clip_path(place, "micro", detector=detector).rename(place / "clip.mp4")
    frames = moving_frames("micro", detector=detector)
    for name, index in (("rest", 0), ("strongest", 25)):
        Image.fromarray(frames[index]).save(place / f"{name}.png")
    with SearchIndex.open(place / "vlfer-index", encoder_space=bundled_pipeline.encoder.space) as index:
        index.add_source("film.mp4", find_moments(bundled_pipeline, place / "film.mp4"))
    return place


@pytest.fixture(scope="module")
def url(folder: Path, bundled_pipeline: EmotionPipeline) -> Iterator[str]:
    """The address of what `vlfer serve` serves: the API with the app in front, and the index."""
    settings = ServeSettings(rate_per_minute=0, index_dir=folder / "vlfer-index")
    app = _with_app(build_api(lambda: bundled_pipeline, settings, loads_first=True), bundled_pipeline)
    server = uvicorn.Server(uvicorn.Config(app, port=0, log_level="warning"))
    thread = threading.Thread(target=server.run, daemon=True)
    thread.start()
    deadline = time.monotonic() + 600
    while not server.started:
        assert thread.is_alive()
        assert time.monotonic() < deadline
        time.sleep(0.1)
    yield f"http://127.0.0.1:{server.servers[0].sockets[0].getsockname()[1]}"
    server.should_exit = True
    thread.join(timeout=60)


def test_every_page_is_found() -> None:
    assert sum(len(blocks(page, "bash", "curl ")) for page in PAGES) >= 5
    assert sum(len(blocks(page, "python", "Client(")) for page in PAGES) >= 3


@pytest.mark.skipif(shutil.which("curl") is None, reason="curl is not installed")
@pytest.mark.parametrize("page", PAGES[:2])
def test_curl_examples(page: str, folder: Path, url: str) -> None:
    with urllib.request.urlopen(f"{url}/v1/models", timeout=30) as answer:
        space = json.load(answer)[0]["space"]
    vector = base64.b64encode(np.full(384, 0.05, "<f4").tobytes()).decode()
    lines = [line for block in blocks(page, "bash", "curl ") for line in block.splitlines()]
    if page == "README.md":
        lines = [line for line in lines if line.startswith("curl ")]
    script = ADDRESS.sub(url, "\n".join(lines))
    guard = 'set -euo pipefail\ncurl() { command curl --fail-with-body -sS -w "\\n" "$@"; }\n'
    path = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
    done = subprocess.run(
        ["bash", "-c", guard + script], cwd=folder, capture_output=True, text=True, timeout=600,
        env={**os.environ, "SPACE": space, "VECTORS": vector, "PATH": path},
    )  # fmt: skip
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr
    answers = [line for line in done.stdout.splitlines() if line.strip()]
    assert '"label":' in answers[0]
    if page == "docs/service.md":
        expected = ('"explanation":{', '"hits":[{', '"segments":[{', '"ekman7"', "vlfer_", '"state": "done"')
        assert [part for part in expected if part not in done.stdout] == []


@pytest.mark.parametrize("page", PAGES[1:])
def test_client_examples(page: str, folder: Path, url: str, monkeypatch: Any, capsys: Any) -> None:
    monkeypatch.chdir(folder)
    pixels = np.asarray(Image.open("photo.jpg").convert("RGB"))
    for block in blocks(page, "python", "Client("):
        names: dict[str, Any] = {"pixels": pixels}
        exec(compile(ADDRESS.sub(url, block), page, "exec"), names)
    assert re.search("joy|smile", capsys.readouterr().out)
