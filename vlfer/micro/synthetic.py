"""Motion that is known because it was made: faces warped by fields of chosen place, direction and size.

Used to measure flow methods, to make long videos for spotting, and to make training pairs without any data set.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import cv2
import numpy as np

from vlfer.errors import ConfigError, did_you_mean
from vlfer.types import FloatArray, UInt8Array


@dataclass(frozen=True, slots=True)
class Push:
    """A soft local push: a Gaussian bump of displacement.

    Attributes:
        x: Centre as a share of the side of the reference, from the left.
        y: The same from the top.
        dx: Rightward displacement at the centre, as a multiple of the amplitude.
        dy: Downward displacement.
        radius: Standard deviation of the bump as a share of the side.
    """

    x: float
    y: float
    dx: float
    dy: float
    radius: float = 0.07


def _both(x: float, y: float, dx: float, dy: float, radius: float = 0.07) -> tuple[Push, Push]:
    """Return a push on the image's left half and its mirror image."""
    return Push(x, y, dx, dy, radius), Push(1 - x, y, -dx, dy, radius)


ACTION_UNITS: dict[str, tuple[Push, ...]] = {
    "AU1": _both(0.42, 0.17, 0.0, -1.0, 0.06),
    "AU2": _both(0.20, 0.17, 0.0, -1.0, 0.07),
    "AU4": _both(0.41, 0.20, 0.5, 0.9, 0.07),
    "AU5": _both(0.26, 0.28, 0.0, -0.7, 0.04),
    "AU6": _both(0.24, 0.47, 0.1, -0.7, 0.07),
    "AU7": _both(0.26, 0.36, 0.0, -0.6, 0.04),
    "AU9": _both(0.45, 0.48, 0.0, -0.9, 0.05),
    "AU10": _both(0.42, 0.66, 0.0, -0.9, 0.05),
    "AU12": _both(0.30, 0.74, -0.7, -0.7, 0.08),
    "AU14": _both(0.30, 0.76, -0.9, 0.0, 0.05),
    "AU15": _both(0.31, 0.82, -0.1, 0.9, 0.06),
    "AU17": (Push(0.5, 0.93, 0.0, -1.0, 0.08),),
    "AU20": _both(0.29, 0.80, -1.0, 0.2, 0.07),
    "AU23": _both(0.40, 0.76, 0.6, 0.0, 0.05),
    "AU24": (Push(0.5, 0.71, 0.0, 0.7, 0.05), Push(0.5, 0.81, 0.0, -0.7, 0.05)),
    "AU25": (Push(0.5, 0.83, 0.0, 0.8, 0.06),),
    "AU26": (Push(0.5, 0.92, 0.0, 1.0, 0.12),),
}
"""How the action units of FACS move the reference face, in rough strokes, by unit."""


def field(pushes: Sequence[Push], *, side: int, amplitude_px: float) -> FloatArray:
    """Return the displacement of every place, (S, S, 2) float32 pixels."""
    rows, cols = (np.mgrid[0:side, 0:side].astype(np.float32) + 0.5) / side
    out = np.zeros((side, side, 2), dtype=np.float32)
    for push in pushes:
        bump = np.exp(-((cols - push.x) ** 2 + (rows - push.y) ** 2) / (2 * push.radius**2))
        out += amplitude_px * bump[..., None] * np.array([push.dx, push.dy], dtype=np.float32)
    return out


def units_field(units: Sequence[str], *, side: int, amplitude_px: float) -> FloatArray:
    """Return the displacement that action units make together, (S, S, 2) float32 pixels.

    Raises:
        ConfigError: If a unit is not in `ACTION_UNITS`.
    """
    for unit in units:
        if unit not in ACTION_UNITS:
            raise ConfigError(f"There is no action unit {unit!r} here.", why=did_you_mean(unit, ACTION_UNITS))
    return field([push for unit in units for push in ACTION_UNITS[unit]], side=side, amplitude_px=amplitude_px)


def warp(pixels: UInt8Array, displacement: FloatArray, *, rounds: int = 4) -> UInt8Array:
    """Move every place of an image by its displacement.

    Flow from ``pixels`` to the result is ``displacement``: the result at x + d(x) is the image at x. The place that a
    pixel of the result comes from is found by fixed-point iteration, which converges for smooth fields.

    Args:
        pixels: (H, W, 3) or (H, W) uint8.
        displacement: (H, W, 2) float32 pixels.
        rounds: Iterations.

    Returns:
        An image like ``pixels``.
    """
    height, width = pixels.shape[:2]
    rows, cols = np.mgrid[0:height, 0:width].astype(np.float32)
    back: FloatArray = displacement
    for _ in range(rounds):
        at_x, at_y = cols - back[..., 0], rows - back[..., 1]
        moved = cv2.remap(displacement, at_x, at_y, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)
        back = np.asarray(moved, dtype=np.float32)
    at_x, at_y = cols - back[..., 0], rows - back[..., 1]
    image = cv2.remap(pixels, at_x, at_y, cv2.INTER_CUBIC, borderMode=cv2.BORDER_REPLICATE)
    return np.asarray(image, dtype=np.uint8)


def end_point_error(measured: FloatArray, truth: FloatArray) -> float:
    """Return the mean distance of flow vectors in pixels, over the places that move more than a tenth of the peak.

    Over a whole still face any method looks good.
    """
    size = np.linalg.norm(truth, axis=-1)
    return float(np.linalg.norm(measured - truth, axis=-1)[size > 0.1 * size.max()].mean())
