"""The benches of service and search measure what they say, on a small scale."""

from __future__ import annotations

import socketserver
import threading
import time
from pathlib import Path
from typing import Any

import numpy as np

from vlfer.bench.search import MadeVectors, bench_search
from vlfer.bench.serve import photo_720p, photo_request, put_load


def test_search_bench_finds_what_is_nearest(tmp_path: Path) -> None:
    found = {one.name.split(": ")[1]: one for one in bench_search(2000, folder=tmp_path, dimension=32)}
    assert found["of the 10 nearest found"].value == 100.0
    assert (found["median query"].value or 0) > 0


def test_made_vectors_are_unit_and_the_same_again() -> None:
    made = MadeVectors(1000, dimension=16)
    ids = np.arange(1, 1001)
    (part,) = made.portions(ids)
    assert np.allclose(np.linalg.norm(part[1], axis=1), 1, atol=1e-5)
    assert np.array_equal(part[1], made.portions(ids)[0][1])


_LOCK = threading.Lock()


class _Answers(socketserver.StreamRequestHandler):
    def handle(self) -> None:
        while True:
            head = b""
            while not head.endswith(b"\r\n\r\n"):
                line = self.rfile.readline()
                if not line:
                    return
                head += line
            length = int(head.lower().split(b"content-length:")[1].split(b"\r\n")[0])
            self.rfile.read(length)
            number = self.server.count = self.server.count + 1  # type: ignore[attr-defined]
            status = b"503 No" if number % 5 == 0 else b"200 OK"
            self.wfile.write(b"HTTP/1.1 %s\r\nContent-Length: 2\r\n\r\n{}" % status)


class _Slow(_Answers):
    def handle(self) -> None:
        while self.rfile.readline():
            length = 0
            while (line := self.rfile.readline()) != b"\r\n":
                length = int(line.split(b":")[1]) if line.lower().startswith(b"content-length") else length
            self.rfile.read(length)
            server: Any = self.server
            with _LOCK:
                server.now += 1
                server.most = max(server.most, server.now)
            time.sleep(0.2)
            with _LOCK:
                server.now -= 1
            self.wfile.write(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}")


def test_load_counts_answers_and_failures() -> None:
    with socketserver.ThreadingTCPServer(("127.0.0.1", 0), _Answers) as server:
        server.daemon_threads = True
        server.count = 0  # type: ignore[attr-defined]
        threading.Thread(target=server.serve_forever, daemon=True).start()
        load = put_load(server.server_address[1], photo_request(photo_720p()[:64, :64]), clients=4, requests=20)
        server.shutdown()
    assert len(load.latency_s) == 20
    assert load.failed == 4


def test_one_by_one_is_one_request_at_a_time() -> None:
    with socketserver.ThreadingTCPServer(("127.0.0.1", 0), _Slow) as server:
        server.daemon_threads = True
        server.now, server.most = 0, 0  # type: ignore[attr-defined]
        threading.Thread(target=server.serve_forever, daemon=True).start()
        for at_once, expected in ((1, 1), (None, 4)):
            put_load(server.server_address[1], photo_request(photo_720p()[:64, :64]), clients=4, requests=12,
                     at_once=at_once)  # fmt: skip
            assert server.most == expected  # type: ignore[attr-defined]
        server.shutdown()
