"""From a face in a picture to an upright square crop."""

from __future__ import annotations

import math

import cv2
import numpy as np

from vlfer.errors import ShapeError
from vlfer.types import Face, FloatArray, UInt8Array

# Where the eyes and the face lie in a canonical crop, as fractions of its side: medians over 23,959 mesh fits on the
# FER+ training crops (left and right side averaged), so that aligned faces look like the crops models are trained on.
EYE_Y = 0.3847
EYE_DISTANCE = 0.3658
EYE_TO_MOUTH = 0.3914
FACE_WIDTH = 0.8136
FACE_HEIGHT = 0.9157
FACE_CENTER_Y = 0.5436
# The larger of the two relative distances exceeds 1 on the median face, since the two err independently.
LARGER_DISTANCE = 1.051

# Right eye, left eye (of the person), and the points whose mean is the mouth, by number of landmarks.
_MESH = ((33, 133), (263, 362), (61, 291))
_POINTS: dict[int, tuple[tuple[int, ...], tuple[int, ...], tuple[int, ...]]] = {
    478: ((468,), (473,), (61, 291)),  # MediaPipe mesh with irises
    468: _MESH,  # MediaPipe mesh without irises: corners of the eyes
    6: ((0,), (1,), (3,)),  # BlazeFace key points
    5: ((0,), (1,), (3, 4)),  # YuNet
}


def _points(landmarks: FloatArray, which: int) -> FloatArray:
    numbers = _POINTS.get(len(landmarks)) if landmarks.ndim == 2 and landmarks.shape[1] == 2 else None
    if numbers is None:
        raise ShapeError(
            f"Landmarks have shape {landmarks.shape}.",
            why=f"Known are (L, 2) with L one of {', '.join(map(str, _POINTS))}.",
        )
    mean: FloatArray = landmarks[list(numbers[which])].mean(axis=0)
    return mean


def eye_centers(landmarks: FloatArray) -> FloatArray:
    """Return the centres of both eyes.

    Args:
        landmarks: (L, 2) float32 pixels; L is 478 or 468 (mesh), 6 (BlazeFace) or 5 (YuNet).

    Returns:
        (2, 2) float32 pixels: the person's right eye, then the left, so from left to right on an upright face.

    Raises:
        ShapeError: If L is another number.
    """
    return np.stack([_points(landmarks, 0), _points(landmarks, 1)]).astype(np.float32)


def mouth_center(landmarks: FloatArray) -> FloatArray:
    """Return the middle of the mouth, (2,) float32 pixels.

    Args:
        landmarks: As in `eye_centers`.

    Raises:
        ShapeError: If the number of landmarks is unknown.
    """
    return _points(landmarks, 2).astype(np.float32)


def canonical_square(landmarks: FloatArray) -> tuple[tuple[float, float], float, float]:
    """Return the centre (x, y), side and roll of the canonical crop of a face, in pixels and radians.

    The scale follows the larger of the eye distance and the eye-to-mouth distance, each relative to its median: a
    turned head shortens the first, a nodding one the second, and neither may blow the face up. Against the FER+
    crops the spread of the logarithm of scale falls from 0.23 (eye distance alone) to 0.19.

    Args:
        landmarks: As in `eye_centers`.

    Raises:
        ShapeError: If the number of landmarks is unknown, or all lie on one point.
    """
    right, left = eye_centers(landmarks).astype(np.float64)
    middle = (right + left) / 2
    eye = float(np.hypot(*(left - right))) / EYE_DISTANCE
    mouth = float(np.hypot(*(mouth_center(landmarks) - middle))) / EYE_TO_MOUTH
    side = max(eye, mouth) / LARGER_DISTANCE
    if not (math.isfinite(side) and side > 0):
        raise ShapeError("The landmarks of a face have no extent.", why="Eyes and mouth lie on one point or are NaN.")
    roll = math.atan2(left[1] - right[1], left[0] - right[0])
    down = (0.5 - EYE_Y) * side
    return (float(middle[0] - down * math.sin(roll)), float(middle[1] + down * math.cos(roll))), side, roll


