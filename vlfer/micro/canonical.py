"""Bring published min-max flow images back to something comparable: a zero, a scale, a proportion of u to v.

Min-max scaling maps each channel's range to 0..255 on its own: a blink makes everything else in its clip small, rest is
no longer zero, and u and v have two different units. Three things can be estimated again from the image itself:

- rest: most of a face does not move in a micro-expression, so the median of a channel lies near its rest level (this
  also takes out a shift of the whole head);
- scale: the standard deviation over the face, far less bound to one blinking eye than the range is;
- proportion: strain is a function of the derivatives of u and v in one physical unit. With u = a u', v = b v' and the
  published strain e: e^2 = a^2 (u'_x^2 + u'_y^2 / 2) + b^2 (v'_y^2 + v'_x^2 / 2) + a b u'_y v'_x; a and b are fitted.
"""

from __future__ import annotations

from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from vlfer.errors import ShapeError
from vlfer.types import FloatArray, UInt8Array

Zero = Literal["median", "border", "middle"]

Input = Literal["published", "canonical", "steady"]
"""Published: the image as it is, around the middle of its range. Canonical: rest at zero, unit spread. Steady:
canonical after slow drifts over the face are taken out."""


_MAX_LOG_PROPORTION = 2.0
_SPREAD = 0.2


def flow_input(images: UInt8Array, *, kind: Input) -> FloatArray:
    """Return flow around zero, (N, H, W, 3) float32."""
    strain = strain_channel(images)
    if kind == "published":
        return np.concatenate([centre(images, zero="middle"), strain], axis=-1)
    flow = centre(images)
    if kind == "steady":
        flow = remove_drift(flow)
    return np.concatenate([unit_spread(flow), strain], axis=-1)


def centre(images: UInt8Array, *, zero: Zero = "median") -> FloatArray:
    """Return u and v around their rest level, (N, H, W, 2) float32 in parts of the published range.

    Args:
        images: (N, H, W, 3) uint8 published flow images.
        zero: Where rest is: the median over the face, the median over its border, or the middle of the range.

    Raises:
        ShapeError: If ``images`` has another shape or dtype.
    """
    flow = _unit(images)[..., :2]
    if zero == "middle":
        return flow - np.float32(0.5)
    if zero == "median":
        level = np.median(flow, axis=(1, 2))
    else:
        edge = np.concatenate([flow[:, 0], flow[:, -1], flow[:, :, 0], flow[:, :, -1]], axis=1)
        level = np.median(edge, axis=1)
    return np.asarray(flow - level[:, None, None, :], dtype=np.float32)


def unit_spread(flow: FloatArray, *, together: bool = False) -> FloatArray:
    """Return flow scaled to one standard deviation over the face for all samples.

    Args:
        flow: (N, H, W, 2) float32 around rest.
        together: One scale for u and v, which keeps their proportion, instead of one each.
    """
    axes = (1, 2, 3) if together else (1, 2)
    spread = flow.std(axis=axes, keepdims=True)
    return np.asarray(flow / (spread + 1e-6) * _SPREAD, dtype=np.float32)


def proportion(images: UInt8Array, *, rounds: int = 5) -> FloatArray:
    """Estimate the physical size of the ranges of u and v from the published strain.

    Args:
        images: (N, H, W, 3) uint8 published flow images.
        rounds: Alternations between the mixed term, which needs both, and the least-squares fit of the others.

    Returns:
        (N, 2) float32: a and b of the module's formula, strain ranges per flow range and position.

    Raises:
        ShapeError: If ``images`` has another shape or dtype.
    """
    flow = _unit(images).astype(np.float64)
    u_y, u_x = np.gradient(flow[..., 0], axis=(1, 2))
    v_y, v_x = np.gradient(flow[..., 1], axis=(1, 2))
    square = flow[..., 2] ** 2
    weight = 1 / (0.05 + flow[..., 2])
    left = np.stack([u_x**2 + u_y**2 / 2, v_y**2 + v_x**2 / 2], axis=-1) * weight[..., None]
    gram = np.einsum("nhwi,nhwj->nij", left, left) + 1e-12 * np.eye(2)
    sizes = np.ones((len(flow), 2))
    for _ in range(rounds):
        mixed = (sizes[:, 0] * sizes[:, 1])[:, None, None] * u_y * v_x
        right = np.einsum("nhwi,nhw->ni", left, np.clip(square - mixed, 0, None) * weight)
        sizes = np.sqrt(_non_negative(gram, right))
    return sizes.astype(np.float32)


