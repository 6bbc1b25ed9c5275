"""Figures of a trained backbone on faces with votes: accuracy, balance, calibration, agreement with annotators."""

from __future__ import annotations

from typing import Any

import numpy as np
from scipy.optimize import minimize_scalar
from scipy.stats import spearmanr

from vlfer.types import FloatArray, IntArray


def softmax(logits: FloatArray) -> FloatArray:
    """Softmax over the last axis."""
    shifted = np.exp(logits - logits.max(axis=-1, keepdims=True))
    return np.asarray(shifted / shifted.sum(axis=-1, keepdims=True), np.float32)


def war_uar(predicted: IntArray, truth: IntArray) -> tuple[float, float]:
    """Return accuracy, and the mean recall over the classes that occur in ``truth``."""
    recalls = [float((predicted[truth == c] == c).mean()) for c in np.unique(truth)]
    return float((predicted == truth).mean()), float(np.mean(recalls))


def expected_calibration_error(probability: FloatArray, truth: IntArray, *, bins: int = 15) -> float:
    """Return the ECE of the top label over equal-width bins (Guo et al. 2017)."""
    top = probability.max(axis=1)
    right = probability.argmax(axis=1) == truth
    index = np.minimum((top * bins).astype(int), bins - 1)
    gaps = [
        abs(float(right[index == b].mean()) - float(top[index == b].mean())) * float((index == b).mean())
        for b in np.unique(index)
    ]
    return float(sum(gaps))


def fit_temperature(similarity: FloatArray, truth: IntArray) -> float:
    """Return the temperature of least negative log likelihood (Guo et al. 2017), between 0.005 and 1."""

    def loss(log_temperature: float) -> float:
        probability = softmax(similarity / np.exp(log_temperature))
        return float(-np.log(np.maximum(probability[np.arange(len(truth)), truth], 1e-9)).mean())

    return float(np.exp(minimize_scalar(loss, bounds=(np.log(0.005), 0.0), method="bounded").x))


def vote_agreement(probability: FloatArray, votes: FloatArray, *, split_below: float = 0.6) -> float:
    """Return the mean Spearman correlation with the votes on faces whose majority is below ``split_below``."""
    shares = votes / votes.sum(axis=1, keepdims=True)
    rows = np.flatnonzero(shares.max(axis=1) < split_below)
    values = [spearmanr(probability[i], shares[i]).statistic for i in rows]
    return float(np.nanmean(values)) if values else float("nan")


def risk_coverage(probability: FloatArray, truth: IntArray) -> list[dict[str, float]]:
    """Return coverage and accuracy of the answered faces for thresholds on the top probability."""
    top, right = probability.max(axis=1), probability.argmax(axis=1) == truth
    rows = []
    for threshold in np.arange(0.0, 1.0, 0.1):
        answered = top >= threshold
        if answered.any():
            rows.append(
                {
                    "threshold": round(float(threshold), 2),
                    "coverage": round(float(answered.mean()), 4),
                    "accuracy": round(float(right[answered].mean()), 4),
                }
            )
    return rows


def summary(similarity: FloatArray, temperature: float, votes: FloatArray, classes: tuple[str, ...]) -> dict[str, Any]:
    """Return the figures of (N, C) similarities against (N, C) votes."""
    truth = votes.argmax(axis=1).astype(np.int64)
    probability = softmax(similarity / temperature)
    predicted = probability.argmax(axis=1)
    war, uar = war_uar(predicted, truth)
    recalls = {
        name: round(float((predicted[truth == c] == c).mean()), 4)
        for c, name in enumerate(classes)
        if (truth == c).any()
    }
    return {
        "n": len(truth),
        "war": round(war, 4),
        "uar": round(uar, 4),
        "ece": round(expected_calibration_error(probability, truth), 4),
        "spearman_split_votes": round(vote_agreement(probability, votes), 4),
        "recall": recalls,
    }
