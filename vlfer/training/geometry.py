"""Facial geometry as a second teacher: measurements on the 478-point mesh that follow facial action units.

The tower learns to read them off the pixels beside the votes. They tell a raised brow, a pressed lip or an open mouth
apart also where annotators' classes do not, which is what open vocabulary needs.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from vlfer.types import FloatArray, UInt8Array

# Name -> mesh points (MediaPipe Face Mesh numbering; "right" is the subject's right, left in the image).
_RIGHT = {"eye_in": 133, "eye_out": 33, "lid_up": 159, "lid_low": 145, "brow_in": 55, "brow_mid": 105, "brow_out": 46}
_LEFT = {"eye_in": 362, "eye_out": 263, "lid_up": 386, "lid_low": 374, "brow_in": 285, "brow_mid": 334, "brow_out": 276}
_RIGHT |= {"mouth": 61, "nostril": 129, "lip_up": 40, "cheek": 205}
_LEFT |= {"mouth": 291, "nostril": 358, "lip_up": 270, "cheek": 425}
_NOSE_TIP, _NOSE_BASE, _CHIN, _FOREHEAD = 1, 2, 152, 10
_LIP_TOP_OUT, _LIP_TOP_IN, _LIP_LOW_IN, _LIP_LOW_OUT = 0, 13, 14, 17

SIDED = ("eye_open", "brow_in", "brow_mid", "brow_out", "corner_up", "corner_out", "corner_drop", "nose_lift", "cheek")
CENTRAL = ("brow_gap", "mouth_width", "mouth_open", "lip_top", "lip_low", "upper_lip", "chin", "jaw", "nose_width")
POSE = ("yaw", "pitch")
NAMES = tuple(f"{name}_{side}" for name in SIDED for side in ("right", "left")) + CENTRAL + POSE


def measure(mesh: FloatArray) -> FloatArray:
    """Measure faces, free of position, size and in-plane rotation.

    Args:
        mesh: (N, 478, 2) float32 in any unit; NaN where no face was found.

    Returns:
        (N, G) float32 in units of the eye-to-mouth height, columns as in ``NAMES``; NaN where no face was found.
    """
    points = _upright(mesh)

    def at(index: int) -> NDArray[Any]:
        return points[:, index]

    columns: dict[str, NDArray[Any]] = {}
    for side, part in (("right", _RIGHT), ("left", _LEFT)):
        eye = (at(part["eye_in"]) + at(part["eye_out"])) / 2
        columns[f"eye_open_{side}"] = at(part["lid_low"])[:, 1] - at(part["lid_up"])[:, 1]
        for brow in ("brow_in", "brow_mid", "brow_out"):
            columns[f"{brow}_{side}"] = eye[:, 1] - at(part[brow])[:, 1]
        corner = at(part["mouth"])
        columns[f"corner_up_{side}"] = (at(_LIP_TOP_IN)[:, 1] + at(_LIP_LOW_IN)[:, 1]) / 2 - corner[:, 1]
        columns[f"corner_out_{side}"] = np.abs(corner[:, 0] - at(_NOSE_BASE)[:, 0])
        columns[f"corner_drop_{side}"] = corner[:, 1] - eye[:, 1]
        columns[f"nose_lift_{side}"] = at(part["lip_up"])[:, 1] - at(part["nostril"])[:, 1]
        columns[f"cheek_{side}"] = at(part["cheek"])[:, 1] - at(part["lid_low"])[:, 1]
    columns["brow_gap"] = at(_LEFT["brow_in"])[:, 0] - at(_RIGHT["brow_in"])[:, 0]
    columns["mouth_width"] = at(_LEFT["mouth"])[:, 0] - at(_RIGHT["mouth"])[:, 0]
    columns["mouth_open"] = at(_LIP_LOW_IN)[:, 1] - at(_LIP_TOP_IN)[:, 1]
    columns["lip_top"] = at(_LIP_TOP_IN)[:, 1] - at(_LIP_TOP_OUT)[:, 1]
    columns["lip_low"] = at(_LIP_LOW_OUT)[:, 1] - at(_LIP_LOW_IN)[:, 1]
    columns["upper_lip"] = at(_LIP_TOP_OUT)[:, 1] - at(_NOSE_BASE)[:, 1]
    columns["chin"] = at(_CHIN)[:, 1] - at(_LIP_LOW_OUT)[:, 1]
    columns["jaw"] = at(_CHIN)[:, 1] - at(_NOSE_BASE)[:, 1]
    columns["nose_width"] = at(_LEFT["nostril"])[:, 0] - at(_RIGHT["nostril"])[:, 0]
    columns["yaw"] = at(_NOSE_TIP)[:, 0]
    columns["pitch"] = at(_NOSE_TIP)[:, 1]
    return np.stack([columns[name] for name in NAMES], axis=1).astype(np.float32)


def _upright(mesh: FloatArray) -> FloatArray:
    """Move the point between the eyes to the origin, level the eyes, and scale eyes-to-mouth to 1."""
    right = (mesh[:, _RIGHT["eye_in"]] + mesh[:, _RIGHT["eye_out"]]) / 2
    left = (mesh[:, _LEFT["eye_in"]] + mesh[:, _LEFT["eye_out"]]) / 2
    centre = (right + left) / 2
    direction = left - right
    angle = np.arctan2(direction[:, 1], direction[:, 0])
    cos, sin = np.cos(angle)[:, None], np.sin(angle)[:, None]
    moved = mesh - centre[:, None]
    turned = np.stack([cos * moved[..., 0] + sin * moved[..., 1], -sin * moved[..., 0] + cos * moved[..., 1]], axis=-1)
    # The upper lip moves less than mouth corners or jaw, so the unit hardly depends on the expression itself.
    height = np.abs(turned[:, _NOSE_BASE, 1]) * 1.6
    return np.asarray(turned / np.maximum(height, 1e-6)[:, None, None], np.float32)


def mirrored(targets: FloatArray) -> FloatArray:
    """Return the measurements of the mirrored faces: sides swapped, yaw negated."""
    order = [NAMES.index(_other_side(name)) for name in NAMES]
    swapped = targets[:, order].copy()
    swapped[:, NAMES.index("yaw")] *= -1
    return swapped


def _other_side(name: str) -> str:
    if name.endswith("_right"):
        return name.removesuffix("_right") + "_left"
    return name.removesuffix("_left") + "_right" if name.endswith("_left") else name


def mesh_of_crops(images: UInt8Array, *, hook: Callable[[int, int], None] | None = None) -> FloatArray:
    """Find the mesh on grey face crops with MediaPipe Face Mesh.

    Args:
        images: (N, S, S) uint8 crops; they are enlarged and padded, since the detector needs context.
        hook: Called with (done, total) now and then.

    Returns:
        (N, 478, 2) float32 in fractions of the crop; NaN where no face was found.
    """
    from mediapipe.python.solutions.face_mesh import FaceMesh

    side, pad = 192, 48
    meshes = np.full((len(images), 478, 2), np.nan, np.float32)
    with FaceMesh(
        static_image_mode=True, max_num_faces=1, refine_landmarks=True, min_detection_confidence=0.2
    ) as finder:
        for i, image in enumerate(images):
            large = cv2.resize(image, (side, side), interpolation=cv2.INTER_CUBIC)
            padded = cv2.copyMakeBorder(large, pad, pad, pad, pad, cv2.BORDER_REPLICATE)
            found = finder.process(np.repeat(padded[..., None], 3, axis=2)).multi_face_landmarks
            if found:
                meshes[i] = [(point.x, point.y) for point in found[0].landmark]
            if hook and i % 500 == 0:
                hook(i, len(images))
    total = side + 2 * pad
    return np.asarray((meshes * total - pad) / side, np.float32)
