"""A portrait that changes its expression: its face mesh is moved, and the picture follows triangle by triangle.

The smile of the portrait shows teeth. Where the mouth closes, teeth and the folds beside it are filled from the skin
and the lips around them first, as no warp can hide them.
"""

from __future__ import annotations

from dataclasses import dataclass, fields

import cv2
import numpy as np
from numpy.typing import NDArray
from scipy.interpolate import LinearNDInterpolator

from vlfer.types import FloatArray, UInt8Array

Points = NDArray[np.float64]

# Points of MediaPipe's face mesh, left to right in the picture, from corner to corner of the mouth.
_INNER = ((78, 191, 80, 81, 82, 13, 312, 311, 310, 415, 308), (78, 95, 88, 178, 87, 14, 317, 402, 318, 324, 308))
_OUTER = ((61, 185, 40, 39, 37, 0, 267, 269, 270, 409, 291), (61, 146, 91, 181, 84, 17, 314, 405, 321, 375, 291))
_FOLDS = ((129, 203, 206, 216, 212), (358, 423, 426, 436, 432))
_CHEEKS = (50, 280, 205, 425, 36, 266, 187, 411, 101, 330, 118, 347)
_INNER_BROWS = ((107, 66, 55, 65), (336, 296, 285, 295))
_OUTER_BROWS = (105, 63, 70, 52, 53, 46, 334, 293, 300, 282, 283, 276)
_UPPER_LIDS, _LOWER_LIDS = (159, 158, 160, 161, 157, 386, 385, 387, 388, 384), (145, 144, 153, 163, 154, 374, 373, 380,
                                                                               390, 381)  # fmt: skip
_EYES = (33, 263)
_MESH = 468
_REACH = 0.18  # of the distance of the eyes: how far a moved point takes its surroundings along
_GRID, _MARGIN_PX = 17, 8.0
_SEAM = np.array([70.0, 30.0, 30.0], np.float32)


@dataclass(frozen=True, slots=True)
class Pose:
    """How far parts of the face move, in hundredths of the distance of the eyes.

    Attributes:
        closed: How far the mouth is closed, from 0 to 1.
        narrow: Corners of the mouth inwards.
        corners: Corners of the mouth down.
        lower_lip: Lower lip down.
        cheeks: Cheeks down.
        inner_brows: Inner ends of the brows up.
        outer_brows: Outer ends of the brows up.
        together: Brows towards each other.
        lids: Eyes open further.
    """

    closed: float = 0.0
    narrow: float = 0.0
    corners: float = 0.0
    lower_lip: float = 0.0
    cheeks: float = 0.0
    inner_brows: float = 0.0
    outer_brows: float = 0.0
    together: float = 0.0
    lids: float = 0.0


@dataclass(frozen=True, slots=True, eq=False)
class Placed:
    """A pose worked out for one portrait.

    Attributes:
        back: (H, W, 2) float32, where each pixel comes from, relative to where it is.
        seam: (11, 2) float32, where the lips meet, in pixels.
        closed: From 0 to 1.
    """

    back: FloatArray
    seam: FloatArray
    closed: float

    def towards(self, other: Placed, share: float) -> Placed:
        """Return what lies between two poses; 0 is this one, 1 the other."""

        def mixed(a: FloatArray, b: FloatArray) -> FloatArray:
            return np.asarray((1 - share) * a + share * b, np.float32)

        closed = (1 - share) * self.closed + share * other.closed
        return Placed(mixed(self.back, other.back), mixed(self.seam, other.seam), closed)


