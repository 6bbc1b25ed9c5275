"""How well backbones read faces: the figures of a set of crops, with bootstrap intervals over its faces."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.stats import rankdata

from vlfer.bench.faces import FaceSet
from vlfer.evaluation.significance import bootstrap_intervals
from vlfer.faces.align import crop_face
from vlfer.faces.find import whole_face
from vlfer.metrics import compute_metrics, confusion_matrix, expected_calibration_error
from vlfer.models.encoder import Encoder
from vlfer.types import Embedding, FloatArray, IntArray, UInt8Array

Float64 = NDArray[np.float64]
SPLIT_BELOW = 0.6
LEAST_PROBABILITY = 1e-6
"""What a log-likelihood takes a probability to be at least; a peer that cannot say a class gives it 0."""
SAMPLES = 1000


def encode_faces(encoder: Encoder, faces: FaceSet, *, hook: Callable[[int, int], None] | None = None) -> Embedding:
    """Encode every crop as ``vlfer eval --faces whole`` does; N unit vectors."""
    crop = partial(whole_crop, size=encoder.spec.image_size)
    parts = []
    for start in range(0, len(faces), 128):
        pixels = np.stack([crop(image) for image in faces.images[start : start + 128]])
        parts.append(encoder.encode_images(pixels).vectors)
        if hook is not None:
            hook(min(start + 128, len(faces)), len(faces))
    return Embedding(np.concatenate(parts), encoder.space)


def whole_crop(pixels: UInt8Array, *, size: int) -> UInt8Array:
    """Take an image (H, W, 3) as one face and bring it to (size, size, 3)."""
    return crop_face(pixels, whole_face(pixels), size=size)


def measure(probability: FloatArray, faces: FaceSet, *, samples: int = SAMPLES, seed: int = 0) -> dict[str, Any]:
    """Return the figures of one backbone on one set, JSON-ready; fractions from 0 to 1.

    Brier score (the sum over classes, 0 to 2) and negative log likelihood are against the majority label. Spearman is
    the mean over faces whose majority holds less than 0.6 of the votes.

    Args:
        probability: (N, C) float32 of the faces in order.
        faces: N faces.
        samples: Bootstrap samples, rows drawn with replacement.
        seed: Of the bootstrap.
    """
    truth, prediction = faces.truth, probability.argmax(axis=1).astype(np.int64)
    found = compute_metrics(truth, prediction, classes=faces.labels.names, probability=probability)
    rows = row_figures(probability, faces)
    intervals: dict[str, Any] = dict(bootstrap_intervals(found.confusion, samples=samples, seed=seed))
    intervals.pop("uf1")
    rng = np.random.default_rng(seed)
    means: dict[str, float | None] = {}
    for name, values in rows.items():
        means[name] = float(values.mean()) if len(values) else None
        intervals[name] = _mean_interval(values, samples=samples, rng=rng)
    intervals["ece"] = _ece_interval(truth, probability, samples=min(samples, 300), rng=rng)
    figures = {"n": found.n, "war": found.war, "uar": found.uar, "ece": found.ece, **means}
    return {
        **{name: _rounded(value) for name, value in figures.items()},
        "n_split_votes": len(rows["spearman"]),
        "recall": {c.name: _rounded(c.recall) for c in found.per_class if c.n},
        "recall_interval": {c.name: wilson(round((c.recall or 0.0) * c.n), c.n) for c in found.per_class if c.n},
        "class_n": {c.name: c.n for c in found.per_class if c.n},
        "interval": {name: [_rounded(end) for end in ends] for name, ends in intervals.items() if ends},
        "confusion": found.confusion[:, :-1].tolist(),
        "predicted_share": dict(
            zip(faces.labels.names, np.round(found.confusion[:, :-1].sum(axis=0) / found.n, 4).tolist(), strict=True)
        ),
    }


def row_figures(probability: FloatArray, faces: FaceSet) -> dict[str, Float64]:
    """Return what is a mean over faces: "brier" (N,), "nll" (N,), "spearman" (faces with split votes,)."""
    rows, truth = np.arange(len(faces)), faces.truth
    exact = probability.astype(np.float64)
    target = np.eye(exact.shape[1])[truth]
    split = np.zeros(0, np.int64)
    if faces.has_votes:
        shares = faces.votes / faces.votes.sum(axis=1, keepdims=True)
        split = np.flatnonzero(shares.max(axis=1) < SPLIT_BELOW)
    return {
        "brier": ((exact - target) ** 2).sum(axis=1),
        "nll": -np.log(np.maximum(exact[rows, truth], LEAST_PROBABILITY)),
        "spearman": spearman_rows(probability[split], faces.votes[split]),
    }


def spearman_rows(a: FloatArray, b: FloatArray) -> Float64:
    """Return the rank correlation of each row of (N, C) with that of the other, ties at their mean rank; NaN-free.

    A row without any order (all equal) correlates with nothing: 0.
    """
    if not len(a):
        return np.zeros(0)
    x, y = (np.asarray(rankdata(values, axis=1), np.float64) for values in (a, b))
    x, y = x - x.mean(axis=1, keepdims=True), y - y.mean(axis=1, keepdims=True)
    norm = np.sqrt((x**2).sum(axis=1) * (y**2).sum(axis=1))
    return np.asarray((x * y).sum(axis=1) / np.maximum(norm, 1e-12), np.float64)


def wilson(hits: int, n: int, *, z: float = 1.96) -> list[float]:
    """Return the 95 % interval of a share (Wilson, 1927), which stays sensible for few faces."""
    share = hits / n
    middle = (share + z * z / (2 * n)) / (1 + z * z / n)
    half = z / (1 + z * z / n) * float(np.sqrt(share * (1 - share) / n + z * z / (4 * n * n)))
    return [round(max(0.0, middle - half), 4), round(min(1.0, middle + half), 4)]


def war_uar_of(similarity: FloatArray, truth: IntArray) -> tuple[float, float, IntArray]:
    """Return WAR, UAR and the (C, C) confusion of the most similar class."""
    n_classes = similarity.shape[1]
    confusion = confusion_matrix(truth, similarity.argmax(axis=1).astype(np.int64), n_classes=n_classes)[:, :-1]
    counts = confusion.sum(axis=1)
    hits = np.diagonal(confusion)
    uar = float((hits[counts > 0] / counts[counts > 0]).mean())
    return float(hits.sum() / counts.sum()), uar, confusion


def _mean_interval(values: Float64, *, samples: int, rng: np.random.Generator) -> list[float] | None:
    if not len(values):
        return None
    means = [values[rng.integers(len(values), size=len(values))].mean() for _ in range(samples)]
    return [float(end) for end in np.quantile(means, [0.025, 0.975])]


def _ece_interval(
    truth: IntArray, probability: FloatArray, *, samples: int, rng: np.random.Generator
) -> Sequence[float]:
    found = []
    for _ in range(samples):
        rows = rng.integers(len(truth), size=len(truth))
        found.append(expected_calibration_error(truth[rows], probability[rows]))
    return [float(end) for end in np.quantile(found, [0.025, 0.975])]


def _rounded(value: float | None) -> float | None:
    return None if value is None else round(float(value), 4)
