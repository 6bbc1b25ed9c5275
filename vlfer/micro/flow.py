"""Motion between the onset and the apex of an expression: optical flow, head motion taken out, strain.

Inside, flow is in physical units: fractions of the face's width. The published 28x28 images, each channel min-max
scaled, come from `published_image` only, for comparison and for models that were trained on them.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal, Protocol

import cv2
import numpy as np
from numpy.typing import NDArray

from vlfer.errors import ConfigError, EnvironmentProblem, ShapeError
from vlfer.micro.magnify import magnify_pair
from vlfer.micro.registration import FacePair
from vlfer.micro.samples import SIDE
from vlfer.types import FloatArray, UInt8Array

FlowMethod = Literal["farneback", "dis", "tvl1", "deepflow"]
Steady = Literal["nose", "none"]

METHODS: tuple[FlowMethod, ...] = ("farneback", "dis", "tvl1", "deepflow")
NOISE_FLOOR = 0.0012
"""Median-to-peak motion of a face at rest, as a share of its width: sensor noise and compression look like this
much."""

# Bridge of the nose in the reference: x from, x to, y from, y to as shares of the side.
_NOSE = (0.42, 0.58, 0.34, 0.56)


class FlowEngine(Protocol):
    """An optical flow method."""

    def __call__(self, first: UInt8Array, second: UInt8Array) -> FloatArray:
        """Return (H, W, 2) float32 pixels: where each place of ``first`` (H, W) uint8 grey went to in ``second``."""
        ...


@dataclass(frozen=True, slots=True)
class Motion:
    """What moved between two frames of one face, in the reference frame.

    Attributes:
        flow: (S, S, 2) float32, rightward and downward motion as fractions of the face's width.
        strain: (S, S) float32, optical strain; dimensionless.
        head: (2,) float32, the motion of the head that was taken out, in the unit of ``flow``.
        method: Flow method.
    """

    flow: FloatArray
    strain: FloatArray
    head: FloatArray
    method: str

    @property
    def magnitude(self) -> FloatArray:
        """(S, S) float32, length of the flow."""
        return np.hypot(self.flow[..., 0], self.flow[..., 1])

    @property
    def strength(self) -> float:
        """How strongly the face moved: the 98th percentile of the magnitude, as a fraction of the face's width."""
        return float(np.percentile(self.magnitude, 98))

    @property
    def is_still(self) -> bool:
        """Whether the motion is within what noise alone shows."""
        return self.strength < NOISE_FLOOR


def build_flow(method: FlowMethod = "farneback") -> FlowEngine:
    """Return a flow method: "farneback" is for live use, "tvl1" is the most exact.

    Farneback (SCIA 2003), DIS (Kroeger et al., ECCV 2016), TV-L1 (Zach et al., DAGM 2007) and DeepFlow (Weinzaepfel et
    al., ICCV 2013), all as OpenCV has them.

    Raises:
        ConfigError: If there is no such method.
        EnvironmentProblem: If the OpenCV at hand lacks it.
    """
    if method not in METHODS:
        raise ConfigError(f"There is no flow method {method!r}.", why=f"There are {', '.join(METHODS)}.")
    if method == "farneback":
        return _farneback
    library: Any = cv2  # its stubs lack the contributed modules
    try:
        if method == "dis":
            engine = library.DISOpticalFlow_create(library.DISOPTICAL_FLOW_PRESET_MEDIUM)
        elif method == "tvl1":
            engine = library.optflow.createOptFlow_DualTVL1()
        else:
            engine = library.optflow.createOptFlow_DeepFlow()
    except AttributeError as error:
        raise EnvironmentProblem(
            f"This OpenCV has no {method}.",
            why="It comes with the package opencv-contrib-python.",
            fix="pip install --force-reinstall opencv-contrib-python, or --flow farneback",
        ) from error

    def compute(first: UInt8Array, second: UInt8Array) -> FloatArray:
        return np.asarray(engine.calc(first, second, None), dtype=np.float32)

    return compute


