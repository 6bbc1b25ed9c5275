"""How far a probability can be believed: temperatures, risk against coverage, and when to abstain.

All of it is fitted once on held-out faces and kept in the card of the backbone as ``calibration``:

- ``temperature``: one for each family of sentences ("name", "templates", "descriptors", "all"), because an ensemble of
  sentences lies closer to the faces than a bare word and so needs another divisor.
- ``risk_coverage``: what is gained by answering only where the best label is probable enough.
- ``threshold``: what the default rule of `vlfer.scoring.default_threshold`, 2 / (C + 1), and stricter ones do.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal, Protocol

import numpy as np
from numpy.typing import NDArray

from vlfer.errors import ShapeError
from vlfer.metrics import expected_calibration_error, fit_temperature, softmax
from vlfer.types import FloatArray, IntArray

Float64 = NDArray[np.float64]
FAMILIES: tuple[Literal["name", "templates", "descriptors", "all"], ...] = ("name", "templates", "descriptors", "all")
DEFAULT_ODDS = 2.0
ODDS = (2.0, 4.0, 7.0)
_CURVE_POINTS = tuple(np.round(np.arange(0.05, 1.001, 0.05), 2).tolist())


class _Spec(Protocol):
    @property
    def calibration(self) -> Mapping[str, Any] | None: ...

    @property
    def logit_temperature(self) -> float | None: ...


class Calibrated(Protocol):
    """The part of an encoder that calibration needs."""

    @property
    def spec(self) -> _Spec:
        """The row of the backbone."""
        ...

    @property
    def temperature(self) -> float:
        """What similarities are divided by where nothing else is known."""
        ...


def fit_calibration(
    similarity: Mapping[str, FloatArray],
    votes: FloatArray,
    *,
    fitted_on: Mapping[str, Any] | None = None,
) -> dict[str, Any]:
    """Fit everything on held-out faces; the result goes into the card as it is.

    The temperature of a family is the one of least negative log likelihood of the majority label (Guo et al., ICML
    2017).

    Args:
        similarity: For each family of sentences (N, C) float32 cosine similarities; "all" is required.
        votes: (N, C) votes of the same faces; the class of most votes counts as right.
        fitted_on: What the faces are, to be kept beside.

    Returns:
        JSON-ready values.

    Raises:
        ShapeError: If "all" is missing, or the shapes differ.
    """
    if "all" not in similarity:
        raise ShapeError(f"There are similarities for {', '.join(similarity) or 'nothing'}.", why="'all' is needed.")
    wrong = {name: values.shape for name, values in similarity.items() if values.shape != votes.shape}
    if wrong or not len(votes):
        raise ShapeError(f"The similarities are {wrong or 'empty'}.", why=f"Expected {votes.shape}, as the votes.")
    truth = np.asarray(votes.argmax(axis=1), np.int64)
    temperatures = {family: fit_temperature(values, truth) for family, values in similarity.items()}
    probability = softmax(similarity["all"] / temperatures["all"])
    return {
        "fitted_on": {"n": len(votes), **(fitted_on or {})},
        "temperature": temperatures,  # as it is: that of "all" is the temperature of the card, to the last digit
        "ece": {
            family: round(expected_calibration_error(truth, softmax(values / temperatures[family])), 4)
            for family, values in similarity.items()
        },
        "threshold": {
            "rule": "2 / (C + 1)",
            "odds": {f"{odds:g}": at_threshold(probability, truth, odds=odds) for odds in ODDS},
        },
        "risk_coverage": risk_coverage_report(probability, truth),
    }


def default_temperature(encoder: Calibrated, *, ensemble: str) -> float:
    """Return the temperature for similarities with labels that this family of sentences stands for.

    That is the card's temperature of the family. Where there is none, or an adapter brought a temperature of its own,
    it is the encoder's.

    Args:
        encoder: The backbone.
        ensemble: "name", "templates", "descriptors" or "all".
    """
    calibration = getattr(encoder.spec, "calibration", None) or {}
    fitted = calibration.get("temperature", {}).get(ensemble)
    if fitted is None or encoder.temperature != encoder.spec.logit_temperature:
        return encoder.temperature
    return float(fitted)


def threshold_for(n_labels: int, *, odds: float = DEFAULT_ODDS) -> float:
    """Return the least probability of an answer among ``n_labels``: odds / (odds + C - 1).

    An answer must be ``odds`` times as probable as the mean of the other labels, which means the same with eight labels
    and with sixty. It need never be more than a half, where it is more probable than all others together (two labels:
    2 / 3). Odds of 2 are the rule 2 / (C + 1) of `vlfer.scoring.default_threshold`.
    """
    return min(odds / (odds + n_labels - 1), max(0.5, DEFAULT_ODDS / (DEFAULT_ODDS + n_labels - 1)))


def selective_risk(probability: FloatArray, truth: IntArray) -> tuple[Float64, Float64, Float64]:
    """Return coverage, risk and threshold when the k most probable answers are given, for k = 1..N.

    Args:
        probability: (N, C) float32.
        truth: (N,) int64.

    Returns:
        (N,) share answered, (N,) share wrong among the answered, (N,) probability of the least sure one among them.
    """
    top = probability.max(axis=1).astype(np.float64)
    order = np.argsort(-top, kind="stable")
    wrong = (probability.argmax(axis=1) != truth)[order].astype(np.float64)
    count = np.arange(1, len(top) + 1)
    return count / len(top), np.cumsum(wrong) / count, top[order]


def area_under_risk_coverage(probability: FloatArray, truth: IntArray) -> float:
    """Return the mean risk over all coverages, AURC (Geifman and El-Yaniv, NeurIPS 2017; Geifman et al., ICLR 2019)."""
    return float(selective_risk(probability, truth)[1].mean())


def risk_coverage_report(probability: FloatArray, truth: IntArray) -> dict[str, Any]:
    """Return AURC beside its bounds and the curve at 5 % steps of coverage; JSON-ready.

    ``best`` is the AURC of an order that puts every right answer first, ``random`` that of no order at all, which is
    the error rate.
    """
    coverage, risk, threshold = selective_risk(probability, truth)
    n, errors = len(truth), float(risk[-1])
    right = round(n * (1 - errors))
    best = float((np.maximum(np.arange(1, n + 1) - right, 0) / np.arange(1, n + 1)).mean())
    rows = [min(n - 1, max(0, round(point * n) - 1)) for point in _CURVE_POINTS]
    curve = [(float(coverage[i]), float(1 - risk[i]), float(threshold[i])) for i in rows]
    return {
        "aurc": round(float(risk.mean()), 4), "best": round(best, 4), "random": round(errors, 4),
        "curve": [{"coverage": round(c, 4), "accuracy": round(a, 4), "threshold": round(t, 4)} for c, a, t in curve],
    }  # fmt: skip


def at_threshold(probability: FloatArray, truth: IntArray, *, odds: float = DEFAULT_ODDS) -> dict[str, float | None]:
    """Return what a threshold does: the share answered, and how often the answers given and withheld are right."""
    least = threshold_for(probability.shape[1], odds=odds)
    answered = probability.max(axis=1) >= least
    right = probability.argmax(axis=1) == truth
    return {
        "threshold": round(least, 4), "coverage": _share(answered), "accuracy": _share(right[answered]),
        "accuracy_of_the_rest": _share(right[~answered]),
    }  # fmt: skip


def threshold_transfer(
    probability_of: Mapping[int, list[tuple[FloatArray, IntArray]]], *, odds: float = DEFAULT_ODDS
) -> list[dict[str, Any]]:
    """Return how a threshold does with other numbers of labels than it was chosen on.

    Args:
        probability_of: For each number of labels C, pairs of (N, C) probabilities and (N,) truth, where -1 is a face
            whose true class is not among the labels.
        odds: See `threshold_for`.
    """
    rows = []
    for n_labels, pairs in sorted(probability_of.items()):
        least = threshold_for(n_labels, odds=odds)
        top = np.concatenate([p.max(axis=1) for p, _ in pairs])
        right = np.concatenate([p.argmax(axis=1) == t for p, t in pairs])
        inside = np.concatenate([t >= 0 for _, t in pairs])
        answered = top >= least
        rows.append({
            "labels": n_labels, "threshold": round(least, 4),
            "coverage": _share(answered[inside]), "accuracy": _share(right[inside]),
            "accuracy_of_answers": _share(right[inside & answered]),
            "accuracy_of_the_rest": _share(right[inside & ~answered]),
            "answered_though_none_fits": _share(answered[~inside]),
        })  # fmt: skip
    return rows


def _share(values: NDArray[np.bool_]) -> float | None:
    return round(float(values.mean()), 4) if len(values) else None
