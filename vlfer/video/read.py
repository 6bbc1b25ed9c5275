"""Videos as a stream of RGB frames with exact times.

decord (the decord2 package) decodes short clips; PyAV reads the header, all longer videos, and what decord cannot: edit
lists, transport streams, some narrow pictures, damaged files. decord decodes ahead of a slow caller without a limit, so
that a long video would fill the memory.
"""

from __future__ import annotations

import importlib
import itertools
import logging
import sys
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
from av.video.reformatter import VideoReformatter

from vlfer.errors import ConfigError, VideoReadError
from vlfer.types import Frames, TimeArray, UInt8Array
from vlfer.video.images import MAX_PIXELS, check_file, frames_from_array, is_text, load_image, read_head, sniff
from vlfer.video.paths import IMAGE_SUFFIXES, VIDEO_SUFFIXES, MediaKind, expand_paths, media_kind

__all__ = [
    "IMAGE_SUFFIXES",
    "VIDEO_SUFFIXES",
    "MediaKind",
    "VideoInfo",
    "expand_paths",
    "frames_from_array",
    "load_image",
    "media_kind",
    "probe_video",
    "read_video",
]

_log = logging.getLogger(__name__)

_MAX_CHUNK_BYTES = 64 * 2**20
_MOST_DECORD_BYTES = 64 * 2**20
_SAME_TIME_S = 1e-4
_IMPORTING = threading.Lock()


@dataclass(frozen=True, slots=True)
class VideoInfo:
    """What the header of a video, and its first frame, tell.

    Attributes:
        width: Of a frame in pixels, after rotation.
        height: Of a frame in pixels, after rotation.
        fps: Average frames per second; 0 if unknown.
        frame_count: Frames that the container declares, or that duration and fps give if that is less or nothing is
            declared; 0 if unknown. A damaged file delivers fewer.
        duration_s: Seconds; 0 if unknown.
        codec: Name of the codec, "h264".
        source: The path.
        rotation_deg: By how much frames are turned counter-clockwise for display; frames are delivered turned.
        start_s: Time of the first frame from the start of the file.
        time_base: Seconds per tick of the video's clock.
        is_count_declared: Whether ``frame_count`` comes from the container.
    """

    width: int
    height: int
    fps: float
    frame_count: int
    duration_s: float
    codec: str
    source: str
    rotation_deg: int = 0
    start_s: float = 0.0
    time_base: Fraction = Fraction(1, 1000)
    is_count_declared: bool = False


def probe_video(path: str | Path) -> VideoInfo:
    """Read the header of a video and decode its first frame.

    Raises:
        VideoReadError: If the file is missing, empty, a folder, not a video, or holds no frame that can be decoded.
    """
    path = Path(path)
    _check_video_file(path)
    with _open(path) as container:
        return _describe(container, path)


def _describe(container: Any, path: Path) -> VideoInfo:
    stream = _video_stream(container, path)
    coded = stream.codec_context
    if coded.width * coded.height > MAX_PIXELS:
        raise VideoReadError(
            f"The video {str(path)!r} has frames of {coded.width} x {coded.height} pixels.",
            why=f"More than {MAX_PIXELS:,} pixels are not decoded.",
            fix="scale it down.",
        )
    origin_s = (container.start_time or 0) / av.time_base
    duration_s = float(stream.duration * stream.time_base) if stream.duration else 0.0
    if not duration_s and container.duration:
        duration_s = container.duration / av.time_base
    opening = list(itertools.islice(_decode(container, stream), 1 if stream.average_rate else 12))
    if not opening:
        raise VideoReadError(
            f"The video {str(path)!r} holds no frame that can be decoded.",
            why=f"Its {coded.name} stream is empty or damaged.",
            fix="record or copy it again.",
        )
    first = opening[0]
    times_s = [_time_s(frame, origin_s, stream.time_base) for frame in opening]
    fps = float(stream.average_rate or (len(opening) - 1) / max(times_s[-1] - times_s[0], _SAME_TIME_S))
    counts = [count for count in (stream.frames, round(duration_s * fps)) if count]
    rotation = round(float(getattr(first, "rotation", 0) or 0) / 90) * 90 % 360
    width, height = first.width, first.height
    return VideoInfo(
        width=height if rotation % 180 else width,
        height=width if rotation % 180 else height,
        fps=fps,
        frame_count=min(counts, default=0),  # an edit list shortens the duration, not the declared count
        duration_s=duration_s,
        codec=coded.codec.canonical_name,
        source=str(path),
        rotation_deg=rotation,
        start_s=times_s[0],
        time_base=stream.time_base,
        is_count_declared=bool(stream.frames),
    )