def measure_motion(
    pair: FacePair, *, method: FlowMethod = "farneback", steady: Steady = "nose", engine: FlowEngine | None = None,
    magnify: float = 1.0, is_magnified: bool = False,
) -> Motion:  # fmt: skip
    """Measure the motion from onset to apex.

    Args:
        pair: Both faces in the reference frame.
        method: Flow method.
        steady: "nose" takes the mean motion of the nose's bridge for the head's and subtracts it; "none" keeps it.
        engine: A method built before, in place of a new one.
        magnify: Eulerian magnification of the apex before flow is measured; the flow is divided by it again, so that
            its unit and the noise floor stay.
        is_magnified: Whether the pair comes magnified already, from a clip.

    Raises:
        ConfigError, EnvironmentProblem: As `build_flow` and `magnify_pair`.
    """
    compute = engine or build_flow(method)
    apex = pair.apex if magnify == 1 or is_magnified else magnify_pair(pair.onset, pair.apex, factor=magnify)
    pixels = compute(_grey(pair.onset), _grey(apex)) / np.float32(magnify)
    head = rigid_motion(pixels) if steady == "nose" else np.zeros(2, dtype=np.float32)
    own = pixels - head
    width = np.float32(pair.face_width_px)
    return Motion(flow=own / width, strain=optical_strain(own), head=head / width, method=method)


def rigid_motion(flow: FloatArray) -> FloatArray:
    """Return the mean flow of the bridge of the nose, (2,) float32, without the tenth of it that differs most."""
    side = flow.shape[0]
    left, right, top, bottom = (round(share * side) for share in _NOSE)
    nose = flow[top:bottom, left:right].reshape(-1, 2)
    off = np.linalg.norm(nose - np.median(nose, axis=0), axis=1)
    return np.asarray(nose[off <= np.quantile(off, 0.9)].mean(axis=0), dtype=np.float32)


def optical_strain(flow: FloatArray) -> FloatArray:
    """Return the magnitude of the infinitesimal strain, (H, W) float32.

    e = sqrt(u_x^2 + v_y^2 + (u_y + v_x)^2 / 2), Shreve et al., FG 2011.

    Args:
        flow: (H, W, 2) float32 in the unit of the positions.
    """
    if flow.ndim != 3 or flow.shape[2] != 2:
        raise ShapeError(f"The flow has shape {flow.shape}.", why="Expected (H, W, 2).")
    u_y, u_x = np.gradient(flow[..., 0])
    v_y, v_x = np.gradient(flow[..., 1])
    return np.asarray(np.sqrt(u_x**2 + v_y**2 + (u_y + v_x) ** 2 / 2), dtype=np.float32)


def published_image(motion: Motion) -> UInt8Array:
    """Return the motion as the 28x28 images of STSTNet and HTNet: u, v, strain, each min-max scaled to 0..255.

    This throws magnitude and rest away. A channel without any difference becomes 0.
    """
    stack = np.concatenate([motion.flow, motion.strain[..., None]], axis=-1)
    small = np.asarray(cv2.resize(stack, (SIDE, SIDE), interpolation=cv2.INTER_AREA), dtype=np.float64)
    low, high = small.min(axis=(0, 1)), small.max(axis=(0, 1))
    span = np.where(high > low, high - low, 1.0)
    return np.asarray(np.round((small - low) / span * 255), dtype=np.uint8)


def _farneback(first: UInt8Array, second: UInt8Array) -> FloatArray:
    none: Any = None
    flow: NDArray[Any] = cv2.calcOpticalFlowFarneback(first, second, none, 0.5, 3, 15, 3, 5, 1.2, 0)
    return np.asarray(flow, dtype=np.float32)


def _grey(pixels: UInt8Array) -> UInt8Array:
    return np.asarray(cv2.cvtColor(pixels, cv2.COLOR_RGB2GRAY), dtype=np.uint8)
