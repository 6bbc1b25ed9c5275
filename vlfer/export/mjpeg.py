"""A live picture in the browser: JPEG after JPEG from a small server on this machine."""

from __future__ import annotations

import contextlib
import io
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from PIL import Image

from vlfer.errors import EnvironmentProblem
from vlfer.types import UInt8Array

_PAGE = b"""<!doctype html><html lang="en"><meta charset="utf-8"><title>vlfer watch</title>
<style>body{margin:0;background:#14171a;display:grid;place-items:center;min-height:100vh}
img{max-width:100vw;max-height:100vh}</style><img src="stream" alt="Live picture with the faces found"></html>"""


class LivePage:
    """Serve the newest picture to whoever looks, on this machine alone.

    Args:
        port: Of the address; 0 takes any free one.

    Raises:
        EnvironmentProblem: If the port is taken.
    """

    def __init__(self, *, port: int = 8777) -> None:
        self._news = threading.Condition()
        self._jpeg = b""
        self._number = 0
        self._is_over = False
        page = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                page._answer(self)

            def log_message(self, *_: Any) -> None:
                """Keep requests out of stderr."""

        try:
            self._server = ThreadingHTTPServer(("127.0.0.1", port), Handler)
        except OSError as error:
            raise EnvironmentProblem(
                f"The port {port} cannot be used: {error.strerror}.", fix="--port 0, which takes any free one"
            ) from error
        self._server.daemon_threads = True
        self._thread = threading.Thread(target=self._server.serve_forever, daemon=True)
        self._thread.start()

    @property
    def address(self) -> str:
        """What to open in a browser."""
        return f"http://127.0.0.1:{self._server.server_address[1]}/"

    def show(self, pixels: UInt8Array) -> None:
        """Make (H, W, 3) uint8 RGB the newest picture."""
        buffer = io.BytesIO()
        Image.fromarray(pixels).save(buffer, "JPEG", quality=80)
        with self._news:
            self._jpeg = buffer.getvalue()
            self._number += 1
            self._news.notify_all()

    def close(self) -> None:
        """End all connections."""
        with self._news:
            self._is_over = True
            self._news.notify_all()
        self._server.shutdown()
        self._server.server_close()

    def _answer(self, request: BaseHTTPRequestHandler) -> None:
        if request.path != "/stream":
            request.send_response(200 if request.path == "/" else 404)
            request.send_header("Content-Type", "text/html; charset=utf-8")
            request.end_headers()
            request.wfile.write(_PAGE if request.path == "/" else b"")
            return
        request.send_response(200)
        request.send_header("Content-Type", "multipart/x-mixed-replace; boundary=frame")
        request.end_headers()
        seen = 0
        with contextlib.suppress(OSError):  # the browser left
            while True:
                with self._news:
                    while self._number == seen and not self._is_over:
                        self._news.wait()
                    if self._is_over:
                        return
                    seen, jpeg = self._number, self._jpeg
                head = f"--frame\r\nContent-Type: image/jpeg\r\nContent-Length: {len(jpeg)}\r\n\r\n"
                request.wfile.write(head.encode() + jpeg + b"\r\n")
