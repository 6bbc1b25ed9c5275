"""Examples that need no network: the portrait that comes with vlfer, and clips in which its face is moved."""

from __future__ import annotations

import threading
from importlib.resources import files
from pathlib import Path
from typing import Any, Literal

import av
import cv2
import numpy as np

from vlfer.errors import NoFaceError
from vlfer.faces.detect import FaceDetector
from vlfer.micro.registration import reference_transform
from vlfer.micro.synthetic import units_field, warp
from vlfer.serve.ui_poses import Portrait, Pose
from vlfer.types import FloatArray, UInt8Array
from vlfer.video.read import load_image

Scene = Literal["moods", "micro"]
SIDE_PX = 384
_MICRO_FPS, _MOODS_FPS = 60, 12
# When (seconds) which units reach which share of the face's side.
_FROWN: tuple[tuple[float, tuple[str, ...], float], ...] = (
    (0.0, (), 0.0), (0.25, (), 0.0), (0.42, ("AU4", "AU7"), 0.02), (0.6, (), 0.0), (0.8, (), 0.0),
)  # fmt: skip
_CALM = Pose(closed=1, narrow=8, corners=12, cheeks=5, outer_brows=-2)
_SAD = Pose(closed=1, narrow=6, corners=25, cheeks=10, inner_brows=8, outer_brows=-6, together=3, lids=-5, lower_lip=-2)
_MOODS = (
    (0.0, Pose()), (1.4, Pose()), (2.1, _CALM), (2.8, _CALM), (3.8, _SAD), (5.3, _SAD), (6.2, Pose()), (6.9, Pose()),
)  # fmt: skip
_WRITING = threading.Lock()


def portrait_path() -> Path:
    """Return the portrait of Eileen Collins (NASA, public domain)."""
    return Path(str(files("vlfer").joinpath("samples", "astronaut.jpg")))


def clip_path(folder: Path, scene: Scene, *, detector: FaceDetector) -> Path:
    """Return a clip of the portrait in motion; it is made at the first call.

    Args:
        folder: Where it is kept.
        scene: "moods" goes from a smile to calm to sadness and back in seven seconds, "micro" frowns for a third of
            a second.
        detector: Finds the face to be moved.

    Raises:
        NoFaceError: If the detector finds none, or gives no landmarks.
    """
    path = folder / f"example-{scene}.mp4"
    with _WRITING:
        if not path.exists():
            fps = _MOODS_FPS if scene == "moods" else _MICRO_FPS
            _write(path, moving_frames(scene, detector=detector), fps=fps)
    return path


def moving_frames(scene: Scene, *, detector: FaceDetector) -> list[UInt8Array]:
    """Return the frames of a scene, each (S, S, 3) uint8 RGB.

    Raises:
        NoFaceError: As in `clip_path`.
    """
    whole = load_image(portrait_path()).pixels[0]
    return _moods(whole, detector) if scene == "moods" else _frown(whole, detector)


def _moods(whole: UInt8Array, detector: FaceDetector) -> list[UInt8Array]:
    still = _scaled(whole[0:270, 90:360], cv2.INTER_CUBIC)
    portrait = Portrait(still, _mesh_of(still, detector))
    starts_s = [time_s for time_s, _ in _MOODS]
    placed = [portrait.place(pose) for _, pose in _MOODS]
    frames = []
    for time_s in np.arange(int(starts_s[-1] * _MOODS_FPS) + 1) / _MOODS_FPS:
        before, share = _share(float(time_s), starts_s)
        frames.append(portrait.draw(placed[before].towards(placed[before + 1], share)))
    return frames


def _frown(whole: UInt8Array, detector: FaceDetector) -> list[UInt8Array]:
    still = _scaled(whole[:420, 20:440], cv2.INTER_AREA)
    to_reference = reference_transform(_mesh_of(still, detector), side=SIDE_PX)
    starts_s = [key[0] for key in _FROWN]
    poses = [_on_face(units_field(units, side=SIDE_PX, amplitude_px=size * SIDE_PX) if units else None, to_reference)
             for _, units, size in _FROWN]  # fmt: skip
    frames = []
    for time_s in np.arange(int(starts_s[-1] * _MICRO_FPS) + 1) / _MICRO_FPS:
        before, share = _share(float(time_s), starts_s)
        frames.append(warp(still, np.asarray(poses[before] * (1 - share) + poses[before + 1] * share, np.float32)))
    return frames


def _scaled(pixels: UInt8Array, interpolation: int) -> UInt8Array:
    return np.asarray(cv2.resize(pixels, (SIDE_PX, SIDE_PX), interpolation=interpolation), dtype=np.uint8)


def _mesh_of(pixels: UInt8Array, detector: FaceDetector) -> FloatArray:
    faces = detector.detect(pixels)
    if not faces or faces[0].landmarks is None:
        raise NoFaceError("The example has no face for this detector.", fix="vlfer doctor")
    return faces[0].landmarks


def _on_face(motion: FloatArray | None, to_reference: Any) -> FloatArray:
    """Carry a displacement from the reference face to the face of the picture."""
    if motion is None:
        return np.zeros((SIDE_PX, SIDE_PX, 2), dtype=np.float32)
    back = np.linalg.inv(np.vstack([to_reference, [0, 0, 1]]))[:2]
    placed = cv2.warpAffine(motion, back, (SIDE_PX, SIDE_PX), flags=cv2.INTER_LINEAR)
    return np.asarray(placed @ back[:, :2].T, dtype=np.float32)


def _share(time_s: float, starts_s: list[float]) -> tuple[int, float]:
    """Return between which key and the next a time lies, and how far the motion has come, easing in and out."""
    before = min(int(np.searchsorted(starts_s, time_s, side="right")), len(starts_s) - 1) - 1
    share = (time_s - starts_s[before]) / (starts_s[before + 1] - starts_s[before])
    return before, min(share, 1.0) ** 2 * (3 - 2 * min(share, 1.0))


def _write(path: Path, frames: list[UInt8Array], *, fps: int) -> None:
    """Write an H.264 clip that every browser plays."""
    path.parent.mkdir(parents=True, exist_ok=True)
    unfinished = path.with_name(f"unfinished-{path.name}")
    with av.open(str(unfinished), "w", options={"movflags": "faststart"}) as container:
        stream: Any = container.add_stream("libx264", rate=fps, options={"crf": "20", "preset": "veryfast"})
        stream.width = stream.height = SIDE_PX
        stream.pix_fmt = "yuv420p"
        for pixels in frames:
            container.mux(stream.encode(av.VideoFrame.from_ndarray(pixels, format="rgb24")))
        container.mux(stream.encode())
    unfinished.replace(path)
