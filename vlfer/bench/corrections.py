"""What corrections do on held-out faces: bias of labels, temperature by label count, abstention."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from vlfer.bench.wording import DRAWS, VotedEmbedding, Wordings, held_out_texts
from vlfer.correct import COUNT_POWER, FITTED_LABELS, Correction, label_bias, temperature_for, thin_faces
from vlfer.metrics import expected_calibration_error, fit_temperature, war_uar
from vlfer.scoring import decide, score_sentences
from vlfer.text.bank import embed_labels
from vlfer.text.lexicon import VOTE_CLASSES
from vlfer.types import FloatArray, IntArray, Label, LabelSet, Scores

STRENGTHS = (0.0, 0.25, 0.5, 0.75, 1.0)
_COUNTS = (2, 3, 5, 8, 16, 32, 64)
_SUBSETS = 12
_FEWEST_FACES = 30


def bias_rows(bench: Wordings) -> list[dict[str, Any]]:
    """Take off what labels get from validation faces, whose labels are not used; report the test part."""
    rows = []
    reference = thin_faces(bench.validation.images, seed=bench.seed)
    sets: list[tuple[str, list[LabelSet]]] = [
        ("eight names with their sentences", [bench.labels]),
        ("held-out words", _random_sets(bench, "word")),
        ("held-out phrases", _random_sets(bench, "phrase")),
    ]
    for name, many in sets:
        prepared = [(labels, *embed_labels(bench.bank, labels)) for labels in many]
        for correction in ("mean", "prior"):
            for strength in STRENGTHS if correction == "mean" else STRENGTHS[1:]:
                row: dict[str, Any] = {"labels": name, "correction": correction if strength else "none",
                                       "strength": strength}  # fmt: skip
                for part, faces in (("validation", bench.validation), ("test", bench.test)):
                    found = [
                        _corrected(bench, faces, one, reference=reference, correction=correction, strength=strength)
                        for one in prepared
                    ]
                    war, uar, ece = 100 * np.mean(found, axis=0)
                    row |= {f"{part} war": war, f"{part} uar": uar, f"{part} ece": ece}
                rows.append(row)
    return rows


def _random_sets(bench: Wordings, kind: str) -> list[LabelSet]:
    rng = np.random.default_rng(bench.seed)
    texts = held_out_texts()
    pools = [[t for t, k, c in texts if c == i and (k == "word") == (kind == "word")] for i in range(len(VOTE_CLASSES))]
    return [
        LabelSet(tuple(Label(own[int(rng.integers(len(own)))]) for own in pools), name=f"draw {i}")
        for i in range(DRAWS // 2)
    ]


def _corrected(
    bench: Wordings, faces: VotedEmbedding, prepared: Any, *, reference: Any, correction: Correction, strength: float
) -> tuple[float, float, float]:
    labels, sentences, owner, weight = prepared
    options: dict[str, Any] = {"labels": labels, "temperature": bench.temperature}
    prior = label_bias(reference, sentences, owner, weight, correction=correction, strength=strength, **options)
    scores = score_sentences(faces.images, sentences, owner, weight, prior=prior, **options)
    war, uar = war_uar(scores.probability.argmax(axis=1), faces.truth)
    return war, uar, expected_calibration_error(faces.truth, scores.probability)


def temperature_rows(bench: Wordings) -> list[dict[str, Any]]:
    """Tell the best temperature for numbers of labels, and the ECE with a fixed one, with the rule and refitted.

    The power of the rule is fitted anew to the best temperatures of the validation part; every ECE is of the test part.

    Up to eight labels: random subsets of the classes, with the faces of these classes only. Beyond: synonyms and
    held-out words compete, and the probability of a class is the sum over its words.
    """
    rng = np.random.default_rng(bench.seed)
    measured = []
    for count in _COUNTS:
        drawn = [_drawn(bench, rng, count) for _ in range(_SUBSETS if count != len(VOTE_CLASSES) else 1)]
        validation = [(_class_rows(bench, bench.validation, *one), one[1]) for one in drawn]
        test = [(_class_rows(bench, bench.test, *one), one[1]) for one in drawn]
        best = [_best_temperature(*rows, classes) for rows, classes in validation]
        measured.append((count, best, test))
    ratios = [float(np.exp(np.mean(np.log(best)))) / bench.temperature for _, best, _ in measured]
    power = fitted_power([{"labels": count, "best temperature / fitted": ratio}
                          for (count, _, _), ratio in zip(measured, ratios, strict=True)])  # fmt: skip
    rows = []
    for (count, best, test), ratio in zip(measured, ratios, strict=True):
        rule = temperature_for(bench.temperature, count, by="count")
        refitted = bench.temperature * max(count / FITTED_LABELS, 1.0) ** power
        each: dict[str, Sequence[float]] = {
            "ece fixed": [bench.temperature] * len(test), f"ece by count (power {COUNT_POWER:.2f})": [rule] * len(test),
            f"ece by power refitted ({power:.2f})": [refitted] * len(test), "ece refitted": best,
        }  # fmt: skip
        found = {name: 100 * _mean_ece(test, temperatures) for name, temperatures in each.items()}
        rows.append({"labels": count, "best temperature / fitted": ratio, **found})
    return rows


def _mean_ece(drawn: Sequence[tuple[tuple[FloatArray, IntArray], IntArray]], temperatures: Sequence[float]) -> float:
    return float(
        np.mean(
            [
                expected_calibration_error(truth, _by_class(similarity, classes, temperature))
                for ((similarity, truth), classes), temperature in zip(drawn, temperatures, strict=True)
            ]
        )
    )


def _drawn(bench: Wordings, rng: np.random.Generator, count: int) -> tuple[LabelSet, IntArray]:
    """Return labels and the class of each."""
    total = len(VOTE_CLASSES)
    if count <= total:
        chosen = np.sort(rng.permutation(total)[:count])
        return LabelSet(tuple(bench.labels.labels[i] for i in chosen)), chosen.astype(np.int64)
    pools = [[*(label.synonyms), *(t for t, k, c in held_out_texts() if c == i and k == "word")]
             for i, label in enumerate(bench.labels.labels)]  # fmt: skip
    names: dict[str, int] = {}
    for i, own in enumerate(pools):
        for j in rng.permutation(len(own))[: count // total]:
            names.setdefault(own[int(j)].casefold(), i)
    return LabelSet(tuple(Label(name) for name in names)), np.array(list(names.values()), np.int64)


def _class_rows(
    bench: Wordings, faces: VotedEmbedding, labels: LabelSet, classes: IntArray
) -> tuple[FloatArray, IntArray]:
    """Return similarities and truth of the faces whose class is among ``classes``."""
    rows = np.flatnonzero(np.isin(faces.truth, classes))
    return bench.scores(faces, labels).similarity[rows], faces.truth[rows]


def _by_class(similarity: FloatArray, classes: IntArray, temperature: float) -> FloatArray:
    """Return (N, 8) probabilities: the sum over the labels of each class."""
    logits = similarity.astype(np.float64) / temperature
    probability = np.exp(logits - logits.max(axis=1, keepdims=True))
    probability /= probability.sum(axis=1, keepdims=True)
    summed = np.zeros((len(similarity), len(VOTE_CLASSES)))
    np.add.at(summed.T, classes, probability.T)
    return summed.astype(np.float32)


def _best_temperature(similarity: FloatArray, truth: IntArray, classes: IntArray) -> float:
    if len(classes) == len(set(classes.tolist())):
        return fit_temperature(similarity, np.searchsorted(classes, truth).astype(np.int64))
    grid = np.exp(np.linspace(np.log(0.005), np.log(0.5), 60))
    rows = np.arange(len(truth))
    losses = [-np.log(np.maximum(_by_class(similarity, classes, t)[rows, truth], 1e-9)).mean() for t in grid]
    return float(grid[int(np.argmin(losses))])


def abstention_rows(bench: Wordings) -> list[dict[str, Any]]:
    """Tell what the default rule does where the true label is among those asked for, and where it was left out."""
    rows = [_abstained("all eight labels", bench.scores(bench.test, bench.labels), bench.test.truth)]
    within, without = [], []
    for left_out, name in enumerate(VOTE_CLASSES):
        others = [i for i in range(len(VOTE_CLASSES)) if i != left_out]
        scores = bench.scores(bench.test, LabelSet(tuple(bench.labels.labels[i] for i in others)))
        own = bench.test.truth == left_out
        top = scores.probability.max(axis=1)
        within.append(top[~own])
        without.append(top[own])
        if own.sum() >= _FEWEST_FACES:
            answered = np.array([label is not None for label, _ in decide(scores)])
            rows.append(
                {
                    "case": f"faces of {name}, which is not asked for",
                    "answered": 100 * float(answered[own].mean()),
                    "right": None,
                    "right among abstained": None,
                    "mean top probability": float(top[own].mean()),
                }
            )
    inside, outside = np.concatenate(within), np.concatenate(without)
    for threshold in (0.4, 0.5, 0.6, 0.7, 0.8, 0.9):
        rows.append(
            {
                "threshold": threshold,
                "answered, label asked for": 100 * float((inside >= threshold).mean()),
                "answered, label not asked for": 100 * float((outside >= threshold).mean()),
            }
        )
    return rows


def _abstained(case: str, scores: Scores, truth: IntArray) -> dict[str, Any]:
    decisions = decide(scores)
    answered = np.array([label is not None for label, _ in decisions])
    right = scores.probability.argmax(axis=1) == truth
    return {"case": case, "answered": 100 * float(answered.mean()), "right": 100 * float(right[answered].mean()),
            "right among abstained": 100 * float(right[~answered].mean()) if (~answered).any() else None,
            "mean top probability": float(scores.probability.max(axis=1).mean())}  # fmt: skip


def fitted_power(rows: Sequence[dict[str, Any]]) -> float:
    """Return the power of the label count beyond eight that fits the best temperatures, by least squares on logs."""
    many = [row for row in rows if row["labels"] > FITTED_LABELS]
    x = np.log([row["labels"] / FITTED_LABELS for row in many])
    y = np.log([row["best temperature / fitted"] for row in many])
    return float((x * y).sum() / (x * x).sum())
