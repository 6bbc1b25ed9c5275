"""LBP-TOP: what its planes see, and the learner on made clips in the harness."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from skimage.data import astronaut
from skimage.feature import local_binary_pattern

from vlfer.errors import ConfigError, DataError, ShapeError
from vlfer.evaluation.mie_loso import run_loso
from vlfer.micro.face_samples import FaceSamples, load_face_archive
from vlfer.micro.lbp_top import _patterns, lbp_top
from vlfer.micro.samples import save_archive
from vlfer.training.mie_lbp import LbpTopLearner
from vlfer.training.mie_recipes import build_face_learner, build_learner

TEXTURE = astronaut()[60:100, 200:240].mean(axis=2).astype(np.uint8)


def _planes(clip: np.ndarray, blocks: int = 1) -> np.ndarray:
    return lbp_top(clip, blocks=blocks).reshape(3, blocks * blocks, 59)


def test_histograms_sum_to_1() -> None:
    found = lbp_top(np.random.default_rng(0).integers(0, 255, (7, 32, 32)).astype(np.uint8))
    assert found.shape == (5 * 5 * 3 * 59,)
    np.testing.assert_allclose(found.reshape(-1, 59).sum(axis=1), 1, atol=1e-5)


def test_the_picture_plane_has_the_patterns_of_scikit_image() -> None:
    rng = np.random.default_rng(0)
    clip = rng.integers(0, 255, (5, 24, 24)).astype(np.uint8)
    ours = _patterns(clip.astype(np.float32), "xy", 1.0, 2.0, 1, 2)[0]
    theirs = local_binary_pattern(clip[2], 8, 1.0, method="default")[1:-1, 1:-1].astype(int)
    assert (ours == theirs).mean() > 0.98


def test_a_still_clip_is_seen_in_the_picture_alone() -> None:
    still = np.repeat(TEXTURE[None], 7, axis=0)
    moving = np.stack([np.roll(TEXTURE, t, axis=1) for t in range(7)])
    xy, xt, yt = np.abs(_planes(still) - _planes(moving)).sum(axis=(1, 2))
    assert xt > 3 * xy
    assert yt > xy


def test_right_and_left_differ_across_and_up_and_down_along() -> None:
    right, left = (np.stack([np.roll(TEXTURE, s * t, axis=1) for t in range(7)]) for s in (1, -1))
    down, up = (np.stack([np.roll(TEXTURE, s * t, axis=0) for t in range(7)]) for s in (1, -1))
    across, along = (np.abs(_planes(a) - _planes(b)).sum(axis=(1, 2)) for a, b in ((right, left), (down, up)))
    assert across[1] > 2 * across[2]
    assert along[2] > 2 * along[1]


@pytest.mark.parametrize("shape", [(4, 32, 32), (7, 6, 6), (7, 32, 30)])
def test_clips_that_are_too_small_are_refused(shape) -> None:
    with pytest.raises(ShapeError):
        lbp_top(np.zeros(shape, np.uint8))


def made_clips(*, people: int = 4, per_class: int = 2, frames: int = 8, side: int = 40) -> FaceSamples:
    """The texture goes up at the top or down at the bottom, a pixel every frame, under other noise each time."""
    rng = np.random.default_rng(0)
    faces, label, subject = [], [], []
    for person in range(people):
        for kind in (0, 1) * per_class:
            clip = np.repeat(TEXTURE[None], frames, axis=0).astype(float)
            rows = slice(0, side // 2) if kind == 0 else slice(side // 2, side)
            for t in range(frames):
                clip[t, rows] = np.roll(TEXTURE[rows], t if kind else -t, axis=0)
            clip += rng.normal(0, 2, clip.shape)
            grey = clip.clip(0, 255).astype(np.uint8)
            faces.append(np.concatenate([grey[[0, -1]], grey])[..., None].repeat(3, axis=-1))
            label.append(kind)
            subject.append(f"s{person}")
    n = len(label)
    return FaceSamples(
        faces=np.array(faces), label=np.array(label, dtype=np.int64), dataset=np.full(n, "made"),
        subject=np.array(subject), clip=np.arange(n).astype(str), classes=("up", "down", "never"),
    )  # fmt: skip


def test_it_tells_made_motions_of_new_people_apart() -> None:
    samples = made_clips()
    pooled = run_loso(samples, learner=LbpTopLearner(blocks=2))
    assert (pooled.prediction == samples.label).mean() == 1
    np.testing.assert_allclose(pooled.probability.sum(axis=1), 1, atol=1e-5)


def test_a_single_class_is_the_answer() -> None:
    samples = made_clips()
    one = samples.take(samples.label == 1)
    answer = next(LbpTopLearner(blocks=2).fit(one, seed=0))(one.faces)
    assert (answer.argmax(axis=1) == 1).all()


def test_onset_and_apex_alone_are_too_little() -> None:
    samples = made_clips()
    pairs = replace(samples, faces=samples.faces[:, :2])
    with pytest.raises(DataError, match="--frames 10"):
        next(LbpTopLearner().fit(pairs, seed=0))


def test_an_archive_comes_back(tmp_path) -> None:
    samples = made_clips(people=2)
    save_archive(samples, tmp_path / "faces.npz")
    assert load_face_archive(tmp_path / "faces.npz").sha256 == samples.sha256


def test_a_flow_archive_cannot_serve_it(tmp_path) -> None:
    np.savez(tmp_path / "flow.npz", flow=np.zeros((1, 28, 28, 3), np.uint8))
    with pytest.raises(DataError, match=r"lacks faces.*A flow archive holds motion"):
        load_face_archive(tmp_path / "flow.npz")
    with pytest.raises(ConfigError, match="reads faces, not flow"):
        build_learner("lbp-top")
    with pytest.raises(ConfigError, match="reads flow, not faces"):
        build_face_learner("stst")
    with pytest.raises(ConfigError, match="Did you mean 'lbp-top'"):
        build_face_learner("lbptop")
