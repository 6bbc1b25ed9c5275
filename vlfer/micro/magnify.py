"""Eulerian video magnification (Wu et al., ACM SIGGRAPH 2012): small motions made larger before flow is measured.

Nothing is tracked. Each level of a Laplacian pyramid is filtered in time, and what passes is added several times over.
To first order that moves every edge by the factor; it holds while the magnified motion is below an eighth of the
wavelength of a level, so finer levels get less. Sensor noise is magnified along with motion.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray
from scipy.signal import butter, sosfiltfilt

from vlfer.errors import ConfigError, ShapeError
from vlfer.types import FloatArray, UInt8Array

BAND_HZ = (0.5, 8.0)
"""A micro-expression rises and falls within half a second, a pulse and a drifting head are slower, flicker faster."""
MAGNIFY_FEWEST_FRAMES = 9
"""Fewer frames tell no frequencies."""
_FINEST_PX = 8.0
_COARSEST_PX = 8


def magnify_clip(faces: UInt8Array, *, fps: float, factor: float, band_hz: tuple[float, float] = BAND_HZ) -> UInt8Array:
    """Magnify what moves within a band of frequencies.

    Args:
        faces: (T, S, S, 3) uint8 RGB, all under one transform; at least nine frames.
        fps: Frames a second.
        factor: How much larger motion becomes; 1 changes nothing.
        band_hz: Lowest and highest frequency; the highest is cut to what the frame rate can show.

    Returns:
        Like ``faces``.

    Raises:
        ConfigError: If the factor is below 1, or the band is empty at this frame rate.
        ShapeError: If the clip is too short or has another shape.
    """
    _check_factor(factor)
    if faces.ndim != 4 or faces.dtype != np.uint8 or len(faces) < MAGNIFY_FEWEST_FRAMES:
        raise ShapeError(
            f"The clip is {faces.shape} {faces.dtype}.",
            why=f"Expected (T, S, S, 3) uint8 with {MAGNIFY_FEWEST_FRAMES} frames at least.",
            fix="two images in place of a clip",
        )  # fmt: skip
    low, high = band_hz[0], min(band_hz[1], 0.45 * fps)
    if not 0 < low < high:
        raise ConfigError(
            f"The band from {low:g} to {high:g} Hz is empty.",
            why=f"{fps:g} frames a second show {fps / 2:g} Hz at most.",
        )
    filters = butter(1, (low, high), btype="bandpass", fs=fps, output="sos")

    def in_band(level: FloatArray) -> FloatArray:
        padding = min(len(level) - 1, round(fps / low))
        return np.asarray(sosfiltfilt(filters, level, axis=0, padlen=padding), dtype=np.float32)

    return _magnified(faces, factor, in_band)


def magnify_pair(onset: UInt8Array, apex: UInt8Array, *, factor: float) -> UInt8Array:
    """Return the apex with its difference from the onset magnified; of two frames that is all that time tells.

    Args:
        onset: (S, S, 3) uint8 RGB.
        apex: (S, S, 3) uint8 RGB under the same transform.
        factor: How much larger motion becomes.

    Raises:
        ConfigError: If the factor is below 1.
        ShapeError: If the frames differ in shape.
    """
    _check_factor(factor)
    if onset.shape != apex.shape:
        raise ShapeError(f"The frames are {onset.shape} and {apex.shape}.", why="One is subtracted from the other.")
    both = _magnified(np.stack([onset, apex]), factor, lambda level: np.asarray(level - level[:1], dtype=np.float32))
    return np.asarray(both[1], dtype=np.uint8)


def _check_factor(factor: float) -> None:
    if not (np.isfinite(factor) and factor >= 1):
        raise ConfigError(f"The magnification is {factor}.", why="It is 1 for none, 5 to 10 for small motions.")


def _magnified(faces: UInt8Array, factor: float, in_band: Callable[[FloatArray], FloatArray]) -> UInt8Array:
    frames = faces.astype(np.float32)
    pyramids = [_laplacian(frame) for frame in frames]
    added: Any = None
    for number in reversed(range(len(pyramids[0]))):
        level = np.stack([pyramid[number] for pyramid in pyramids])
        wavelength = 2.0 ** (number + 2)  # a level holds about that many pixels a period
        share = min(1.0, wavelength / _FINEST_PX)
        change = (factor - 1) * share * in_band(level)
        if added is not None:
            change += np.stack([cv2.pyrUp(one, dstsize=level.shape[2:0:-1]) for one in added])
        added = change
    return np.asarray(np.clip((frames + added).round(), 0, 255), dtype=np.uint8)


def _laplacian(frame: FloatArray) -> list[NDArray[Any]]:
    """Return the levels of a pyramid, the finest first; the last is what is left over."""
    levels, rest = [], frame
    while min(rest.shape[:2]) >= 2 * _COARSEST_PX:
        small = cv2.pyrDown(rest)
        levels.append(rest - cv2.pyrUp(small, dstsize=rest.shape[1::-1]))
        rest = np.asarray(small, dtype=np.float32)
    return [*levels, rest]
