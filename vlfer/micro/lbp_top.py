"""LBP-TOP: local binary patterns on three planes of a clip (Zhao and Pietikaeinen, IEEE TPAMI 2007).

Around every place of every frame eight neighbours on an ellipse are compared with the place itself, once in the picture
(XY), once along a row through time (XT) and once along a column through time (YT). Histograms of the patterns over
blocks of the face tell texture, and how it moves across and up.
"""

from __future__ import annotations

import math
from functools import cache
from itertools import pairwise
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vlfer.errors import ShapeError
from vlfer.types import FloatArray, UInt8Array

_NEIGHBOURS = 8
_PATTERNS = 59


def lbp_top(grey: UInt8Array, *, blocks: int = 5, radius_px: float = 1.0, radius_frames: float = 2.0) -> FloatArray:
    """Return the descriptor of one clip, (blocks * blocks * 3 * 59,) float32.

    Each histogram of a block and plane counts the 58 uniform patterns and all others together, and sums to 1.

    Args:
        grey: (T, S, S) uint8, a face in the reference frame.
        blocks: Blocks a side.
        radius_px: Radius in the picture.
        radius_frames: Radius in time.

    Raises:
        ShapeError: If the clip has another shape, fewer frames than the radius needs, or fewer pixels than blocks.
    """
    if grey.ndim != 3 or grey.shape[1] != grey.shape[2] or grey.dtype != np.uint8:
        raise ShapeError(f"The clip is {grey.shape} {grey.dtype}.", why="Expected (T, S, S) uint8.")
    edge, ends = math.ceil(radius_px), math.ceil(radius_frames)
    inner = grey.shape[1] - 2 * edge
    if len(grey) < 2 * ends + 1 or inner < blocks:
        raise ShapeError(
            f"The clip has {len(grey)} frames of {grey.shape[1]} px.",
            why=f"{2 * ends + 1} frames are needed for the radius in time, {blocks + 2 * edge} px for the blocks.",
            fix="more frames: vlfer mie faces ... --frames 10",
        )  # fmt: skip
    volume = grey.astype(np.float32)
    cuts = np.linspace(0, inner, blocks + 1).round().astype(int)
    parts = []
    for plane in ("xy", "xt", "yt"):
        pattern = _uniform()[_patterns(volume, plane, radius_px, radius_frames, edge, ends)]
        for top, bottom in pairwise(cuts.tolist()):
            for left, right in pairwise(cuts.tolist()):
                count = np.bincount(pattern[:, top:bottom, left:right].ravel(), minlength=_PATTERNS)
                parts.append(count / count.sum())
    return np.concatenate(parts).astype(np.float32)


def _patterns(
    volume: FloatArray, plane: str, radius_px: float, radius_frames: float, edge: int, ends: int
) -> NDArray[np.int64]:
    """Return the pattern of every place whose neighbours are inside, (T', S', S') of 0..255."""
    centre = volume[ends : len(volume) - ends, edge:-edge, edge:-edge]
    code = np.zeros(centre.shape, dtype=np.int64)
    for bit in range(_NEIGHBOURS):
        angle = 2 * math.pi * bit / _NEIGHBOURS
        across, along = math.cos(angle), -math.sin(angle)
        t, y, x = {
            "xy": (0.0, along * radius_px, across * radius_px),
            "xt": (along * radius_frames, 0.0, across * radius_px),
            "yt": (along * radius_frames, across * radius_px, 0.0),
        }[plane]
        neighbour = _shifted(_shifted(_shifted(volume, t, 0, ends), y, 1, edge), x, 2, edge)
        code |= (neighbour >= centre - 1e-4).astype(np.int64) << bit
    return code


def _shifted(volume: NDArray[Any], shift: float, axis: int, margin: int) -> NDArray[Any]:
    """Return the values ``shift`` further along an axis, by linear interpolation, without the margins."""
    low = math.floor(shift + 1e-9)
    share = max(0.0, shift - low)
    length = volume.shape[axis] - 2 * margin
    first = np.take(volume, np.arange(margin + low, margin + low + length), axis=axis)
    if share < 1e-6:
        return first
    second = np.take(volume, np.arange(margin + low + 1, margin + low + 1 + length), axis=axis)
    return np.asarray((1 - share) * first + share * second)


@cache
def _uniform() -> NDArray[np.int64]:
    """Return the bin of each of the 256 patterns: one for each with at most two changes, one for all others."""
    bits = np.arange(256)[:, None] >> np.arange(_NEIGHBOURS) & 1
    is_uniform = (bits != np.roll(bits, 1, axis=1)).sum(axis=1) <= 2
    return np.where(is_uniform, np.cumsum(is_uniform) - 1, _PATTERNS - 1).astype(np.int64)