def warp_square(
    pixels: UInt8Array, *, center: tuple[float, float], side: float, roll: float = 0.0, size: int
) -> UInt8Array:
    """Cut a rotated square out of an image, without aliasing; beyond the border the edge is repeated.

    Args:
        pixels: (H, W, 3) uint8 RGB.
        center: x, y of the middle of the square in pixels.
        side: Side of the square in source pixels.
        roll: Angle of its upper edge in radians, clockwise on screen.
        size: Side of the result in pixels.

    Returns:
        (S, S, 3) uint8 RGB.
    """
    height, width = pixels.shape[:2]
    if (height, width, side, roll, center) == (size, size, size, 0.0, (size / 2, size / 2)):
        return pixels.copy()
    # Only the part that is needed goes to OpenCV, which refuses images of 32,767 px and more.
    reach = side * (abs(math.cos(roll)) + abs(math.sin(roll))) / 2 + 3
    left = int(np.clip(math.floor(center[0] - reach), 0, width - 1))
    top = int(np.clip(math.floor(center[1] - reach), 0, height - 1))
    right = int(np.clip(math.ceil(center[0] + reach), left + 1, width))
    bottom = int(np.clip(math.ceil(center[1] + reach), top + 1, height))
    part = np.ascontiguousarray(pixels[top:bottom, left:right])
    # Averaging whole blocks first is cheaper than warping many samples; two to three per pixel are left to the warp.
    block = max(1, math.floor(side / size / 2))
    blocks = (max(1, round(part.shape[1] / block)), max(1, round(part.shape[0] / block)))
    across, down = part.shape[1] / blocks[0], part.shape[0] / blocks[1]
    if block > 1:
        part = np.asarray(cv2.resize(part, blocks, interpolation=cv2.INTER_AREA), dtype=np.uint8)
    factor = max(1, math.ceil(side / block / size))
    fine = size * factor
    step = side / fine
    cos, sin = math.cos(roll) * step, math.sin(roll) * step
    # OpenCV counts from pixel centres, coordinates here from pixel corners: hence the halves.
    x0 = center[0] - left - (cos - sin) * (fine - 1) / 2
    y0 = center[1] - top - (sin + cos) * (fine - 1) / 2
    matrix = np.array(
        [[cos / across, -sin / across, x0 / across - 0.5], [sin / down, cos / down, y0 / down - 0.5]], dtype=np.float64
    )
    warped = cv2.warpAffine(
        part,
        matrix,
        (fine, fine),
        flags=(cv2.INTER_LINEAR if factor > 1 else cv2.INTER_CUBIC) | cv2.WARP_INVERSE_MAP,
        borderMode=cv2.BORDER_REPLICATE,
    )
    if factor > 1:
        warped = cv2.resize(warped, (size, size), interpolation=cv2.INTER_AREA)
    return np.asarray(warped, dtype=np.uint8)


def crop_face(
    pixels: UInt8Array, face: Face, *, size: int = 112, margin: float = 0.0, align: bool = True
) -> UInt8Array:
    """Cut one face out as an upright square.

    With landmarks the eyes come to lie level at their canonical place. Without landmarks, or with ``align=False``,
    the crop is cut straight around the box in the proportions of a canonical crop; a box that is the whole image is
    taken as it is.

    Args:
        pixels: (H, W, 3) uint8 RGB.
        face: The face, in the coordinates of ``pixels``.
        size: Side of the result in pixels.
        margin: Extra on every side as a fraction of the canonical side: 0 is tight as in FER2013, 0.2 shows hair.
        align: Whether to turn and scale by the eyes.

    Returns:
        (S, S, 3) uint8 RGB; beyond the border of the image its edge is repeated.

    Raises:
        ShapeError: If the image, the landmarks or the box are malformed, or the margin leaves nothing.
    """
    _check_image(pixels)
    if not margin > -0.5:
        raise ShapeError(f"The margin is {margin}.", why="At -0.5 and below nothing of the face is left.")
    height, width = pixels.shape[:2]
    if align and face.landmarks is not None:
        center, side, roll = canonical_square(face.landmarks)
    else:
        x0, y0, x1, y1 = (float(v) for v in face.box)
        if not (x1 > x0 and y1 > y0):
            raise ShapeError(f"The face box is {face.box.tolist()}.", why="Expected x0 < x1 and y0 < y1.")
        roll = 0.0
        if np.allclose(face.box, (0, 0, width, height), atol=0.5):
            side, center = float(max(width, height)), (width / 2, height / 2)
        else:
            side = math.sqrt((x1 - x0) / FACE_WIDTH * (y1 - y0) / FACE_HEIGHT)
            center = ((x0 + x1) / 2, (y0 + y1) / 2 - (FACE_CENTER_Y - 0.5) * side)
    return warp_square(pixels, center=center, side=side * (1 + 2 * margin), roll=roll, size=size)


def crop_whole(pixels: UInt8Array, *, size: int) -> UInt8Array:
    """Take a whole image as one square crop; the shorter side is filled up by repeating the edge.

    Args:
        pixels: (H, W, 3) uint8 RGB.
        size: Side of the result in pixels.

    Returns:
        (S, S, 3) uint8 RGB.

    Raises:
        ShapeError: If ``pixels`` is not an image.
    """
    _check_image(pixels)
    height, width = pixels.shape[:2]
    return warp_square(pixels, center=(width / 2, height / 2), side=float(max(height, width)), size=size)


def _check_image(pixels: UInt8Array) -> None:
    if pixels.ndim != 3 or pixels.shape[2] != 3 or pixels.dtype != np.uint8 or 0 in pixels.shape:
        raise ShapeError(
            f"The image has shape {pixels.shape} and dtype {pixels.dtype}.", why="Expected (H, W, 3) uint8 RGB."
        )
