from __future__ import annotations

import os
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import cv2
import numpy as np
import pytest
import skimage.data

from vlfer.errors import ConfigError, ShapeError
from vlfer.faces.align import canonical_square, eye_centers
from vlfer.faces.detect import build_detector, largest_first, overlap, suppress_overlaps
from vlfer.types import Face

FACE_PX = 95  # of the portrait: mean of width and height of the box
FACE_AT = np.array([226, 124])
EYES = np.array([[204, 101], [247, 104]])  # its pupils


def hits(faces: list[Face], where: np.ndarray, size: float) -> list[Face]:
    return [face for face in faces if np.abs((face.box[:2] + face.box[2:]) / 2 - where).max() < 0.35 * size]


@pytest.mark.parametrize("effort", ["large", "fast", "thorough", "lenient"])
def test_one_portrait_one_face(detector, portrait: np.ndarray, effort: str) -> None:
    [face] = detector.detect(portrait, effort=effort)
    assert hits([face], FACE_AT, FACE_PX)
    assert 0.5 <= face.score <= 1
    assert face.landmarks.shape == (478, 2)
    assert np.abs(eye_centers(face.landmarks) - EYES).max() < 6
    np.testing.assert_allclose(face.box[:2], face.landmarks[:468].min(axis=0), atol=1e-3)
    grey = np.repeat(portrait.mean(axis=2, keepdims=True).astype(np.uint8), 3, axis=2)
    assert len(detector.detect(grey, effort=effort)) == 1


@pytest.mark.parametrize("effort", ["large", "fast", "thorough"])
@pytest.mark.parametrize(
    "name", ["chelsea", "coffee", "page", "text", "clock", "brick", "grass", "gravel", "moon", "rocket", "horse"]
)
def test_pictures_without_a_face(detector, name: str, effort: str) -> None:
    pixels = getattr(skimage.data, name)()
    pixels = pixels.astype(np.uint8) * 255 if pixels.dtype == bool else pixels
    pixels = np.repeat(pixels[..., None], 3, axis=2) if pixels.ndim == 2 else pixels
    assert detector.detect(np.ascontiguousarray(pixels[..., :3]), effort=effort) == []


@pytest.mark.parametrize("size", [48, 64, 100, 200, 300])
def test_a_cat_and_a_cup_of_any_size(detector, cat: np.ndarray, cup: np.ndarray, size: int) -> None:
    for pixels in (cat, cup):
        small = cv2.resize(pixels, (size, size), interpolation=cv2.INTER_AREA)
        assert detector.detect(small) == []


def test_a_small_face_in_a_large_image(detector, portrait: np.ndarray, cup: np.ndarray) -> None:
    pixels = cv2.resize(cup, (4000, 3000))
    side = round(512 * 60 / FACE_PX)
    small = cv2.resize(portrait, (side, side), interpolation=cv2.INTER_AREA)
    for left, top in ((150, 200), (3600, 2500)):
        image = pixels.copy()
        image[top : top + side, left : left + side] = small
        faces = detector.detect(image)
        assert len(faces) == 1
        assert hits(faces, FACE_AT * side / 512 + (left, top), 60)


def test_several_faces_largest_first(detector, portrait: np.ndarray, cup: np.ndarray) -> None:
    image = cv2.resize(cup, (1600, 1000))
    places = [(50, 50, 512), (700, 60, 300), (1150, 300, 400), (650, 550, 220)]
    for left, top, side in places:
        image[top : top + side, left : left + side] = cv2.resize(
            portrait, (side, side), interpolation=cv2.INTER_AREA if side < 512 else cv2.INTER_LINEAR
        )
    faces = detector.detect(image)
    assert len(faces) == 4
    for face, (left, top, side) in zip(faces, sorted(places, key=lambda p: -p[2]), strict=True):
        assert hits([face], FACE_AT * side / 512 + (left, top), FACE_PX * side / 512)
    few = build_detector(max_faces=2).detect(image)
    assert [face.box.round().tolist() for face in few] == [face.box.round().tolist() for face in faces[:2]]


