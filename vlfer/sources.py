"""What a user may hand over, opened: an image as one frame, a video as a stream thinned to the rate wanted."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vlfer.types import Frames
from vlfer.video.read import frames_from_array, load_image, media_kind, probe_video, read_video

Source = str | Path | NDArray[Any] | Frames


@dataclass(frozen=True, slots=True)
class Clip:
    """A video ready to be streamed.

    Attributes:
        source: Its name.
        chunks: Consecutive frames, already thinned.
        frame_s: Seconds from one frame to the next.
        n_frames: How many frames to expect, 0 where that is not known.
    """

    source: str
    chunks: Iterable[Frames]
    frame_s: float
    n_frames: int


def source_name(source: Source) -> str:
    """Return what a source is called in a report."""
    if isinstance(source, Frames):
        return source.source
    return str(source) if isinstance(source, (str, Path)) else "array"


def open_source(source: Source, *, fps: float) -> Frames | Clip:
    """Open a source.

    Args:
        source: A path, an array (H, W, 3) or (T, H, W, 3), or frames.
        fps: Frames wanted per second of video. Every k-th frame is taken, k being the whole number that comes closest.

    Returns:
        One frame for an image, a clip for a video.

    Raises:
        MediaReadError: If it cannot be read; a video's later parts may still fail while streaming.
        ShapeError: If an array is no image and no video.
    """
    if isinstance(source, (str, Path)):
        if media_kind(source) == "image":
            return load_image(source)
        info = probe_video(source)
        gap_s = 1 / info.fps if info.fps > 0 else 1 / fps  # of unknown rate every frame is taken
        stride = _stride(gap_s, fps=fps)
        return Clip(str(source), read_video(source, stride=stride), stride * gap_s, -(-info.frame_count // stride))
    frames = source if isinstance(source, Frames) else frames_from_array(source)
    if len(frames) < 2:
        return frames
    gap_s = float(np.median(np.diff(frames.times_s)))
    stride = _stride(gap_s, fps=fps)
    thinned = Frames(frames.pixels[::stride], frames.times_s[::stride], frames.source)
    return Clip(frames.source, [thinned], stride * gap_s, len(thinned))


def _stride(gap_s: float, *, fps: float) -> int:
    return max(1, round(1 / (gap_s * fps)))
