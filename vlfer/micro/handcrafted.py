"""Handcrafted descriptors of onset-to-apex flow, computed on the published 28x28 images.

Both were published for flow at full size with regions by landmarks. The images are already registered, so equal blocks
stand in for the regions here. LBP-TOP describes grey values over time, which flow images do not hold.
"""

from __future__ import annotations

from itertools import pairwise
from typing import Literal

import numpy as np

from vlfer.errors import ShapeError
from vlfer.types import FloatArray

Descriptor = Literal["mdmo", "bi-woof"]

_BINS = 8
_MDMO_GRID = 6  # 36 regions, as the paper has
_WOOF_GRID = 7


def describe(flow: FloatArray, *, kind: Descriptor) -> FloatArray:
    """Return one descriptor a clip, (N, F) float32.

    "mdmo": the mean motion in the main direction of each of 36 regions (Liu et al., IEEE TAFFC 2016), as a vector,
    since its angle alone jumps from pi to -pi. "bi-woof": histograms of eight directions weighted by magnitude within a
    block and by the strain of the block (Liong et al., Signal Processing: Image Communication 2018), scaled to sum 1.

    Args:
        flow: (N, S, S, 3) float32: u, v around rest, and strain from 0.
        kind: Which of them.

    Raises:
        ShapeError: If ``flow`` has another shape.
    """
    if flow.ndim != 4 or flow.shape[1] != flow.shape[2] or flow.shape[3] != 3:
        raise ShapeError(f"The flow has shape {flow.shape}.", why="Expected (N, S, S, 3).")
    grid = _MDMO_GRID if kind == "mdmo" else _WOOF_GRID
    edges = np.linspace(0, flow.shape[1], grid + 1).round().astype(int)
    parts = [
        _region(flow[:, top:bottom, left:right].reshape(len(flow), -1, 3), kind=kind)
        for top, bottom in pairwise(edges.tolist())
        for left, right in pairwise(edges.tolist())
    ]
    features = np.concatenate(parts, axis=1)
    if kind == "bi-woof":
        features = features / np.maximum(features.sum(axis=1, keepdims=True), 1e-9)
    return np.asarray(features, dtype=np.float32)


def _region(pixels: FloatArray, *, kind: Descriptor) -> FloatArray:
    """Return the part of one region, (N, 2) or (N, 8), from its pixels (N, P, 3)."""
    u, v, strain = pixels[..., 0], pixels[..., 1], pixels[..., 2]
    turn = np.mod(np.arctan2(v, u) / (2 * np.pi) * _BINS + 0.5, _BINS)  # the first bin lies around the x axis
    place = np.minimum(turn.astype(np.int64), _BINS - 1)
    of_bin = place[..., None] == np.arange(_BINS)
    if kind == "bi-woof":
        weighted = (of_bin * np.hypot(u, v)[..., None]).sum(axis=1)
        return np.asarray(weighted * strain.mean(axis=1, keepdims=True), dtype=np.float32)
    main = of_bin.sum(axis=1).argmax(axis=1)
    chosen = np.take_along_axis(of_bin, main[:, None, None], axis=2)
    return np.asarray((pixels[..., :2] * chosen).sum(axis=1) / chosen.sum(axis=1), dtype=np.float32)
