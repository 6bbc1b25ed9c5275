"""Made data for micro-expressions: faces at rest pushed by known motions, as unlabelled video and labelled pairs."""

from __future__ import annotations

from collections.abc import Sequence
from importlib.resources import files
from pathlib import Path

import cv2
import numpy as np

from vlfer.errors import NoFaceError
from vlfer.faces.detect import FaceDetector
from vlfer.micro.face_samples import FaceSamples
from vlfer.micro.long_video import EXPRESSION_UNITS, Event, render_video
from vlfer.micro.registration import reference_transform, warp_to_reference
from vlfer.micro.synthetic import Push, field, units_field, warp
from vlfer.training.mie_videos import FaceVideos
from vlfer.types import UInt8Array
from vlfer.video.read import load_image

# Faces this small were shrunk, which averages out most of a sensor's noise, and registered, which takes out most of the
# head's motion; drift is a share of the side.
_DRIFT, _NOISE = 0.001, 0.2
CLASSES = tuple("+".join(units) for units in EXPRESSION_UNITS)
_LIDS = (Push(0.26, 0.30, 0.0, 1.0, 0.035), Push(0.74, 0.30, 0.0, 1.0, 0.035))


def resting_faces(images: Sequence[Path], *, side: int, detector: FaceDetector) -> list[UInt8Array]:
    """Return the largest face of each image in the reference frame, (S, S, 3) uint8 RGB.

    Images without a face are left out. Without images it is the portrait that comes with vlfer.

    Raises:
        NoFaceError: If none shows a face.
    """
    pictures = [load_image(path).pixels[0] for path in images] or [portrait()]
    found = []
    for pixels in pictures:
        faces = detector.detect(pixels, effort="thorough")
        if faces and faces[0].landmarks is not None:
            found.append(warp_to_reference(pixels, reference_transform(faces[0].landmarks, side=side), side=side))
    if not found:
        raise NoFaceError(f"None of {len(pictures)} images shows a face.", why="Motions are made on faces at rest.")
    return found


def portrait() -> UInt8Array:
    """Return the portrait that comes with vlfer, (512, 512, 3) uint8 RGB."""
    pixels: UInt8Array = load_image(str(files("vlfer").joinpath("samples", "astronaut.jpg"))).pixels[0]
    return pixels


def another_look(face: UInt8Array, *, rng: np.random.Generator) -> UInt8Array:
    """Return a face as another person in other light: stretched, warped a little, tinted, brightened, mirrored."""
    side = face.shape[0]
    rows, cols = np.mgrid[0:side, 0:side].astype(np.float32) / side - 0.5
    stretch = rng.normal(0, 0.04, 2)
    smooth = cv2.GaussianBlur(rng.normal(size=(side, side, 2)), (0, 0), side / 6)
    own = 0.02 * side * smooth / smooth.std()
    moved = warp(face, np.stack([cols * stretch[0], rows * stretch[1]], axis=-1).astype(np.float32) * side)
    moved = warp(moved, own.astype(np.float32))
    tint = rng.normal(1, 0.08, 3) * np.exp(rng.normal(0, 0.15))
    light = 1 + rng.normal(0, 0.25) * cols[..., None] + rng.normal(0, 0.15) * rows[..., None]
    pixels = 255 * (np.clip(moved * tint * light / 255, 0, 1) ** np.exp(rng.normal(0, 0.2)))
    pixels = pixels[:, ::-1] if rng.random() < 0.5 else pixels
    return np.ascontiguousarray(np.clip(pixels, 0, 255), dtype=np.uint8)


def made_videos(
    faces: Sequence[UInt8Array], *, count: int, duration_s: float, seed: int, fps: float = 30.0
) -> FaceVideos:
    """Make videos of one expression after the other, 1.5 to 4 % of the side, with blinks and a drifting head.

    The motions are those of `CLASSES`, but nothing says which is when.
    """
    rng = np.random.default_rng([seed, 1])
    pixels, times = [], []
    for number in range(count):
        face = another_look(faces[number % len(faces)], rng=rng)
        events = _dense_events(duration_s, rng)
        frames = list(
            render_video(
                face, events, duration_s=duration_s, fps=fps, seed=int(rng.integers(2**31)), drift=_DRIFT, noise=_NOISE
            )
        )
        pixels.append(np.stack([frame for _, frame in frames]))
        times.append(np.array([time_s for time_s, _ in frames]))
    return FaceVideos(tuple(pixels), tuple(times), tuple(np.zeros(len(part), np.int64) for part in pixels))


def _dense_events(duration_s: float, rng: np.random.Generator) -> tuple[Event, ...]:
    events, now = [], float(rng.uniform(0, 0.4))
    while now < duration_s:
        lasts, units = float(rng.uniform(0.6, 1.2)), EXPRESSION_UNITS[int(rng.integers(len(EXPRESSION_UNITS)))]
        amplitude = float(rng.uniform(0.015, 0.04))
        events.append(Event(now, now + lasts * float(rng.uniform(0.4, 0.6)), now + lasts, "macro", units, amplitude))
        now += lasts + float(rng.uniform(0, 0.3))
    for start in np.cumsum(rng.uniform(2, 5, max(1, round(duration_s / 3.5)))).tolist():
        events.append(Event(start, start + 0.12, start + 0.3, "blink", (), 0.05))
    return tuple(events)


def made_pairs(faces: Sequence[UInt8Array], *, per_class: int, seed: int) -> FaceSamples:
    """Make labelled onsets and apexes of small motions, 1 to 2 % of the side, each on another look.

    Three in ten blink, heads shift, sensors noise.
    """
    rng = np.random.default_rng([seed, 2])
    pairs, labels = [], []
    for number in range(per_class * len(CLASSES)):
        label = number % len(CLASSES)
        onset = another_look(faces[number // len(CLASSES) % len(faces)], rng=rng)
        side = onset.shape[0]
        push = units_field(EXPRESSION_UNITS[label], side=side, amplitude_px=float(rng.uniform(0.01, 0.02)) * side)
        if rng.random() < 0.3:
            push = push + field(_LIDS, side=side, amplitude_px=float(rng.uniform(0, 0.04)) * side)
        apex = warp(onset, push + (rng.normal(0, _DRIFT, 2) * side).astype(np.float32))
        pairs.append([_noisy(frame, rng) for frame in (onset, apex)])
        labels.append(label)
    n = len(labels)
    return FaceSamples(
        faces=np.array(pairs, dtype=np.uint8), label=np.array(labels, dtype=np.int64), dataset=np.full(n, "made"),
        subject=np.arange(n).astype(str), clip=np.arange(n).astype(str), classes=CLASSES,
    )  # fmt: skip


def _noisy(frame: UInt8Array, rng: np.random.Generator) -> UInt8Array:
    return np.clip(np.rint(frame + rng.normal(0, _NOISE, frame.shape)), 0, 255).astype(np.uint8)
