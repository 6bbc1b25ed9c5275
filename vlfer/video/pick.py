"""Chosen frames of a video, read on one thread: for many short videos that are read side by side.

Only the chosen frames are brought to RGB, with one converter for all of them. Short clips take a fraction of the
processor time that `vlfer.video.read.read_video` needs, which is made for the shortest wait for one video.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
from av.video.reformatter import VideoReformatter

from vlfer.errors import VideoReadError
from vlfer.types import Frames, IntArray, UInt8Array
from vlfer.video.read import VideoInfo, _frames_from, _Request


def count_frames(info: VideoInfo, *, start_s: float = 0.0, end_s: float | None = None) -> int:
    """Return how many frames of an interval can be decoded.

    Args:
        info: What `vlfer.video.read.probe_video` said of the video.
        start_s: Frames from this time on.
        end_s: Frames before this time; None for the end.
    """
    return sum(1 for _ in _decoded(info, start_s, end_s))


def pick_frames(
    info: VideoInfo, numbers: IntArray, *, start_s: float = 0.0, end_s: float | None = None
) -> Frames | None:
    """Read frames by their number within an interval, in one pass that ends with the last of them.

    Args:
        info: What `vlfer.video.read.probe_video` said of the video.
        numbers: (T,) int64, at least one; may repeat.
        start_s: Frames from this time on.
        end_s: Frames before this time; None for the end.

    Returns:
        T frames in the order of ``numbers``; None if the video ends before the last of them.

    Raises:
        VideoReadError: If the chosen frames differ in size.
    """
    needed = set(numbers.tolist())
    last = max(needed)
    kept: dict[int, tuple[UInt8Array, float]] = {}
    convert = VideoReformatter()
    for number, (time_s, frame) in enumerate(_decoded(info, start_s, end_s)):
        if number in needed:
            rgb = convert.reformat(frame, format="rgb24", threads=1).to_ndarray()
            kept[number] = (np.rot90(rgb, info.rotation_deg // 90), time_s)
        if number == last:
            break
    if last not in kept:
        return None
    sizes = {pixels.shape[:2] for pixels, _ in kept.values()}
    if len(sizes) > 1:
        raise VideoReadError(f"The frames of {info.source} have different sizes: {sorted(sizes)[:4]}.")
    chosen = [kept[number] for number in numbers.tolist()]
    return Frames(np.stack([pixels for pixels, _ in chosen]), np.array([time_s for _, time_s in chosen]), info.source)


def _decoded(info: VideoInfo, start_s: float, end_s: float | None) -> Iterator[tuple[float, Any]]:
    end = float("inf") if end_s is None else end_s
    return _frames_from(_Request(info, start_s, end, 1, threads=1), -float("inf"))
