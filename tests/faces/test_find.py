from __future__ import annotations

import cv2
import numpy as np
import pytest
import skimage.data

from vlfer.errors import ConfigError, ShapeError
from vlfer.faces.detect import Effort
from vlfer.faces.find import FALLBACK_NOTE, NO_FACE_NOTE, WHOLE_NOTE, find_faces
from vlfer.types import Face

SOMEWHERE = Face(box=np.array([1, 2, 30, 40], np.float32), score=0.9)


class FakeDetector:
    """Finds a face only at the efforts named."""

    name = "fake"

    def __init__(self, *efforts: Effort) -> None:
        self.efforts = efforts
        self.asked: list[Effort] = []

    def detect(self, pixels: np.ndarray, *, effort: Effort = "thorough") -> list[Face]:
        self.asked.append(effort)
        return [SOMEWHERE] if effort in self.efforts else []


def colourful(height: int, width: int) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 255, (height, width, 3), dtype=np.uint8)


def is_whole(face: Face, pixels: np.ndarray) -> bool:
    height, width = pixels.shape[:2]
    return face.box.tolist() == [0, 0, width, height] and face.score == 1.0 and face.landmarks is None


def test_whole_asks_no_detector() -> None:
    pixels = colourful(300, 200)
    detector = FakeDetector("thorough")
    for given in (detector, None):
        [face], note = find_faces(pixels, detector=given, mode="whole")
        assert is_whole(face, pixels)
        assert note == WHOLE_NOTE
    assert detector.asked == []


@pytest.mark.parametrize("mode", ["detect", "auto"])
@pytest.mark.parametrize("effort", ["fast", "thorough"])
def test_detected_faces_come_without_a_note(mode: str, effort: Effort) -> None:
    detector = FakeDetector(effort)
    assert find_faces(colourful(48, 48), detector=detector, mode=mode, effort=effort) == ([SOMEWHERE], "")
    assert detector.asked == [effort]


@pytest.mark.parametrize(
    ("shape", "falls_back"),
    [((200, 200), True), ((400, 500), True), ((400, 540), False), ((401, 401), False), ((100, 140), False)],
)
def test_auto_falls_back_on_plain_crops_with_evidence_only(shape: tuple[int, int], falls_back: bool) -> None:
    pixels = colourful(*shape)
    faces, note = find_faces(pixels, detector=FakeDetector("lenient"))
    if falls_back:
        assert is_whole(faces[0], pixels)
        assert note == FALLBACK_NOTE
        assert find_faces(pixels, detector=FakeDetector("lenient"), mode="detect") == ([], NO_FACE_NOTE)
    else:
        assert (faces, note) == ([], NO_FACE_NOTE)
    assert find_faces(pixels, detector=FakeDetector()) == ([], NO_FACE_NOTE)


def test_tiny_grey_squares_need_no_evidence() -> None:
    grey = np.repeat(colourful(48, 48)[..., :1], 3, axis=2)
    faces, note = find_faces(grey, detector=FakeDetector())
    assert is_whole(faces[0], grey)
    assert note == FALLBACK_NOTE
    flat = np.full((48, 48, 3), 99, np.uint8)
    large = np.repeat(colourful(65, 65)[..., :1], 3, axis=2)
    oblong = np.repeat(colourful(48, 50)[..., :1], 3, axis=2)
    for other in (flat, large, oblong, colourful(48, 48)):
        assert find_faces(other, detector=FakeDetector()) == ([], NO_FACE_NOTE)


@pytest.mark.parametrize("size", [48, 64, 100, 200, 300])
@pytest.mark.parametrize("name", ["chelsea", "coffee", "rocket", "retina"])
def test_small_pictures_of_other_things_have_no_face(detector, name: str, size: int) -> None:
    pixels = cv2.resize(getattr(skimage.data, name)(), (size, size), interpolation=cv2.INTER_AREA)
    assert find_faces(pixels, detector=detector) == ([], NO_FACE_NOTE)


@pytest.mark.parametrize("size", [48, 100, 224])
def test_a_crop_of_a_face_gives_one_face(detector, portrait: np.ndarray, size: int) -> None:
    tight = np.ascontiguousarray(portrait[70:185, 170:285])
    for pixels in (tight, np.repeat(tight[..., 1:2], 3, axis=2)):
        faces, _ = find_faces(cv2.resize(pixels, (size, size)), detector=detector)
        assert len(faces) == 1


def test_wrong_settings() -> None:
    with pytest.raises(ConfigError, match="Did you mean 'detect'"):
        find_faces(colourful(9, 9), detector=FakeDetector(), mode="detct")
    with pytest.raises(ConfigError, match="no detector"):
        find_faces(colourful(9, 9), detector=None, mode="auto")
    with pytest.raises(ShapeError):
        find_faces(np.zeros((9, 9), np.uint8), detector=None, mode="whole")
