from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from vlfer.errors import ShapeError
from vlfer.faces import align
from vlfer.faces.align import canonical_square, crop_face, crop_whole, eye_centers, mouth_center, warp_square
from vlfer.types import Face


def five_points(center: tuple[float, float], side: float, roll: float) -> np.ndarray:
    """YuNet landmarks of a median face whose canonical crop is this square."""
    eye, mouth = align.LARGER_DISTANCE * align.EYE_DISTANCE / 2, align.LARGER_DISTANCE * align.EYE_TO_MOUTH
    y = align.EYE_Y - 0.5
    points = np.array([[-eye, y], [eye, y], [0, y + 0.2], [-0.15, y + mouth], [0.15, y + mouth]]) * side
    cos, sin = math.cos(roll), math.sin(roll)
    return (points @ np.array([[cos, sin], [-sin, cos]]) + center).astype(np.float32)


def face_of(landmarks: np.ndarray) -> Face:
    box = np.concatenate([landmarks.min(axis=0), landmarks.max(axis=0)])
    return Face(box=box.astype(np.float32), score=1.0, landmarks=landmarks)


def dotted(landmarks: np.ndarray, side: float, size: tuple[int, int] = (400, 500)) -> np.ndarray:
    """A dark image with a bright soft dot on each eye: red on the right, green on the left one."""
    y, x = np.mgrid[: size[0], : size[1]] + 0.5
    pixels = np.zeros((*size, 3))
    for channel, (ex, ey) in enumerate(eye_centers(landmarks)):
        pixels[..., channel] = 255 * np.exp(-((x - ex) ** 2 + (y - ey) ** 2) / (2 * (0.03 * side) ** 2))
    return pixels.astype(np.uint8)


def centroid(channel: np.ndarray) -> tuple[float, float]:
    weight = channel.astype(float)
    y, x = np.mgrid[: weight.shape[0], : weight.shape[1]] + 0.5
    return (x * weight).sum() / weight.sum() / weight.shape[1], (y * weight).sum() / weight.sum() / weight.shape[0]


@settings(max_examples=40, deadline=None)
@given(
    st.floats(120, 380), st.floats(120, 280), st.floats(40, 220), st.floats(-3.1, 3.1), st.sampled_from([48, 112, 224])
)
def test_eyes_come_to_lie_at_the_canonical_place(x: float, y: float, side: float, roll: float, size: int) -> None:
    landmarks = five_points((x, y), side, roll)
    crop = crop_face(dotted(landmarks, side), face_of(landmarks), size=size)
    assert crop.shape == (size, size, 3)
    half = align.LARGER_DISTANCE * align.EYE_DISTANCE / 2
    for channel, wanted in ((0, 0.5 - half), (1, 0.5 + half)):
        np.testing.assert_allclose(centroid(crop[..., channel]), (wanted, align.EYE_Y), atol=0.015)


def test_canonical_square_inverts() -> None:
    center, side, roll = canonical_square(five_points((200, 150), 90, 0.4))
    np.testing.assert_allclose(center, (200, 150), atol=0.01)
    assert side == pytest.approx(90, abs=0.01)
    assert roll == pytest.approx(0.4, abs=1e-4)


@pytest.mark.parametrize("squeeze", [0.3, 0.6, 0.9])
def test_a_turned_or_nodding_head_is_not_blown_up(squeeze: float) -> None:
    upright = five_points((0, 0), 100, 0)
    for axis in (0, 1):
        turned = upright.copy()
        turned[:, axis] *= squeeze
        _, side, _ = canonical_square(turned)
        assert side == pytest.approx(100, rel=0.02)


@pytest.mark.parametrize("count", [478, 468, 6, 5])
def test_eyes_and_mouth_of_every_landmark_scheme(count: int) -> None:
    marks = np.full((count, 2), -1000, np.float32)
    right, left, mouth = {
        478: ([468], [473], [61, 291]),
        468: ([33, 133], [263, 362], [61, 291]),
        6: ([0], [1], [3]),
        5: ([0], [1], [3, 4]),
    }[count]
    for where, numbers in (((10, 20), right), ((30, 20), left), ((20, 40), mouth)):
        for offset, number in zip((-1, 1) if len(numbers) == 2 else (0,), numbers, strict=True):
            marks[number] = (where[0] + offset, where[1])
    np.testing.assert_array_equal(eye_centers(marks), [[10, 20], [30, 20]])
    np.testing.assert_array_equal(mouth_center(marks), [20, 40])


@pytest.mark.parametrize("shape", [(7, 2), (5, 3), (5,)])
def test_other_landmarks_are_refused(shape: tuple[int, ...]) -> None:
    with pytest.raises(ShapeError, match="478, 468, 6, 5"):
        eye_centers(np.zeros(shape, np.float32))


@pytest.mark.parametrize("value", [3.0, np.nan])
def test_landmarks_without_extent_are_refused(value: float) -> None:
    with pytest.raises(ShapeError, match="no extent"):
        canonical_square(np.full((5, 2), value, np.float32))


@pytest.mark.parametrize("side", [300.0, 1000.0, 1700.0])
def test_shrinking_does_not_alias(side: float) -> None:
    board = np.indices((1800, 1800)).sum(axis=0) % 2 * 255
    pixels = np.repeat(board[..., None], 3, axis=2).astype(np.uint8)
    crop = warp_square(pixels, center=(900, 900), side=side, size=112)
    assert np.abs(crop.astype(float) - 127.5).max() < 60  # a pixel of aliasing would be 0 or 255
    assert crop.std() < 20


