"""From embeddings and labels to scores: similarity, probability, abstention.

Similarity is the cosine between a face and a label's sentences. Probability is a softmax over the labels given and so
says nothing about labels that were not given. The two are kept apart throughout.
"""

from __future__ import annotations

from typing import Literal

import numpy as np
from numpy.typing import NDArray

from vlfer.errors import ConfigError, ShapeError
from vlfer.text.bank import Ensemble, SentenceBank, embed_labels
from vlfer.types import Embedding, FloatArray, IntArray, LabelSet, Scores

Pooling = Literal["embeddings", "logits"]

DEFAULT_TIE_MARGIN = 0.05


def score(
    images: Embedding,
    labels: LabelSet,
    bank: SentenceBank,
    *,
    temperature: float,
    ensemble: Ensemble = "all",
    pooling: Pooling = "embeddings",
    prior: FloatArray | None = None,
) -> Scores:
    """Compare faces with every label, each label being an ensemble of sentences.

    Args:
        images: N faces in the space of ``bank``.
        labels: C labels.
        bank: Encoder of sentences.
        temperature: Divisor of the similarities before the softmax; a property of the space.
        ensemble: Which sentences stand for a label.
        pooling: See `score_sentences`.
        prior: See `score_sentences`.

    Returns:
        Similarities and probabilities of N faces and C labels.

    Raises:
        SpaceError: If ``images`` lives in another space than ``bank``.
        ConfigError: If ``temperature`` is not a positive number.
        ShapeError: If ``prior`` is not (C,) or not finite.
    """
    sentences, owner, weight = embed_labels(bank, labels, ensemble=ensemble)
    return score_sentences(
        images, sentences, owner, weight, labels=labels, temperature=temperature, pooling=pooling, prior=prior
    )


def score_sentences(
    images: Embedding,
    sentences: Embedding,
    owner: IntArray,
    weight: FloatArray,
    *,
    labels: LabelSet,
    temperature: float,
    pooling: Pooling = "embeddings",
    prior: FloatArray | None = None,
) -> Scores:
    """Score faces against embedded sentences.

    Ensembling in embedding space is the prompt ensemble of CLIP (Radford et al., 2021, section 3.1.4); the mean of
    logits is the variant that CuPL-style descriptor classifiers use (Menon and Vondrick, 2023).

    Args:
        images: N faces.
        sentences: M sentences, in the same space.
        owner: (M,) int64, index of the label that each sentence stands for.
        weight: (M,) float32, weight of each sentence within its label; negative for a cue that speaks against it.
        labels: C labels, each with at least one sentence.
        temperature: Divisor of the similarities before the softmax.
        pooling: ``embeddings``: a label is the renormalised weighted mean of its sentences' vectors; ``logits``: its
            similarity is the weighted mean of its sentences' similarities.
        prior: (C,) float32 log-probability that the model gives each label on average, or None. It is subtracted
            before the softmax, so that no label wins by being favoured for every face.

    Returns:
        Similarities (never touched by temperature or prior) and probabilities.

    Raises:
        SpaceError: If ``images`` and ``sentences`` live in two spaces.
        ConfigError: If ``temperature`` is not a positive number.
        ShapeError: If a label has no sentence or no weight, or if ``prior`` is not (C,) or not finite.
    """
    if not (np.isfinite(temperature) and temperature > 0):
        raise ConfigError(f"The temperature is {temperature}.", why="Similarities are divided by it.", fix="0.01 to 1")
    mixing = mixing_matrix(owner, weight, labels=labels)
    if pooling == "embeddings":
        means = mixing @ sentences.vectors
        norms = np.linalg.norm(means, axis=1, keepdims=True)
        if bool((norms < 1e-6).any()):
            empty = [labels.names[i] for i in np.flatnonzero(norms[:, 0] < 1e-6)]
            raise ShapeError(f"The sentences of {empty} cancel out.", why="Their mean has no direction.")
        similarity = images.similarity(Embedding((means / norms).astype(np.float32), sentences.space))
    else:
        similarity = images.similarity(sentences) @ mixing.T
    similarity = similarity.astype(np.float32)
    logits = similarity.astype(np.float64) / temperature
    if prior is not None:
        logits = logits - _checked_prior(prior, labels=labels)
    return Scores(similarity=similarity, probability=_softmax(logits), temperature=float(temperature), labels=labels)


