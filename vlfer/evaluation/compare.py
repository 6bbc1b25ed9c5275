"""Which words work best: chosen on rows for choosing, reported on the test rows once.

Whoever tries forty ways of wording on a test set and prints the best has trained on it. Here every candidate (label
set x ensemble of sentences x strength of prior correction) is ranked on training rows, and the one that comes first
there is measured on the test rows. With folds this is done for each fold apart, and the headline is the mean.

The prior correction subtracts, before the softmax, a share of the log of the mean probability that a class gets over
unlabelled rows: what a model says of every face says little about this one (Menon et al., 2021, logit adjustment; for
CLIP, Allingham et al., 2023). It is estimated on the rows for choosing, without their labels.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

import numpy as np

from vlfer.cells import Pool
from vlfer.errors import ConfigError, DataError
from vlfer.evaluation.embed import Clip, EmbeddingStore
from vlfer.evaluation.encode import Failure
from vlfer.evaluation.manifest import Manifest
from vlfer.evaluation.protocols import by_subject_groups, plan_test, training_rows
from vlfer.evaluation.run import Words, clip_vectors
from vlfer.evaluation.significance import bootstrap_intervals
from vlfer.metrics import FAILED, Metrics, compute_metrics
from vlfer.scoring import Pooling, score_sentences
from vlfer.types import Embedding, FloatArray, IntArray, LabelSet

Figure = Literal["war", "uar", "uf1"]

_TRAINING_SPLITS = ("train", "training", "val", "validation")
_LEAST_PROBABILITY = 1e-6
_CHUNK_ROWS = 4096
_CLIPS_AT_ONCE = 256


@dataclass(frozen=True, slots=True)
class Wording:
    """Label set and ensemble with their embedded sentences.

    Attributes:
        set_name: Name of the label set.
        ensemble: Which sentences stand for a label.
        labels: C labels.
        words: Their sentences.
        temperature: What similarities with them are divided by.
    """

    set_name: str
    ensemble: str
    labels: LabelSet
    words: Words
    temperature: float


@dataclass(frozen=True, slots=True)
class Division:
    """Rows to choose on and rows to report on, as indices into one manifest.

    Attributes:
        name: Of the fold, or "".
        choose: (n,) int64.
        test: (m,) int64, no sample of which is in ``choose``.
    """

    name: str
    choose: IntArray
    test: IntArray


@dataclass(frozen=True, slots=True)
class Candidate:
    """One way of wording and how it did where the choice is made.

    Attributes:
        set_name: Label set.
        ensemble: Sentences.
        prior: Strength of the prior correction.
        war: Mean over divisions on the rows for choosing, a fraction.
        uar: Likewise.
        uf1: Likewise.
    """

    set_name: str
    ensemble: str
    prior: float
    war: float
    uar: float
    uf1: float


@dataclass(frozen=True, slots=True)
class Comparison:
    """A ranking and one result.

    Attributes:
        ranking: Every candidate, best on the rows for choosing first.
        chosen: Division to the candidate that was chosen on it, figures of that division.
        test: Division to the figures of its choice on its test rows.
        headline: Mean over divisions of the test figures.
        interval: 95 % bootstrap intervals over all test rows together.
        by: The figure that decided.
        division: How rows were divided, in words.
        n_choose: Rows for choosing, by division.
    """

    ranking: tuple[Candidate, ...]
    chosen: Mapping[str, Candidate]
    test: Mapping[str, Metrics]
    headline: Mapping[str, float]
    interval: Mapping[str, tuple[float, float]]
    by: Figure
    division: str
    n_choose: Mapping[str, int]

    def as_dict(self) -> dict[str, Any]:
        """Return JSON-ready values."""
        fields = ("set_name", "ensemble", "prior", "war", "uar", "uf1")
        return {
            "by": self.by,
            "division": self.division,
            "unit": "fraction",
            "ranking": [{f: getattr(c, f) for f in fields} for c in self.ranking],
            "chosen": {name: {f: getattr(c, f) for f in fields} for name, c in self.chosen.items()},
            **self.headline,
            "interval": {"level": 0.95, **{name: list(ends) for name, ends in self.interval.items()}},
            "n_choose": dict(self.n_choose),
            "test": {name: figures.as_dict() for name, figures in self.test.items()},
        }


def divide(
    manifest: Manifest, *, contents: Sequence[str | None], fold: str = "all", seed: int = 0
) -> tuple[list[Division], str]:
    """Divide rows into those for choosing and those for the test, by what the data set offers.

    Folds: the training part of each fold. Else official splits: "train" (or "val") against "test". Else subjects: half
    of them. Else content: half of the files, drawn by the hash of their content and ``seed``.

    Args:
        manifest: All rows.
        contents: What tells the content of each row, see `EmbeddingStore.content_ids`.
        fold: One fold, or all.
        seed: Of the division by subject or content.

    Returns:
        The divisions, and in words how they were made.

    Raises:
        DataError: If there is no such fold, or one side would be empty.
    """
    place = {id(row): i for i, row in enumerate(manifest.rows)}

    def indices(rows: Sequence[Any]) -> IntArray:
        return np.array([place[id(row)] for row in rows], dtype=np.int64)

    if manifest.folds:
        names = manifest.folds if fold == "all" else (fold,)
        parts = [
            Division(name, indices(training_rows(manifest, fold=name).rows), indices(manifest.select(fold=name).rows))
            for name in names
        ]
        return parts, f"chosen on the training part of each fold, {len(parts)} folds"
    test = plan_test(manifest).manifest
    split = next((name for name in _TRAINING_SPLITS if name in manifest.splits and name not in test.splits), None)
    if split is not None:
        held_out = {row.sample for row in test.rows}
        training = [r for r in manifest.select(split=split).rows if r.sample not in held_out]
        if not training:
            raise DataError(f"Every sample of the split {split!r} of {manifest.name} is also a test sample.")
        tested = [r for r in manifest.rows if r.split in test.splits]
        return [Division("", indices(training), indices(tested))], f"chosen on the split {split!r}"
    if len(manifest.subjects) > 1 and all(row.subject for row in manifest.rows):
        half = by_subject_groups(manifest, k=2, seed=seed)
        side = np.array([row.fold == "1" for row in half.rows])
        words = "chosen on half of the subjects, tested on the other half"
    else:
        side = np.array([_coin(content or "", seed) for content in contents])
        words = "chosen on half of the files, tested on the other half"
    if side.all() or not side.any():
        raise DataError(f"{manifest.name} has {len(manifest)} rows: too few to choose on some and test on others.")
    return [Division("", np.flatnonzero(side).astype(np.int64), np.flatnonzero(~side).astype(np.int64))], words


def check_same_classes(manifest: Manifest, label_sets: Sequence[LabelSet]) -> None:
    """Refuse label sets that do not tell the same classes of the data apart: joining two makes a task easier.

    Raises:
        DataError: If a label is missing, or two sets join different ones.
    """
    written = sorted(manifest.label_counts)
    rows = [next(row for row in manifest.rows if row.label == label) for label in written]
    probe = replace(manifest, rows=tuple(rows))
    groupings = {}
    for labels in label_sets:
        meant = probe.label_indices(labels).tolist()
        groupings[labels.name] = tuple(meant.index(c) for c in meant)
    first = next(iter(groupings))
    for name, grouping in groupings.items():
        if grouping != groupings[first]:
            raise DataError(
                f"The label sets {first!r} and {name!r} divide the classes of {manifest.name} differently.",
                why=f"{first!r} sees {len(set(groupings[first]))} classes and {name!r} {len(set(grouping))}, so their "
                "figures cannot be compared.",
                fix="give sets with the same classes",
            )


def check_priors(priors: Sequence[float]) -> None:
    """Refuse strengths of the prior correction that mean nothing.

    Raises:
        ConfigError: If there is none, or one is outside 0..2.
    """
    if not priors:
        raise ConfigError("No strength of the prior correction is named.", fix="--priors 0,0.5,1")
    wrong = [prior for prior in priors if not 0.0 <= prior <= 2.0]
    if wrong:
        raise ConfigError(
            f"The prior strength is {wrong[0]}.", why="0 is none and 1 the full correction.", fix="0 to 2"
        )


def compare_wordings(
    manifest: Manifest,
    places: Sequence[Clip | Failure],
    *,
    store: EmbeddingStore,
    space: str,
    wordings: Sequence[Wording],
    priors: Sequence[float],
    divisions: Sequence[Division],
    division: str,
    by: Figure = "uar",
    pooling: Pooling = "embeddings",
    pool: Pool | None = None,
    seed: int = 0,
) -> Comparison:
    """Rank every wording and prior strength on the rows for choosing; measure the winner on the test rows.

    Args:
        manifest: All rows.
        places: Where the embeddings of each row lie.
        store: Holds them; no pixel is touched.
        space: Id of their space.
        wordings: Candidates of words.
        priors: Strengths of the prior correction, 0 for none, 1 for the full one.
        divisions: See `divide`.
        division: How they were made, in words.
        by: The figure that decides.
        pooling: How the sentences of a label are averaged.
        pool: Makes one vector of the frames of a clip, see `vlfer.evaluation.run.choose_pool`.
        seed: Of the bootstrap.

    Raises:
        ConfigError: If there is nothing to compare, or a strength is outside 0..2.
        DataError: If a label is not in a label set.
    """
    if not wordings:
        raise ConfigError("There is no wording to compare.", fix="--sets ferplus8,affectnet8")
    check_priors(priors)
    answered = np.array([isinstance(place, Clip) for place in places], dtype=bool)
    directions = _directions(places, store=store, pool=pool)
    on_choice: dict[tuple[int, float], list[Metrics]] = {}
    found: dict[str, tuple[tuple[float, ...], tuple[int, float], IntArray, IntArray]] = {}
    for w, wording in enumerate(wordings):
        truth = manifest.label_indices(wording.labels)
        logits = _log_probability(directions, space=space, wording=wording, pooling=pooling, answered=answered)
        for part in divisions:
            known = part.choose[answered[part.choose]]
            mean = np.exp(logits[known]).mean(axis=0) if len(known) else np.ones(len(wording.labels))
            log_prior = np.log(np.maximum(mean, _LEAST_PROBABILITY))
            for strength in priors:
                predicted = np.where(answered, (logits - strength * log_prior).argmax(axis=1), FAILED).astype(np.int64)
                names = wording.labels.names
                figures = compute_metrics(truth[part.choose], predicted[part.choose], classes=names)
                on_choice.setdefault((w, strength), []).append(figures)
                rank = tuple(_value(figures, name) for name in (by, "uar", "war"))
                if part.name not in found or rank > found[part.name][0]:
                    found[part.name] = (rank, (w, strength), truth[part.test], predicted[part.test])
    candidates = {key: _candidate(wordings[key[0]], key[1], figures) for key, figures in on_choice.items()}
    ranking = sorted(candidates.values(), key=lambda c: (-getattr(c, by), -c.uar, -c.war))
    test = {
        name: compute_metrics(truth, predicted, classes=wordings[w].labels.names)
        for name, (_, (w, _), truth, predicted) in found.items()
    }
    chosen = {}
    for i, part in enumerate(divisions):
        key = found[part.name][1]
        chosen[part.name] = _candidate(wordings[key[0]], key[1], [on_choice[key][i]])
    headline = {n: float(np.mean([_value(m, n) for m in test.values()])) for n in ("war", "uar", "uf1")}
    return Comparison(
        ranking=tuple(ranking), chosen=chosen, test=test, headline=headline,
        interval=_interval(manifest, wordings, found, seed=seed), by=by, division=division,
        n_choose={part.name: len(part.choose) for part in divisions},
    )  # fmt: skip


def _interval(manifest: Manifest, wordings: Sequence[Wording], found: Mapping[str, Any], *, seed: int) -> Any:
    """Return bootstrap intervals over the test rows of all divisions, classes being those of the first wording."""
    first = wordings[0].labels
    meaning = manifest.label_indices(first)
    pairs = []
    for _, (w, _), truth, predicted in found.values():
        # A class of another set is the class of the first set that the same rows carry, or one beyond them all.
        other = manifest.label_indices(wordings[w].labels)
        translate = {int(c): int(meaning[np.flatnonzero(other == c)[0]]) for c in np.unique(other)}
        pairs.append((
            np.array([translate[int(c)] for c in truth], dtype=np.int64),
            np.array([c if c == FAILED else translate.get(int(c), FAILED) for c in predicted], dtype=np.int64),
        ))  # fmt: skip
    truth = np.concatenate([pair[0] for pair in pairs])
    predicted = np.concatenate([pair[1] for pair in pairs])
    return bootstrap_intervals(compute_metrics(truth, predicted, classes=first.names).confusion, seed=seed)


def _directions(places: Sequence[Clip | Failure], *, store: EmbeddingStore, pool: Pool | None) -> FloatArray:
    """Return one (N, D) vector a clip, zeros for failures."""
    clips = [(i, place) for i, place in enumerate(places) if isinstance(place, Clip)]
    if not clips:
        raise DataError(f"None of {len(places)} rows has an embedding.", why="Every one of them failed.")
    directions = np.zeros((len(places), store.vectors(clips[0][1]).shape[1]), np.float32)
    for start in range(0, len(clips), _CLIPS_AT_ONCE):
        part = clips[start : start + _CLIPS_AT_ONCE]
        directions[[i for i, _ in part]] = clip_vectors([store.vectors(place) for _, place in part], pool=pool)
    return directions


def _log_probability(directions: FloatArray, *, space: str, wording: Wording, pooling: Pooling, answered: Any) -> Any:
    """Return (N, C) float64 log-probabilities; zeros for failures."""
    logits = np.zeros((len(directions), len(wording.labels)))
    rows = np.flatnonzero(answered)
    words = wording.words
    for start in range(0, len(rows), _CHUNK_ROWS):
        chunk = rows[start : start + _CHUNK_ROWS]
        scores = score_sentences(
            Embedding(directions[chunk], space), words.sentences, words.owner, words.weight,
            labels=wording.labels, temperature=wording.temperature, pooling=pooling,
        )  # fmt: skip
        # From similarities, not from rounded probabilities: a sharp softmax has zeros.
        scaled = scores.similarity.astype(np.float64) / wording.temperature
        scaled -= scaled.max(axis=1, keepdims=True)
        logits[chunk] = scaled - np.log(np.exp(scaled).sum(axis=1, keepdims=True))
    return logits


def _candidate(wording: Wording, prior: float, figures: Sequence[Metrics]) -> Candidate:
    war, uar, uf1 = (float(np.mean([_value(m, name) for m in figures])) for name in ("war", "uar", "uf1"))
    return Candidate(wording.set_name, wording.ensemble, prior, war, uar, uf1)


def _value(figures: Metrics, name: str) -> float:
    value = getattr(figures, name)
    return 0.0 if value is None else float(value)


def _coin(content: str, seed: int) -> bool:
    return hashlib.sha256(f"{seed}\n{content}".encode()).digest()[0] % 2 == 0
