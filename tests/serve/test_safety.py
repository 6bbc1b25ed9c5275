"""What a hostile, careless or absent client may do, and what comes back."""

from __future__ import annotations

import asyncio
import io
import json
import logging
import struct
import time
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from fastapi.testclient import TestClient
from PIL import Image

from vlfer.errors import ConfigError
from vlfer.pipeline import EmotionPipeline
from vlfer.serve.api import build_api
from vlfer.serve.settings import ServeSettings, check_settings

KEY = "a-key-of-twenty-four-signs"


def problem(answer: Any, status: int) -> dict[str, Any]:
    assert answer.status_code == status, answer.text
    assert answer.headers["content-type"] == "application/problem+json"
    found: dict[str, Any] = answer.json()
    assert found["status"] == status
    assert found["detail"]
    return found


def ask(client: TestClient, data: bytes, *, name: str = "photo.jpg", kind: str = "image/jpeg", **fields: str) -> Any:
    return client.post("/v1/image", files={"file": (name, data, kind)}, data={"labels": "joy, grief", **fields})


def png_header(width: int, height: int, data: bytes) -> bytes:
    """A PNG that says it is so large."""

    def chunk(kind: bytes, content: bytes) -> bytes:
        return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))

    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", data) + chunk(b"IEND", b"")


@pytest.mark.parametrize(
    ("data", "status", "says"),
    [
        (b"", 422, "empty"),
        (b"<html><script>alert(1)</script></html>", 415, "not an image"),
        (b"%PDF-1.7 nothing", 415, "not an image"),
        (b"\xff\xd8\xff\xe0 cut off", 422, "The upload"),
        (b"\x00" * 5000, 415, "not an image"),
        (b"GIF89a", 422, "The upload"),
    ],
)
def test_what_is_no_image(serving: TestClient, data: bytes, status: int, says: str) -> None:
    found = problem(ask(serving, data), status)
    assert says in found["detail"]
    assert "bytes'" not in found["detail"]


def test_content_type_and_name_are_not_believed(serving: TestClient, portrait: bytes) -> None:
    for name, kind in (("../../etc/passwd", "text/html"), ("x" * 300, "video/mp4"), ("a\\..\\b.php", "image/png")):
        answer = ask(serving, portrait, name=name, kind=kind)
        assert answer.json()["faces"][0]["label"] == "joy"
    assert list(serving.app.state.service.scratch.folder.iterdir()) == []


def test_zip_bombs_are_refused_before_they_unfold(serving: TestClient) -> None:
    bomb = png_header(50_000, 50_000, zlib.compress(bytes(10_000_000), 9))
    found = problem(ask(serving, bomb), 422)
    assert "50000 x 50000" in found["what"]
    flat = io.BytesIO()
    Image.new("RGB", (4000, 1001)).save(flat, "PNG")
    assert "4,000,000" in problem(ask(serving, flat.getvalue()), 422)["why"]


def test_decoder_under_attack_is_replaced(serving: TestClient, portrait: bytes) -> None:
    pool = serving.app.state.service.engine.decoders
    before = pool.pids
    process = pool._idle.get()
    process._child.kill()
    process._child.wait()
    pool._idle.put(process)
    problem(ask(serving, portrait), 422)
    assert ask(serving, portrait).status_code == 200
    assert len(pool.pids) == len(before)
    assert pool.pids != before


def test_long_video_is_refused(serving: TestClient, tmp_path: Path, write_video: Any, wait_for_job: Any) -> None:
    path = tmp_path / "long.mp4"
    write_video(path, [np.zeros((64, 64, 3), np.uint8)] * 7200, fps=1)
    assert path.stat().st_size < 4e6
    job = serving.post("/v1/video", files={"file": path.read_bytes()}).json()
    ended = wait_for_job(serving, job)
    assert ended["state"] == "failed"
    assert "7200 s" in ended["problem"]["what"]
    assert str(serving.app.state.service.scratch.folder) not in json.dumps(ended)
    problem(serving.get(job["links"]["result"]), 422)


def test_video_that_is_none(serving: TestClient, wait_for_job: Any) -> None:
    for data in (b"#EXTM3U\n#EXTINF:1\nfile:///etc/passwd\n", b"", bytes(2000)):
        answer = serving.post("/v1/video", files={"file": ("list.m3u8", data)})
        ended = wait_for_job(serving, answer.json())
        assert ended["state"] == "failed"
        assert ended["problem"]["status"] in (415, 422)
        assert "vlfer-serve" not in json.dumps(ended)