def read_video(
    path: str | Path,
    *,
    chunk: int = 32,
    start_s: float = 0.0,
    end_s: float | None = None,
    stride: int = 1,
    after_s: float | None = None,
) -> Iterator[Frames]:
    """Read a video as a stream of chunks; memory does not grow with its length.

    Times are those of presentation, also for a variable frame rate, counted from the start of the file. Rotation is
    applied. Of a damaged file all frames that can be decoded are delivered, and a warning is logged.

    Args:
        path: A video file, or an animated GIF.
        chunk: Most frames per chunk; fewer where they would take more than 64 MiB.
        start_s: Frames from this time on.
        end_s: Frames before this time; None for the end.
        stride: Of the frames of that interval only every ``stride``-th is delivered.
        after_s: Of those, only frames after this time, to go on where an earlier reading stopped: it is the time of a
            frame that was delivered then. None for all; with it, the end may come without any frame.

    Returns:
        An iterator of frames of one size each. It raises VideoReadError if it comes to its end without any frame.

    Raises:
        ConfigError: If a number is out of range.
        VideoReadError: If the file is missing, empty, not a video or holds no frame.
    """
    if chunk < 1 or stride < 1:
        raise ConfigError(f"chunk is {chunk} and stride is {stride}.", why="Expected at least 1.")
    if not (start_s >= 0 and (end_s is None or end_s > start_s)):
        raise ConfigError(f"The interval is {start_s} s to {end_s} s.", why="Expected 0 <= start < end.")
    info = probe_video(path)
    request = _Request(info, start_s, float("inf") if end_s is None else end_s, stride, after_s)
    frame_bytes = 3 * info.width * info.height
    return _stream(request, max(1, min(chunk, _MAX_CHUNK_BYTES // frame_bytes)))


@dataclass(frozen=True, slots=True)
class _Request:
    info: VideoInfo
    start_s: float
    end_s: float
    stride: int
    after_s: float | None = None
    threads: int = 0

    @property
    def is_full(self) -> bool:
        return self.start_s <= 0 and self.end_s == float("inf") and self.after_s is None


def _stream(request: _Request, chunk: int) -> Iterator[Frames]:
    source = request.info.source
    delivered, last_s = 0, -float("inf") if request.after_s is None else request.after_s
    try:
        frame_bytes = 3 * request.info.width * request.info.height
        if not 0 < request.info.frame_count * frame_bytes <= _MOST_DECORD_BYTES:
            raise _DecordError("it is too long to be decoded ahead")
        for frames in _read_decord(request, chunk):
            delivered += len(frames)
            last_s = float(frames.times_s[-1])
            yield frames
    except _DecordError as error:
        _log.info("decord cannot go on with %s after %d frames (%s); PyAV does", source, delivered, error)
        for frames in _read_pyav(request, chunk, after_s=last_s):
            delivered += len(frames)
            yield frames
    if delivered == 0 and request.after_s is None:
        raise VideoReadError(
            f"The video {source!r} has no frame between {request.start_s:g} s and {request.end_s:g} s.",
            why=f"It lasts {request.info.duration_s:.2f} s.",
            fix="an interval inside.",
        )
    expected = -(-request.info.frame_count // request.stride)
    if request.is_full and request.info.is_count_declared and delivered + 1 < expected:
        _log.warning("%s: %d of %d frames could be read; the file is truncated or damaged", source, delivered, expected)


class _DecordError(Exception):
    """decord cannot read the file, or not all of it."""


def _import_decord() -> Any:
    """Import decord without the CUDA libraries of the ``nvidia`` packages.

    decord2 opens every library it finds there for the whole process, NVBLAS among them; where torch is imported after
    that, its matrix products go through NVBLAS and the process dies. Decoding on the CPU needs none of them.
    """
    with _IMPORTING:  # threads that decode side by side must not see half a module
        if "decord" in sys.modules:
            return sys.modules["decord"]
        hidden = sys.modules.get("nvidia")
        sys.modules["nvidia"] = None  # type: ignore[assignment]
        try:
            return importlib.import_module("decord")
        finally:
            if hidden is None:
                del sys.modules["nvidia"]
            else:
                sys.modules["nvidia"] = hidden


def _read_decord(request: _Request, chunk: int) -> Iterator[Frames]:
    info = request.info
    try:
        decord = _import_decord()
    except (ImportError, OSError) as error:
        raise _DecordError(str(error)) from error
    decord.logging.set_level(decord.logging.QUIET)
    try:
        # With any tolerance left, decord would silently repeat the nearest good frame for each one that is broken.
        reader = decord.VideoReader(info.source, fault_tol=1e-9)
        times_s = _exact(reader.get_frame_timestamp(range(len(reader)))[:, 0], info)
    except Exception as error:
        raise _DecordError(_first_line(error)) from error
    if info.is_count_declared and len(times_s) < info.frame_count:
        raise _DecordError(f"it counts {len(times_s)} frames of {info.frame_count}")
    wanted = np.flatnonzero((times_s >= request.start_s - _SAME_TIME_S) & (times_s < request.end_s - _SAME_TIME_S))
    wanted = wanted[:: request.stride]
    if request.after_s is not None:
        wanted = wanted[times_s[wanted] > request.after_s + _SAME_TIME_S]
    for first in range(0, len(wanted), chunk):
        numbers = wanted[first : first + chunk]
        try:
            pixels = reader.get_batch(numbers.tolist()).asnumpy()
        except Exception as error:
            raise _DecordError(_first_line(error)) from error
        if pixels.shape[1:] != (info.height, info.width, 3):
            raise _DecordError(f"its frames have shape {pixels.shape[1:]}")
        yield Frames(pixels=pixels, times_s=times_s[numbers], source=info.source)


def _exact(ticks_s: np.ndarray[Any, Any], info: VideoInfo) -> TimeArray:
    """Undo decord's rounding of times to float32, and count from the start of the file as PyAV does."""
    if ticks_s[0] < 0 or not bool((np.diff(ticks_s) > 0).all()):  # an edit list cuts frames that decord delivers
        raise _DecordError("its times are not those of presentation")
    step = float(info.time_base)
    return np.asarray(np.rint((ticks_s.astype(np.float64) - ticks_s[0]) / step) * step + info.start_s, dtype=np.float64)


def _first_line(error: Exception) -> str:
    return (str(error).strip() or type(error).__name__).splitlines()[0]


def _read_pyav(request: _Request, chunk: int, *, after_s: float) -> Iterator[Frames]:
    """Read with PyAV, from the frame that follows ``after_s`` in the stride of the request."""
    reformatter = VideoReformatter()  # one a frame would be made otherwise, with all its tables
    block = np.empty((0,), dtype=np.uint8)
    times_s: list[float] = []
    for time_s, frame in itertools.islice(_frames_from(request, after_s), 0, None, request.stride):
        turned = np.rot90(_rgb(frame, reformatter), request.info.rotation_deg // 90)
        if times_s and (len(times_s) == chunk or turned.shape != block.shape[1:]):
            yield Frames(block[: len(times_s)], np.array(times_s), request.info.source)
            times_s = []
        if not times_s:
            block = np.empty((chunk, *turned.shape), dtype=np.uint8)
        block[len(times_s)] = turned
        times_s.append(time_s)
    if times_s:
        yield Frames(block[: len(times_s)], np.array(times_s), request.info.source)


def _rgb(frame: Any, reformatter: VideoReformatter) -> UInt8Array:
    """Return a view of the pixels of a frame, (H, W, 3), valid while nothing else is converted."""
    plane = reformatter.reformat(frame, format="rgb24").planes[0]
    rows: UInt8Array = np.frombuffer(memoryview(plane), dtype=np.uint8).reshape(plane.height, plane.line_size)
    return rows[:, : 3 * plane.width].reshape(plane.height, plane.width, 3)


def _frames_from(request: _Request, after_s: float) -> Iterator[tuple[float, Any]]:
    """Yield times and frames of the interval; those up to and with ``after_s``, and its stride, are passed over."""
    path = Path(request.info.source)
    skip = request.stride - 1 if after_s > -float("inf") else 0
    start_s = max(request.start_s - _SAME_TIME_S, after_s + _SAME_TIME_S)
    for seek in (True, False) if start_s > request.info.start_s + 1 else (False,):
        with _open(path) as container:
            stream = _video_stream(container, path)
            if request.threads:
                stream.codec_context.thread_count = request.threads
            else:
                stream.thread_type = "AUTO"
            origin_s = (container.start_time or 0) / av.time_base
            if seek and not _seek(container, start_s + origin_s):
                continue
            frames = ((_time_s(f, origin_s, stream.time_base), f) for f in _decode(container, stream))
            first = next(frames, None)
            if first is None or (seek and first[0] > start_s):  # the seek went too far
                continue
            for time_s, frame in itertools.chain([first], frames):
                if time_s >= request.end_s - _SAME_TIME_S:
                    return
                if time_s < start_s:
                    continue
                start_s = time_s + _SAME_TIME_S  # after damage a decoder may repeat a time
                if skip:
                    skip -= 1
                    continue
                yield time_s, frame
            return


def _seek(container: Any, time_s: float) -> bool:
    try:
        container.seek(int(time_s * av.time_base))  # to the key frame before
    except av.error.FFmpegError:
        return False
    return True


def _decode(container: Any, stream: Any) -> Iterator[Any]:
    """Yield all frames that can be decoded; damaged packets are passed over."""
    packets = container.demux(stream)
    while True:
        try:
            packet = next(packets, None)
        except (av.error.FFmpegError, OSError):  # the file ends in the middle of a packet
            return
        if packet is None:
            return
        try:
            yield from (frame for frame in packet.decode() if frame.pts is not None)
        except av.error.EOFError:
            return
        except (av.error.FFmpegError, OSError) as error:
            _log.debug("a packet of %s cannot be decoded: %s", container.name, error)


def _check_video_file(path: Path) -> None:
    check_file(path, error=VideoReadError)
    if not path.is_file():
        raise VideoReadError(f"{str(path)!r} is not a regular file.", why="A video is opened more than once.")
    head = read_head(path, error=VideoReadError)
    if sniff(head) == "image" and not head.startswith(b"GIF8"):
        raise VideoReadError(f"{str(path)!r} is an image, not a video.", fix="read it as an image.")
    if sniff(head) is None and is_text(head):  # FFmpeg would follow playlists, and draw letters
        raise VideoReadError(f"{str(path)!r} is not a video.", why="It holds text.", fix="a video file.")


def _open(path: Path) -> Any:
    try:
        return av.open(str(path))
    except (av.error.FFmpegError, OSError, ValueError) as error:
        raise VideoReadError(
            f"{str(path)!r} cannot be read as a video: {getattr(error, 'strerror', None) or error}.",
            why="It is no video, or its header is damaged or cut off.",
            fix="play it in another program, or convert it to MP4.",
        ) from error


def _video_stream(container: Any, path: Path) -> Any:
    # A cover picture in a sound file is a video stream of one frame.
    streams = [s for s in container.streams.video if not s.disposition & av.stream.Disposition.attached_pic]
    if not streams:
        why = "It holds sound only." if container.streams.audio else "It holds no video stream."
        raise VideoReadError(f"{str(path)!r} has no picture.", why=why, fix="a file with a video stream.")
    return streams[0]


def _time_s(frame: Any, origin_s: float, time_base: Fraction) -> float:
    return float(frame.pts * (frame.time_base or time_base)) - origin_s
