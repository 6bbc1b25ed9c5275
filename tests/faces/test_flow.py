"""Faces that are carried by optical flow, against the truth of a moved portrait and against a fit in every frame."""

from __future__ import annotations

import math

import cv2
import numpy as np
import pytest

from vlfer.errors import ShapeError
from vlfer.faces.align import canonical_square
from vlfer.faces.flow import FlowCarrier
from vlfer.faces.follow import FaceFollower
from vlfer.types import Face


def moved(portrait, face, *, x=0.0, y=0.0, scale=1.0, turn=0.0):
    """The portrait moved as a whole, and where the face then is."""
    center = (face.box[:2] + face.box[2:]) / 2
    matrix = cv2.getRotationMatrix2D((float(center[0]), float(center[1])), -math.degrees(turn), scale)
    matrix[:, 2] += (x, y)
    pixels = cv2.warpAffine(portrait, matrix, portrait.shape[1::-1], borderMode=cv2.BORDER_REPLICATE)
    return pixels, (face.landmarks @ matrix[:, :2].T + matrix[:, 2]).astype(np.float32)


@pytest.fixture(scope="module")
def face(detector, portrait):
    [found] = detector.detect(portrait)
    return found


@pytest.mark.parametrize(
    "motion",
    [{}, {"x": 6.0, "y": -3.0}, {"scale": 1.06}, {"turn": 0.08}, {"x": -8.0, "scale": 0.95, "turn": -0.06}],
    ids=str,
)
def test_place_size_and_roll_are_carried(portrait, face, motion):
    pixels, truth = moved(portrait, face, **motion)
    carried = FlowCarrier(portrait, face).carry(pixels)
    (x, y), side, roll = canonical_square(carried.landmarks)
    (x0, y0), side0, roll0 = canonical_square(truth)
    assert math.hypot(x - x0, y - y0) < 0.01 * side0
    assert side == pytest.approx(side0, rel=0.01)
    assert roll == pytest.approx(roll0, abs=0.01)
    middle = (carried.box[:2] + carried.box[2:]) / 2
    shift = np.array([motion.get("x", 0.0), motion.get("y", 0.0)])
    np.testing.assert_allclose(middle, (face.box[:2] + face.box[2:]) / 2 + shift, atol=1.0)


def test_a_way_over_many_frames_does_not_drift(portrait, face):
    carrier = FlowCarrier(portrait, face)
    for step in range(1, 13):
        pixels, truth = moved(portrait, face, x=5.0 * step, y=2.0 * step)
        carried = carrier.carry(pixels)
    np.testing.assert_allclose(carried.landmarks, truth, atol=1.5)


def test_a_hidden_face_a_jump_and_another_picture_are_not_carried(portrait, face):
    x0, y0, x1, y1 = face.box.astype(int)
    hidden = portrait.copy()
    hidden[y0:y1, x0 - 5 : x1] = 90
    jumped, _ = moved(portrait, face, x=80.0)
    small = np.ascontiguousarray(portrait[:300])
    for pixels in (hidden, jumped, small):
        assert FlowCarrier(portrait, face).carry(pixels) is None


def test_a_face_without_texture_is_not_carried(face):
    blank = np.full((512, 512, 3), 90, dtype=np.uint8)
    assert FlowCarrier(blank, face).carry(blank) is None


def test_a_face_needs_landmarks(portrait, face):
    with pytest.raises(ShapeError):
        FlowCarrier(portrait, Face(face.box, 0.9))


class Counted:
    def __init__(self, detector):
        self.detector, self.fits = detector, 0

    def follow(self, pixels, face):
        self.fits += 1
        return self.detector.follow(pixels, face)


def follow_portrait(detector, portrait, face, *, fit_every_s, fps=30, frames=30):
    counted = Counted(detector)
    faces = FaceFollower(
        lambda pixels: (detector.detect(pixels, effort="fast"), ""), follower=counted, fit_every_s=fit_every_s
    )
    squares = []
    for number in range(frames):
        swing = math.sin(number / 8)
        pixels, _ = moved(portrait, face, x=30 * swing, y=10 * swing, scale=1 + 0.1 * swing, turn=0.1 * swing)
        [seen] = faces.update(pixels, number / fps).faces
        (x, y), side, roll = canonical_square(seen.landmarks)
        squares.append((x / side, y / side, math.log(side), roll))
    return np.array(squares), counted.fits


def test_with_flow_in_between_faces_lie_as_with_a_fit_in_every_frame(detector, portrait, face):
    every, fits = follow_portrait(detector, portrait, face, fit_every_s=0.0)
    between, fewer = follow_portrait(detector, portrait, face, fit_every_s=0.15)
    assert np.abs(every - between).max() < 0.03
    assert np.abs(every - between).mean() < 0.008
    assert fewer <= fits / 4


def test_at_a_low_rate_every_frame_is_fitted(detector, portrait, face):
    _, every = follow_portrait(detector, portrait, face, fit_every_s=0.0, fps=6, frames=8)
    _, fits = follow_portrait(detector, portrait, face, fit_every_s=0.15, fps=6, frames=8)
    assert fits == every
