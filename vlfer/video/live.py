"""Live sources: a webcam, a network stream, or a file played at its own pace. The newest frame counts; others drop."""

from __future__ import annotations

import itertools
import logging
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import av
import cv2
import numpy as np

from vlfer.errors import MediaReadError, VideoReadError, VlferError
from vlfer.types import UInt8Array
from vlfer.video.read import read_video

_log = logging.getLogger(__name__)

STREAM_SCHEMES = ("rtsp", "rtsps", "rtmp", "rtmps", "http", "https", "udp", "tcp", "srt")
_TIMEOUT_S = 10.0
_LONGEST_WAIT_S = 16.0

OpenStream = Callable[[], Iterator[UInt8Array]]
"""Connects, and gives frames (H, W, 3) uint8 RGB as they come; its errors are those of a lost connection."""


@dataclass(frozen=True, slots=True)
class LiveFrame:
    """One frame of a live source.

    Attributes:
        pixels: (H, W, 3) uint8 RGB.
        time_s: Seconds since the source was opened, when the frame was in hand.
        arrived_s: The same moment on the clock of ``time.perf_counter``.
    """

    pixels: UInt8Array
    time_s: float
    arrived_s: float


class LiveSource:
    """The newest frame of a live source whenever it is asked for; what came in between is dropped and counted.

    A thread reads. When the connection is lost it is made again, after a wait that doubles each time; a connection
    that gave frames resets the wait.

    Args:
        name: For messages.
        open_stream: Connects.
        reconnects: How often in a row a lost connection is made again.
        first_wait_s: Before the first of these.
        ends: Whether the end of the frames is the end, as of a file, and no lost connection.

    Attributes:
        n_read: Frames that came.
        n_dropped: Of these, those that nobody saw.
        n_reconnects: Connections made again.
    """

    def __init__(
        self,
        name: str,
        open_stream: OpenStream,
        *,
        reconnects: int = 6,
        first_wait_s: float = 0.5,
        ends: bool = False,
    ) -> None:
        self.name = name
        self.n_read = 0
        self.n_dropped = 0
        self.n_reconnects = 0
        self._open_stream = open_stream
        self._reconnects = reconnects
        self._first_wait_s = first_wait_s
        self._ends = ends
        self._stopped = threading.Event()
        self._news = threading.Condition()
        self._newest: LiveFrame | None = None
        self._is_over = False
        self._error: Exception | None = None

    def frames(self) -> Iterator[LiveFrame]:
        """Yield the newest frame, each at most once, until the source ends or the caller stops.

        Raises:
            VideoReadError: If the source cannot be opened, or is lost for good.
        """
        begun_s = time.perf_counter()
        thread = threading.Thread(target=self._work, args=(begun_s,), name="vlfer-live", daemon=True)
        thread.start()
        try:
            while True:
                with self._news:
                    self._news.wait_for(lambda: self._newest is not None or self._is_over)
                    frame, self._newest = self._newest, None
                if frame is None:
                    break
                yield frame
        finally:
            self._stopped.set()
            thread.join(timeout=2.0)
        if self._error is not None:
            raise self._lost(self._error)

    def _lost(self, error: Exception) -> VideoReadError:
        told = error.what if isinstance(error, VlferError) else str(error) or type(error).__name__
        if not self.n_read:
            return VideoReadError(
                f"{self.name} cannot be opened: {told}", why="No frame came.", fix="check the address or the camera."
            )
        return VideoReadError(
            f"{self.name} was lost after {self.n_read} frames: {told}",
            why=f"It did not come back in {self._reconnects} attempts.",
            fix="the same command, once the source is back.",
        )

    def _work(self, begun_s: float) -> None:
        failures = 0
        while not self._stopped.is_set():
            before, error = self.n_read, None
            try:
                for pixels in self._open_stream():
                    self._offer(pixels, begun_s)
                    if self._stopped.is_set():
                        return
            except Exception as lost:
                error = lost
            if self.n_read > before:
                failures = 0
            if self._ends and error is None:
                break
            failures += 1
            error = error or VideoReadError("the stream ended.")
            if failures > self._reconnects or (not self.n_read and isinstance(error, _HopelessError)):
                self._error = error
                break
            wait_s = min(self._first_wait_s * 2 ** (failures - 1), _LONGEST_WAIT_S)
            _log.warning("%s: %s; trying again in %.1f s", self.name, error, wait_s)
            if self._stopped.wait(wait_s):
                return
            self.n_reconnects += 1
        with self._news:
            self._is_over = True
            self._news.notify_all()

    def _offer(self, pixels: UInt8Array, begun_s: float) -> None:
        now_s = time.perf_counter()
        with self._news:
            self.n_read += 1
            self.n_dropped += self._newest is not None
            self._newest = LiveFrame(pixels, now_s - begun_s, now_s)
            self._news.notify_all()


