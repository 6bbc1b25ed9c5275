"""Eulerian magnification of made motion of known amplitude."""

from __future__ import annotations

import cv2
import numpy as np
import pytest
from skimage.data import astronaut

from vlfer.errors import ConfigError, ShapeError
from vlfer.micro.flow import NOISE_FLOOR, build_flow, measure_motion
from vlfer.micro.magnify import magnify_clip, magnify_pair
from vlfer.micro.registration import FacePair
from vlfer.micro.synthetic import units_field, warp

FPS, FREQUENCY_HZ = 100.0, 3.0
PORTRAIT = cv2.resize(np.ascontiguousarray(astronaut()[40:200, 140:300]), (128, 128), interpolation=cv2.INTER_AREA)


def _wave(shift_px: float) -> np.ndarray:
    """Smooth stripes and rings, moved right."""
    y, x = np.mgrid[0:96, 0:96].astype(float)
    values = 128 + 50 * np.sin(2 * np.pi * (x - shift_px) / 32) + 30 * np.cos(2 * np.pi * y / 24)
    return np.repeat(values.round()[..., None], 3, axis=-1).astype(np.uint8)


def _sinusoid(amplitude_px: float, *, hz: float = FREQUENCY_HZ, frames: int = 100) -> np.ndarray:
    times = np.arange(frames) / FPS
    return np.stack([_wave(amplitude_px * np.sin(2 * np.pi * hz * t)) for t in times])


def _amplitude(clip: np.ndarray, *, hz: float = FREQUENCY_HZ) -> float:
    """Half of the way that the picture goes, by flow against the first frame, away from the ends and borders."""
    engine = build_flow("farneback")
    grey = [np.ascontiguousarray(frame[..., 0]) for frame in clip]
    path = np.array([engine(grey[0], one)[16:-16, 16:-16, 0].mean() for one in grey[20:-20]])
    phase = np.exp(-2j * np.pi * hz * np.arange(len(path)) / FPS)
    return float(2 * np.abs(((path - path.mean()) * phase).mean()))


@pytest.mark.parametrize("factor", [4.0, 8.0])
def test_a_sinusoid_of_known_amplitude_grows_by_the_factor(factor) -> None:
    clip = _sinusoid(0.25)
    assert _amplitude(clip) == pytest.approx(0.25, rel=0.2)
    assert _amplitude(magnify_clip(clip, fps=FPS, factor=factor)) == pytest.approx(0.25 * factor, rel=0.2)


def test_what_is_slower_than_the_band_stays_as_it_is() -> None:
    clip = _sinusoid(1.0, hz=1.0, frames=200)
    kept = _amplitude(magnify_clip(clip, fps=FPS, factor=8, band_hz=(6, 12)), hz=1.0)
    assert kept == pytest.approx(_amplitude(clip, hz=1.0), rel=0.35)


def test_a_factor_of_1_changes_nothing() -> None:
    clip = _sinusoid(0.3, frames=20)
    np.testing.assert_array_equal(magnify_clip(clip, fps=FPS, factor=1.0), clip)
    np.testing.assert_array_equal(magnify_pair(PORTRAIT, PORTRAIT[:, ::-1], factor=1.0), PORTRAIT[:, ::-1])


def test_a_still_clip_stays_still() -> None:
    clip = np.repeat(PORTRAIT[None], 12, axis=0)
    np.testing.assert_array_equal(magnify_clip(clip, fps=50, factor=10), clip)


def test_a_pair_on_a_real_face_shows_the_motion_enlarged() -> None:
    push = units_field(["AU12"], side=128, amplitude_px=0.3)
    apex = warp(PORTRAIT, push)
    larger = magnify_pair(PORTRAIT, apex, factor=5)
    engine = build_flow("farneback")
    grey = [np.ascontiguousarray(image.mean(axis=2).astype(np.uint8)) for image in (PORTRAIT, apex, larger)]
    place = np.hypot(*push.transpose(2, 0, 1)) > 0.2
    once, five = (np.linalg.norm(engine(grey[0], other)[place], axis=1).mean() for other in grey[1:])
    assert 2.5 < five / once < 6


def test_the_motion_step_gives_the_units_of_the_face_back() -> None:
    apex = warp(PORTRAIT, units_field(["AU12"], side=128, amplitude_px=0.6))
    pair = FacePair(PORTRAIT, apex, "onset", 0.0)
    plain, magnified = measure_motion(pair), measure_motion(pair, magnify=4)
    assert magnified.strength == pytest.approx(plain.strength, rel=0.4)
    assert plain.strength > NOISE_FLOOR


@pytest.mark.parametrize("factor", [0.5, float("nan"), -3])
def test_a_factor_below_1_is_refused(factor) -> None:
    with pytest.raises(ConfigError, match="magnification"):
        magnify_pair(PORTRAIT, PORTRAIT, factor=factor)


def test_clips_without_time_are_refused() -> None:
    with pytest.raises(ShapeError, match="9 frames"):
        magnify_clip(_sinusoid(1, frames=8), fps=FPS, factor=2)
    with pytest.raises(ConfigError, match="empty"):
        magnify_clip(_sinusoid(1, frames=20), fps=1.0, factor=2)
    with pytest.raises(ShapeError, match="subtracted"):
        magnify_pair(PORTRAIT, PORTRAIT[:100], factor=2)
