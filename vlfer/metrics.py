"""Figures of one evaluation over declared classes, with failed rows counted.

Everything is computed from one confusion matrix of shape (C, C + 1). Rows are the true classes, columns the predicted
ones, and the last column holds the rows that got no prediction: missing file, undecodable, no face. Such a row is an
error of its class: it stays in the denominators of WAR, of the recalls and of UF1. Leaving it out would reward a
detector that gives up on hard faces. The figures over the answered rows alone are reported beside, as ``answered``.

A declared class without a single sample has no recall and no F1. It is named in ``absent`` and left out of the means,
as recall is undefined there; a prediction of such a class is still an error of the true class.

All figures are fractions from 0 to 1; reports print percent where they say so. This is the one home of these figures:
training, evaluation and benchmarks take them from here.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vlfer.errors import ShapeError
from vlfer.types import FloatArray, IntArray

Float64 = NDArray[np.float64]

FAILED = -1
"""The prediction of a row that got none."""


@dataclass(frozen=True, slots=True)
class ClassFigures:
    """Figures of one class; None where undefined.

    Attributes:
        name: The class.
        n: Rows whose true class it is, failed ones included.
        failed: Those of them without a prediction.
        recall: Share of ``n`` that was predicted as this class; None for an absent class.
        precision: Share of the predictions of this class that are right; None if it was never predicted.
        f1: 2 TP / (2 TP + FP + FN); None for an absent class.
        auc: Area under the one-against-rest ROC curve over answered rows; None without both sides or probabilities.
    """

    name: str
    n: int
    failed: int
    recall: float | None
    precision: float | None
    f1: float | None
    auc: float | None


@dataclass(frozen=True, slots=True)
class Metrics:
    """Figures of one set of rows.

    Attributes:
        n: All rows.
        failed: Rows without a prediction.
        coverage: Share of rows with a prediction.
        war: Weighted average recall: right rows over all rows; the accuracy.
        uar: Unweighted average recall: mean recall over the classes that occur (Schuller et al., INTERSPEECH 2009).
        uf1: Unweighted F1: mean F1 over the classes that occur (See et al., MEGC 2019).
        auc: Mean one-against-rest AUC over the classes where it is defined (Hand and Till, 2001, discuss the choice).
        ece: Expected calibration error of the answered rows, see `expected_calibration_error`.
        answered: WAR, UAR and UF1 over the answered rows alone; None without any.
        absent: Declared classes without a sample: no recall, left out of the means.
        per_class: One entry a declared class, in order.
        confusion: (C, C + 1) int64, see the module.
    """

    n: int
    failed: int
    coverage: float | None
    war: float | None
    uar: float | None
    uf1: float | None
    auc: float | None
    ece: float | None
    answered: dict[str, float | None]
    absent: tuple[str, ...]
    per_class: tuple[ClassFigures, ...]
    confusion: IntArray

    def as_dict(self) -> dict[str, Any]:
        """Return JSON-ready values."""
        return {
            "n": self.n,
            "failed": self.failed,
            "coverage": self.coverage,
            "war": self.war,
            "uar": self.uar,
            "uf1": self.uf1,
            "auc": self.auc,
            "ece": self.ece,
            "answered": dict(self.answered),
            "absent": list(self.absent),
            "per_class": {
                c.name: {
                    "n": c.n,
                    "failed": c.failed,
                    "recall": c.recall,
                    "precision": c.precision,
                    "f1": c.f1,
                    "auc": c.auc,
                }
                for c in self.per_class
            },
            "confusion": self.confusion.tolist(),
        }


def compute_metrics(
    truth: IntArray, prediction: IntArray, *, classes: Sequence[str], probability: FloatArray | None = None
) -> Metrics:
    """Compute every figure of one set of rows.

    Args:
        truth: (N,) int64 index of the true class, 0..C-1.
        prediction: (N,) int64 index of the predicted class, or `FAILED`.
        classes: The C declared classes.
        probability: (N, C) float32; rows of failed predictions are ignored. Without it there is no AUC and no ECE.

    Returns:
        The figures; every undefined one is None.

    Raises:
        ShapeError: If the arrays do not fit one another or hold other indices.
    """
    confusion = confusion_matrix(truth, prediction, n_classes=len(classes))
    answered = prediction != FAILED
    if probability is not None and probability.shape != (len(truth), len(classes)):
        raise ShapeError(f"probability has shape {probability.shape}.", why=f"Expected {(len(truth), len(classes))}.")
    aucs: list[float | None] = [None] * len(classes)
    ece = None
    if probability is not None and bool(answered.any()):
        aucs = one_against_rest_auc(truth[answered], probability[answered])
        ece = expected_calibration_error(truth[answered], probability[answered])
    recall, f1 = recalls(confusion), f1_scores(confusion)
    n_per_class = confusion.sum(axis=1)
    predicted = confusion[:, :-1].sum(axis=0)
    hits = np.diagonal(confusion[:, :-1])
    figures = tuple(
        ClassFigures(
            name=name,
            n=int(n_per_class[c]),
            failed=int(confusion[c, -1]),
            recall=_or_none(recall[c]),
            precision=float(hits[c] / predicted[c]) if predicted[c] else None,
            f1=_or_none(f1[c]),
            auc=aucs[c],
        )
        for c, name in enumerate(classes)
    )
    alone = confusion.copy()
    alone[:, -1] = 0
    n, failed = int(confusion.sum()), int(confusion[:, -1].sum())
    return Metrics(
        n=n,
        failed=failed,
        coverage=(n - failed) / n if n else None,
        war=_or_none(war(confusion)),
        uar=_or_none(uar(confusion)),
        uf1=_or_none(uf1(confusion)),
        auc=_mean_defined(aucs),
        ece=ece,
        answered={"war": _or_none(war(alone)), "uar": _or_none(uar(alone)), "uf1": _or_none(uf1(alone))},
        absent=tuple(name for name, count in zip(classes, n_per_class, strict=True) if count == 0),
        per_class=figures,
        confusion=confusion,
    )


def confusion_matrix(truth: IntArray, prediction: IntArray, *, n_classes: int) -> IntArray:
    """Count rows by true and predicted class.

    Args:
        truth: (N,) int64 in 0..C-1.
        prediction: (N,) int64 in 0..C-1, or `FAILED`.
        n_classes: C.

    Returns:
        (C, C + 1) int64; the last column counts the failed rows.

    Raises:
        ShapeError: If the lengths differ or an index is outside its range.
    """
    if truth.ndim != 1 or truth.shape != prediction.shape:
        raise ShapeError(f"truth is {truth.shape} and prediction {prediction.shape}.", why="Both are (N,).")
    for name, values, lowest in (("truth", truth, 0), ("prediction", prediction, FAILED)):
        if len(values) and not (values.min() >= lowest and values.max() < n_classes):
            raise ShapeError(
                f"{name} holds indices {values.min()}..{values.max()}.", why=f"{n_classes} classes are declared."
            )
    column = np.where(prediction == FAILED, n_classes, prediction)
    cells = np.bincount(truth * (n_classes + 1) + column, minlength=n_classes * (n_classes + 1))
    return cells.reshape(n_classes, n_classes + 1).astype(np.int64)


def recalls(confusion: NDArray[Any]) -> Float64:
    """Return recall per class, (..., C) float64, NaN where the class has no sample.

    Args:
        confusion: (..., C, C + 1) counts.
    """
    hits = np.diagonal(confusion[..., :-1], axis1=-2, axis2=-1).astype(np.float64)
    return _ratio(hits, confusion.sum(axis=-1))


def f1_scores(confusion: NDArray[Any]) -> Float64:
    """Return F1 = 2 TP / (2 TP + FP + FN) per class, (..., C) float64, NaN where the class has no sample."""
    hits = np.diagonal(confusion[..., :-1], axis1=-2, axis2=-1).astype(np.float64)
    samples = confusion.sum(axis=-1)
    predicted = confusion[..., :-1].sum(axis=-2)
    return np.where(samples > 0, _ratio(2 * hits, samples + predicted), np.nan)


def war(confusion: NDArray[Any]) -> Float64:
    """Return right rows over all rows, (...) float64, NaN without rows."""
    hits = np.trace(confusion[..., :-1], axis1=-2, axis2=-1).astype(np.float64)
    return _ratio(hits, confusion.sum(axis=(-2, -1)))


def uar(confusion: NDArray[Any]) -> Float64:
    """Return the mean recall over the classes that occur, (...) float64, NaN without rows."""
    return _nanmean(recalls(confusion))


def uf1(confusion: NDArray[Any]) -> Float64:
    """Return the mean F1 over the classes that occur, (...) float64, NaN without rows."""
    return _nanmean(f1_scores(confusion))


def one_against_rest_auc(truth: IntArray, probability: FloatArray) -> list[float | None]:
    """Return the AUC of each class against the rest: the Mann-Whitney U of its probabilities, ties counted half.

    Args:
        truth: (N,) int64.
        probability: (N, C) float32.

    Returns:
        C values; None for a class without a positive or without a negative row.
    """
    values: list[float | None] = []
    for c in range(probability.shape[1]):
        positive = truth == c
        n_pos, n_neg = int(positive.sum()), int((~positive).sum())
        if not n_pos or not n_neg:
            values.append(None)
            continue
        _, inverse, counts = np.unique(probability[:, c], return_inverse=True, return_counts=True)
        mid_ranks = np.cumsum(counts) - (counts - 1) / 2.0
        rank_sum = float(mid_ranks[inverse][positive].sum())
        values.append((rank_sum - n_pos * (n_pos + 1) / 2.0) / (n_pos * n_neg))
    return values


def expected_calibration_error(truth: IntArray, probability: FloatArray, *, bins: int = 15) -> float:
    """Return the expected calibration error of the top label (Guo et al., ICML 2017): equal-width bins, in (low, high].

    Args:
        truth: (N,) int64, N at least 1.
        probability: (N, C) float32.
        bins: Number of bins; 15 is the paper's.

    Returns:
        Mean distance between confidence and accuracy over bins, weighted by their rows; 0 to 1.

    Raises:
        ShapeError: If there is no row.
    """
    if not len(truth):
        raise ShapeError("There is no row to measure calibration on.", why="An average over nothing is undefined.")
    confidence = probability.max(axis=1).astype(np.float64)
    right = (probability.argmax(axis=1) == truth).astype(np.float64)
    place = np.clip(np.ceil(confidence * bins).astype(np.int64) - 1, 0, bins - 1)
    gaps = np.bincount(place, weights=confidence - right, minlength=bins)
    return float(np.abs(gaps).sum() / len(truth))


def softmax(logits: FloatArray) -> FloatArray:
    """Return the softmax over the last axis, float32."""
    shifted = np.exp(logits - logits.max(axis=-1, keepdims=True))
    return np.asarray(shifted / shifted.sum(axis=-1, keepdims=True), np.float32)


def fit_temperature(similarity: FloatArray, truth: IntArray) -> float:
    """Return the temperature of least negative log likelihood (Guo et al., ICML 2017), between 0.005 and 1.

    Args:
        similarity: (N, C) float32 cosine similarities.
        truth: (N,) int64.
    """
    from scipy.optimize import minimize_scalar  # here: it takes longer to load than most commands to run

    def loss(log_temperature: float) -> float:
        probability = softmax(similarity / np.exp(log_temperature))
        return float(-np.log(np.maximum(probability[np.arange(len(truth)), truth], 1e-9)).mean())

    return float(np.exp(minimize_scalar(loss, bounds=(np.log(0.005), 0.0), method="bounded").x))


def vote_agreement(probability: FloatArray, votes: FloatArray, *, split_below: float = 0.6) -> float:
    """Return the mean Spearman correlation with the votes on faces whose majority is below ``split_below``.

    Args:
        probability: (N, C) float32.
        votes: (N, C) counts or weights.
        split_below: Share of the votes of the most frequent class.

    Returns:
        -1 to 1, NaN if annotators agree on every face.
    """
    from scipy.stats import spearmanr

    shares = votes / votes.sum(axis=1, keepdims=True)
    rows = np.flatnonzero(shares.max(axis=1) < split_below)
    values = [spearmanr(probability[i], shares[i]).statistic for i in rows]
    return float(np.nanmean(values)) if values else float("nan")


def risk_coverage(probability: FloatArray, truth: IntArray) -> list[dict[str, float]]:
    """Return coverage and accuracy of the answered rows for thresholds on the top probability.

    Args:
        probability: (N, C) float32.
        truth: (N,) int64.
    """
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


def war_uar(prediction: IntArray, truth: IntArray) -> tuple[float, float]:
    """Return accuracy, and the mean recall over the classes that occur in ``truth``; both are (N,) int64."""
    n_classes = 1 + int(max(prediction.max(), truth.max()))
    confusion = confusion_matrix(truth, prediction, n_classes=n_classes)
    return float(war(confusion)), float(uar(confusion))


def summary(similarity: FloatArray, temperature: float, votes: FloatArray, classes: Sequence[str]) -> dict[str, Any]:
    """Return rounded figures of (N, C) similarities against (N, C) votes, as a model card shows them.

    Args:
        similarity: (N, C) float32 cosine similarities.
        temperature: What they are divided by before a softmax.
        votes: (N, C) counts or weights; the class of most votes is the true one.
        classes: The C declared classes.
    """
    truth = votes.argmax(axis=1).astype(np.int64)
    probability = softmax(similarity / temperature)
    figures = compute_metrics(
        truth, probability.argmax(axis=1).astype(np.int64), classes=classes, probability=probability
    )

    def rounded(value: float | None) -> float | None:
        return None if value is None or math.isnan(value) else round(value, 4)

    return {
        "n": figures.n,
        "war": rounded(figures.war),
        "uar": rounded(figures.uar),
        "ece": rounded(figures.ece),
        "spearman_split_votes": rounded(vote_agreement(probability, votes)),
        "recall": {c.name: rounded(c.recall) for c in figures.per_class if c.recall is not None},
    }


def _ratio(over: Float64, under: NDArray[Any]) -> Float64:
    out: Float64 = np.full(np.shape(over), np.nan)
    np.divide(over, under, out=out, where=np.asarray(under) > 0)
    return out


def _nanmean(values: Float64) -> Float64:
    defined = ~np.isnan(values)
    return _ratio(np.where(defined, values, 0.0).sum(axis=-1), defined.sum(axis=-1))


def _or_none(value: Any) -> float | None:
    return None if np.isnan(value) else float(value)


def _mean_defined(values: Sequence[float | None]) -> float | None:
    defined = [v for v in values if v is not None]
    return float(np.mean(defined)) if defined else None
