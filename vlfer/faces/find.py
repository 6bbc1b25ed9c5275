"""Which faces of an image to look at: those that are detected, or the image as one face."""

from __future__ import annotations

from typing import Literal, get_args

import numpy as np

from vlfer.errors import ConfigError, did_you_mean
from vlfer.faces.detect import Effort, FaceDetector, check_image
from vlfer.types import Face, UInt8Array

FaceMode = Literal["detect", "whole", "auto"]

WHOLE_NOTE = "the whole image was taken as one face, as asked"
FALLBACK_NOTE = "no face found by the detector; the image was taken as one whole face"
NO_FACE_NOTE = "no face found"

# What is plainly a crop: about as large and as square as the face crops that data sets ship.
_CROP_SIDE_PX = 400
_CROP_ASPECT = 4 / 3
# FER2013 and its kin: tiny, square and grey. Nothing else is stored so, hence no further evidence is asked for.
_TINY_SIDE_PX = 64


def find_faces(
    pixels: UInt8Array, *, detector: FaceDetector | None, mode: FaceMode = "auto", effort: Effort = "thorough"
) -> tuple[list[Face], str]:
    """Find the faces of one image, or take it as one face.

    "auto" detects; if that finds nothing and the image is plainly a crop (shorter side up to 400 px, nearly square)
    it is taken as one whole face, provided that the detector sees weak evidence of a face, or that it is a tiny grey
    square as in FER2013.

    Args:
        pixels: (H, W, 3) uint8 RGB.
        detector: What finds faces; may be None for "whole".
        mode: "detect", "whole" or "auto".
        effort: How hard to detect; "fast" for the frames of a video.

    Returns:
        The faces, largest first, empty if there is none; and a note on how they were found, empty in the usual case
        of detected faces. A whole image is a face with the box of the image, score 1 and no landmarks.

    Raises:
        ConfigError: If the mode is unknown, or there is no detector where one is needed.
        ShapeError: If ``pixels`` is not such an array.
    """
    known = get_args(FaceMode)
    if mode not in known:
        raise ConfigError(
            f"The face mode {mode!r} is unknown.",
            why=f"Known: {', '.join(known)}. {did_you_mean(str(mode), known)}".strip(),
            fix="--faces auto",
        )
    check_image(pixels)
    if mode == "whole":
        return [whole_face(pixels)], WHOLE_NOTE
    if detector is None:
        raise ConfigError(f"The face mode {mode!r} has no detector.", why="Faces are to be found.", fix="--faces whole")
    faces = detector.detect(pixels, effort=effort)
    if faces:
        return faces, ""
    if (
        mode == "auto"
        and _is_crop_shaped(pixels)
        and (_is_tiny_grey_square(pixels) or detector.detect(pixels, effort="lenient"))
    ):
        return [whole_face(pixels)], FALLBACK_NOTE
    return [], NO_FACE_NOTE


def whole_face(pixels: UInt8Array) -> Face:
    """Return the face that is the whole image: its box, score 1, no landmarks."""
    height, width = pixels.shape[:2]
    return Face(box=np.array([0, 0, width, height], dtype=np.float32), score=1.0)


def _is_crop_shaped(pixels: UInt8Array) -> bool:
    height, width = pixels.shape[:2]
    shorter, longer = min(height, width), max(height, width)
    return bool(shorter <= _CROP_SIDE_PX and longer <= _CROP_ASPECT * shorter)


def _is_tiny_grey_square(pixels: UInt8Array) -> bool:
    height, width = pixels.shape[:2]
    if height != width or height > _TINY_SIDE_PX:
        return False
    spread = pixels.max(axis=2).astype(int) - pixels.min(axis=2)
    return bool(spread.max() <= 2 and np.ptp(pixels) > 0)  # one flat colour is nobody's face
