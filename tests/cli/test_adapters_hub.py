"""`vlfer adapters push` and `pull` through the hub's own client, against a small server that keeps files in memory."""

from __future__ import annotations

import base64
import hashlib
import json
import os
import re
import subprocess
import sys
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

ADAPTER = Path(__file__).parents[2] / "adapters" / "small-faces"
COMMIT = "a" * 40


class Hub(ThreadingHTTPServer):
    """What the client asks of the hub to make a repository, commit small files, list and fetch them."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.files: dict[str, bytes] = {}
        self.private: dict[str, bool] = {}
        self.tokens: set[str] = set()
        self.unknown: list[str] = []

    @property
    def address(self) -> str:
        return f"http://127.0.0.1:{self.server_port}"


class _Handler(BaseHTTPRequestHandler):
    server: Hub
    protocol_version = "HTTP/1.1"

    def log_message(self, *_: object) -> None:
        pass

    def _answer(self, content: bytes, *, status: int = 200, **headers: str) -> None:
        self.send_response(status)
        for name, value in {"Content-Type": "application/json", **headers}.items():
            self.send_header(name.replace("_", "-"), value)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(content)

    def _json(self, content: object, *, status: int = 200) -> None:
        self._answer(json.dumps(content).encode(), status=status)

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        self.server.tokens.add(self.headers.get("Authorization", ""))
        if self.path == "/api/repos/create":
            asked = json.loads(body)
            name = f"{asked['organization']}/{asked['name']}"
            self.server.private[name] = asked.get("private", asked.get("visibility") == "private")
            self._json({"url": f"{self.server.address}/{name}", "id": name, "name": name})
        elif self.path == "/api/validate-yaml":
            self._json({"errors": [], "warnings": []})
        elif self.path.endswith("/preupload/main"):
            modes = [
                {"path": f["path"], "uploadMode": "regular", "shouldIgnore": False} for f in json.loads(body)["files"]
            ]
            self._json({"files": modes})
        elif self.path.endswith("/commit/main"):
            for line in body.splitlines():
                entry = json.loads(line)
                if entry["key"] == "file":
                    self.server.files[entry["value"]["path"]] = base64.b64decode(entry["value"]["content"])
            self._json({"commitUrl": f"{self.server.address}/someone/face/commit/{COMMIT}", "commitOid": COMMIT})
        else:
            self.server.unknown.append(self.path)
            self._json({}, status=404)

    def do_GET(self) -> None:
        path = self.path.partition("?")[0]
        found = re.fullmatch(r"/someone/face/resolve/[^/]+/(.+)", path)
        if re.fullmatch(r"/api/models/someone/face(/revision/main)?", path):
            names = [{"rfilename": name} for name in sorted(self.server.files)]
            self._json({"id": "someone/face", "modelId": "someone/face", "sha": COMMIT, "siblings": names})
        elif path.startswith("/api/models/someone/face/tree/"):
            self._json([{"type": "file", "path": n, "size": len(c), "oid": hashlib.sha1(c).hexdigest()}
                        for n, c in sorted(self.server.files.items())])  # fmt: skip
        elif found and found[1] in self.server.files:
            content = self.server.files[found[1]]
            tag = f'"{hashlib.sha1(content).hexdigest()}"'
            self._answer(content, ETag=tag, X_Repo_Commit=COMMIT, Accept_Ranges="bytes")
        else:
            self.server.unknown.append(self.path)
            self._json({"error": "not found"}, status=404)

    do_HEAD = do_GET  # noqa: N815, the name that the base class calls


@pytest.fixture
def hub() -> Iterator[Hub]:
    with Hub() as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield server
        server.shutdown()


def vlfer(hub: Hub, home: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    env = {
        **os.environ, "HF_ENDPOINT": hub.address, "HF_TOKEN": "hf_of_a_test", "HF_HOME": str(home / "hf"),
        "VLFER_ADAPTERS": str(home / "adapters"), "HF_HUB_DISABLE_XET": "1",
    }  # fmt: skip
    env.pop("HF_HUB_OFFLINE", None)
    given = [sys.executable, "-m", "vlfer.cli", "adapters", *arguments]
    return subprocess.run(given, capture_output=True, text=True, env=env, timeout=120)


def test_what_is_pushed_comes_back_the_same(hub: Hub, tmp_path: Path) -> None:
    pushed = vlfer(hub, tmp_path, "push", str(ADAPTER), "someone/face")
    assert pushed.returncode == 0, (pushed.stderr, hub.unknown)
    assert hub.private == {"someone/face": True}
    assert hub.tokens == {"Bearer hf_of_a_test"}
    assert hub.files == {file.name: file.read_bytes() for file in ADAPTER.iterdir()}
    pulled = vlfer(hub, tmp_path, "pull", "someone/face")
    assert pulled.returncode == 0, (pulled.stderr, hub.unknown)
    home = tmp_path / "adapters" / "face"
    assert {file.name: file.read_bytes() for file in home.iterdir() if file.is_file()} == hub.files

    name = next(name for name in hub.files if name.endswith(".safetensors"))
    hub.files[name] = hub.files[name][:-1] + bytes([hub.files[name][-1] ^ 1])
    damaged = vlfer(hub, tmp_path, "pull", "someone/face", "--replace")
    assert damaged.returncode != 0
    assert name in damaged.stderr
    assert (home / name).read_bytes() != hub.files[name]  # the sound one stays
