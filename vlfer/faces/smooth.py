"""Steady crops from trembling landmarks."""

from __future__ import annotations

import math

import numpy as np

from vlfer.faces.align import canonical_square
from vlfer.types import Face, FloatArray

# One Euro filter: the cut-off at rest in Hz, and how much it rises with speed in sides of the face per second. At rest
# the tremble of the mesh (about 1 % of a side) is damped, a moving head is not left behind.
_MIN_CUTOFF_HZ = 2.0
_PER_SPEED = 6.0
_SPEED_CUTOFF_HZ = 2.0


class SquareSmoother:
    """Smooth the place, size and roll of one face over time: the One Euro filter (Casiez et al., 2012).

    The landmarks of a face are moved, scaled and turned as a whole, so that its crop is steady and its shape, which is
    the expression, is untouched.
    """

    def __init__(self) -> None:
        self._time_s: float | None = None
        self._value = np.zeros(4)
        self._speed = np.zeros(4)

    def update(self, face: Face, time_s: float) -> Face:
        """Return the face as the filter sees it at ``time_s``, which must increase; without landmarks as it is.

        Raises:
            ShapeError: If the landmarks are malformed.
        """
        if face.landmarks is None:
            return face
        center, side, roll = canonical_square(face.landmarks)
        raw = np.array([center[0] / side, center[1] / side, math.log(side), roll])  # all in sides, or free of units
        if self._time_s is None or time_s <= self._time_s:
            self._time_s, self._value, self._speed = time_s, raw, np.zeros(4)
            return face
        gap_s = time_s - self._time_s
        # Places are told in sides of this frame, which changes: bring the former one to the present side.
        value = self._value.copy()
        value[:2] *= math.exp(self._value[2]) / side
        change = raw - value
        change[3] = math.remainder(change[3], 2 * math.pi)
        weight = _weight(_SPEED_CUTOFF_HZ, gap_s)
        self._speed = (1 - weight) * self._speed + weight * change / gap_s
        cutoff_hz = _MIN_CUTOFF_HZ + _PER_SPEED * float(np.abs(self._speed).max())
        value += _weight(cutoff_hz, gap_s) * change
        scale, turn = math.exp(value[2] - raw[2]), value[3] - raw[3]
        self._time_s, self._value = time_s, value.copy()
        self._value[:2] *= side / math.exp(value[2])
        cos, sin = scale * math.cos(turn), scale * math.sin(turn)
        moved = (face.landmarks - center) @ np.array([[cos, sin], [-sin, cos]]) + value[:2] * side
        return Face(box=face.box, score=face.score, landmarks=_float32(moved))


def _weight(cutoff_hz: float, gap_s: float) -> float:
    """Return the share of the new value in a low-pass filter of first order."""
    return 1.0 - math.exp(-2 * math.pi * cutoff_hz * gap_s)


def _float32(values: np.ndarray[tuple[int, ...], np.dtype[np.floating]]) -> FloatArray:
    return np.asarray(values, dtype=np.float32)