def decide(
    scores: Scores, *, threshold: float | None = None, tie_margin: float = DEFAULT_TIE_MARGIN
) -> list[tuple[str | None, str]]:
    """Choose a label for every face, or abstain and say why.

    Args:
        scores: N faces against C labels.
        threshold: Least probability of a label; None takes `default_threshold`.
        tie_margin: The best label must lead the second by at least this share of its own probability. A share rather
            than a difference, because 0.05 against 0.04 among sixty labels is as clear as 0.50 against 0.40 among two.

    Returns:
        N pairs of label and reason: the reason is empty for a label, and the label is None for an abstention.

    Raises:
        ConfigError: If ``threshold`` or ``tie_margin`` is outside 0..1.
    """
    for name, value in (("threshold", threshold), ("tie_margin", tie_margin)):
        if value is not None and not 0.0 <= value <= 1.0:
            raise ConfigError(f"The {name} is {value}.", why="It is compared with probabilities.", fix="0 to 1")
    names = scores.labels.names
    least = default_threshold(len(names)) if threshold is None else threshold
    decisions: list[tuple[str | None, str]] = []
    for row in scores.probability:
        order = np.argsort(-row, kind="stable")
        best = int(order[0])
        reason = ""
        if row[best] < least:
            reason = f"best label {names[best]!r} has {row[best]:.2f}, below the threshold {least:.2f}"
        elif len(order) > 1 and row[best] - row[order[1]] < tie_margin * row[best]:
            second = int(order[1])
            reason = f"{names[best]!r} and {names[second]!r} tie ({row[best]:.2f} against {row[second]:.2f})"
        decisions.append((None if reason else names[best], reason))
    return decisions


def default_threshold(n_labels: int) -> float:
    """Return the least probability that is more than a guess among ``n_labels``: 2 / (C + 1).

    Chance is 1 / C; the rule asks for nearly twice that among many labels and stays below 1 among two.
    """
    return 2.0 / (n_labels + 1)


def top_labels(
    scores: Scores, row: int, *, count: int | None = None
) -> tuple[tuple[tuple[str, float], ...], tuple[float, ...]]:
    """Return the ``count`` best labels of one face with their probabilities, and their similarities, best first."""
    order = np.argsort(-scores.probability[row], kind="stable")[:count]
    top = tuple((scores.labels.names[i], float(scores.probability[row, i])) for i in order)
    return top, tuple(float(scores.similarity[row, i]) for i in order)


def mixing_matrix(owner: IntArray, weight: FloatArray, *, labels: LabelSet) -> FloatArray:
    """Return (C, M) weights; those above 0 sum to 1 in each row."""
    if owner.shape != weight.shape or owner.ndim != 1:
        raise ShapeError(f"owner has shape {owner.shape} and weight {weight.shape}.", why="Both are (M,).")
    mixing = np.zeros((len(labels), len(owner)), dtype=np.float32)
    mixing[owner, np.arange(len(owner))] = weight
    total = np.maximum(mixing, 0).sum(axis=1, keepdims=True)
    if bool((total <= 0).any()):
        without = [labels.names[i] for i in np.flatnonzero(total[:, 0] <= 0)]
        raise ShapeError(f"The labels {without} have no sentence with a weight.", why="Nothing stands for them.")
    normalised: FloatArray = mixing / total
    return normalised


def _checked_prior(prior: FloatArray, *, labels: LabelSet) -> FloatArray:
    if prior.shape != (len(labels),) or not bool(np.isfinite(prior).all()):
        raise ShapeError(
            f"The prior has shape {prior.shape}.", why=f"Expected {len(labels)} finite log-probabilities, one a label."
        )
    return prior


def _softmax(logits: NDArray[np.float64]) -> FloatArray:
    shifted = np.exp(logits - logits.max(axis=1, keepdims=True))
    return np.asarray(shifted / shifted.sum(axis=1, keepdims=True), dtype=np.float32)
