"""A face carried from one frame to the next by sparse optical flow, for a fraction of what fitting its mesh costs.

The place, size and roll of the face are carried, not its shape: corners of the picture within the face (Shi and Tomasi,
1994) are tracked with pyramidal Lucas-Kanade (Lucas and Kanade, 1981; Bouguet, 2000), those that do not come back to
where they were are dropped (forward-backward error, Kalal et al., 2010), and the similarity transform that most of the
others agree on moves the landmarks as a whole.
"""

from __future__ import annotations

import math

import cv2
import numpy as np
from numpy.typing import NDArray

from vlfer.faces.align import canonical_square
from vlfer.types import Face, FloatArray, UInt8Array

# The square that is looked at, in sides of the canonical square of the face, and its most pixels after shrinking.
_PATCH_SIDES = 1.6
_MOST_PATCH_PX = 160
_LEAST_PATCH_PX = 24
_MOST_CORNERS = 40
_LEAST_CORNERS = 10
_CORNER_QUALITY = 0.01
_WINDOW_PX = (13, 13)
_LEVELS = 2
_CRITERIA = (cv2.TERM_CRITERIA_EPS | cv2.TERM_CRITERIA_COUNT, 12, 0.03)
# In pixels of the patch: what a corner may miss on its way back, and how far it may lie from the common transform.
_MOST_BACK_PX = 0.5
_MOST_RESIDUAL_PX = 1.0
_LEAST_AGREEING = 0.6
# What moves, grows or turns faster from one frame to the next is fitted anew: sides of the face, factor, radians.
_MOST_MOVE = 0.3
_MOST_GROWTH = 1.12
_MOST_TURN = 0.2
# From so far off the middle of its patch on, in sides, a face gets a new one.
_MOST_OFF = 0.12