def test_too_large_is_refused_by_length_and_by_what_comes(serving: TestClient) -> None:
    problem(ask(serving, bytes(3 * 2**20)), 413)

    def endless() -> Any:
        for _ in range(64):
            yield bytes(2**16)

    answer = serving.post(
        "/v1/image", content=endless(), headers={"Content-Type": "multipart/form-data; boundary=x"}
    )  # fmt: skip
    problem(answer, 413)
    problem(serving.post("/v1/text", json={"sentences": ["x" * 2**21]}), 413)


@pytest.mark.parametrize(
    ("labels", "status", "says"),
    [
        (", ".join(f"word {chr(97 + i % 26)}{i}" for i in range(1000)), 413, "1000 labels"),
        ("joy, joy", 422, "twice"),
        ("../../etc/passwd", 422, "no label set"),
        ("/etc/passwd.yaml", 422, "no label set"),
        ("C:\\labels.yaml", 422, "no label set"),
        ("[1, 2]", 422, "list of words"),
        ("[" * 10_000, 422, "JSON"),
        ('[{"name": ["x"]}]', 422, "no text"),
        ('[{"name": "x", "descriptors": [3]}]', 422, "descriptors"),
        ("!!!, ???", 422, "no letter"),
        (" ", 422, ""),
    ],
)
def test_labels_that_cannot_be(serving: TestClient, portrait: bytes, labels: str, status: int, says: str) -> None:
    assert says in problem(ask(serving, portrait, labels=labels), status)["detail"]


def test_html_in_labels_stays_text(serving: TestClient, portrait: bytes) -> None:
    evil = "<script>alert(1)</script>"
    answer = ask(serving, portrait, labels=f"{evil}, joy")
    assert answer.headers["content-type"] == "application/json"
    assert answer.headers["x-content-type-options"] == "nosniff"
    assert evil in answer.json()["labels"]


@pytest.mark.parametrize(
    "change",
    [{"space": "other/0"}, {"vectors": [[1.0, 2.0]]}, {"vectors": "%%%"}, {"vectors": []}, {"vectors": [[0.0] * 384]},
     {"vectors": [["NaN"] * 384]}, {"vectors": [[0.1] * 384, [0.1]]}, {"vectors": [[0.1] * 384] * 1025}],
)  # fmt: skip
def test_vectors_that_cannot_be(serving: TestClient, change: dict[str, Any]) -> None:
    space = serving.app.state.service.engine.space
    question = {"space": space, "vectors": [[0.1] * 384], "labels": "joy, grief"}
    assert serving.post("/v1/score", json=question).status_code == 200
    body = json.dumps({**question, **change}).replace('"NaN"', "NaN")
    answer = serving.post("/v1/score", content=body, headers={"Content-Type": "application/json"})
    assert answer.status_code in (409, 413, 422)
    problem(answer, answer.status_code)


def test_every_answer_carries_security_headers(serving: TestClient) -> None:
    for answer in (serving.get("/healthz"), serving.get("/v1/none"), serving.post("/v1/image")):
        assert answer.headers["x-frame-options"] == "DENY"
        assert "default-src 'none'" in answer.headers["content-security-policy"]
        assert answer.headers["cache-control"] == "no-store"
        assert "access-control-allow-origin" not in answer.headers
        assert "server" not in answer.headers


def test_pages_of_other_sites_are_turned_away(serving: TestClient) -> None:
    problem(serving.get("/healthz", headers={"Host": "rebound.example"}), 403)
    problem(serving.get("/v1/models", headers={"Origin": "https://other.example"}), 403)
    problem(serving.get("/v1/models", headers={"Origin": "null"}), 403)
    problem(serving.get("/v1/models", headers={"Sec-Fetch-Site": "cross-site"}), 403)
    assert serving.get("/v1/models", headers={"Origin": "http://localhost"}).status_code == 200
    assert "access-control-allow-origin" not in serving.options("/v1/image").headers


def test_log_holds_neither_words_nor_pictures(serving: TestClient, portrait: bytes, caplog: Any) -> None:
    with caplog.at_level(logging.DEBUG, logger="vlfer"):
        ask(serving, portrait, labels="furtive glee, grief", name="jane-doe.jpg")
        serving.get("/v1/labels/jane-doe?secret=1")
    assert "POST /v1/image 200" in caplog.text
    for word in ("furtive", "jane", "secret", "127.0.0.1", "testclient"):
        assert word not in caplog.text


def test_what_nobody_foresaw_is_told_without_details(serving: TestClient, monkeypatch: Any, caplog: Any) -> None:
    def fail(*args: Any, **kwargs: Any) -> Any:
        raise ZeroDivisionError("secret-of-the-server")

    monkeypatch.setattr(serving.app.state.service.engine, "embed_texts", fail)
    answer = serving.post("/v1/text", json={"sentences": ["furtive glee"]})
    assert "secret" not in json.dumps(problem(answer, 500))
    assert answer.headers["x-frame-options"] == "DENY"
    assert "ZeroDivisionError" in caplog.text
    assert "furtive" not in caplog.text