@pytest.mark.parametrize("degrees", [-90, 90, 180, 45, -45, 135, 20])
def test_rotated_faces_are_found_where_they_are(detector, portrait: np.ndarray, degrees: int) -> None:
    matrix = cv2.getRotationMatrix2D((226, 124), degrees, 1.0)
    matrix[:, 2] += (74, 176)
    turned = cv2.warpAffine(portrait, matrix, (600, 600), borderMode=cv2.BORDER_REPLICATE)
    faces = detector.detect(turned)
    assert len(faces) == 1
    expected = EYES @ matrix[:, :2].T + matrix[:, 2]
    assert np.abs(eye_centers(faces[0].landmarks) - expected).max() < 9
    _, _, roll = canonical_square(faces[0].landmarks)
    assert abs((np.degrees(roll) + degrees + 180 + 4) % 360 - 180) < 12


@pytest.mark.parametrize("size", [48, 100, 400, 1500])
def test_a_face_that_fills_the_image(detector, portrait: np.ndarray, size: int) -> None:
    tight = np.ascontiguousarray(portrait[70:185, 170:285])
    pixels = cv2.resize(tight, (size, size), interpolation=cv2.INTER_AREA if size < 115 else cv2.INTER_CUBIC)
    [face] = detector.detect(pixels)
    np.testing.assert_allclose(eye_centers(face.landmarks) * 115 / size + (170, 70), EYES, atol=7)


@pytest.mark.parametrize("shape", [(1, 1), (2, 300), (300, 2), (16, 16), (700, 40)])
def test_odd_shapes_hold_no_face(detector, shape: tuple[int, int]) -> None:
    for effort in ("large", "fast", "thorough", "lenient"):
        assert detector.detect(np.full((*shape, 3), 128, np.uint8), effort=effort) == []


def test_views_and_read_only_arrays(detector, portrait: np.ndarray) -> None:
    frozen = portrait[:, ::-1]
    frozen.flags.writeable = False
    [face] = detector.detect(frozen)
    assert hits([face], np.array([512 - 226, 124]), FACE_PX)


@pytest.mark.parametrize(
    "pixels",
    [np.zeros((5, 5), np.uint8), np.zeros((5, 5, 4), np.uint8), np.zeros((5, 5, 3)), np.zeros((0, 5, 3), np.uint8)],
)
def test_what_is_no_image_is_refused(detector, pixels: np.ndarray) -> None:
    with pytest.raises(ShapeError):
        detector.detect(pixels)


def test_threads_share_a_detector(detector, portrait: np.ndarray, cup: np.ndarray) -> None:
    [alone] = detector.detect(portrait, effort="fast")
    with ThreadPoolExecutor(4) as pool:
        found = list(pool.map(lambda pixels: detector.detect(pixels, effort="fast"), [portrait, cup] * 8))
    assert all(faces == [] for faces in found[1::2])
    for [face] in found[::2]:
        np.testing.assert_array_equal(face.landmarks, alone.landmarks)


CHATTER = """
import sys, os, numpy as np, skimage.data
from vlfer.faces.detect import build_detector
found = build_detector().detect(skimage.data.astronaut())
print(len(found))
print("python stderr works", file=sys.stderr)
"""


def test_tiles_in_two_threads_give_what_one_after_another_gives(portrait: np.ndarray, cup: np.ndarray) -> None:
    from vlfer.faces.mesh import MediaPipeDetector, _tile_sides, _tiles, _whole

    canvas = np.ascontiguousarray(np.tile(cup[:400, :600], (2, 2, 1)))
    canvas[300:428, 500:628] = portrait[60:188, 160:288]  # seen in tiles only
    mediapipe = MediaPipeDetector()
    assert not mediapipe._confirm(canvas, mediapipe._propose(_whole(canvas)))
    tiles = _tiles(canvas, _tile_sides(canvas))
    assert len(tiles) > 3
    (wanted,) = mediapipe._confirm(canvas, mediapipe._propose(tiles))
    for _ in range(5):
        (found,) = mediapipe.detect(canvas)
        np.testing.assert_array_equal(found.box, wanted.box)
        np.testing.assert_array_equal(found.landmarks, wanted.landmarks)


def test_native_logs_are_silent_and_python_errors_are_not() -> None:
    done = subprocess.run([sys.executable, "-c", CHATTER], capture_output=True, text=True, check=True, timeout=900)
    assert done.stdout == "1\n"
    assert done.stderr == "python stderr works\n"


