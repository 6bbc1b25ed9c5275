"""Examples that need no network: the portrait that comes with vlfer, and clips in which it is gently warped."""

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
from vlfer.types import FloatArray, UInt8Array
from vlfer.video.read import load_image

Scene = Literal["moods", "micro"]
SIDE_PX = 384
# Per scene: frames a second, and when (seconds) which units reach which share of the face's side.
_SCENES: dict[str, tuple[int, tuple[tuple[float, tuple[str, ...], float], ...]]] = {
    "moods": (
        12,
        (
            (0.0, (), 0.0), (1.2, (), 0.0),
            (2.0, ("AU1", "AU2", "AU5", "AU26"), 0.055), (3.0, ("AU1", "AU2", "AU5", "AU26"), 0.055),
            (3.8, ("AU4", "AU15", "AU24"), 0.06), (5.2, ("AU4", "AU15", "AU24"), 0.06),
            (6.0, (), 0.0), (6.9, (), 0.0),
        ),
    ),
    "micro": (60, ((0.0, (), 0.0), (0.25, (), 0.0), (0.42, ("AU4", "AU7"), 0.02), (0.6, (), 0.0), (0.8, (), 0.0))),
}  # fmt: skip
_WRITING = threading.Lock()


def portrait_path() -> Path:
    """Return the portrait of Eileen Collins (NASA, public domain)."""
    return Path(str(files("vlfer").joinpath("samples", "astronaut.jpg")))


def clip_path(folder: Path, scene: Scene, *, detector: FaceDetector) -> Path:
    """Return a clip of the portrait in motion; it is made at the first call.

    Args:
        folder: Where it is kept.
        scene: "moods" goes through several expressions in seven seconds, "micro" frowns for a third of a second.
        detector: Finds the face to be moved.

    Raises:
        NoFaceError: If the detector finds none, or gives no landmarks.
    """
    path = folder / f"example-{scene}.mp4"
    with _WRITING:
        if not path.exists():
            fps = _SCENES[scene][0]
            _write(path, moving_frames(scene, detector=detector), fps=fps)
    return path


def moving_frames(scene: Scene, *, detector: FaceDetector) -> list[UInt8Array]:
    """Return the frames of a scene, each (S, S, 3) uint8 RGB.

    Raises:
        NoFaceError: As in `clip_path`.
    """
    whole = load_image(portrait_path()).pixels[0]
    still = np.asarray(cv2.resize(whole[:420, 20:440], (SIDE_PX, SIDE_PX), interpolation=cv2.INTER_AREA))
    faces = detector.detect(still)
    if not faces or faces[0].landmarks is None:
        raise NoFaceError("The example has no face for this detector.", fix="vlfer doctor")
    fps, keys = _SCENES[scene]
    to_reference = reference_transform(faces[0].landmarks, side=SIDE_PX)
    times = np.arange(int(keys[-1][0] * fps) + 1) / fps
    poses = [_on_face(units_field(units, side=SIDE_PX, amplitude_px=size * SIDE_PX) if units else None, to_reference)
             for _, units, size in keys]  # fmt: skip
    return [warp(still, _between(float(t), [key[0] for key in keys], poses)) for t in times]


def _on_face(motion: FloatArray | None, to_reference: Any) -> FloatArray:
    """Carry a displacement from the reference face to the face of the picture."""
    if motion is None:
        return np.zeros((SIDE_PX, SIDE_PX, 2), dtype=np.float32)
    back = np.linalg.inv(np.vstack([to_reference, [0, 0, 1]]))[:2]
    placed = cv2.warpAffine(motion, back, (SIDE_PX, SIDE_PX), flags=cv2.INTER_LINEAR)
    return np.asarray(placed @ back[:, :2].T, dtype=np.float32)


def _between(time_s: float, starts_s: list[float], poses: list[FloatArray]) -> FloatArray:
    after = int(np.searchsorted(starts_s, time_s, side="right"))
    if after >= len(poses):
        return poses[-1]
    share = (time_s - starts_s[after - 1]) / (starts_s[after] - starts_s[after - 1])
    eased = share * share * (3 - 2 * share)
    return np.asarray(poses[after - 1] * (1 - eased) + poses[after] * eased, dtype=np.float32)


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
