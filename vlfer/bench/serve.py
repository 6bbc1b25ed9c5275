"""What the service costs: requests a second, latency, and memory, over real sockets against a process of its own."""

from __future__ import annotations

import asyncio
import contextlib
import io
import os
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from vlfer.bench.measurement import Measurement
from vlfer.errors import EnvironmentProblem
from vlfer.types import UInt8Array

_START_S = 180.0
_WARM = 12
LABELS = "joy, grief, anger, a polite smile"
_BOUNDARY = b"----vlfer-bench"


@dataclass(frozen=True, slots=True)
class Load:
    """What a number of clients met.

    Attributes:
        clients: How many asked at once, each its next question as soon as it has an answer.
        latency_s: Of every request, in seconds.
        wall_s: From the first question to the last answer.
        failed: Requests without a 200.
    """

    clients: int
    latency_s: Sequence[float]
    wall_s: float
    failed: int

    @property
    def per_s(self) -> float:
        """Requests answered a second."""
        return (len(self.latency_s) - self.failed) / self.wall_s


class Server:
    """A running ``vlfer serve``."""

    def __init__(self, process: subprocess.Popen[bytes], port: int) -> None:
        self.process = process
        self.port = port

    def resident_mb(self) -> float:
        """Return the memory of the process and its decoders in MB of 10^6 bytes."""
        return sum(_resident(pid) for pid in (self.process.pid, *_children(self.process.pid))) / 1e6


@contextlib.contextmanager
def running_server(*options: str, backbone: str = "bundled") -> Iterator[Server]:
    """Start ``vlfer serve`` without a rate limit on a free port; end it with the block.

    Raises:
        EnvironmentProblem: If it does not get ready.
    """
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = int(probe.getsockname()[1])
    command = [sys.executable, "-m", "vlfer.cli", "serve", "--no-ui", "--rate", "0", "--port", str(port)]
    process = subprocess.Popen(
        [*command, "--backbone", backbone, *options], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    try:
        _wait(process, port)
        yield Server(process, port)
    finally:
        process.send_signal(signal.SIGINT)
        try:
            process.wait(timeout=30)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def _wait(process: subprocess.Popen[bytes], port: int) -> None:
    deadline = time.monotonic() + _START_S
    while process.poll() is None and time.monotonic() < deadline:
        with contextlib.suppress(OSError), urllib.request.urlopen(f"http://127.0.0.1:{port}/readyz", timeout=5):
            return
        time.sleep(0.2)
    raise EnvironmentProblem("The service does not get ready.", fix="vlfer serve --no-ui, to see why")


def photo_request(pixels: UInt8Array, *, faces: str = "auto", form: str = "JPEG") -> bytes:
    """Return the bytes of one POST /v1/image on a connection that stays open."""
    from PIL import Image

    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, form, quality=90)
    parts = [(b"labels", LABELS.encode()), (b"faces", faces.encode())]
    body = b"".join(
        b'--%s\r\nContent-Disposition: form-data; name="%s"\r\n\r\n%s\r\n' % (_BOUNDARY, name, value)
        for name, value in parts
    )
    body += b'--%s\r\nContent-Disposition: form-data; name="file"; filename="a"\r\n\r\n' % _BOUNDARY
    body += buffer.getvalue() + b"\r\n--%s--\r\n" % _BOUNDARY
    head = b"POST /v1/image HTTP/1.1\r\nHost: localhost\r\nContent-Type: multipart/form-data; boundary=%s\r\n"
    return head % _BOUNDARY + b"Content-Length: %d\r\n\r\n" % len(body) + body


def photo_720p() -> UInt8Array:
    """Return the shipped portrait in the middle of a frame of 1280 x 720, its borders continued."""
    import cv2
    from PIL import Image

    file = Path(__file__).parents[1] / "samples" / "astronaut.jpg"
    portrait = np.array(Image.open(file).convert("RGB").resize((720, 720)))
    return np.asarray(cv2.copyMakeBorder(portrait, 0, 0, 280, 280, cv2.BORDER_REPLICATE), dtype=np.uint8)


def put_load(port: int, request: bytes, *, clients: int, requests: int, at_once: int | None = None) -> Load:
    """Let clients ask the same question until all ``requests`` are answered.

    Args:
        port: Of the service on this machine.
        request: The bytes of one request.
        clients: How many ask, each its next question as soon as it has an answer.
        requests: Questions in all.
        at_once: Most requests on their way at once; None for no such limit. Waiting for one's turn is latency.
    """
    return asyncio.run(_put_load(port, request, clients, requests, at_once or clients))


async def _put_load(port: int, request: bytes, clients: int, requests: int, at_once: int) -> Load:
    left, latency_s, failed = [requests], [], [0]
    turn = asyncio.Semaphore(at_once)

    async def one() -> None:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        while left[0] > 0:
            left[0] -= 1
            began = time.perf_counter()
            async with turn:
                writer.write(request)
                await writer.drain()
                head = await reader.readuntil(b"\r\n\r\n")
                length = int(head.lower().split(b"content-length:")[1].split(b"\r\n")[0])
                await reader.readexactly(length)
            latency_s.append(time.perf_counter() - began)
            failed[0] += b" 200 " not in head[:20]
        writer.close()

    began = time.perf_counter()
    outcomes = await asyncio.gather(*(one() for _ in range(clients)), return_exceptions=True)
    failed[0] += sum(isinstance(outcome, BaseException) for outcome in outcomes)
    return Load(clients, latency_s, time.perf_counter() - began, failed[0])


def bench_load(
    name: str,
    server: Server,
    request: bytes,
    *,
    clients: Sequence[int],
    requests: int,
    p50_bar_ms: float | None = None,
    at_once: int | None = None,
) -> tuple[list[Measurement], dict[int, Load]]:
    """Measure one kind of request at several numbers of clients."""
    put_load(server.port, request, clients=2, requests=_WARM)
    found, loads = [], {}
    for count in clients:
        load = put_load(server.port, request, clients=count, requests=max(requests, 4 * count), at_once=at_once)
        loads[count] = load
        times_ms = 1e3 * np.array(load.latency_s)
        title = f"{name}, {count} clients"
        found.append(Measurement(f"{title}: requests a second", load.per_s, "1/s"))
        for quantile in (50, 95, 99):
            bar = p50_bar_ms if (quantile, count) == (50, 1) else None
            found.append(
                Measurement(f"{title}: p{quantile}", float(np.percentile(times_ms, quantile)), "ms", bar)
            )  # fmt: skip
        found.append(Measurement(f"{title}: failed", float(load.failed), "", 0.0))
    return found, loads


def bench_memory(server: Server, request: bytes, *, requests: int) -> list[Measurement]:
    """Measure by how much the service grows; the first tenth of the requests is not counted."""
    put_load(server.port, request, clients=8, requests=max(50, requests // 10))
    before = server.resident_mb()
    load = put_load(server.port, request, clients=8, requests=requests)
    after = server.resident_mb()
    return [
        Measurement("memory of the service with its decoders", after, "MB"),
        Measurement(f"growth over {requests} requests", after - before, "MB", 0.05 * before),
        Measurement(f"failed of {requests} requests", float(load.failed), "", 0.0),
    ]


def _children(pid: int) -> list[int]:
    found: list[int] = []
    for task in Path(f"/proc/{pid}/task").glob("*/children"):
        found += [int(child) for child in task.read_text().split()]
    return found


def _resident(pid: int) -> float:
    try:
        return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * float(os.sysconf("SC_PAGE_SIZE"))
    except (OSError, IndexError):
        return 0.0
