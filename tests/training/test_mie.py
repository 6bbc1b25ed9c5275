"""Learners of flow: they learn, they are fair about epochs and seeds, and they bear odd training parts."""

from __future__ import annotations

import importlib.util
import pickle
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from vlfer.errors import ConfigError, DataError
from vlfer.evaluation.mie_loso import run_loso
from vlfer.micro.samples import FlowSamples
from vlfer.models.mie_nets import NETWORKS
from vlfer.training.mie import EnsembleLearner, NetLearner, SvmLearner, class_weights
from vlfer.training.mie_augment import NONE, Augmentation, augment, mirrored
from vlfer.training.mie_recipes import RECIPES, build_learner

_spec = importlib.util.spec_from_file_location("made", Path(__file__).parents[1] / "micro" / "conftest.py")
_made = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(_made)

SHORT = NetLearner("short", "plain", "canonical", epochs=3, batch=16, rate=3e-3, augmentation=Augmentation())


@pytest.fixture(scope="module")
def samples() -> FlowSamples:
    return _made.made_samples(people=4)


@pytest.mark.parametrize("learner", [SvmLearner(), SvmLearner(input="canonical", grid=7, mirror=True)])
def test_svm_tells_made_motions_apart_on_new_people(samples: FlowSamples, learner: SvmLearner) -> None:
    assert (run_loso(samples, learner=learner).prediction == samples.label).all()


def test_net_tells_made_motions_apart_on_new_people(samples: FlowSamples) -> None:
    learner = replace(SHORT, epochs=12, augmentation=NONE)
    assert (run_loso(samples, learner=learner).prediction == samples.label).mean() > 0.9


@pytest.mark.parametrize("name", NETWORKS)
def test_every_network_gives_logits_and_takes_gradients(name: str) -> None:
    net = NETWORKS[name](5)
    out = net(torch.randn(4, 3, 28, 28))
    assert out.shape == (4, 5)
    out.square().mean().backward()
    assert all(p.grad is not None and torch.isfinite(p.grad).all() for p in net.parameters())


def _probabilities(learner, samples: FlowSamples, seed: int) -> np.ndarray:
    *_, last = learner.fit(samples, seed=seed)
    return last(samples.flow[:5])


def test_a_seed_fixes_the_result_whatever_ran_before(samples: FlowSamples) -> None:
    one = _probabilities(SHORT, samples, 1)
    torch.manual_seed(99)
    torch.rand(10)
    np.testing.assert_array_equal(one, _probabilities(SHORT, samples, 1))
    assert not np.array_equal(one, _probabilities(SHORT, samples, 2))


def test_watching_the_epochs_does_not_change_the_result(samples: FlowSamples) -> None:
    quiet = run_loso(samples, learner=SHORT)
    watched = run_loso(samples, learner=SHORT, trace=True)
    np.testing.assert_array_equal(quiet.probability, watched.probability)
    assert watched.traces[0][1].shape[0] == SHORT.epochs


def test_mirror_test_is_blind_to_the_side(samples: FlowSamples) -> None:
    from vlfer.micro import canonical  # the same mirror in both places

    flow = canonical.centre(samples.flow)
    torch.testing.assert_close(
        mirrored(torch.from_numpy(flow.transpose(0, 3, 1, 2).copy())),
        torch.from_numpy(canonical.mirror(flow).transpose(0, 3, 1, 2).copy()),
    )


def test_no_augmentation_changes_nothing_and_each_kind_changes_something(samples: FlowSamples) -> None:
    flow = torch.randn(16, 3, 28, 28)
    target = torch.nn.functional.one_hot(torch.arange(16) % 3, 3).float()
    same, label = augment(flow, target, NONE, generator=torch.Generator().manual_seed(0))
    assert torch.equal(same, flow)
    assert torch.equal(label, target)
    for kind in ("mirror", "turn_deg", "zoom", "shift", "gain", "offset", "noise", "eyes", "mixup"):
        changed, label = augment(flow, target, replace(NONE, **{kind: 0.9}), generator=torch.Generator().manual_seed(0))
        assert not torch.equal(changed, flow), kind
        torch.testing.assert_close(label.sum(dim=1), torch.ones(16))
        assert torch.equal(label, target) == (kind != "mixup")


def test_class_weights_bear_an_absent_class() -> None:
    label = np.array([0, 0, 0, 2])
    weights = class_weights(label, n_classes=3, weighting="full")
    assert weights[1] == 0
    assert weights[label].mean() == pytest.approx(1)
    assert weights[2] / weights[0] == pytest.approx(3)


@pytest.mark.parametrize("learner", [SvmLearner(mirror=True, input="canonical", grid=7), replace(SHORT, epochs=1)])
@pytest.mark.parametrize("present", [(0,), (0, 2), (0, 1, 2)])
def test_a_training_part_may_lack_classes(samples: FlowSamples, learner, present) -> None:
    part = samples.take(np.isin(samples.label, present))
    probability = _probabilities(learner, part, 0)
    assert probability.shape == (5, 3)
    np.testing.assert_allclose(probability.sum(axis=1), 1, rtol=1e-5)
    if isinstance(learner, SvmLearner):
        assert not np.isin(probability.argmax(axis=1), [c for c in range(3) if c not in present]).any()
        assert (probability.argmax(axis=1) == part.label[:5]).mean() > 0.7


def test_ensemble_is_between_its_members_and_counts_their_weights(samples: FlowSamples) -> None:
    one, two = SvmLearner(grid=7, input="canonical"), SvmLearner()
    a, b = _probabilities(one, samples, 0), _probabilities(two, samples, 0)
    both = _probabilities(EnsembleLearner("both", (one, two)), samples, 0)
    first = _probabilities(EnsembleLearner("first", (one, two), (1.0, 0.0)), samples, 0)
    np.testing.assert_allclose(first, a, atol=1e-4)
    assert np.abs(both - a).max() < np.abs(b - a).max()
    with pytest.raises(DataError, match="1 weights"):
        EnsembleLearner("wrong", (one, two), (1.0,))


def test_recipes_are_picklable_and_json_ready() -> None:
    import json

    for name, learner in RECIPES.items():
        assert learner.name == name
        json.dumps(dict(learner.settings))
        pickle.loads(pickle.dumps(learner))


def test_unknown_model_is_told_with_the_near_one() -> None:
    with pytest.raises(ConfigError, match="Did you mean 'stst'"):
        build_learner("ststt")


@pytest.mark.slow  # each process imports torch
def test_processes_agree_with_one(samples: FlowSamples) -> None:
    learner = SvmLearner(grid=7, input="canonical")
    np.testing.assert_array_equal(
        run_loso(samples, learner=learner, workers=2).probability, run_loso(samples, learner=learner).probability
    )