@given(st.integers(1, 40), st.integers(1, 40))
@settings(max_examples=30, deadline=None)
def test_an_upright_square_of_its_own_size_is_a_copy(height: int, width: int) -> None:
    pixels = np.random.default_rng(height * 41 + width).integers(0, 255, (height, width, 3), dtype=np.uint8)
    side = max(height, width)
    crop = warp_square(pixels, center=(width / 2, height / 2), side=side, size=side)
    top, left = (side - height) / 2, (side - width) / 2
    if top % 1 == left % 1 == 0:
        inside = crop[int(top) : int(top) + height, int(left) : int(left) + width]
        np.testing.assert_array_equal(inside, pixels)


def test_quarter_turns_are_exact() -> None:
    pixels = np.random.default_rng(0).integers(0, 255, (24, 24, 3), dtype=np.uint8)
    turned = warp_square(pixels, center=(12, 12), side=24, roll=math.pi / 2, size=24)
    np.testing.assert_array_equal(turned, np.rot90(pixels))


def test_the_border_is_repeated() -> None:
    pixels = np.full((50, 50, 3), 90, np.uint8)
    landmarks = five_points((0, 0), 60, 0.3)
    assert set(np.unique(crop_face(pixels, face_of(landmarks), size=64))) == {90}
    far = five_points((900, -900), 60, 0.3)
    assert set(np.unique(crop_face(pixels, face_of(far), size=64))) == {90}


def test_very_wide_images() -> None:
    pixels = np.zeros((40, 40_000, 3), np.uint8)
    pixels[:, 39_000:] = 200
    crop = crop_face(pixels, face_of(five_points((39_500, 20), 30, 0)), size=32)
    assert crop.min() == 200


def test_margin_shows_more_around_the_same_middle() -> None:
    landmarks = five_points((250, 200), 80, 0.2)
    pixels = dotted(landmarks, 80)
    tight, wide = (crop_face(pixels, face_of(landmarks), size=140, margin=margin) for margin in (0.0, 0.2))
    for channel in (0, 1):
        from_middle = np.array(centroid(tight[..., channel])) - 0.5
        np.testing.assert_allclose(np.array(centroid(wide[..., channel])) - 0.5, from_middle / 1.4, atol=0.01)
    with pytest.raises(ShapeError, match="margin"):
        crop_face(pixels, face_of(landmarks), margin=-0.5)


def test_a_box_alone_gives_the_proportions_of_a_canonical_crop() -> None:
    side, center = 100.0, (250.0, 200.0)
    middle_y = center[1] + (align.FACE_CENTER_Y - 0.5) * side
    half = np.array([align.FACE_WIDTH, align.FACE_HEIGHT]) * side / 2
    box = np.array([center[0] - half[0], middle_y - half[1], center[0] + half[0], middle_y + half[1]], np.float32)
    landmarks = five_points(center, side, 0.0)
    pixels = dotted(landmarks, side)
    by_box = crop_face(pixels, Face(box=box, score=1.0))
    by_eyes = crop_face(pixels, face_of(landmarks))
    assert np.abs(by_box.astype(int) - by_eyes).max() <= 3
    straight = crop_face(pixels, Face(box=box, score=1.0, landmarks=five_points(center, side, 1.0)), align=False)
    np.testing.assert_array_equal(straight, by_box)


def test_a_whole_image_is_taken_as_it_is() -> None:
    pixels = np.random.default_rng(0).integers(0, 255, (48, 48, 3), dtype=np.uint8)
    whole = Face(box=np.array([0, 0, 48, 48], np.float32), score=1.0)
    np.testing.assert_array_equal(crop_face(pixels, whole, size=48), pixels)
    wide = np.random.default_rng(0).integers(0, 255, (30, 48, 3), dtype=np.uint8)
    crop = crop_whole(wide, size=48)
    np.testing.assert_array_equal(crop[9:39], wide)
    assert (crop[:9] == wide[0]).all()
    assert (crop[39:] == wide[-1]).all()
    np.testing.assert_array_equal(
        crop_face(wide, Face(box=np.array([0, 0, 48, 30], np.float32), score=1.0), size=48), crop
    )


@pytest.mark.parametrize("box", [[5, 5, 5, 9], [9, 5, 5, 9], [0, 0, np.nan, 9]])
def test_an_empty_box_is_refused(box: list[float]) -> None:
    with pytest.raises(ShapeError, match="face box"):
        crop_face(np.zeros((20, 20, 3), np.uint8), Face(box=np.array(box, np.float32), score=1.0))


@pytest.mark.parametrize("shape", [(20, 20), (20, 20, 4), (0, 20, 3)])
def test_what_is_no_image_is_refused(shape: tuple[int, ...]) -> None:
    with pytest.raises(ShapeError, match="Expected"):
        crop_whole(np.zeros(shape, np.uint8), size=8)


def test_a_detected_face_is_upright_and_canonical(detector, portrait: np.ndarray) -> None:
    [face] = detector.detect(portrait)
    crop = crop_face(portrait, face, size=224, margin=0.25)
    [again] = detector.detect(crop)
    eyes = (eye_centers(again.landmarks) / 224 - 0.5) * 1.5 + 0.5
    np.testing.assert_allclose(eyes[:, 1], align.EYE_Y, atol=0.02)
    np.testing.assert_allclose(eyes[:, 0].mean(), 0.5, atol=0.02)
    assert 0.8 < (eyes[1, 0] - eyes[0, 0]) / align.EYE_DISTANCE < 1.2
