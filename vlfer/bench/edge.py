"""What edge mode saves and costs: bytes sent and latency, a whole photo against crops and against vectors."""

from __future__ import annotations

import io
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import httpx
import numpy as np
from PIL import Image

from vlfer.bench.measurement import Measurement
from vlfer.bench.serve import LABELS, Server, photo_720p
from vlfer.pipeline import EmotionPipeline
from vlfer.serve.client import VlferClient
from vlfer.serve.edge import EdgeClient
from vlfer.types import UInt8Array

_WARM = 3


class _Wire(httpx.BaseTransport):
    """Counts the bytes of what is sent and the seconds until it is answered."""

    def __init__(self) -> None:
        self._inner = httpx.HTTPTransport()
        self.sent = 0
        self.waited_s = 0.0

    def handle_request(self, request: httpx.Request) -> httpx.Response:
        begun = time.perf_counter()
        self.sent += len(request.read()) + sum(len(key) + len(value) + 4 for key, value in request.headers.raw)
        answer = self._inner.handle_request(request)
        answer.read()
        self.waited_s += time.perf_counter() - begun
        return answer

    def close(self) -> None:
        self._inner.close()


@dataclass(frozen=True, slots=True)
class _Way:
    """What one way took, medians over all requests."""

    sent: float
    total_ms: float
    device_ms: float
    probability: dict[str, float]


def bench_edge(server: Server, pipeline: EmotionPipeline, *, requests: int) -> list[Measurement]:
    """Ask about the same frame in three ways, one request after the other.

    The device and the service share this machine and the wire is its loopback; over a network the bytes count.

    Args:
        server: A service with the backbone of the pipeline.
        pipeline: What the device has.
        requests: Questions a way.
    """
    stored = io.BytesIO()
    Image.fromarray(photo_720p()).save(stored, "JPEG", quality=90)
    jpeg = stored.getvalue()
    pixels = np.asarray(Image.open(io.BytesIO(jpeg)).convert("RGB"))  # all ways start from the same pixels
    wire = _Wire()
    with VlferClient(f"http://127.0.0.1:{server.port}", transport=wire) as client:
        edge = EdgeClient(pipeline, client)
        ways: dict[str, Callable[[UInt8Array], list[dict[str, Any]]]] = {
            "the photo (JPEG, quality 90)": lambda _: client.image(jpeg, labels=LABELS)["faces"],
            "a crop (PNG)": lambda frame: edge.ask_with_crops(frame, labels=LABELS),
            "a vector": lambda frame: edge.ask_with_vectors(frame, labels=LABELS),
        }
        done = {name: _measure(ask, pixels, wire, requests=requests) for name, ask in ways.items()}
    found = []
    full = next(iter(done.values()))
    for name, way in done.items():
        found += [
            Measurement(f"{name}: bytes sent", way.sent, "B"),
            Measurement(f"{name}: p50 from pixels to answer", way.total_ms, "ms"),
            Measurement(f"{name}: p50 of that on the device", way.device_ms, "ms"),
        ]
        if way is not full:
            far = max(abs(way.probability[label] - p) for label, p in full.probability.items())
            found.append(Measurement(f"{name}: largest difference in probability", far, "", 1e-4))
    return found


def _measure(
    ask: Callable[[UInt8Array], list[dict[str, Any]]], pixels: UInt8Array, wire: _Wire, *, requests: int
) -> _Way:
    rows = []
    for number in range(requests + _WARM):
        wire.sent, wire.waited_s = 0, 0.0
        begun = time.perf_counter()
        (face,) = ask(pixels)
        total_s = time.perf_counter() - begun
        if number >= _WARM:
            rows.append((wire.sent, 1e3 * total_s, 1e3 * (total_s - wire.waited_s)))
    sent, total_ms, device_ms = (float(value) for value in np.median(np.array(rows), axis=0))
    return _Way(sent, total_ms, device_ms, {one["label"]: one["probability"] for one in face["top"]})
