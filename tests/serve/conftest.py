"""A running service around the bundled model: loaded once, asked by all tests of this folder."""

from __future__ import annotations

import io
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest
from fastapi.testclient import TestClient
from PIL import Image

from vlfer.pipeline import EmotionPipeline, load_pipeline
from vlfer.serve.api import build_api
from vlfer.serve.settings import ServeSettings

SAMPLE = Path(__file__).parents[2] / "vlfer" / "samples" / "astronaut.jpg"


def wait_until_ready(client: TestClient, *, seconds: float = 120.0) -> TestClient:
    deadline = time.monotonic() + seconds
    while client.get("/readyz").status_code != 200:
        assert time.monotonic() < deadline, "the service does not get ready"
        time.sleep(0.05)
    return client


@pytest.fixture(scope="session")
def bundled_pipeline() -> EmotionPipeline:
    return load_pipeline()


@pytest.fixture(scope="session")
def serving(bundled_pipeline: EmotionPipeline) -> Iterator[TestClient]:
    """A client of a service with one decoder, small limits and no rate limit."""
    settings = ServeSettings(
        decoders=1, rate_per_minute=0, max_image_mb=2, max_video_mb=4, max_json_mb=1, max_video_s=5, decode_s=20,
        max_pixels=4_000_000,
    )  # fmt: skip
    with TestClient(
        build_api(lambda: bundled_pipeline, settings), base_url="http://localhost", raise_server_exceptions=False
    ) as client:
        yield wait_until_ready(client)


@pytest.fixture(scope="session")
def portrait() -> bytes:
    return SAMPLE.read_bytes()


@pytest.fixture(scope="session")
def two_portraits(portrait: bytes) -> bytes:
    """Two faces side by side, as a PNG."""
    pixels = np.array(Image.open(io.BytesIO(portrait)).convert("RGB"))
    return png(np.concatenate([pixels, pixels[:, ::-1]], axis=1))


@pytest.fixture(scope="session")
def film(portrait: bytes, tmp_path_factory: pytest.TempPathFactory) -> bytes:
    """A second of the portrait, moving a little, at 12 fps."""
    pixels = np.array(Image.open(io.BytesIO(portrait)).convert("RGB"))
    path = tmp_path_factory.mktemp("film") / "film.mp4"
    write_video(path, [np.roll(pixels, 2 * (i % 5), axis=1) for i in range(12)], fps=12)
    return path.read_bytes()


def write_video(path: Path, frames: list[np.ndarray], *, fps: int) -> None:
    with av.open(str(path), "w") as container:
        stream = container.add_stream("h264", rate=fps)
        stream.height, stream.width = frames[0].shape[:2]
        stream.pix_fmt = "yuv420p"
        for pixels in frames:
            for packet in stream.encode(av.VideoFrame.from_ndarray(pixels, format="rgb24")):
                container.mux(packet)
        for packet in stream.encode():
            container.mux(packet)


def png(pixels: np.ndarray) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "PNG")
    return buffer.getvalue()


def wait_for_job(client: TestClient, job: dict[str, Any], *, seconds: float = 90.0) -> dict[str, Any]:
    deadline = time.monotonic() + seconds
    while True:
        answer = client.get(job["links"]["self"]).json()
        if answer["state"] in ("done", "failed", "cancelled"):
            return answer
        assert time.monotonic() < deadline, answer
        time.sleep(0.05)


@pytest.fixture(scope="session", name="png")
def _png() -> Any:
    return png


@pytest.fixture(scope="session", name="wait_for_job")
def _wait_for_job() -> Any:
    return wait_for_job


@pytest.fixture(scope="session", name="wait_until_ready")
def _wait_until_ready() -> Any:
    return wait_until_ready


@pytest.fixture(scope="session", name="write_video")
def _write_video() -> Any:
    return write_video