def physical(images: UInt8Array, *, zero: Zero = "median") -> FloatArray:
    """Return u and v around rest in one common unit, (N, H, W, 2) float32.

    The proportion of the two is kept within a factor of exp(2): a channel without structure gives no estimate.
    """
    size = np.log(proportion(images) + 1e-6)
    half = np.clip(size[:, 0] - size[:, 1], -_MAX_LOG_PROPORTION, _MAX_LOG_PROPORTION) / 2
    factor = np.exp(np.stack([half, -half], axis=1))
    return np.asarray(centre(images, zero=zero) * factor[:, None, None, :], dtype=np.float32)


def remove_drift(flow: FloatArray, *, rounds: int = 4) -> FloatArray:
    """Take out what varies slowly over the whole face: shift, turn, nod and approach of the head.

    A quadratic in the position is fitted to each channel by iteratively reweighted least squares with Cauchy weights,
    so that the places where the expression moves do not pull the fit. Local motion is left.

    Args:
        flow: (N, H, W, 2) float32.
        rounds: Reweightings.

    Returns:
        Like ``flow``.
    """
    n, height, width, channels = flow.shape
    y, x = np.mgrid[0:height, 0:width].reshape(2, -1) / (np.array([[height], [width]]) - 1) - 0.5
    basis = np.stack([np.ones_like(x), x, y, x * y, x**2, y**2], axis=1)
    values = flow.transpose(0, 3, 1, 2).reshape(n * channels, -1).astype(np.float64)
    weight = np.ones_like(values)
    rest = values
    for _ in range(rounds):
        weighted = weight[:, :, None] * basis
        gram = np.einsum("npi,pj->nij", weighted, basis) + 1e-9 * np.eye(basis.shape[1])
        right = np.einsum("npi,np->ni", weighted, values)
        rest = values - np.linalg.solve(gram, right[..., None])[..., 0] @ basis.T
        spread = 1.48 * np.median(np.abs(rest), axis=1, keepdims=True) + 1e-3
        weight = 1 / (1 + (rest / (1.5 * spread)) ** 2)
    return rest.reshape(n, channels, height, width).transpose(0, 2, 3, 1).astype(np.float32)


def mirror(flow: FloatArray) -> FloatArray:
    """Return the motion of the mirrored face: positions swapped left to right and u negated.

    Args:
        flow: (N, H, W, 2 or 3) float32, u and v around rest and possibly strain.
    """
    flipped = flow[:, :, ::-1].copy()
    flipped[..., 0] *= -1
    return flipped


def coarse(flow: FloatArray, *, grid: int) -> FloatArray:
    """Return means over blocks, (N, grid, grid, C) float32.

    Raises:
        ShapeError: If ``grid`` does not divide the side.
    """
    n, side, _, channels = flow.shape
    if side % grid:
        raise ShapeError(f"A side of {side} has no grid of {grid}.", why="Blocks are of equal size.")
    step = side // grid
    return np.asarray(flow.reshape(n, grid, step, grid, step, channels).mean(axis=(2, 4)), dtype=np.float32)


def strain_channel(images: UInt8Array) -> FloatArray:
    """Return the published strain in 0..1, (N, H, W, 1) float32."""
    return _unit(images)[..., 2:]


def _unit(images: UInt8Array) -> FloatArray:
    if images.ndim != 4 or images.shape[-1] != 3 or images.dtype != np.uint8:
        raise ShapeError(f"The flow images are {images.shape} {images.dtype}.", why="Expected (N, H, W, 3) uint8.")
    return images.astype(np.float32) / np.float32(255)


def _non_negative(gram: NDArray[Any], right: NDArray[Any]) -> NDArray[np.float64]:
    """Solve many 2x2 least-squares problems under x >= 0: the free solution, or the better one on an axis."""
    free = np.linalg.solve(gram, right[..., None])[..., 0]
    alone = np.clip(right / np.einsum("nii->ni", gram), 0, None)
    gain = right * alone - 0.5 * np.einsum("nii->ni", gram) * alone**2
    on_axis = np.where(np.arange(2) == gain.argmax(axis=1)[:, None], alone, 0.0)
    return np.asarray(np.where(free.min(axis=1, keepdims=True) >= 0, free, on_axis), dtype=np.float64)
