"""Find the apex of a clip: the frame at which the face differs most from its onset.

Two ways. "flow" measures the motion of every frame against the onset inside brow, nose and mouth regions. "frequency"
(Li et al., IEEE TAFFC 2021) looks for the frame around which grey values change fastest, and needs no flow. Both weigh
the regions that move, so that a wandering background or a blink does not decide.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import cv2
import numpy as np
from scipy.ndimage import gaussian_filter1d

from vlfer.errors import ConfigError, ShapeError
from vlfer.micro.flow import NOISE_FLOOR, FlowEngine, build_flow, rigid_motion
from vlfer.micro.regions import REGIONS, region_means
from vlfer.micro.registration import face_width_px
from vlfer.types import FloatArray, UInt8Array

ApexMethod = Literal["flow", "frequency"]
_FEWEST = 3


@dataclass(frozen=True, slots=True)
class ApexResult:
    """Where the strongest frame is.

    Attributes:
        index: The frame.
        curve: (T,) float32: for "flow" the motion against the onset as a fraction of the face's width, for "frequency"
            the share of fast change.
        is_clear: Whether the peak stands out of noise; if not, ``index`` is little better than a guess.
        onset: The last frame before the apex that is near rest.
        offset: The first frame after the apex at which less than half of the motion is left, or the last frame.
    """

    index: int
    curve: FloatArray
    is_clear: bool
    onset: int
    offset: int


def find_apex(faces: UInt8Array, *, method: ApexMethod = "flow", engine: FlowEngine | None = None) -> ApexResult:
    """Find the apex of a clip that starts at its onset.

    Args:
        faces: (T, S, S, 3) uint8 RGB, one face in the reference frame, all frames with one transform.
        method: How.
        engine: Flow method for "flow"; Farneback without it.

    Raises:
        ConfigError: If there is no such method.
        ShapeError: If the clip has fewer than three frames or another shape.
    """
    if faces.ndim != 4 or faces.shape[1] != faces.shape[2] or faces.shape[3] != 3 or faces.dtype != np.uint8:
        raise ShapeError(f"The clip is {faces.shape} {faces.dtype}.", why="Expected (T, S, S, 3) uint8 RGB.")
    if len(faces) < _FEWEST:
        raise ShapeError(
            f"The clip has {len(faces)} frames.", why=f"An apex lies between others: {_FEWEST} are needed.",
            fix="name onset and apex yourself",
        )  # fmt: skip
    grey = [np.asarray(cv2.cvtColor(face, cv2.COLOR_RGB2GRAY), dtype=np.uint8) for face in faces]
    if method == "flow":
        curve, floor = _flow_curve(grey, engine or build_flow("farneback")), NOISE_FLOOR
    elif method == "frequency":
        curve, floor = _frequency_curve(np.stack(grey)), 0.0
    else:
        raise ConfigError(f"There is no apex method {method!r}.", why="There are flow, frequency.")
    smooth = gaussian_filter1d(curve.astype(np.float64), max(0.5, len(curve) / 60))
    index = int(smooth[1:].argmax()) + 1
    peak, rest = float(smooth[index]), float(np.median(smooth))
    spread = float(np.median(np.abs(smooth - rest))) + 1e-12
    before = np.flatnonzero(smooth[:index] <= 0.25 * peak)
    after = np.flatnonzero(smooth[index:] < 0.5 * peak)
    return ApexResult(
        index=index,
        curve=curve,
        is_clear=peak > max(floor, rest + spread),
        onset=int(before[-1]) if len(before) else 0,
        offset=index + int(after[0]) if len(after) else len(curve) - 1,
    )


def _flow_curve(grey: list[UInt8Array], engine: FlowEngine) -> FloatArray:
    """Return the mean of the three regions that move most against the first frame, in face widths, (T,) float32."""
    side = grey[0].shape[0]
    moved = np.zeros((len(grey), len(REGIONS)))
    for t in range(1, len(grey)):
        flow = engine(grey[0], grey[t])
        own = flow - rigid_motion(flow)
        moved[t] = region_means(np.hypot(own[..., 0], own[..., 1]), side=side)
    strongest = np.sort(moved, axis=1)[:, -3:].mean(axis=1) / face_width_px(side)
    return np.asarray(strongest, dtype=np.float32)


def _frequency_curve(grey: UInt8Array, *, reach: int = 0) -> FloatArray:
    """Return the amplitude of the upper temporal frequencies around each frame, over the regions, (T,) float32."""
    length = len(grey)
    reach = reach or max(1, length // 8)
    window = 2 * reach + 1
    small = np.stack([cv2.resize(face, (56, 56), interpolation=cv2.INTER_AREA) for face in grey]).astype(np.float64)
    small -= small.mean(axis=(1, 2), keepdims=True)  # flicker of the light is no motion
    padded = np.concatenate([np.repeat(small[:1], reach, 0), small, np.repeat(small[-1:], reach, 0)])
    taper = np.hanning(window + 2)[1:-1][:, None, None]
    curve = np.zeros(length)
    for t in range(length):
        part = padded[t : t + window]
        spectrum = np.abs(np.fft.rfft((part - part.mean(axis=0)) * taper, axis=0))
        high = spectrum[1 : max(2, len(spectrum) // 2 + 1)].sum(axis=0)
        curve[t] = np.sort(region_means(high, side=56))[-3:].mean()
    # Change is fastest on the way up and down; the apex lies between, where both are in the window.
    return np.asarray(gaussian_filter1d(curve, reach / 2), dtype=np.float32)
