"""Pictures of motion: colour-wheel flow, arrows on the face, strain as heat. All take and give RGB arrays."""

from __future__ import annotations

from typing import Any

import cv2
import numpy as np

from vlfer.errors import ShapeError
from vlfer.micro.flow import NOISE_FLOOR, Motion
from vlfer.micro.registration import face_width_px
from vlfer.types import FloatArray, UInt8Array


def colour_wheel(flow: FloatArray, *, full: float | None = None) -> UInt8Array:
    """Draw flow as colour: the hue is the direction, the saturation the length (Baker et al., IJCV 2011, in HSV).

    Args:
        flow: (H, W, 2) float32.
        full: Length that is fully saturated; by default the 99th percentile, at least three times the noise floor, so
            that a still face stays white.

    Returns:
        (H, W, 3) uint8 RGB. Right is red, down yellow-green, left cyan, up violet.
    """
    if flow.ndim != 3 or flow.shape[2] != 2:
        raise ShapeError(f"The flow has shape {flow.shape}.", why="Expected (H, W, 2).")
    length = np.hypot(flow[..., 0], flow[..., 1])
    top = full or max(float(np.percentile(length, 99)), 3 * NOISE_FLOOR)
    hue = np.arctan2(flow[..., 1], flow[..., 0]) % (2 * np.pi) / (2 * np.pi) * 180
    hsv = np.stack([hue % 180, np.clip(length / top, 0, 1) * 255, np.full(length.shape, 255.0)], axis=-1)
    return np.asarray(cv2.cvtColor(hsv.astype(np.uint8), cv2.COLOR_HSV2RGB), dtype=np.uint8)


def arrows(face: UInt8Array, motion: Motion, *, step: int = 14, gain: float | None = None) -> UInt8Array:
    """Draw arrows on the onset where the face moved beyond the noise floor.

    Args:
        face: (S, S, 3) uint8 RGB in the reference frame.
        motion: The motion from it.
        step: Distance of arrows in pixels.
        gain: Magnification; by default the longest arrow gets 1.6 steps.
    """
    side = _same_side(face, motion)
    flow = motion.flow * face_width_px(side)
    longest = float(np.percentile(np.hypot(flow[..., 0], flow[..., 1]), 99.5))
    scale = gain or 1.6 * step / max(longest, 1e-6)
    canvas: Any = face.copy()
    moved = motion.magnitude >= NOISE_FLOOR
    for y in range(step // 2, side, step):
        for x in range(step // 2, side, step):
            u, v = flow[y, x]
            if not moved[y, x]:
                continue
            end = (round(x + float(u) * scale), round(y + float(v) * scale))
            cv2.arrowedLine(canvas, (x, y), end, (0, 0, 0), 3, cv2.LINE_AA, tipLength=0.35)
            cv2.arrowedLine(canvas, (x, y), end, (255, 230, 60), 1, cv2.LINE_AA, tipLength=0.35)
    return np.asarray(canvas, dtype=np.uint8)


def strain_heat(face: UInt8Array, motion: Motion, *, opacity: float = 0.65) -> UInt8Array:
    """Lay the strain over the face as heat: where skin stretches most it glows; where it rests the face shows through.

    Args:
        face: (S, S, 3) uint8 RGB in the reference frame.
        motion: The motion from it.
        opacity: Of the strongest strain.
    """
    _same_side(face, motion)
    top = max(float(np.percentile(motion.strain, 99.5)), 0.03)
    share = np.clip(cv2.GaussianBlur(motion.strain, (0, 0), 1.5) / top, 0, 1)
    heat = cv2.cvtColor(cv2.applyColorMap((share * 255).astype(np.uint8), cv2.COLORMAP_INFERNO), cv2.COLOR_BGR2RGB)
    weight = opacity * share[..., None]
    return np.asarray(face * (1 - weight) + heat * weight, dtype=np.uint8)


def motion_picture(face: UInt8Array, motion: Motion) -> UInt8Array:
    """Return arrows, colour wheel and heat side by side, (S, 3 S, 3) uint8 RGB."""
    return np.concatenate([arrows(face, motion), colour_wheel(motion.flow), strain_heat(face, motion)], axis=1)


def _same_side(face: UInt8Array, motion: Motion) -> int:
    if face.shape[:2] != motion.strain.shape or face.shape[0] != face.shape[1]:
        raise ShapeError(
            f"The face is {face.shape} and its motion {motion.strain.shape}.", why="Both are in one frame."
        )
    return int(face.shape[0])
