"""Put two faces into one reference frame, so that what is left between them is the motion of the face itself.

The reference is a square with the eyes where the published 28x28 flow images have them, so that a field measured here
and one of a public archive show the same places.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

import cv2
import numpy as np
from numpy.typing import NDArray

from vlfer.errors import ShapeError
from vlfer.types import FloatArray, UInt8Array

LEFT_EYE, RIGHT_EYE = (0.26, 0.32), (0.74, 0.32)
"""Centres of the eyes in the reference as shares of its side; left and right as in the image."""
EYES_PER_FACE_WIDTH = 1 / 2.2
"""Distance of the eyes as a share of the face's width: about 63 mm to 140 mm in adults."""

# Indices into MediaPipe's face mesh: corners of the eyes, and the bridge and sides of the nose, which no expression
# moves much. The tip and wings are left out (AU 9, 10 and 38 move them).
_LEFT_CORNERS, _RIGHT_CORNERS = (33, 133), (362, 263)
_STEADY = (33, 133, 362, 263, 168, 6, 197, 195)
_MESH_SIZES = (468, 478)

Registration = Literal["auto", "each", "onset"]


@dataclass(frozen=True, slots=True)
class FacePair:
    """Onset and apex of one face in the reference frame.

    Attributes:
        onset: (S, S, 3) uint8 RGB.
        apex: (S, S, 3) uint8 RGB.
        registered: "each" if the apex was moved by its own landmarks, "onset" if both share the transform of the onset.
        shift: How far the head moved from onset to apex, as a share of the face's width.
    """

    onset: UInt8Array
    apex: UInt8Array
    registered: Literal["each", "onset"]
    shift: float

    @property
    def face_width_px(self) -> float:
        """Width of the face in pixels of the reference."""
        return face_width_px(self.onset.shape[0])


def face_width_px(side: int) -> float:
    """Return the width of a face in pixels of a reference square of ``side`` pixels."""
    return side * (RIGHT_EYE[0] - LEFT_EYE[0]) / EYES_PER_FACE_WIDTH


def reference_transform(landmarks: FloatArray, *, side: int) -> NDArray[np.float64]:
    """Return the similarity (2, 3) float64 that takes image pixels to the reference square.

    Args:
        landmarks: (L, 2) float32 pixels; the 468 or 478 points of the face mesh.
        side: Side of the square in pixels.

    Raises:
        ShapeError: If the landmarks are others, or both eyes lie in one place.
    """
    points = _mesh(landmarks)
    left, right = points[list(_LEFT_CORNERS)].mean(axis=0), points[list(_RIGHT_CORNERS)].mean(axis=0)
    if float(np.hypot(*(right - left))) < 1:
        raise ShapeError("Both eyes lie in one place.", why="The landmarks give no size.", fix="a larger face")
    return similarity(np.stack([left, right]), np.array([LEFT_EYE, RIGHT_EYE]) * side - 0.5)


def register(
    onset: UInt8Array,
    apex: UInt8Array,
    *,
    onset_landmarks: FloatArray,
    apex_landmarks: FloatArray,
    side: int = 224,
    how: Registration = "auto",
) -> FacePair:
    """Warp onset and apex into the reference frame.

    Landmarks jitter by about a pixel from frame to frame, more than a micro-expression moves. So "auto" gives both
    frames the transform of the onset as long as the head moved less than 1.5 % of the face's width, which the flow
    takes out better, and moves the apex by its own landmarks beyond that.

    Args:
        onset: (H, W, 3) uint8 RGB.
        apex: (H, W, 3) uint8 RGB, possibly of another size.
        onset_landmarks: (L, 2) float32 pixels of the onset's mesh.
        apex_landmarks: (L, 2) float32 pixels of the apex's mesh.
        side: Side of the reference square in pixels.
        how: "each" and "onset" force one way.

    Raises:
        ShapeError: If a frame or its landmarks have another shape; if the frames differ in size and ``how`` is "onset".
    """
    for name, frame in (("onset", onset), ("apex", apex)):
        if frame.ndim != 3 or frame.shape[2] != 3 or frame.dtype != np.uint8:
            raise ShapeError(f"The {name} is {frame.shape} {frame.dtype}.", why="Expected (H, W, 3) uint8 RGB.")
    same_size = onset.shape == apex.shape
    if how == "onset" and not same_size:
        raise ShapeError(
            f"The onset is {onset.shape[1]}x{onset.shape[0]} and the apex {apex.shape[1]}x{apex.shape[0]}.",
            why="Frames of different size cannot share one transform.",
            fix="how='each'",
        )
    to_reference = reference_transform(onset_landmarks, side=side)
    steady = list(_STEADY)
    home = _apply(to_reference, _mesh(onset_landmarks)[steady])
    moved = _mesh(apex_landmarks)[steady]
    shift = float(np.linalg.norm((_apply(to_reference, moved) - home).mean(axis=0))) / face_width_px(side)
    separate = how == "each" or not same_size or (how == "auto" and shift > 0.015)
    apex_transform = similarity(moved, home) if separate else to_reference
    return FacePair(
        onset=warp_to_reference(onset, to_reference, side=side),
        apex=warp_to_reference(apex, apex_transform, side=side),
        registered="each" if separate else "onset",
        shift=shift,
    )


def similarity(source: NDArray[Any], target: NDArray[Any]) -> NDArray[np.float64]:
    """Return the similarity transform (2, 3) that maps points ``source`` (P, 2) onto ``target`` by least squares.

    Umeyama, IEEE TPAMI 1991, without reflections; in two dimensions it is one complex number and a shift.
    """
    a, b = np.asarray(source, np.float64), np.asarray(target, np.float64)
    mean_a, mean_b = a.mean(axis=0), b.mean(axis=0)
    za, zb = (a - mean_a) @ (1, 1j), (b - mean_b) @ (1, 1j)
    turn = np.vdot(za, zb) / max(float(np.vdot(za, za).real), 1e-12)
    linear = np.array([[turn.real, -turn.imag], [turn.imag, turn.real]])
    return np.column_stack([linear, mean_b - linear @ mean_a])


def _apply(transform: NDArray[np.float64], points: NDArray[Any]) -> NDArray[np.float64]:
    return np.asarray(points @ transform[:, :2].T + transform[:, 2], dtype=np.float64)


def warp_to_reference(frame: UInt8Array, transform: NDArray[np.float64], *, side: int) -> UInt8Array:
    """Warp an image (H, W, 3) uint8 into the reference square, (S, S, 3) uint8."""
    shrinks = float(np.hypot(transform[0, 0], transform[1, 0])) < 0.7
    flags = cv2.INTER_AREA if shrinks else cv2.INTER_CUBIC
    out = cv2.warpAffine(frame, transform, (side, side), flags=flags, borderMode=cv2.BORDER_REPLICATE)
    return np.asarray(out, dtype=np.uint8)


def _mesh(landmarks: FloatArray) -> NDArray[np.float64]:
    if landmarks.ndim != 2 or landmarks.shape[0] not in _MESH_SIZES or landmarks.shape[1] != 2:
        raise ShapeError(
            f"The landmarks have shape {landmarks.shape}.",
            why="Registration needs the 468 or 478 points of the face mesh.",
            fix="the mediapipe detector",
        )
    return np.asarray(landmarks, dtype=np.float64)
