"""The serving side of the decoding processes: a pool for images, one process of its own for each video."""

from __future__ import annotations

import contextlib
import os
import pickle
import queue
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, BinaryIO, cast

import numpy as np

from vlfer import errors
from vlfer.config import PredictConfig
from vlfer.errors import DataError, VlferError
from vlfer.segments import Timeline
from vlfer.serve.decoder import read_message, write_message
from vlfer.serve.problems import ServiceProblem
from vlfer.serve.settings import KEYS_VARIABLE, ServeSettings
from vlfer.sources import Clip
from vlfer.types import Face, Frames, UInt8Array

_START_S = 120.0
_CHUNK = 8
_FRAME_SHARE = 4
_ENCODER_THREADS = 16
_KNOWN_ERRORS = {
    name: kind for name, kind in vars(errors).items() if isinstance(kind, type) and issubclass(kind, VlferError)
}


@dataclass(frozen=True, slots=True)
class Looked:
    """What a decoder saw in an image.

    Attributes:
        faces: N faces.
        crops: (N, S, S, 3) uint8 RGB.
        note: How the faces were found.
        width: Of the image in pixels.
        height: Of the image in pixels.
        view: (h, w, 3) uint8 RGB, the image scaled down; empty where it was not asked for.
    """

    faces: tuple[Face, ...]
    crops: UInt8Array
    note: str
    width: int
    height: int
    view: UInt8Array


class _Process:
    """One decoding process."""

    def __init__(self, *, memory_mb: int) -> None:
        environment = {key: value for key, value in os.environ.items() if key != KEYS_VARIABLE}
        self._child = subprocess.Popen(
            [sys.executable, "-m", "vlfer.serve.decoder", str(memory_mb)],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL,
            env=environment | {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}, start_new_session=True,
        )  # fmt: skip
        self._in = cast(BinaryIO, self._child.stdin)
        self._out = cast(BinaryIO, self._child.stdout)
        self.pid = self._child.pid
        self._timed_out = False

    def send(self, request: dict[str, Any], payload: bytes = b"", *, within_s: float) -> None:
        with self._deadline(within_s):
            arrays = [np.frombuffer(payload, np.uint8)] if payload else []
            write_message(self._in, request, arrays)

    def receive(self, *, within_s: float) -> tuple[dict[str, Any], list[Any]]:
        """Return the next answer.

        Raises:
            VlferError: If the decoder says so, died or took too long; in the last two cases it is of no more use.
        """
        with self._deadline(within_s):
            content, arrays = read_message(self._out)
        if "error" in content:
            if not content["is_media"]:
                raise ServiceProblem(415, str(content["what"]), why=str(content["why"]), fix=str(content["fix"]))
            kind = _KNOWN_ERRORS.get(str(content["error"]), DataError)
            raise kind(str(content["what"]), why=str(content["why"]), fix=str(content["fix"]))
        return content, arrays

    @contextlib.contextmanager
    def _deadline(self, within_s: float) -> Iterator[None]:
        timer = threading.Timer(within_s, self._time_out)
        timer.daemon = True
        timer.start()
        try:
            yield
        except (EOFError, OSError, ValueError) as error:
            self.kill()
            why = f"It took more than {within_s:g} s" if self._timed_out else "It needs too much memory or time"
            raise DataError(
                "The upload could not be decoded.", why=f"{why}, or is damaged.", fix="a smaller one."
            ) from error
        finally:
            timer.cancel()

    def _time_out(self) -> None:
        self._timed_out = True
        self._child.kill()

    @property
    def is_alive(self) -> bool:
        return self._child.poll() is None

    def kill(self) -> None:
        self._child.kill()
        self._child.wait()
        for stream in (self._in, self._out):
            with contextlib.suppress(OSError):
                stream.close()


