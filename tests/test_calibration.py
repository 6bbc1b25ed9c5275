"""Temperatures by family of sentences, risk against coverage, thresholds."""

from dataclasses import dataclass

import numpy as np
import pytest

from vlfer.calibration import (
    FAMILIES,
    area_under_risk_coverage,
    at_threshold,
    default_temperature,
    fit_calibration,
    risk_coverage_report,
    selective_risk,
    threshold_for,
    threshold_transfer,
)
from vlfer.errors import ShapeError
from vlfer.metrics import expected_calibration_error, softmax
from vlfer.models.bundled import load_bundled
from vlfer.models.registry import find_backbone
from vlfer.scoring import default_threshold


@pytest.fixture(scope="module")
def drawn():
    """Similarities whose softmax at temperature 0.05 tells exactly how often each class is right."""
    rng = np.random.default_rng(0)
    similarity = rng.normal(0, 0.1, (6000, 8)).astype(np.float32)
    truth = np.array([rng.choice(8, p=row / row.sum()) for row in softmax(similarity / 0.05).astype(np.float64)])
    return similarity, np.eye(8, dtype=np.float32)[truth], truth


def test_each_family_gets_the_temperature_that_its_similarities_were_made_with(drawn):
    similarity, votes, truth = drawn
    scales = {"name": 0.5, "templates": 0.8, "descriptors": 1.5, "all": 1.0}
    found = fit_calibration({f: scale * similarity for f, scale in scales.items()}, votes, fitted_on={"set": "x"})
    for family, scale in scales.items():
        assert found["temperature"][family] == pytest.approx(0.05 * scale, rel=0.05)
        assert found["ece"][family] < 0.02
    assert expected_calibration_error(truth, softmax(0.5 * similarity / 0.05)) > 0.1  # what one for all would cost
    assert found["fitted_on"] == {"n": 6000, "set": "x"}
    assert found["threshold"]["odds"]["2"]["threshold"] == round(2 / 9, 4)


def test_what_cannot_be_fitted_is_told(drawn):
    similarity, votes, _ = drawn
    with pytest.raises(ShapeError, match="'all' is needed"):
        fit_calibration({"name": similarity}, votes)
    with pytest.raises(ShapeError, match="as the votes"):
        fit_calibration({"all": similarity[:, :7]}, votes)


def test_risk_coverage_by_hand():
    probability = np.array([[0.9, 0.1], [0.8, 0.2], [0.4, 0.6], [0.45, 0.55]], np.float32)
    truth = np.array([0, 1, 1, 0])  # right, wrong, right, wrong in the order of how sure it is
    coverage, risk, threshold = selective_risk(probability, truth)
    assert coverage.tolist() == [0.25, 0.5, 0.75, 1]
    assert risk == pytest.approx([0, 1 / 2, 1 / 3, 1 / 2])
    assert threshold == pytest.approx([0.9, 0.8, 0.6, 0.55])
    assert area_under_risk_coverage(probability, truth) == pytest.approx((0 + 1 / 2 + 1 / 3 + 1 / 2) / 4)
    report = risk_coverage_report(probability, truth)
    assert report["random"] == 0.5
    assert report["best"] == round((0 + 0 + 1 / 3 + 2 / 4) / 4, 4)
    assert report["curve"][-1] == {"coverage": 1.0, "accuracy": 0.5, "threshold": 0.55}
    # two labels: the threshold is 2 / 3
    assert at_threshold(probability, truth) == {
        "threshold": 0.6667, "coverage": 0.5, "accuracy": 0.5, "accuracy_of_the_rest": 0.5,
    }  # fmt: skip


@pytest.mark.parametrize("count", [2, 3, 8, 60])
def test_odds_of_two_are_the_default_rule(count):
    assert threshold_for(count) == pytest.approx(default_threshold(count))
    assert threshold_for(count) <= threshold_for(count, odds=7) <= max(0.5, 2 / 3)


def test_transfer_counts_faces_that_no_label_fits_apart():
    probability = np.array([[0.6, 0.2, 0.2], [0.4, 0.3, 0.3], [0.9, 0.05, 0.05]], np.float32)
    (row,) = threshold_transfer({3: [(probability, np.array([0, 1, -1]))]})
    assert (row["threshold"], row["coverage"], row["accuracy"]) == (0.5, 0.5, 0.5)
    assert (row["accuracy_of_answers"], row["accuracy_of_the_rest"]) == (1.0, 0.0)
    assert row["answered_though_none_fits"] == 1.0


@dataclass
class _Spec:
    calibration: dict | None
    logit_temperature: float | None = 0.05


@dataclass
class _Encoder:
    spec: _Spec
    temperature: float = 0.05


def test_temperature_is_that_of_the_family_unless_an_adapter_brought_its_own():
    fitted = {"temperature": {"name": 0.03, "all": 0.05}}
    assert default_temperature(_Encoder(_Spec(fitted)), ensemble="name") == 0.03
    assert default_temperature(_Encoder(_Spec(fitted)), ensemble="descriptors") == 0.05
    assert default_temperature(_Encoder(_Spec(None)), ensemble="name") == 0.05
    assert default_temperature(_Encoder(_Spec(fitted), temperature=0.09), ensemble="name") == 0.09


def test_the_bundled_card_reaches_the_encoder():
    encoder = load_bundled()
    assert hash(encoder.spec) is not None
    assert encoder.spec.calibration is not None
    for family in FAMILIES:
        assert 0.005 <= default_temperature(encoder, ensemble=family) <= 1
    assert default_temperature(encoder, ensemble="all") == pytest.approx(encoder.temperature, rel=0.2)
    assert find_backbone("ViT-B-32/openai").calibration is None