def test_quiet_passes_on_other_lines_and_errors(capfd: pytest.CaptureFixture[str]) -> None:
    from vlfer.faces.quiet import quiet_native_logs

    def talk() -> None:
        with quiet_native_logs():
            os.write(2, b"W0000 00:00:1795224841.022883 4102 some.cc:114] chatter\nINFO: Created TensorFlow Lite\n")
            os.write(2, b"E0000 00:00:1795224841.022883 4102 some.cc:9] trouble\nimportant\n")
            sys.stderr.write("from Python\n")
            raise RuntimeError("boom")

    with pytest.raises(RuntimeError, match="boom"):
        talk()
    assert sorted(capfd.readouterr().err.splitlines()) == [
        "E0000 00:00:1795224841.022883 4102 some.cc:9] trouble",
        "from Python",
        "important",
    ]


def box(*values: float) -> np.ndarray:
    return np.array(values, np.float32)


def test_overlap() -> None:
    assert overlap(box(0, 0, 10, 10), box(20, 0, 30, 10)) == (0.0, 0.0)
    assert overlap(box(0, 0, 10, 10), box(0, 0, 10, 10)) == (1.0, 1.0)
    iou, inside = overlap(box(0, 0, 10, 10), box(0, 0, 5, 10))
    assert (iou, inside) == (0.5, 1.0)


def test_suppression_keeps_the_most_confident_of_each_place() -> None:
    faces = [
        Face(box(0, 0, 10, 10), 0.6),
        Face(box(1, 1, 11, 11), 0.9),
        Face(box(3, 3, 7, 7), 0.8),
        Face(box(50, 50, 90, 90), 0.7),
    ]
    kept = suppress_overlaps(faces)
    assert [face.score for face in kept] == [0.9, 0.7]
    assert [face.score for face in largest_first(kept, limit=9)] == [0.7, 0.9]


def test_unknown_detectors_and_settings() -> None:
    with pytest.raises(ConfigError, match="Did you mean 'yunet'"):
        build_detector("yunett")
    with pytest.raises(ConfigError, match="min_confidence is 2"):
        build_detector(min_confidence=2)
    with pytest.raises(ConfigError, match="max_faces is 0"):
        build_detector(max_faces=0)
    with pytest.raises(ConfigError, match="its own models"):
        build_detector("mediapipe", model_file="x.onnx")


def test_yunet_without_its_model(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="without a model file") as caught:
        build_detector("yunet")
    assert "opencv_zoo" in caught.value.fix
    with pytest.raises(ConfigError, match="does not exist"):
        build_detector("yunet", model_file=tmp_path / "none.onnx")
    with pytest.raises(ConfigError, match="is not a file"):
        build_detector("yunet", model_file=tmp_path)
    for content in (b"", b"this is no network", bytes(500)):
        (tmp_path / "wrong.onnx").write_bytes(content)
        with pytest.raises(ConfigError, match="is not a YuNet model"):
            build_detector("yunet", model_file=tmp_path / "wrong.onnx")


@pytest.mark.skipif("VLFER_TEST_YUNET" not in os.environ, reason="VLFER_TEST_YUNET names no YuNet model")
def test_yunet_agrees_with_mediapipe(detector, portrait: np.ndarray, cat: np.ndarray, cup: np.ndarray) -> None:
    yunet = build_detector("yunet", model_file=os.environ["VLFER_TEST_YUNET"])
    [theirs], [ours] = yunet.detect(portrait), detector.detect(portrait)
    assert theirs.landmarks.shape == (5, 2)
    assert np.abs(eye_centers(theirs.landmarks) - eye_centers(ours.landmarks)).max() < 6
    (center, side, _), (our_center, our_side, _) = canonical_square(theirs.landmarks), canonical_square(ours.landmarks)
    assert np.abs(np.subtract(center, our_center)).max() < 0.08 * our_side
    assert side == pytest.approx(our_side, rel=0.15)
    assert yunet.detect(cat) == yunet.detect(cup) == []
    small = cv2.resize(portrait, (300, 300), interpolation=cv2.INTER_AREA)
    image = cv2.resize(cup, (3000, 2000))
    image[900:1200, 1300:1600] = small
    assert hits(yunet.detect(image), FACE_AT * 300 / 512 + (1300, 900), 56)