class Portrait:
    """A picture of one face that takes on poses.

    Args:
        pixels: (H, W, 3) uint8 RGB.
        landmarks: (468 or more, 2) points of the face mesh in pixels.
    """

    def __init__(self, pixels: UInt8Array, landmarks: FloatArray) -> None:
        self._pixels = pixels
        self._points = np.asarray(landmarks[:_MESH], np.float64)
        self._unit = float(np.linalg.norm(self._points[_EYES[0]] - self._points[_EYES[1]])) / 100
        self._toothless = self._without_teeth()

    def place(self, pose: Pose) -> Placed:
        """Work out a pose."""
        moved = self._moved(pose)
        seam = np.array([np.mean([self._points[k] + moved[k] for k in pair], axis=0)
                         for pair in zip(*_INNER, strict=True)], np.float32)  # fmt: skip
        still = all(getattr(pose, field.name) == 0 for field in fields(pose))
        back = np.zeros((*self._pixels.shape[:2], 2), np.float32) if still else self._back(moved)
        return Placed(back, seam, pose.closed)

    def draw(self, placed: Placed) -> UInt8Array:
        """Return the portrait in a pose, (H, W, 3) uint8 RGB."""
        height, width = self._pixels.shape[:2]
        rows, cols = np.mgrid[0:height, 0:width].astype(np.float32)
        at = cols + placed.back[..., 0], rows + placed.back[..., 1]
        as_is, filled = (
            cv2.remap(image, *at, cv2.INTER_CUBIC, borderMode=cv2.BORDER_REPLICATE).astype(np.float32)
            for image in (self._pixels, self._toothless)
        )
        image = (1 - placed.closed) * as_is + placed.closed * filled
        line = np.zeros((height, width), np.float32)
        cv2.polylines(line, [np.round(16 * placed.seam).astype(np.int32)], False, 1.0, 2, cv2.LINE_AA, 4)
        share = 0.55 * placed.closed * cv2.GaussianBlur(line, (0, 0), 1.1)[..., None]
        return np.asarray(np.clip(image * (1 - share) + _SEAM * share, 0, 255), np.uint8)

    def _moved(self, pose: Pose) -> dict[int, Points]:
        """Return by how much each point that a pose moves is moved, in pixels."""
        points, unit = self._points, self._unit
        moved: dict[int, Points] = {}
        for upper, lower, over, under in zip(*_INNER, *_OUTER, strict=True):
            meet = 0.45 * points[upper] + 0.55 * points[lower]
            moved[upper], moved[lower] = (pose.closed * (meet - points[k]) for k in (upper, lower))
            moved[over], moved[under] = 0.75 * moved[upper], 0.8 * moved[lower]
        left, right = points[_OUTER[0][0], 0], points[_OUTER[0][-1], 0]
        for k in list(moved):
            place = (2 * points[k, 0] - left - right) / (right - left)  # -1 and 1 at the corners
            moved[k] = moved[k] + unit * np.array([-pose.narrow * place, pose.corners * place**2])
        for k in (*_INNER[1][1:-1], *_OUTER[1][1:-1]):
            moved[k] = moved[k] + unit * np.array([0.0, pose.lower_lip])
        for keys, dx, dy in (
            (_CHEEKS, 0.0, pose.cheeks), (_OUTER_BROWS, 0.0, -pose.outer_brows),
            (_INNER_BROWS[0], pose.together, -pose.inner_brows), (_INNER_BROWS[1], -pose.together, -pose.inner_brows),
            (_UPPER_LIDS, 0.0, -pose.lids), (_LOWER_LIDS, 0.0, 0.25 * pose.lids),
        ):  # fmt: skip
            moved |= {k: unit * np.array([dx, dy]) for k in keys}
        return moved

    def _back(self, moved: dict[int, Points]) -> FloatArray:
        """Return the field (H, W, 2) that brings moved points, and softly what lies around them, back."""
        height, width = self._pixels.shape[:2]
        keys = np.array(list(moved))
        by = np.stack([moved[int(k)] for k in keys])
        outline = cv2.convexHull(self._points.astype(np.float32))
        grid = np.stack(np.meshgrid(np.linspace(0, width - 1, _GRID), np.linspace(0, height - 1, _GRID)), -1)
        around = [spot for spot in grid.reshape(-1, 2)
                  if cv2.pointPolygonTest(outline, (float(spot[0]), float(spot[1])), True) < -_MARGIN_PX]  # fmt: skip
        points = np.vstack([self._points, *(spot[None] for spot in around)])
        reach = 100 * self._unit * _REACH
        weight = np.exp(-((points[:, None] - self._points[keys][None]) ** 2).sum(-1) / (2 * reach**2))
        mean = (weight @ by) / np.maximum(weight.sum(axis=1), 1e-9)[:, None]
        shift = mean * weight.max(axis=1)[:, None]
        shift[keys] = by
        rows, cols = np.mgrid[0:height, 0:width]
        field = LinearNDInterpolator(points + shift, -shift, fill_value=0.0)(np.stack([cols, rows], -1).reshape(-1, 2))
        smooth = cv2.GaussianBlur(field.reshape(height, width, 2).astype(np.float32), (0, 0), 0.7)
        return np.asarray(smooth, np.float32)

    def _without_teeth(self) -> UInt8Array:
        mask = np.zeros(self._pixels.shape[:2], np.uint8)
        inside = self._points[[*_INNER[0], *reversed(_INNER[1][1:-1])]]
        cv2.fillPoly(mask, [np.round(inside).astype(np.int32)], 255)
        mask = cv2.dilate(mask, cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (7, 7))).astype(np.uint8)
        for fold in _FOLDS:
            cv2.polylines(mask, [np.round(self._points[list(fold)]).astype(np.int32)], False, 255, 7)
        return np.asarray(cv2.inpaint(self._pixels, mask, 5, cv2.INPAINT_TELEA), np.uint8)