class DecoderPool:
    """Decoding processes that are kept; one that dies is replaced. Safe from several threads.

    Args:
        settings: Limits and number.
        config: How faces are found.
        crop_px: Side of a crop.
        on_lost: Told when a process had to be replaced.
    """

    def __init__(
        self, settings: ServeSettings, config: PredictConfig, *, crop_px: int, on_lost: Callable[[], None]
    ) -> None:
        self._settings = settings
        self._config = config
        self._crop_px = crop_px
        self._on_lost = on_lost
        self._idle: queue.LifoQueue[_Process] = queue.LifoQueue()  # the one used last is the warmest
        self._all: set[_Process] = set()
        self._lock = threading.Lock()
        self._in_work = 0
        self._is_closed = False
        for _ in range(settings.decoders):
            self._idle.put(self._start())

    @property
    def pids(self) -> list[int]:
        """Ids of the running processes."""
        with self._lock:
            return [process.pid for process in self._all]

    @property
    def is_busy(self) -> bool:
        """Whether an image is being decoded."""
        return self._in_work > 0

    @property
    def is_behind(self) -> bool:
        """Whether an image waits for a process."""
        return self._in_work > self._settings.decoders

    def warm_up(self) -> None:
        """Let every process load its models."""
        blank, faces = _blank_png(), self._config.faces
        taken = [self._idle.get() for _ in range(self._settings.decoders)]
        for process in taken:
            process.send(self._request("image", faces=faces, view_px=0), blank, within_s=_START_S)
        for process in taken:
            process.receive(within_s=_START_S)
            self._idle.put(process)

    def look(self, data: bytes, *, faces: str, crop_px: int | None = None, view_px: int = 0) -> Looked:
        """Decode an image, find its faces and cut them out.

        Args:
            data: The upload.
            faces: "detect", "whole" or "auto".
            crop_px: Side of a crop, where it is another than that of the pool.
            view_px: Longest side of the image that comes back; 0 sends none.

        Raises:
            VlferError: If it is no image, too large, or takes too long.
        """
        content, arrays = self._run(
            self._request("image", faces=faces, size=crop_px or self._crop_px, view_px=view_px), data
        )
        crops, boxes, scores, view = arrays
        found = tuple(Face(box=box, score=float(score)) for box, score in zip(boxes, scores, strict=True))
        return Looked(found, crops, str(content["note"]), int(content["width"]), int(content["height"]), view)

    def pixels(self, data: bytes) -> UInt8Array:
        """Decode an image to (H, W, 3) uint8 RGB.

        Raises:
            VlferError: As for `look`.
        """
        _, (pixels,) = self._run(self._request("pixels"), data)
        return cast(UInt8Array, pixels)

    @contextlib.contextmanager
    def video(self, path: Path, *, fps: float, longest_s: float, side_px: int = 0) -> Iterator[Clip]:
        """Open a video in a process of its own, which ends with the block.

        Args:
            path: A file that the service has written itself.
            fps: Frames wanted per second.
            longest_s: Longer ones are refused.
            side_px: Frames are scaled down to this longest side; 0 leaves them as they are.

        Raises:
            VlferError: If it is no video or too long; so may reading its frames.
        """
        process = self._start()
        try:
            request = self._request("video", path=str(path), fps=fps, max_s=longest_s, chunk=_CHUNK, side_px=side_px)
            request["max_pixels"] //= _FRAME_SHARE
            process.send(request, within_s=_START_S)
            content, _ = process.receive(within_s=_START_S)
            yield Clip("upload", self._frames(process), float(content["frame_s"]), int(content["n_frames"]))
        finally:
            self._end(process)

    def annotate(
        self,
        path: Path,
        timelines: Sequence[Timeline],
        out: Path,
        *,
        threshold: float | None,
        tie_margin: float,
        within_s: float,
    ) -> int:
        """Write a video with what was found drawn in, in a process of its own, and return its number of frames.

        Args:
            path: The video.
            timelines: What was found in it.
            out: An MP4 file.
            threshold: As in `vlfer.scoring.decide`.
            tie_margin: As in `vlfer.scoring.decide`.
            within_s: Longest time.

        Raises:
            VlferError: If it cannot be read or takes too long.
        """
        slim = [replace(timeline, vectors=None, thumbnails=()) for timeline in timelines]
        process = self._start()
        try:
            request = self._request("annotate", path=str(path), out=str(out), threshold=threshold)
            request |= {"tie_margin": tie_margin, "cpu_s": within_s * _ENCODER_THREADS}
            process.send(request, pickle.dumps(slim), within_s=_START_S)
            return int(process.receive(within_s=within_s)[0]["frames"])
        finally:
            self._end(process)

    def close(self) -> None:
        """End all processes."""
        self._is_closed = True
        for process in list(self._all):
            self._end(process)

    def _frames(self, process: _Process) -> Iterator[Frames]:
        while True:
            content, arrays = process.receive(within_s=self._settings.decode_s)
            if content.get("end"):
                return
            yield Frames(arrays[0], arrays[1], "upload")

    def _run(self, request: dict[str, Any], data: bytes) -> tuple[dict[str, Any], list[Any]]:
        with self._counted():
            return self._run_on(self._idle.get(), request, data)

    @contextlib.contextmanager
    def _counted(self) -> Iterator[None]:
        with self._lock:
            self._in_work += 1
        try:
            yield
        finally:
            with self._lock:
                self._in_work -= 1

    def _run_on(self, process: _Process, request: dict[str, Any], data: bytes) -> tuple[dict[str, Any], list[Any]]:
        try:
            within_s = self._settings.decode_s
            process.send(request, data, within_s=within_s)
            return process.receive(within_s=within_s)
        finally:
            if not process.is_alive and not self._is_closed:
                self._end(process)
                self._on_lost()
                process = self._start()
            self._idle.put(process)

    def _request(self, op: str, **more: Any) -> dict[str, Any]:
        config = self._config
        return {
            "op": op, "size": self._crop_px, "margin": config.margin, "detector": config.detector,
            "detector_file": config.detector_file, "max_pixels": self._settings.max_pixels,
            "cpu_s": self._settings.decode_s, **more,
        }  # fmt: skip

    def _start(self) -> _Process:
        process = _Process(memory_mb=self._settings.decode_mb)
        with self._lock:
            self._all.add(process)
        return process

    def _end(self, process: _Process) -> None:
        process.kill()
        with self._lock:
            self._all.discard(process)


def _blank_png() -> bytes:
    import io

    from PIL import Image

    buffer = io.BytesIO()
    Image.fromarray(np.full((480, 640, 3), 128, np.uint8)).save(buffer, "PNG")
    return buffer.getvalue()
