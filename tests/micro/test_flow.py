"""Flow methods on a real face with known motion, registration, and the published form."""

from __future__ import annotations

import numpy as np
import pytest
from skimage.data import astronaut

from vlfer.errors import ConfigError, ShapeError
from vlfer.faces.detect import build_detector
from vlfer.micro.apex import find_apex
from vlfer.micro.flow import METHODS, Motion, build_flow, measure_motion, optical_strain, published_image
from vlfer.micro.registration import FacePair, face_width_px, reference_transform, register, similarity
from vlfer.micro.synthetic import ACTION_UNITS, end_point_error, units_field, warp

SIDE = 224


@pytest.fixture(scope="module")
def portrait() -> tuple[np.ndarray, np.ndarray]:
    pixels = astronaut()
    landmarks = build_detector().detect(pixels, effort="fast")[0].landmarks
    assert landmarks is not None
    return pixels, landmarks


@pytest.fixture(scope="module")
def face(portrait) -> np.ndarray:
    pixels, landmarks = portrait
    return register(pixels, pixels, onset_landmarks=landmarks, apex_landmarks=landmarks, side=SIDE).onset


def _grey(pixels: np.ndarray) -> np.ndarray:
    import cv2

    return cv2.cvtColor(pixels, cv2.COLOR_RGB2GRAY)


def _pair(onset: np.ndarray, apex: np.ndarray) -> FacePair:
    return FacePair(onset=onset, apex=apex, registered="onset", shift=0.0)


@pytest.mark.parametrize("peak_px", [0.5, 1.5])
@pytest.mark.parametrize("method", METHODS)
def test_end_point_error_of_known_motion_on_a_real_face(face, method, peak_px) -> None:
    """Bounds near the errors known for 224 px faces; no flow at all would be at 0.29 and 0.88 pixels."""
    truth = units_field(["AU4", "AU12"], side=SIDE, amplitude_px=peak_px)
    measured = build_flow(method)(_grey(face), _grey(warp(face, truth)))
    still = end_point_error(np.zeros_like(truth), truth)
    assert end_point_error(measured, truth) < {0.5: 0.15, 1.5: 0.25}[peak_px]
    assert end_point_error(measured, truth) < 0.5 * still


def test_warp_moves_as_the_field_says() -> None:
    rows, cols = np.mgrid[0:64, 0:64]
    image = np.repeat((128 + 100 * np.sin(cols / 5) * np.cos(rows / 7))[..., None], 3, axis=2).astype(np.uint8)
    shift = np.zeros((64, 64, 2), np.float32)
    shift[..., 0] = 3
    np.testing.assert_array_equal(warp(image, shift)[:, 5:60], image[:, 2:57])


def test_strain_of_known_fields() -> None:
    rows, cols = np.mgrid[0:20, 0:20].astype(np.float32)
    stretch = np.stack([0.1 * cols, 0 * rows], axis=-1)
    shear = np.stack([0.1 * rows, 0.1 * cols], axis=-1)
    turn = np.stack([-0.1 * rows, 0.1 * cols], axis=-1)
    np.testing.assert_allclose(optical_strain(stretch), 0.1, rtol=1e-4)
    np.testing.assert_allclose(optical_strain(shear), np.sqrt(0.2**2 / 2), rtol=1e-4)
    np.testing.assert_allclose(optical_strain(turn), 0, atol=1e-6)  # a turning head is no strain
    with pytest.raises(ShapeError):
        optical_strain(stretch[..., 0])


def test_head_motion_is_taken_out_and_told(face) -> None:
    truth = units_field(["AU12"], side=SIDE, amplitude_px=1.5)
    drift = np.float32([0.8, -0.5])
    motion = measure_motion(_pair(face, warp(face, truth + drift)))
    width = face_width_px(SIDE)
    np.testing.assert_allclose(motion.head * width, drift, atol=0.12)
    assert end_point_error(motion.flow * width, truth) < 0.3
    kept = measure_motion(_pair(face, warp(face, truth + drift)), steady="none")
    assert end_point_error(kept.flow * width, truth) > 0.6


def test_units_are_fractions_of_the_face(face) -> None:
    """The same motion of the same face has the same numbers at another resolution."""
    import cv2

    big = cv2.resize(face, (336, 336), interpolation=cv2.INTER_CUBIC)
    one = measure_motion(_pair(face, warp(face, units_field(["AU12"], side=224, amplitude_px=1.6))))
    two = measure_motion(_pair(big, warp(big, units_field(["AU12"], side=336, amplitude_px=2.4))))
    assert two.strength == pytest.approx(one.strength, rel=0.15)


def test_identical_frames_are_still_and_a_smile_is_not(face) -> None:
    rng = np.random.default_rng(0)
    noisy = np.clip(face + rng.normal(0, 1.5, face.shape), 0, 255).astype(np.uint8)
    assert measure_motion(_pair(face, face)).strength < 1e-4
    assert measure_motion(_pair(face, face)).is_still
    assert measure_motion(_pair(face, noisy)).is_still
    assert not measure_motion(_pair(face, warp(face, units_field(["AU12"], side=SIDE, amplitude_px=1.0)))).is_still


