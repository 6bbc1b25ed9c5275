"""The process that touches uploads: it decodes, finds faces and cuts them out, under limits of memory and time.

It also draws labels into a video, as that decodes it once more. It reads requests from stdin and answers on stdout, one
at a time. Run by `vlfer.serve.decoders` as ``python -m vlfer.serve.decoder``; it imports no torch. Numbers and plain
JSON come back, never objects, so that a decoder taken over by a picture can do no more than lie about that picture.
"""

from __future__ import annotations

import json
import os
import pickle
import resource
import struct
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

from vlfer.errors import DataError, MediaReadError, VideoReadError, VlferError
from vlfer.memory import keep_freed_memory
from vlfer.types import UInt8Array

_HEAD = struct.Struct(">II")
_SMALLEST_SIDE = 4


def write_message(stream: BinaryIO, content: dict[str, Any], arrays: Sequence[np.ndarray[Any, Any]] = ()) -> None:
    """Write JSON and arrays: two lengths, the JSON, the arrays as they lie in memory."""
    described = [{"shape": list(array.shape), "dtype": str(array.dtype)} for array in arrays]
    text = json.dumps({**content, "arrays": described}).encode()
    stream.write(_HEAD.pack(len(text), sum(array.nbytes for array in arrays)) + text)
    for array in arrays:
        stream.write(np.ascontiguousarray(array).data.cast("B") if array.nbytes else b"")
    stream.flush()


def read_message(stream: BinaryIO, *, most_bytes: int = 2**31) -> tuple[dict[str, Any], list[np.ndarray[Any, Any]]]:
    """Read what `write_message` wrote.

    Raises:
        EOFError: If the other side has gone.
        ValueError: If it is no message, or larger than ``most_bytes``.
    """
    text_length, data_length = _HEAD.unpack(_exactly(stream, _HEAD.size))
    if text_length > most_bytes or data_length > most_bytes:
        raise ValueError("The message is too long.")
    content = json.loads(_exactly(stream, text_length))
    data = _exactly(stream, data_length)
    arrays, first = [], 0
    for item in content.pop("arrays"):
        dtype = np.dtype(item["dtype"])
        if dtype.kind not in "uifb":
            raise ValueError("The message holds objects.")
        count = int(np.prod(item["shape"], dtype=np.int64))
        array = np.frombuffer(data, dtype, count=count, offset=first).reshape(item["shape"])
        first += array.nbytes
        arrays.append(array)
    return content, arrays


def _exactly(stream: BinaryIO, count: int) -> bytearray:
    data = bytearray(count)
    view, got = memoryview(data), 0
    while got < count:
        n = stream.readinto(view[got:])  # type: ignore[attr-defined]
        if not n:
            raise EOFError
        got += n
    return data


class Decoder:
    """Answers requests; keeps the face detector from one to the next."""

    def __init__(self) -> None:
        self._detectors: dict[str, Any] = {}

    def answer(self, request: dict[str, Any], payload: bytes) -> Iterator[tuple[dict[str, Any], list[Any]]]:
        """Yield the answers to one request: one for an image, several for a video.

        Raises:
            VlferError: If the upload cannot be read.
        """
        if request["op"] == "image":
            yield self._image(request, payload)
        elif request["op"] == "pixels":
            yield {}, [_load(payload, request)]
        elif request["op"] == "annotate":
            yield _annotate(request, payload), []
        else:
            yield from _video(request)

    def _image(self, request: dict[str, Any], payload: bytes) -> tuple[dict[str, Any], list[Any]]:
        from vlfer.faces.align import crop_face
        from vlfer.faces.find import find_faces

        pixels = _load(payload, request)
        detector = None if request["faces"] == "whole" else self._detector(request)
        faces, note = find_faces(pixels, detector=detector, mode=request["faces"], effort="thorough")
        crops = [crop_face(pixels, face, size=request["size"], margin=request["margin"]) for face in faces]
        size = request["size"]
        return (
            {"note": note, "width": pixels.shape[1], "height": pixels.shape[0]},
            [
                np.stack(crops) if crops else np.zeros((0, size, size, 3), np.uint8),
                np.array([face.box for face in faces], np.float32).reshape(-1, 4),
                np.array([face.score for face in faces], np.float32),
                _within(pixels, request["view_px"]),
            ],
        )

    def _detector(self, request: dict[str, Any]) -> Any:
        name, file = request["detector"], request["detector_file"]
        if name not in self._detectors:
            from vlfer.faces.detect import build_detector

            self._detectors[name] = build_detector(name, model_file=file)
        return self._detectors[name]


def _load(payload: bytes, request: dict[str, Any]) -> UInt8Array:
    from vlfer.video.images import load_image, sniff

    if sniff(payload[:1024]) == "video":
        raise DataError("The upload is a video.", why="An image is expected here.", fix="POST /v1/video")
    pixels: UInt8Array = load_image(payload, max_pixels=request["max_pixels"]).pixels[0]
    if min(pixels.shape[:2]) < _SMALLEST_SIDE:
        raise DataError(f"The image is {pixels.shape[1]} x {pixels.shape[0]} pixels.", why="That is too small.")
    return pixels


