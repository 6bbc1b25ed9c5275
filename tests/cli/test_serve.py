"""`vlfer serve` refuses what would be unsafe before anything is loaded, and really serves."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from pathlib import Path
from typing import Any

import pytest


def test_without_a_key_only_this_machine_is_served(run: Any) -> None:
    result = run("serve", "--host", "0.0.0.0")
    assert result.exit_code == 2
    assert "no API key" in result.stderr
    assert "openssl rand" in result.stderr


def test_keys_from_file_and_environment_are_checked(run: Any, tmp_path: Path, monkeypatch: Any) -> None:
    keys = tmp_path / "keys"
    keys.write_text("short\n")
    assert "5 characters" in run("serve", "--keys-file", keys).stderr
    assert "cannot be read" in run("serve", "--keys-file", tmp_path / "none").stderr
    monkeypatch.setenv("VLFER_API_KEYS", "tiny")
    assert "4 characters" in run("serve").stderr
    assert "VLFER_API_KEYS" not in os.environ


def test_numbers_out_of_range_are_told(run: Any) -> None:
    result = run("serve", "--max-pixels", "0")
    assert result.exit_code == 2
    assert "max_pixels is 0" in result.stderr


def _get(port: int, path: str, **headers: str) -> tuple[int, bytes]:
    request = urllib.request.Request(f"http://127.0.0.1:{port}{path}", headers=headers)
    try:
        with urllib.request.urlopen(request, timeout=10) as answer:
            return answer.status, answer.read()
    except urllib.error.HTTPError as error:
        return error.code, error.read()
    except OSError:
        return 0, b""


@pytest.mark.slow
def test_it_serves_app_and_api_and_leaves_nothing(tmp_path: Path) -> None:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    environment = {**os.environ, "VLFER_API_KEYS": "a-key-of-twenty-four-signs", "TMPDIR": str(tmp_path)}
    log = (tmp_path / "log").open("wb")
    process = subprocess.Popen(
        [sys.executable, "-m", "vlfer.cli", "serve", "--port", str(port), "--decoders", "1"],
        stdout=subprocess.DEVNULL, stderr=log, env=environment,
    )  # fmt: skip
    try:
        deadline = time.monotonic() + 180
        while _get(port, "/readyz")[0] != 200:
            assert process.poll() is None
            assert time.monotonic() < deadline
            time.sleep(0.5)
        assert _get(port, "/")[0] == _get(port, "/v1/models")[0] == 401
        key = {"Authorization": "Bearer a-key-of-twenty-four-signs"}
        status, page = _get(port, "/", **key)
        assert (status, b"<html" in page.lower()) == (200, True)
        assert json.loads(_get(port, "/v1/models", **key)[1])[0]["dimension"] == 384
        assert _get(port, "/healthz", Host="elsewhere.example")[0] == 403
    finally:
        process.send_signal(signal.SIGINT)
        process.wait(60)
        log.close()
    assert [path.name for path in tmp_path.iterdir() if path.name.startswith("vlfer")] == []
    assert "a-key-of" not in (tmp_path / "log").read_text()
