"""Two replicas on Ray Serve, on this machine."""

from __future__ import annotations

import socket
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import httpx
import pytest

from vlfer.serve.client import VlferClient
from vlfer.serve.jobs import Job
from vlfer.serve.replicas import Ledger, _job


def test_ledger_tells_cancels_and_forgets() -> None:
    ledger = Ledger(ttl_s=0.05)
    told = {"owner": "me", "state": "running", "done": 3, "total": 9, "result": None, "problem": None,
            "created_s": 0.0, "expires_s": None, "version": 4}  # fmt: skip
    assert ledger.tell("a", told) is False
    found = ledger.find("a")
    assert found is not None
    job: Job = _job("a", dict(found))
    assert (job.id, job.state, job.done, job.owner) == ("a", "running", 3, "me")
    ledger.cancel("a")
    assert ledger.find("a")["state"] == "cancelled"  # type: ignore[index]
    assert ledger.tell("a", told) is True
    time.sleep(0.15)
    ledger.tell("b", told)
    assert ledger.find("a") is None


@pytest.mark.slow
def test_two_replicas_answer_for_one_another(film: bytes, portrait: bytes, tmp_path: Path) -> None:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    log = (tmp_path / "log").open("wb")
    process = subprocess.Popen(
        [sys.executable, "-m", "vlfer.cli", "serve", "--replicas", "2", "--decoders", "1", "--port", str(port)],
        stdout=log, stderr=log,
    )  # fmt: skip
    try:
        _wait(port, process)
        replicas = _ask_until_two(port, portrait)
        assert len(replicas) == 2
        with VlferClient(f"http://localhost:{port}") as client:
            job = client.submit_video(film, labels="joy, grief")
            states = []
            while not states or states[-1] in ("queued", "running"):
                states += [client.job(job["id"])["state"] for _ in range(6)]  # whichever replica is asked
                time.sleep(0.3)
            assert states[-1] == "done"
            results = [httpx.get(f"http://localhost:{port}{job['links']['result']}") for _ in range(6)]
            assert {one.status_code for one in results} == {200}
            assert results[0].json()["segments"][0]["label"] == "joy"
            assert {client.cancel(job["id"])["state"] for _ in range(4)} == {"cancelled"}
    finally:
        process.send_signal(2)
        try:
            process.wait(60)
        except subprocess.TimeoutExpired:
            process.kill()
        log.close()


def _wait(port: int, process: subprocess.Popen[bytes]) -> None:
    deadline = time.monotonic() + 240
    while time.monotonic() < deadline:
        assert process.poll() is None, "the service ended"
        try:
            if httpx.get(f"http://localhost:{port}/readyz", timeout=5).status_code == 200:
                return
        except httpx.HTTPError:
            pass
        time.sleep(0.5)
    raise AssertionError("the replicas do not get ready")


def _ask_until_two(port: int, portrait: bytes) -> set[Any]:
    """Return the processes that answer, told apart by when they were started."""
    seen: set[Any] = set()
    for _ in range(60):
        text = httpx.get(f"http://localhost:{port}/metrics").text
        seen |= {line for line in text.splitlines() if line.startswith("vlfer_requests_in_work_created")}
        seen |= {line for line in text.splitlines() if line.startswith("vlfer_faces_created")}
        if len(seen) == 2:
            break
    return seen
