"""Which rows are tested together, and how the figures of several parts become one."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np

from vlfer.errors import DataError
from vlfer.evaluation.manifest import Manifest
from vlfer.metrics import Metrics
from vlfer.types import IntArray

Protocol = Literal["auto", "all", "folds", "loso", "subject-kfold"]
Aggregate = Literal["pooled", "mean"]

AVERAGED = ("war", "uar", "uf1", "auc", "ece", "coverage")
_TEST_SPLITS = ("test", "val", "validation")


@dataclass(frozen=True, slots=True)
class Plan:
    """Parts of a manifest to measure apart.

    Attributes:
        manifest: The rows that are tested; each row's fold names its part.
        aggregate: "mean": the headline is the unweighted mean of the parts' figures, as k-fold benchmarks have it;
            "pooled": it is computed once over all rows, as leave-one-subject-out has it (a subject may lack classes).
        protocol: What was done, in words.
    """

    manifest: Manifest
    aggregate: Aggregate
    protocol: str

    @property
    def parts(self) -> dict[str, IntArray]:
        """Indices of the rows of each fold, (n,) int64, by name; empty without folds."""
        folds = np.array([row.fold for row in self.manifest.rows])
        return {name: np.flatnonzero(folds == name).astype(np.int64) for name in self.manifest.folds}


def plan_test(
    manifest: Manifest,
    *,
    protocol: Protocol = "auto",
    fold: str = "all",
    split: str = "auto",
    k: int = 5,
    seed: int = 0,
) -> Plan:
    """Choose the rows to test and how to sum up.

    Args:
        manifest: All rows.
        protocol: "auto" takes the folds where there are any; "all" ignores them; "folds" demands them; "loso" makes a
            fold of each subject; "subject-kfold" makes ``k`` folds in which no subject is in two.
        fold: "all", or the name of one fold.
        split: "all", the name of one split, several joined by "+" (those of them that exist), or "auto": "test" where
            there is one, else "val", else everything.
        k: Number of folds of "subject-kfold".
        seed: Of "subject-kfold".

    Raises:
        DataError: If the fold or split does not exist, or the protocol wants folds or subjects that are not there.
    """
    if split == "auto":
        split = next((name for name in _TEST_SPLITS if name in manifest.splits), "all")
    tested, words = (manifest, []) if split == "all" else _select_splits(manifest, split)
    if protocol == "loso":
        tested, words = by_subject(tested), [*words, "leave one subject out, pooled"]
    elif protocol == "subject-kfold":
        tested, words = by_subject_groups(tested, k=k, seed=seed), [*words, f"{k} folds by subject, mean of folds"]
    elif protocol == "folds" and not tested.folds:
        raise DataError(f"{manifest.name} has no folds.", why="The protocol 'folds' needs them.", fix="--protocol all")
    elif protocol == "all":
        tested = replace(tested, rows=tuple(replace(row, fold="") for row in tested.rows))
    elif tested.folds:
        words.append(f"mean of {len(tested.folds)} folds")
    if fold != "all":
        tested, words = tested.select(fold=fold), [*words, f"fold {fold!r} only"]
    pooled = protocol == "loso" or not tested.folds
    return Plan(tested, "pooled" if pooled else "mean", ", ".join(words) or "all rows")


def training_rows(manifest: Manifest, *, fold: str) -> Manifest:
    """Return what may be trained or tuned on when ``fold`` is tested: every sample of another fold.

    Raises:
        DataError: If there is no such fold, or nothing is left.
    """
    held_out = {row.sample for row in manifest.select(fold=fold).rows}
    rows = tuple(row for row in manifest.rows if row.fold != fold and row.sample not in held_out)
    if not rows:
        raise DataError(f"{manifest.name} has no row outside fold {fold!r}.", why="There is nothing to train on.")
    return replace(manifest, rows=rows)


def by_subject(manifest: Manifest) -> Manifest:
    """Return the manifest with one fold a subject (leave one subject out).

    Raises:
        DataError: If a row has no subject, or there is one subject only.
    """
    _demand_subjects(manifest, at_least=2)
    return replace(manifest, rows=tuple(replace(row, fold=row.subject) for row in manifest.rows))


def by_subject_groups(manifest: Manifest, *, k: int, seed: int = 0) -> Manifest:
    """Return the manifest in ``k`` folds of about equal size, each subject in one of them.

    Subjects go from the largest to the smallest into the fold that is smallest so far; those of equal size in an order
    drawn by ``seed``.

    Raises:
        DataError: If a row has no subject, or there are fewer than ``k`` subjects, or ``k`` is below 2.
    """
    if k < 2:
        raise DataError(f"{k} folds were asked for.", why="At least two are needed to test on what was not trained on.")
    _demand_subjects(manifest, at_least=k)
    sizes = Counter(row.subject for row in manifest.rows)
    drawn = np.random.default_rng(seed).permutation(len(manifest.subjects))
    order = sorted(range(len(drawn)), key=lambda i: (-sizes[manifest.subjects[i]], drawn[i]))
    filled = [0] * k
    home: dict[str, str] = {}
    for i in order:
        subject = manifest.subjects[i]
        smallest = filled.index(min(filled))
        filled[smallest] += sizes[subject]
        home[subject] = str(smallest + 1)
    return replace(manifest, rows=tuple(replace(row, fold=home[row.subject]) for row in manifest.rows))


def mean_of_folds(figures: Sequence[Metrics]) -> dict[str, float | None]:
    """Return the unweighted mean over folds of each figure; folds where it is undefined are left out of its mean."""
    means: dict[str, float | None] = {}
    for name in AVERAGED:
        defined = [value for value in (getattr(one, name) for one in figures) if value is not None]
        means[name] = float(np.mean(defined)) if defined else None
    return means


def _select_splits(manifest: Manifest, split: str) -> tuple[Manifest, list[str]]:
    """Return the rows of those splits that exist, and in words which these are."""
    wanted = split.split("+")
    found = [name for name in wanted if name in manifest.splits]
    if not found:
        manifest.select(split=wanted[0])  # raises, naming the splits there are
    rows = tuple(row for row in manifest.rows if row.split in found)
    return replace(manifest, rows=rows), [f"split {'+'.join(found)!r}"]


def _demand_subjects(manifest: Manifest, *, at_least: int) -> None:
    without = sum(1 for row in manifest.rows if not row.subject)
    if without:
        raise DataError(
            f"{without} of {len(manifest)} rows of {manifest.name} name no subject.",
            why="A person could be trained and tested on at once.",
            fix="add a column subject, or another --protocol",
        )
    if len(manifest.subjects) < at_least:
        raise DataError(
            f"{manifest.name} has {len(manifest.subjects)} subjects and {at_least} are needed.",
            fix=f"--k {len(manifest.subjects)}" if len(manifest.subjects) > 1 else "another --protocol",
        )