def _within(pixels: UInt8Array, longest_px: int) -> UInt8Array:
    """Return pixels (H, W, 3), scaled down where a side is longer; 0 px leaves nothing of them."""
    if longest_px <= 0:
        return np.zeros((0, 0, 3), np.uint8)
    scale = longest_px / max(pixels.shape[:2])
    if scale >= 1:
        return pixels
    import cv2

    size = (max(1, round(pixels.shape[1] * scale)), max(1, round(pixels.shape[0] * scale)))
    return np.asarray(cv2.resize(pixels, size, interpolation=cv2.INTER_AREA), np.uint8)


def _annotate(request: dict[str, Any], payload: bytes) -> dict[str, Any]:
    from vlfer.export.film import write_annotated

    timelines = pickle.loads(payload)
    deciding = {"threshold": request["threshold"], "tie_margin": request["tie_margin"]}
    return {"frames": write_annotated(request["path"], timelines, Path(request["out"]), **deciding)}


def _video(request: dict[str, Any]) -> Iterator[tuple[dict[str, Any], list[Any]]]:
    from vlfer.video.read import probe_video, read_video

    path = Path(request["path"])
    info = probe_video(path)
    longest_s = request["max_s"]
    if info.width * info.height > request["max_pixels"]:
        raise VideoReadError(
            f"The video has frames of {info.width} x {info.height} pixels.",
            why=f"At most {request['max_pixels']:,} pixels are decoded here.", fix="scale it down.",
        )  # fmt: skip
    if info.duration_s > longest_s:
        raise _too_long(info.duration_s, longest_s)
    gap_s = 1 / info.fps if info.fps > 0 else 1 / request["fps"]
    stride = max(1, round(1 / (gap_s * request["fps"])))
    yield {"frame_s": stride * gap_s, "n_frames": -(-info.frame_count // stride)}, []
    for frames in read_video(path, chunk=request["chunk"], stride=stride):
        if frames.times_s[-1] > longest_s + 1:  # the header lied
            raise _too_long(float(frames.times_s[-1]), longest_s)
        side_px = request["side_px"]
        pixels = np.stack([_within(one, side_px) for one in frames.pixels]) if side_px else frames.pixels
        yield {}, [pixels, frames.times_s]


def _too_long(seconds: float, longest_s: float) -> DataError:
    return DataError(
        f"The video lasts {seconds:.0f} s.", why=f"At most {longest_s:.0f} s are taken here.", fix="cut it first."
    )  # fmt: skip


def limit_memory(megabytes: int) -> None:
    """Limit the address space of this process, and let it write no file and leave no image of itself."""
    size = megabytes * 2**20
    resource.setrlimit(resource.RLIMIT_AS, (size, size))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))


def limit_time(seconds: float) -> None:
    """End this process when it has worked for so much longer; waiting does not count."""
    used = time.process_time()
    _, hard = resource.getrlimit(resource.RLIMIT_CPU)
    resource.setrlimit(resource.RLIMIT_CPU, (int(used + seconds) + 2, hard))


def _complaint(error: Exception, request: dict[str, Any], payload: bytes) -> dict[str, Any]:
    if not isinstance(error, VlferError):
        what = "needs more memory than it may have" if isinstance(error, MemoryError) else "cannot be decoded"
        parts = {"what": f"The upload {what}.", "why": "It is damaged, or too large.", "fix": ""}
        return {"error": "DataError", "is_media": True, **parts}
    parts = {"what": error.what, "why": error.why, "fix": error.fix}
    name = request.get("path", "bytes")  # where uploads lie is nobody's business
    parts = {key: text.replace(f"The image {name!r}", "The upload").replace(f"The video {name!r}", "The upload")
             .replace(repr(name), "The upload").replace(request.get("path", repr(name)), "the upload")
             for key, text in parts.items()}  # fmt: skip
    return {"error": type(error).__name__, "is_media": _is_media(error, request, payload), **parts}


def _is_media(error: VlferError, request: dict[str, Any], payload: bytes) -> bool:
    """Tell whether what could not be read is at least an image or a video."""
    from vlfer.video.images import sniff

    if not isinstance(error, MediaReadError):
        return True
    head = payload[:1024]
    expected = "image" if request["op"] in ("image", "pixels") else "video"
    if expected == "video":
        with Path(request["path"]).open("rb") as file:
            head = file.read(1024)
    return not head or head.startswith(b"GIF8") or sniff(head) == expected


def main() -> None:
    """Answer requests until stdin ends."""
    requests, answers = sys.stdin.buffer, os.fdopen(os.dup(1), "wb")
    os.dup2(os.open(os.devnull, os.O_WRONLY), 1)  # whatever a library prints must not reach the answers
    limit_memory(int(sys.argv[1]))
    keep_freed_memory()
    decoder = Decoder()
    while True:
        try:
            request, payloads = read_message(requests)
        except EOFError:
            return
        limit_time(request["cpu_s"])
        payload = payloads[0].tobytes() if payloads else b""
        try:
            for content, arrays in decoder.answer(request, payload):
                write_message(answers, content, arrays)
                limit_time(request["cpu_s"])
            if request["op"] == "video":
                write_message(answers, {"end": True})
        except BrokenPipeError:
            return
        except Exception as error:
            write_message(answers, _complaint(error, request, payload))
        if request["op"] == "image":
            resource.setrlimit(resource.RLIMIT_FSIZE, (0, 0))  # from here on everything is loaded


if __name__ == "__main__":
    main()
