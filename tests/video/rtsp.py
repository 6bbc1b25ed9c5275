"""A camera on this machine: an RTSP server (RFC 2326) that plays a transport stream over the connection itself."""

from __future__ import annotations

import contextlib
import io
import socket
import struct
import threading
import time
from fractions import Fraction

import av
import numpy as np

_TS_PACKET = 188
_PER_RTP = 7  # RFC 2250: whole transport packets, as many as fit an Ethernet frame
_SDP = (
    "v=0\r\no=- 0 0 IN IP4 127.0.0.1\r\ns=camera\r\nt=0 0\r\n"
    "m=video 0 RTP/AVP 33\r\nc=IN IP4 127.0.0.1\r\na=rtpmap:33 MP2T/90000\r\na=control:track1\r\n"
)


def transport_stream(frames: int, *, fps: int = 25, size: tuple[int, int] = (160, 120)) -> bytes:
    """H.264 in MPEG-TS; each frame is a little brighter than the one before."""
    held = io.BytesIO()
    with av.open(held, "w", format="mpegts") as container:
        options = {"preset": "ultrafast", "tune": "zerolatency", "x264-params": "keyint=5"}
        stream = container.add_stream("libx264", rate=fps, options=options)
        (stream.width, stream.height), stream.pix_fmt = size, "yuv420p"
        stream.codec_context.time_base = Fraction(1, fps)
        for number in range(frames):
            frame = av.VideoFrame.from_ndarray(np.full((size[1], size[0], 3), number % 256, np.uint8), format="rgb24")
            frame.pts = number
            container.mux(stream.encode(frame))
        container.mux(stream.encode())
    return held.getvalue()


class RtspCamera:
    """Serves one client after the other; each gets the stream once, then the connection breaks off.

    After ``sessions`` of them nobody is answered any more.
    """

    def __init__(self, data: bytes, *, sessions: int, pause_s: float = 0.01) -> None:
        self.data, self.left, self.pause_s = data, sessions, pause_s
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.address = f"rtsp://127.0.0.1:{self._listener.getsockname()[1]}/camera"
        threading.Thread(target=self._serve, daemon=True).start()

    def close(self) -> None:
        self._listener.close()

    def _serve(self) -> None:
        while self.left:
            try:
                client, _ = self._listener.accept()
            except OSError:
                return
            with client, contextlib.suppress(OSError):
                self._talk(client)
        self._listener.close()

    def _talk(self, client: socket.socket) -> None:
        reader = client.makefile("rb")
        while True:
            head = [line.decode().strip() for line in iter(reader.readline, b"\r\n") if line.strip()]
            if not head:
                return
            method = head[0].split()[0]
            number = next(line.split(":")[1].strip() for line in head if line.lower().startswith("cseq"))
            extra, body = "", ""
            if method == "OPTIONS":
                extra = "Public: OPTIONS, DESCRIBE, SETUP, PLAY, TEARDOWN\r\n"
            elif method == "DESCRIBE":
                body = _SDP
                extra = f"Content-Base: {self.address}/\r\nContent-Type: application/sdp\r\n"
            elif method == "SETUP":
                extra = "Transport: RTP/AVP/TCP;unicast;interleaved=0-1\r\nSession: 1\r\n"
            elif method == "PLAY":
                extra = "Session: 1\r\n"
            size = f"Content-Length: {len(body)}\r\n" if body else ""
            client.sendall(f"RTSP/1.0 200 OK\r\nCSeq: {number}\r\n{extra}{size}\r\n{body}".encode())
            if method == "PLAY":
                self._play(client)
                self.left -= 1
                return

    def _play(self, client: socket.socket) -> None:
        step = _TS_PACKET * _PER_RTP
        for count, first in enumerate(range(0, len(self.data), step)):
            packet = struct.pack(">BBHII", 0x80, 33, count & 0xFFFF, 3600 * count, 7) + self.data[first : first + step]
            client.sendall(struct.pack(">cBH", b"$", 0, len(packet)) + packet)
            time.sleep(self.pause_s)
