"""A real HTTP server on this machine that speaks the protocol of OpenAI, and misbehaves as it is told."""

from __future__ import annotations

import json
import re
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

Answer = tuple[int, bytes, dict[str, str]]


def good_answer(label: str, *, against: str = "") -> dict[str, Any]:
    """What a model that follows the instructions answers."""
    return {
        "definition": f"A made-up word number {len(label)}; the brows rise.",
        "synonyms": [f"{label}-like", "kindred look"],
        "action_units": ["AU6", "AU12"],
        "subtle": [f"One lip corner moves a little, form {i} of {abs(hash(label)) % 999}." for i in "abc"],
        "moderate": [f"Cheeks lift below level brows, form {i} of {abs(hash(label)) % 999}." for i in "abcd"],
        "strong": [f"The mouth opens wide over bared teeth, form {i} of {abs(hash(label)) % 999}." for i in "abc"],
        "dynamics": ["The brows rise first, the jaw follows.", "The mouth fades last, after the eyes."],
        "contrast": [{"against": against, "sentence": f"The nose stays smooth all the while, {label[::-1]} apart."}]
        if against
        else [],
        "negatives": ["lip corners pulled down", "a wrinkled nose", "brows knitted", "lids drooping"],
    }


def completion(text: str | None, *, finish: str = "stop", refusal: str | None = None) -> Answer:
    """The body of a chat completion."""
    message = {"role": "assistant", "content": text, "refusal": refusal}
    body = {
        "id": "1",
        "object": "chat.completion",
        "choices": [{"index": 0, "message": message, "finish_reason": finish}],
    }
    return 200, json.dumps(body).encode(), {}


@dataclass
class Endpoint:
    """The server, what it was asked, and what it says."""

    say: Callable[[dict[str, Any], int], Answer]
    url: str = ""
    asked: list[dict[str, Any]] = field(default_factory=list)
    headers: list[dict[str, str]] = field(default_factory=list)

    def labels(self) -> list[str]:
        """The labels asked about, in order."""
        return [label_of(body) for body in self.asked]


def label_of(body: dict[str, Any]) -> str:
    """The label that a request is about."""
    found = re.search(r"^Expression: (.*)$", body["messages"][1]["content"], re.MULTILINE)
    assert found is not None
    return found.group(1)


def well_behaved(body: dict[str, Any], count: int) -> Answer:
    near = re.search(r"told from: ([^;.\n]*)", body["messages"][1]["content"])
    return completion(json.dumps(good_answer(label_of(body), against=near.group(1) if near else "")))


@contextmanager
def serve(say: Callable[[dict[str, Any], int], Answer] = well_behaved) -> Iterator[Endpoint]:
    """Serve until the block ends; ``say`` gets the request and how many came before it."""
    endpoint = Endpoint(say)
    lock = threading.Lock()

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self) -> None:
            self._send(200, json.dumps({"data": [{"id": "tiny-writer"}]}).encode(), {})

        def do_POST(self) -> None:
            body = json.loads(self.rfile.read(int(self.headers["content-length"])))
            with lock:
                count = len(endpoint.asked)
                endpoint.asked.append(body)
                endpoint.headers.append({k.lower(): v for k, v in self.headers.items()})
            if self.path != "/v1/chat/completions":
                self._send(404, b"not here", {})
                return
            self._send(*endpoint.say(body, count))

        def _send(self, status: int, content: bytes, headers: dict[str, str]) -> None:
            self.send_response(status)
            for key, value in {"content-length": str(len(content)), **headers}.items():
                self.send_header(key, value)
            self.end_headers()
            self.wfile.write(content)

        def log_message(self, format: str, *args: Any) -> None:
            """Keep the tests' output clean."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
    thread.start()
    endpoint.url = f"http://127.0.0.1:{server.server_address[1]}/v1"
    try:
        yield endpoint
    finally:
        server.shutdown()
        server.server_close()
