"""Flow as pictures, and the CLIP route in the leave-one-subject-out harness."""

from __future__ import annotations

import numpy as np
import pytest

from vlfer.evaluation.mie_loso import run_fold, subject_folds
from vlfer.micro.samples import SIDE, FlowSamples
from vlfer.training.mie_clip import ClipLearner, flow_pictures


def _flow(*, n: int = 24, seed: int = 0) -> FlowSamples:
    """Brows up, or brows down, of four people."""
    rng = np.random.default_rng(seed)
    label = np.tile([0, 1], n // 2)
    flow = rng.integers(118, 138, (n, SIDE, SIDE, 3))
    flow[label == 0, 3:9, :, 1] += 100
    flow[label == 1, 3:9, :, 1] -= 100
    return FlowSamples(
        flow=flow.clip(0, 255).astype(np.uint8), label=label.astype(np.int64), dataset=np.full(n, "made"),
        subject=np.repeat([f"s{i}" for i in range(4)], n // 4), clip=np.arange(n).astype(str),
        classes=("raised brows", "lowered brows"),
    )  # fmt: skip


@pytest.mark.parametrize("kind", ["wheel", "tiles", "published"])
def test_pictures_have_the_size_and_tell_the_motions_apart(kind) -> None:
    samples = _flow()
    pictures = flow_pictures(samples.flow, kind=kind, size=64)
    assert pictures.shape == (24, 64, 64, 3)
    assert pictures.dtype == np.uint8
    up, down = (pictures[samples.label == i].mean(axis=0) for i in (0, 1))
    assert np.abs(up - down).max() > 50


@pytest.mark.parametrize("kind", ["wheel", "tiles", "published"])
def test_the_picture_of_the_mirrored_face_negates_what_goes_sideways(kind) -> None:
    flow = np.full((1, SIDE, SIDE, 3), 128, np.uint8)
    flow[0, 10:18, 2:8, 0] = 250  # the left cheek moves right
    mirrored = flow.copy()
    mirrored[0, 10:18, 2:8, 0] = 128
    mirrored[0, 10:18, 20:26, 0] = 6  # the right cheek moves left
    one = flow_pictures(flow, kind=kind, size=56, mirror=True).astype(int)
    two = flow_pictures(mirrored, kind=kind, size=56).astype(int)
    assert np.abs(one - two).mean() < 3
    assert np.abs(one - flow_pictures(flow, kind=kind, size=56)).mean() > 3


def test_rest_is_white_in_the_wheel() -> None:
    still = flow_pictures(np.full((1, SIDE, SIDE, 3), 77, np.uint8), kind="wheel", size=28)
    assert (still == 255).all()


def test_without_training_it_asks_the_backbone_as_it_is(tiny_backbone_name) -> None:
    samples = _flow()
    classify = next(ClipLearner("clip-zero", backbone=tiny_backbone_name, epochs=0).fit(samples, seed=0))
    answer = classify(samples.flow)
    assert answer.shape == (24, 2)
    np.testing.assert_allclose(answer.sum(axis=1), 1, atol=1e-5)
    assert classify(samples.flow[:0]).shape == (0, 2)


def test_lora_teaches_a_backbone_to_read_flow_of_new_people(tiny_backbone_name) -> None:
    samples = _flow(n=48)
    learner = ClipLearner(backbone=tiny_backbone_name, epochs=20, batch=16, rate=2e-2)
    result = run_fold(samples, subject_folds(samples, seed=0)[0], learner=learner)
    assert (result.probability.argmax(axis=1) == samples.label[result.rows]).mean() > 0.8
