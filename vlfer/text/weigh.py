"""Weights for descriptors by how well each tells its own faces from others, on faces with known labels."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from vlfer.metrics import one_against_rest_auc
from vlfer.text.bank import SentenceBank
from vlfer.types import Embedding, FloatArray, IntArray, LabelSet

#: A sentence that separates by half as much counts a quarter.
_POWER = 2.0
_LEAST = 0.01


def usefulness(similarity: FloatArray, truth: IntArray, owner: IntArray) -> FloatArray:
    """Return for each sentence how well it ranks faces of its label before others: 2 AUC - 1, at least 0.

    Args:
        similarity: (N, M) float32, faces and sentences.
        truth: (N,) int64.
        owner: (M,) int64, the label of each sentence.

    Returns:
        (M,) float32; 1 for a sentence whose label has no face, so that it is left as it is.
    """
    values = np.ones(len(owner), np.float32)
    for j, own in enumerate(owner):
        auc = one_against_rest_auc((truth == own).astype(np.int64), _two_columns(similarity[:, j]))[1]
        if auc is not None:
            values[j] = max(0.0, 2 * auc - 1)
    return values


def weigh_descriptors(bank: SentenceBank, labels: LabelSet, images: Embedding, truth: IntArray) -> LabelSet:
    """Return the labels with a weight for each descriptor, by its `usefulness` on the given faces.

    Args:
        bank: Of the images' space.
        labels: C labels; one without descriptors stays as it is.
        images: N faces that are not those that figures are reported on.
        truth: (N,) int64, the label of each.
    """
    weighted = []
    for i, label in enumerate(labels.labels):
        if not label.descriptors:
            weighted.append(label)
            continue
        similarity = images.similarity(bank.encode(label.descriptors))
        values = usefulness(similarity, truth, np.full(len(label.descriptors), i)) ** _POWER
        weighted.append(replace(label, weights=_rounded(np.maximum(values, _LEAST))))
    return LabelSet(tuple(weighted), name=labels.name, origin=labels.origin)


def _rounded(values: FloatArray) -> tuple[float, ...]:
    return tuple(round(float(value), 3) for value in values)


def _two_columns(score: FloatArray) -> FloatArray:
    return np.stack([-score, score], axis=1)
