"""The Python client and edge mode against the service."""

from __future__ import annotations

from typing import Any

import httpx
import numpy as np
import pytest
from fastapi.testclient import TestClient

from vlfer.errors import NoFaceError
from vlfer.pipeline import EmotionPipeline
from vlfer.serve.client import ServiceError, VlferClient
from vlfer.serve.edge import EdgeClient, png_of
from vlfer.video.images import load_image


class _Into(httpx.BaseTransport):
    """Hands requests to a test client of the application."""

    def __init__(self, client: TestClient) -> None:
        self._client = client

    def handle_request(self, request: httpx.Request) -> httpx.Response:
        headers = {k: v for k, v in request.headers.items() if k != "host"}
        answer = self._client.request(request.method, str(request.url), headers=headers, content=request.read())
        return httpx.Response(answer.status_code, headers=answer.headers, content=answer.content)


@pytest.fixture
def client(serving: TestClient) -> VlferClient:
    return VlferClient("http://localhost", transport=_Into(serving))


WORDS = ["joy", "grief", {"name": "awe", "descriptors": ["the jaw drops, the eyes are wide"]}]


def test_edge_equals_full_upload(client: VlferClient, bundled_pipeline: EmotionPipeline, two_portraits: bytes) -> None:
    edge = EdgeClient(bundled_pipeline, client)
    pixels = load_image(two_portraits).pixels[0]
    full = client.image(two_portraits, labels=WORDS)["faces"]
    assert len(full) == 2
    for other in (edge.ask_with_vectors(pixels, labels=WORDS), edge.ask_with_crops(pixels, labels=WORDS)):
        for one, two in zip(full, other, strict=True):
            assert one["label"] == two["label"]
            assert one["box"] == pytest.approx(two["box"], abs=0.01)
            for a, b in zip(one["top"], two["top"], strict=True):
                assert (a["label"], a["probability"]) == (b["label"], pytest.approx(b["probability"], abs=1e-4))
                assert a["similarity"] == pytest.approx(b["similarity"], abs=1e-4)


def test_edge_sends_a_fraction(bundled_pipeline: EmotionPipeline, portrait: bytes, client: VlferClient) -> None:
    seen = EdgeClient(bundled_pipeline, client).look(load_image(portrait).pixels[0])
    assert 4 * 384 < len(png_of(seen.crops[0])) < len(portrait)


def test_edge_without_a_face_sends_nothing(bundled_pipeline: EmotionPipeline) -> None:
    edge = EdgeClient(bundled_pipeline, VlferClient("http://localhost:1"))
    with pytest.raises(NoFaceError):
        edge.ask_with_vectors(np.full((480, 640, 3), 90, np.uint8))


def test_client_waits_for_a_video(client: VlferClient, film: bytes) -> None:
    told: list[Any] = []
    answer = client.video(film, labels="joy, grief", on_progress=lambda done, total: told.append(done), every_s=0.1)
    assert answer["segments"][0]["label"] == "joy"
    assert told


def test_client_asks_everything_else(client: VlferClient, portrait: bytes) -> None:
    vectors, space = client.text(["a smile"])
    assert vectors.shape == (1, 384)
    assert client.models()[0]["space"] == space
    assert client.labels()
    assert client.mie(onset=portrait, apex=portrait)["label"] is None


def test_client_passes_problems_on(client: VlferClient, portrait: bytes) -> None:
    with pytest.raises(ServiceError, match=r"no label set called 'nosuch'\. There are") as caught:
        client.image(portrait, labels="nosuch")
    assert caught.value.status == 422
    with pytest.raises(ServiceError, match="vlfer serve"):
        VlferClient("http://127.0.0.1:9", timeout_s=2).models()
