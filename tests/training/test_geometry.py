from __future__ import annotations

import numpy as np

from vlfer.training.geometry import NAMES, measure, mirrored


def _mesh() -> np.ndarray:
    rng = np.random.default_rng(0)
    mesh = rng.uniform(0.2, 0.8, (5, 478, 2)).astype(np.float32)
    for right, left, y in ((33, 263, 0.35), (133, 362, 0.35)):
        mesh[:, right] = [0.3 if right == 33 else 0.42, y]
        mesh[:, left] = [0.7 if left == 263 else 0.58, y]
    mesh[:, 2] = [0.5, 0.6]
    return mesh


def test_measurements_ignore_position_size_and_rotation() -> None:
    mesh = _mesh()
    angle = 0.4
    turn = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]], np.float32)
    moved = (mesh @ turn.T * 3 + np.array([5, -2], np.float32)).astype(np.float32)
    np.testing.assert_allclose(measure(mesh), measure(moved), atol=1e-3)


def test_mirrored_measurements_are_those_of_the_mirrored_face() -> None:
    measured = measure(_mesh())
    np.testing.assert_allclose(mirrored(mirrored(measured)), measured)
    swapped = mirrored(measured)
    np.testing.assert_allclose(swapped[:, NAMES.index("brow_in_left")], measured[:, NAMES.index("brow_in_right")])
    np.testing.assert_allclose(swapped[:, NAMES.index("yaw")], -measured[:, NAMES.index("yaw")])


def test_an_open_mouth_and_raised_brows_are_measured() -> None:
    mesh = _mesh()
    opened = mesh.copy()
    opened[:, 14, 1] += 0.1
    opened[:, (55, 285), 1] -= 0.1
    change = measure(opened) - measure(mesh)
    assert (change[:, NAMES.index("mouth_open")] > 0).all()
    assert (change[:, NAMES.index("brow_in_left")] > 0).all()


def test_a_missing_face_stays_unknown() -> None:
    mesh = _mesh()
    mesh[2] = np.nan
    measured = measure(mesh)
    assert np.isnan(measured[2]).all()
    assert np.isfinite(measured[[0, 1, 3, 4]]).all()