class _HopelessError(VideoReadError):
    """A source that will not come by waiting."""


def open_live(source: str, *, reconnects: int = 6, first_wait_s: float = 0.5) -> LiveSource:
    """Name a live source; it is opened when its frames are asked for.

    Args:
        source: The number of a webcam ("0"), an address (rtsp://, http://, udp:// ...), or a video file, which is
            played at its own pace.
        reconnects: How often in a row a lost connection is made again.
        first_wait_s: Before the first of these; it doubles.

    Raises:
        MediaReadError: If it is none of these.
    """
    if source.isdecimal():
        return LiveSource(
            f"webcam {source}", lambda: _webcam(int(source)), reconnects=reconnects, first_wait_s=first_wait_s
        )
    if urlsplit(source).scheme.lower() in STREAM_SCHEMES:
        shown = _without_password(source)
        return LiveSource(shown, lambda: _network(source), reconnects=reconnects, first_wait_s=first_wait_s)
    if Path(source).is_file():
        return LiveSource(source, lambda: _played(Path(source)), reconnects=0, ends=True)
    raise MediaReadError(
        f"{source!r} is no live source.",
        why=f"Expected the number of a webcam, an address ({', '.join(STREAM_SCHEMES)}), or a video file.",
        fix="vlfer watch 0",
    )


def _without_password(address: str) -> str:
    parts = urlsplit(address)
    if parts.password is None:
        return address
    return address.replace(f":{parts.password}@", ":***@", 1)


def _webcam(number: int) -> Iterator[UInt8Array]:
    camera = cv2.VideoCapture(number)
    try:
        if not camera.isOpened():
            raise _HopelessError(f"There is no webcam {number}, or another program uses it.")
        camera.set(cv2.CAP_PROP_BUFFERSIZE, 1)
        while True:
            is_good, pixels = camera.read()
            if not is_good:
                raise VideoReadError(f"The webcam {number} gives no more frames.")
            yield np.ascontiguousarray(pixels[..., ::-1])
    finally:
        camera.release()


def _network(address: str) -> Iterator[UInt8Array]:
    options = {"fflags": "nobuffer", "flags": "low_delay"}
    if address.lower().startswith("rtsp"):
        options["rtsp_transport"] = "tcp"
    with av.open(address, options=options, timeout=(_TIMEOUT_S, _TIMEOUT_S)) as container:
        if not container.streams.video:
            raise _HopelessError(f"{_without_password(address)} holds no picture.")
        stream: Any = container.streams.video[0]
        stream.thread_type = "SLICE"  # threads over frames would hold back as many frames
        for frame in container.decode(stream):
            pixels = frame.to_ndarray(format="rgb24")
            turns = round(float(getattr(frame, "rotation", 0) or 0) / 90) % 4
            yield np.ascontiguousarray(np.rot90(pixels, turns)) if turns else pixels


def _played(path: Path) -> Iterator[UInt8Array]:
    """Give the frames of a file when their time has come."""
    begun_s: float | None = None
    frames = ((t, p) for chunk in read_video(path, chunk=4) for t, p in zip(chunk.times_s, chunk.pixels, strict=True))
    first = next(frames)
    for time_s, pixels in itertools.chain([first], frames):
        now_s = time.perf_counter()
        begun_s = now_s - float(first[0]) if begun_s is None else begun_s
        time.sleep(max(0.0, begun_s + float(time_s) - now_s))
        yield pixels