def test_published_image_is_min_max_scaled(face) -> None:
    motion = measure_motion(_pair(face, warp(face, units_field(["AU12"], side=SIDE, amplitude_px=1.5))))
    image = published_image(motion)
    assert image.shape == (28, 28, 3)
    assert image.dtype == np.uint8
    assert (image.min(axis=(0, 1)) == 0).all()
    assert (image.max(axis=(0, 1)) == 255).all()
    assert image[20, 8, 0] < 90  # the corner on the left of the image moves left
    assert image[20, 19, 0] > 165
    flat = Motion(np.zeros((64, 64, 2), np.float32), np.zeros((64, 64), np.float32), np.zeros(2, np.float32), "none")
    assert not published_image(flat).any()


def test_registration_brings_a_moved_head_back(portrait) -> None:
    import cv2

    pixels, landmarks = portrait
    turn = cv2.getRotationMatrix2D((220, 110), 6, 1.1) + np.array([[0, 0, 14], [0, 0, -5]])
    moved = cv2.warpAffine(pixels, turn, (512, 512), flags=cv2.INTER_CUBIC)
    points = (landmarks @ turn[:, :2].T + turn[:, 2]).astype(np.float32)
    pair = register(pixels, moved, onset_landmarks=landmarks, apex_landmarks=points, side=SIDE)
    assert pair.registered == "each"
    assert pair.shift > 0.05
    inner = slice(30, 194)
    assert np.abs(pair.onset[inner, inner].astype(int) - pair.apex[inner, inner]).mean() < 6
    near = register(pixels, pixels, onset_landmarks=landmarks, apex_landmarks=landmarks + 0.4, side=SIDE)
    assert near.registered == "onset"  # jitter of landmarks must not become motion
    np.testing.assert_array_equal(near.onset, near.apex)


def test_eyes_come_to_their_place(portrait) -> None:
    _, landmarks = portrait
    to_reference = reference_transform(landmarks, side=SIDE)
    eyes = landmarks[[33, 133, 362, 263]] @ to_reference[:, :2].T + to_reference[:, 2]
    np.testing.assert_allclose(eyes[:2].mean(axis=0), np.array([0.26, 0.32]) * SIDE - 0.5, atol=1e-3)
    np.testing.assert_allclose(eyes[2:].mean(axis=0), np.array([0.74, 0.32]) * SIDE - 0.5, atol=1e-3)


def test_similarity_recovers_a_known_transform() -> None:
    rng = np.random.default_rng(0)
    points = rng.normal(size=(7, 2))
    want = np.array([[0.8, -0.3, 4.0], [0.3, 0.8, -2.0]])
    np.testing.assert_allclose(similarity(points, points @ want[:, :2].T + want[:, 2]), want, atol=1e-9)


def test_frames_of_different_size(portrait) -> None:
    pixels, landmarks = portrait
    pair = register(pixels, pixels[:400], onset_landmarks=landmarks, apex_landmarks=landmarks, side=SIDE)
    assert pair.registered == "each"
    assert np.abs(pair.onset[:150].astype(int) - pair.apex[:150]).mean() < 2
    with pytest.raises(ShapeError, match="512x512 and the apex 512x400"):
        register(pixels, pixels[:400], onset_landmarks=landmarks, apex_landmarks=landmarks, how="onset")
    with pytest.raises(ShapeError, match="468 or 478"):
        register(pixels, pixels, onset_landmarks=landmarks[:5], apex_landmarks=landmarks)


def test_unknown_method_and_unit() -> None:
    with pytest.raises(ConfigError, match="farneback, dis, tvl1, deepflow"):
        build_flow("lucas")  # type: ignore[arg-type]
    with pytest.raises(ConfigError, match="AU99"):
        units_field(["AU99"], side=8, amplitude_px=1)


@pytest.mark.parametrize("unit", ACTION_UNITS)
def test_action_units_move_both_halves_alike(unit: str) -> None:
    flow = units_field([unit], side=64, amplitude_px=1)
    mirrored = flow[:, ::-1] * np.float32([-1, 1])
    np.testing.assert_allclose(mirrored, flow, atol=1e-5)
    assert np.abs(flow).max() > 0.5


@pytest.mark.parametrize("units", [["AU1", "AU2"], ["AU12"], ["AU4"]])
@pytest.mark.parametrize("method", ["flow", "frequency"])
def test_apex_of_a_made_expression(face, units, method) -> None:
    """25 frames that rise to frame 14 and fall; noise in every frame."""
    rng = np.random.default_rng(1)
    rise = np.interp(np.arange(25), [0, 5, 14, 20, 24], [0, 0, 1, 0.1, 0])
    small = face[::2, ::2].copy()
    clip = [warp(small, units_field(units, side=112, amplitude_px=1.5 * r)) for r in rise]
    noisy = np.clip(np.stack(clip) + rng.normal(0, 1.0, (25, 112, 112, 3)), 0, 255).astype(np.uint8)
    found = find_apex(noisy, method=method)
    assert abs(found.index - 14) <= (2 if method == "flow" else 4)
    assert found.onset < found.index < found.offset
    if method == "flow":
        assert found.is_clear
        assert found.onset in range(3, 10)


def test_apex_of_a_still_clip_is_not_clear(face) -> None:
    rng = np.random.default_rng(2)
    small = face[::2, ::2]
    still = np.clip(small + rng.normal(0, 1.0, (12, *small.shape)), 0, 255).astype(np.uint8)
    assert not find_apex(still).is_clear


def test_apex_needs_three_frames(face) -> None:
    with pytest.raises(ShapeError, match="2 frames"):
        find_apex(np.stack([face, face]))