class FlowCarrier:
    """Carry one face from frame to frame; a face that was fitted anew needs a new carrier.

    Args:
        pixels: (H, W, 3) uint8 RGB, the frame in which the face was found.
        face: With landmarks.

    Raises:
        ShapeError: If the face has no landmarks, or they are malformed.
    """

    def __init__(self, pixels: UInt8Array, face: Face) -> None:
        self._face = face
        self._grey: UInt8Array
        self._look(pixels)
        self._points = self._corners()

    def carry(self, pixels: UInt8Array) -> Face | None:
        """Return the face in the next frame, (H, W, 3) uint8 RGB, or None where the flow is not to be trusted.

        After None the carrier is of no more use.
        """
        if len(self._points) < _LEAST_CORNERS or pixels.shape[:2] != self._frame_shape:
            return None
        grey = self._grey_of(pixels)
        there, seen = _tracked(self._grey, grey, self._points)
        back, seen_back = _tracked(grey, self._grey, there)
        missed = np.linalg.norm(back - self._points, axis=1)
        good = seen & seen_back & (missed < _MOST_BACK_PX)
        least = max(_LEAST_CORNERS, _LEAST_AGREEING * len(self._points))
        if good.sum() < least:
            return None
        matrix, agreeing = cv2.estimateAffinePartial2D(
            self._points[good], there[good], method=cv2.RANSAC, ransacReprojThreshold=_MOST_RESIDUAL_PX
        )
        if matrix is None or agreeing.sum() < least:
            return None
        moved = self._moved(np.asarray(matrix, dtype=np.float64))
        if moved is None:
            return None
        self._face, self._grey, self._points = moved, grey, there[good][agreeing.ravel() == 1]
        center, side, _ = canonical_square(_landmarks(moved))
        if math.hypot(center[0] - self._middle[0], center[1] - self._middle[1]) > _MOST_OFF * side:
            placed = self._points * self._scale + self._corner
            self._look(pixels)
            self._points = ((placed - self._corner) / self._scale).astype(np.float32)
        return moved

    def _look(self, pixels: UInt8Array) -> None:
        """Lay the patch around the face and take it from the frame."""
        center, side, _ = canonical_square(_landmarks(self._face))
        self._middle, self._frame_shape = center, pixels.shape[:2]
        half = side * _PATCH_SIDES / 2
        height, width = self._frame_shape
        left, right = (int(np.clip(center[0] + sign * half, 0, width)) for sign in (-1, 1))
        top, bottom = (int(np.clip(center[1] + sign * half, 0, height)) for sign in (-1, 1))
        self._window = (slice(top, bottom), slice(left, right))
        self._corner = np.array([left, top], dtype=np.float32)
        self._scale = max(1.0, max(right - left, bottom - top) / _MOST_PATCH_PX)
        self._grey = self._grey_of(pixels)

    def _grey_of(self, pixels: UInt8Array) -> UInt8Array:
        part = pixels[self._window]
        if min(part.shape[:2]) < _LEAST_PATCH_PX:
            return np.zeros((0, 0), dtype=np.uint8)
        grey = cv2.cvtColor(np.ascontiguousarray(part), cv2.COLOR_RGB2GRAY)
        if self._scale > 1:
            size = (round(part.shape[1] / self._scale), round(part.shape[0] / self._scale))
            grey = cv2.resize(grey, size, interpolation=cv2.INTER_AREA)
        return np.asarray(grey, dtype=np.uint8)

    def _corners(self) -> FloatArray:
        """Return (N, 2) corners in pixels of the patch, within the oval that fills the box of the face."""
        grey = self._grey
        if not grey.size:
            return np.zeros((0, 2), dtype=np.float32)
        x0, y0, x1, y1 = ((self._face.box - np.tile(self._corner, 2)) / self._scale).tolist()
        oval = ((x0 + x1) / 2, (y0 + y1) / 2), (0.9 * (x1 - x0), 0.9 * (y1 - y0)), 0.0
        mask = cv2.ellipse(np.zeros(grey.shape, np.uint8), oval, (255,), thickness=-1)
        apart = max(3.0, 0.06 * (y1 - y0))
        found = cv2.goodFeaturesToTrack(grey, _MOST_CORNERS, _CORNER_QUALITY, apart, mask=mask, blockSize=5)
        return np.zeros((0, 2), np.float32) if found is None else np.asarray(found, dtype=np.float32).reshape(-1, 2)

    def _moved(self, matrix: NDArray[np.float64]) -> Face | None:
        """Return the face under a similarity transform of the patch, or None where it is too much at once."""
        marks = _landmarks(self._face)
        growth, turn = math.hypot(matrix[0, 0], matrix[1, 0]), math.atan2(matrix[1, 0], matrix[0, 0])
        shift = self._scale * matrix[:, 2] + self._corner - matrix[:, :2] @ self._corner
        placed = (marks @ matrix[:, :2].T + shift).astype(np.float32)
        box = self._face.box.reshape(2, 2).astype(np.float64)
        middle = box.mean(axis=0)
        now = matrix[:, :2] @ middle + shift
        _, side, _ = canonical_square(marks)
        is_wild = abs(math.log(max(growth, 1e-6))) > math.log(_MOST_GROWTH) or abs(turn) > _MOST_TURN
        if is_wild or math.hypot(*(now - middle)) > _MOST_MOVE * side:
            return None
        box = (box - middle) * growth + now
        return Face(box=box.reshape(4).astype(np.float32), score=self._face.score, landmarks=placed)


def _tracked(before: UInt8Array, now: UInt8Array, points: FloatArray) -> tuple[FloatArray, NDArray[np.bool_]]:
    """Return where (N, 2) points are in the next patch, and whether each was found."""
    there, seen, _ = cv2.calcOpticalFlowPyrLK(
        before, now, points, np.zeros_like(points), winSize=_WINDOW_PX, maxLevel=_LEVELS, criteria=_CRITERIA
    )
    return np.asarray(there, dtype=np.float32), np.asarray(seen).ravel() == 1


def _landmarks(face: Face) -> FloatArray:
    return np.zeros((0, 2), dtype=np.float32) if face.landmarks is None else face.landmarks
