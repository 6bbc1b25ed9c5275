"""What a user may hand over, opened: an image as one frame, a video as a stream thinned to the rate wanted."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vlfer.types import Frames
from vlfer.video.read import frames_from_array, load_image, media_kind, probe_video, read_video


@dataclass(frozen=True, slots=True)
class Clip:
    """A video ready to be streamed.

    Attributes:
        source: Its name.
        chunks: Consecutive frames, already thinned; can be gone through once.
        frame_s: Seconds from one frame to the next.
        n_frames: How many frames to expect, 0 where that is not known.
        after: Gives the frames after a time, to go on from there; None where that cannot be done.
        identity: What tells this source from another one and from a changed file, JSON-ready; empty for an array.
    """

    source: str
    chunks: Iterable[Frames]
    frame_s: float
    n_frames: int
    after: Callable[[float], Iterable[Frames]] | None = None
    identity: Mapping[str, object] = field(default_factory=dict)


Source = str | Path | NDArray[Any] | Frames | Clip


def source_name(source: Source) -> str:
    """Return what a source is called in a report."""
    if isinstance(source, (Frames, Clip)):
        return source.source
    return str(source) if isinstance(source, (str, Path)) else "array"


def open_source(
    source: Source, *, fps: float, start_s: float = 0.0, end_s: float | None = None, chunk: int = 4
) -> Frames | Clip:
    """Open a source.

    Args:
        source: A path, an array (H, W, 3) or (T, H, W, 3), frames, or a clip that is open already.
        fps: Frames wanted per second of video. Every k-th frame is taken, k being the whole number that comes closest.
        start_s: Of a video, frames from this time on.
        end_s: Of a video, frames before this time; None for the end.
        chunk: Most frames per chunk of a video.

    Returns:
        One frame for an image, a clip for a video.

    Raises:
        MediaReadError: If it cannot be read; a video's later parts may still fail while streaming.
        ShapeError: If an array is no image and no video.
        ConfigError: If the interval is none.
    """
    if isinstance(source, Clip):
        return source
    if isinstance(source, (str, Path)):
        if media_kind(source) == "image":
            return load_image(source)
        return _open_video(source, fps=fps, start_s=start_s, end_s=end_s, chunk=chunk)
    frames = source if isinstance(source, Frames) else frames_from_array(source)
    if len(frames) < 2:
        return frames
    gap_s = float(np.median(np.diff(frames.times_s)))
    stride = _stride(gap_s, fps=fps)
    last_s = float("inf") if end_s is None else end_s
    wanted = np.flatnonzero((frames.times_s >= start_s) & (frames.times_s < last_s))[::stride]

    def opened(after_s: float | None) -> Iterator[Frames]:
        left = wanted if after_s is None else wanted[frames.times_s[wanted] > after_s]
        for first in range(0, len(left), chunk):
            some = left[first : first + chunk]
            yield Frames(frames.pixels[some], frames.times_s[some], frames.source)

    return Clip(frames.source, opened(None), stride * gap_s, len(wanted), opened)


def _open_video(path: str | Path, *, fps: float, start_s: float, end_s: float | None, chunk: int) -> Clip:
    info = probe_video(path)
    gap_s = 1 / info.fps if info.fps > 0 else 1 / fps  # of unknown rate every frame is taken
    stride = _stride(gap_s, fps=fps)
    count = info.frame_count
    if count and info.duration_s > 0:
        seen_s = min(info.duration_s, end_s or info.duration_s) - start_s
        count = min(count, round(count * max(seen_s, 0.0) / info.duration_s))
    stat = Path(path).stat()
    identity = {
        "path": str(Path(path).resolve()), "bytes": stat.st_size, "changed_ns": stat.st_mtime_ns, "stride": stride,
        "start_s": start_s, "end_s": end_s,
    }  # fmt: skip

    def opened(after_s: float | None) -> Iterator[Frames]:
        return read_video(path, chunk=chunk, start_s=start_s, end_s=end_s, stride=stride, after_s=after_s)

    return Clip(str(path), opened(None), stride * gap_s, -(-count // stride), opened, identity)


def _stride(gap_s: float, *, fps: float) -> int:
    return max(1, round(1 / (gap_s * fps)))