def test_an_adapter_cannot_be_uploaded(serving: TestClient) -> None:
    for path in ("/v1/models", "/v1/adapters"):
        assert serving.post(path, files={"file": b"weights"}).status_code in (404, 405)


@pytest.fixture
def guarded(bundled_pipeline: EmotionPipeline) -> Any:
    """A service with a key and a small rate, without decoders: nothing gets further than the door."""
    settings = ServeSettings(host="0.0.0.0", api_keys=(KEY, KEY + "2"), rate_per_minute=3, receive_s=0.2)
    return TestClient(build_api(lambda: bundled_pipeline, settings), raise_server_exceptions=False)


def test_keys_open_the_door(guarded: TestClient) -> None:
    for headers in ({}, {"Authorization": "Bearer wrong"}, {"X-API-Key": KEY[:-1]}, {"Authorization": "Basic ???"}):
        for path in ("/v1/labels", "/metrics", "/openapi.json", "/"):
            answer = guarded.get(path, headers=headers)
            assert "WWW-Authenticate" in answer.headers
            assert KEY not in json.dumps(problem(answer, 401))
    for headers in ({"Authorization": f"Bearer {KEY}"}, {"X-API-Key": KEY + "2"}):
        assert guarded.get("/v1/labels", headers=headers).status_code == 200
    assert guarded.get("/v1/labels", auth=("anybody", KEY)).status_code == 200
    assert guarded.get("/healthz").status_code == 200


def test_rate_is_limited_per_key(guarded: TestClient) -> None:
    statuses = [guarded.post("/v1/text", headers={"X-API-Key": KEY}, json={}).status_code for _ in range(5)]
    assert statuses == [422, 422, 422, 429, 429]
    answer = guarded.post("/v1/text", headers={"X-API-Key": KEY}, json={})
    assert int(answer.headers["retry-after"]) >= 1
    assert guarded.post("/v1/text", headers={"X-API-Key": KEY + "2"}, json={}).status_code == 422


def test_not_ready_is_told(guarded: TestClient) -> None:
    headers = {"X-API-Key": KEY}
    assert "Retry-After" in guarded.get("/readyz").headers
    problem(guarded.post("/v1/text", headers=headers, json={"sentences": ["x"]}), 503)


def test_slow_client_is_let_go(guarded: TestClient) -> None:
    """Straight into the application: a body that stops in the middle."""
    sent: list[dict[str, Any]] = []
    parts = [{"type": "http.request", "body": b'{"sentences": ', "more_body": True}]

    async def receive() -> dict[str, Any]:
        if parts:
            return parts.pop()
        await asyncio.sleep(30)
        raise AssertionError("nobody waits so long")

    async def send(message: Any) -> None:
        sent.append(message)

    headers = [(b"x-api-key", KEY.encode()), (b"content-type", b"application/json"), (b"host", b"x")]
    scope = {"type": "http", "asgi": {"version": "3.0"}, "http_version": "1.1", "method": "POST", "path": "/v1/text",
             "raw_path": b"/v1/text", "query_string": b"", "root_path": "", "scheme": "http", "headers": headers,
             "client": ("1.2.3.4", 5), "server": ("x", 80)}  # fmt: skip
    began = time.monotonic()
    asyncio.run(guarded.app(scope, receive, send))
    assert time.monotonic() - began < 10
    assert sent[0]["status"] == 408


def test_client_that_leaves_costs_nothing_but_its_request(serving: TestClient) -> None:
    async def receive() -> dict[str, Any]:
        return {"type": "http.disconnect"}

    async def send(message: Any) -> None:
        pass

    scope = {"type": "http", "asgi": {"version": "3.0"}, "http_version": "1.1", "method": "POST", "path": "/v1/image",
             "raw_path": b"/v1/image", "query_string": b"", "root_path": "", "scheme": "http",
             "headers": [(b"content-type", b"multipart/form-data; boundary=x"), (b"host", b"localhost")],
             "client": ("1.2.3.4", 5), "server": ("x", 80)}  # fmt: skip
    asyncio.run(serving.app(scope, receive, send))
    assert serving.get("/healthz").status_code == 200
    assert "vlfer_requests_in_work 1.0" in serving.get("/metrics").text  # the one that asks


def test_settings_that_would_be_unsafe() -> None:
    with pytest.raises(ConfigError, match="no API key"):
        check_settings(ServeSettings(host="0.0.0.0"))
    with pytest.raises(ConfigError, match="has 5 characters"):
        check_settings(ServeSettings(api_keys=("short",)))
    assert "secret" not in repr(ServeSettings(api_keys=("secret-secret-secret",)))
    for host in ("127.0.0.1", "localhost", "::1"):
        check_settings(ServeSettings(host=host))
