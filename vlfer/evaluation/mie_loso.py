"""Leave one subject out: fixed schedule, resumable, and no way to choose on the test subject.

What keeps the test subject out of every choice is the shape of the code. A learner gets samples, of flow or of faces,
that lack the subject, and gives back a function from inputs to probabilities; labels of the held-out clips never reach
it. The harness keeps the classifier after the last epoch. There is no argument to keep another one.

`leaky_claim` computes what the wide-spread habit would have reported: the epoch of each fold that was best on the very
subject that is tested. It reads the same training run, so it costs nothing but evaluations, and it is for warning only.
"""

from __future__ import annotations

import hashlib
import io
import json
import logging
import os
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, ProcessPoolExecutor, wait
from dataclasses import dataclass
from multiprocessing import get_context
from pathlib import Path
from typing import Any, TypeVar
from zipfile import BadZipFile

import numpy as np

from vlfer.config import write_atomically
from vlfer.errors import DataError
from vlfer.micro.samples import ClipSamples, Learner, TextArray
from vlfer.types import FloatArray, IntArray

_log = logging.getLogger(__name__)

S = TypeVar("S", bound=ClipSamples)

Progress = Callable[[int, int], None]
"""Called with the number of folds done and of all folds."""


@dataclass(frozen=True, slots=True)
class Fold:
    """Who is held out, with which seed.

    Attributes:
        name: The held-out group: a subject key, or the name of a group of subjects.
        rows: (n,) int64, the held-out rows.
        seed: Seed of the training.
    """

    name: str
    rows: IntArray
    seed: int


@dataclass(frozen=True, slots=True)
class FoldResult:
    """What a classifier that never saw ``rows`` says of them.

    Attributes:
        rows: (n,) int64.
        probability: (n, C) float32 after the last epoch.
        trace: (epochs, n, C) float32 after each epoch; empty (0, n, C) unless it was asked for.
    """

    rows: IntArray
    probability: FloatArray
    trace: FloatArray


@dataclass(frozen=True, slots=True)
class Pooled:
    """The predictions of every fold of one seed, put together.

    Attributes:
        seed: Seed of the trainings.
        probability: (N, C) float32; each row from the fold that held it out.
        traces: One ``(rows, trace)`` a fold; empty unless asked for.
    """

    seed: int
    probability: FloatArray
    traces: tuple[tuple[IntArray, FloatArray], ...] = ()

    @property
    def prediction(self) -> IntArray:
        """(N,) int64 index of the most probable class."""
        return np.asarray(self.probability.argmax(axis=1), dtype=np.int64)


def subject_folds(samples: ClipSamples, *, seed: int, groups: int | None = None) -> tuple[Fold, ...]:
    """Return one fold a subject, or ``groups`` folds of whole subjects of about equal size.

    Raises:
        DataError: If there are fewer than two subjects, or fewer than ``groups``.
    """
    keys = samples.subject_keys
    people, sizes = np.unique(keys, return_counts=True)
    if len(people) < max(2, groups or 2):
        raise DataError(
            f"There are {len(people)} subjects.", why=f"{max(2, groups or 2)} are needed to hold one out at a time."
        )
    if groups is None:
        return tuple(Fold(str(person), np.flatnonzero(keys == person), seed) for person in people)
    members: list[list[str]] = [[] for _ in range(groups)]
    filled = [0] * groups
    for i in sorted(range(len(people)), key=lambda i: (-int(sizes[i]), str(people[i]))):
        smallest = filled.index(min(filled))
        members[smallest].append(str(people[i]))
        filled[smallest] += int(sizes[i])
    return tuple(Fold(f"group{g + 1}", np.flatnonzero(np.isin(keys, who)), seed) for g, who in enumerate(members))


def run_fold(samples: S, fold: Fold, *, learner: Learner[S], trace: bool = False) -> FoldResult:
    """Train on everyone but the held-out people and predict these.

    Raises:
        DataError: If a held-out person is left in the training part, or the learner yields no classifier.
    """
    held = np.zeros(len(samples), dtype=bool)
    held[fold.rows] = True
    training, tested = samples.take(~held), samples.inputs[fold.rows]
    _demand_apart(training.subject_keys, samples.subject_keys[fold.rows], fold.name)
    n_classes, classify = len(samples.classes), None
    history: list[FloatArray] = []
    for classify in learner.fit(training, seed=fold.seed):
        if trace:
            history.append(_checked(classify(tested), len(fold.rows), n_classes, learner))
    if classify is None:
        raise DataError(f"The learner {learner.name!r} gave no classifier.", why="It ran for no epoch.")
    probability = _checked(classify(tested), len(fold.rows), n_classes, learner)
    steps = np.stack(history) if history else np.zeros((0, len(fold.rows), n_classes), np.float32)
    return FoldResult(fold.rows, probability, steps)


def run_loso(
    samples: S,
    *,
    learner: Learner[S],
    seed: int = 0,
    groups: int | None = None,
    out: Path | None = None,
    workers: int = 1,
    trace: bool = False,
    progress: Progress | None = None,
) -> Pooled:
    """Run every fold and pool the predictions.

    Args:
        samples: All clips.
        learner: What is trained anew for each fold; must be picklable if ``workers`` is above 1.
        seed: Seed of every training.
        groups: None leaves one subject out at a time; a number makes so many folds of whole subjects.
        out: Folder in which finished folds are kept; a later run with the same samples, learner and seed takes them
            from there. None keeps nothing.
        workers: Processes; each trains with one thread.
        trace: Keep the predictions after every epoch, for `leaky_claim`.
        progress: Told after each fold.

    Raises:
        DataError: As `subject_folds` and `run_fold`.
        OSError: If a finished fold cannot be written.
    """
    folds = subject_folds(samples, seed=seed, groups=groups)
    stores = [_store_path(out, samples, fold, learner, trace=trace) for fold in folds]
    results: dict[int, FoldResult] = {}
    for i, (fold, store) in enumerate(zip(folds, stores, strict=True)):
        kept = _load(store, fold)
        if kept is not None:
            results[i] = kept
    todo = [i for i in range(len(folds)) if i not in results]
    if progress:
        progress(len(results), len(folds))
    for i, result in _compute(samples, folds, todo, learner=learner, workers=workers, trace=trace):
        _save(stores[i], result)
        results[i] = result
        if progress:
            progress(len(results), len(folds))
    probability = np.full((len(samples), len(samples.classes)), np.nan, dtype=np.float32)
    for result in results.values():
        probability[result.rows] = result.probability
    traces = tuple((results[i].rows, results[i].trace) for i in range(len(folds))) if trace else ()
    return Pooled(seed, probability, traces)


def leaky_claim(pooled: Pooled, label: IntArray) -> IntArray:
    """Return the predictions that one would report after choosing each fold's epoch on its own test subject.

    Never a result: it shows by how much the habit flatters. The earliest of equally good epochs is taken.

    Args:
        pooled: A run with ``trace``.
        label: (N,) int64 true classes.

    Returns:
        (N,) int64.

    Raises:
        DataError: If the run kept no trace.
    """
    if not pooled.traces:
        raise DataError("The run kept no trace.", why="The choice of an epoch needs the predictions of each.")
    prediction = np.full(len(label), -1, dtype=np.int64)
    for rows, trace in pooled.traces:
        right = (trace.argmax(axis=2) == label[rows]).sum(axis=1)
        prediction[rows] = trace[int(right.argmax())].argmax(axis=1)
    return prediction


def _compute(
    samples: S, folds: Sequence[Fold], todo: Sequence[int], *, learner: Learner[S], workers: int, trace: bool
) -> Iterator[tuple[int, FoldResult]]:
    if workers <= 1 or len(todo) <= 1:
        for i in todo:
            yield i, run_fold(samples, folds[i], learner=learner, trace=trace)
        return
    # "spawn": a forked child would inherit the locks of OpenMP threads that do not exist in it.
    with ProcessPoolExecutor(
        min(workers, len(todo)), mp_context=get_context("spawn"), initializer=_start_worker, initargs=(samples, learner)
    ) as pool:
        waiting = {pool.submit(_work, folds[i], trace): i for i in todo}
        try:
            while waiting:
                done, _ = wait(waiting, return_when=FIRST_COMPLETED)
                for future in done:
                    yield waiting.pop(future), future.result()
        finally:
            for future in waiting:
                future.cancel()


_job: tuple[Any, Learner[Any]] | None = None


def _start_worker(samples: S, learner: Learner[S]) -> None:
    global _job
    for variable in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"):
        os.environ[variable] = "1"
    import torch

    torch.set_num_threads(1)
    _job = (samples, learner)


def _work(fold: Fold, trace: bool) -> FoldResult:
    if _job is None:
        raise RuntimeError("The worker was not started with samples.")
    samples, learner = _job
    return run_fold(samples, fold, learner=learner, trace=trace)


def _demand_apart(trained: TextArray, tested: TextArray, fold: str) -> None:
    both = np.intersect1d(trained, tested)
    if len(both):
        raise DataError(
            f"The subject {both[0]!r} is on both sides of fold {fold!r}.", why="It would be recognised, not its face."
        )


def _checked(probability: FloatArray, n: int, n_classes: int, learner: Learner[Any]) -> FloatArray:
    if probability.shape != (n, n_classes) or not bool(np.isfinite(probability).all()):
        raise DataError(
            f"The learner {learner.name!r} answered with shape {probability.shape}.",
            why=f"Expected finite probabilities of shape {(n, n_classes)}.",
        )
    return probability.astype(np.float32)


def _store_path(
    out: Path | None, samples: ClipSamples, fold: Fold, learner: Learner[Any], *, trace: bool
) -> Path | None:
    if out is None:
        return None
    what = json.dumps([learner.name, dict(learner.settings), fold.seed, trace, samples.sha256], sort_keys=True)
    digest = hashlib.sha256(what.encode() + fold.rows.tobytes()).hexdigest()[:16]
    name = "".join(c if c.isalnum() else "-" for c in fold.name)
    return out / f"seed{fold.seed}" / f"{name}-{digest}.npz"


def _load(path: Path | None, fold: Fold) -> FoldResult | None:
    if path is None or not path.is_file():
        return None
    try:
        with np.load(path, allow_pickle=False) as kept:
            result = FoldResult(kept["rows"], kept["probability"], kept["trace"])
    except (OSError, ValueError, EOFError, KeyError, BadZipFile) as error:
        _log.warning("The stored fold %s is damaged and is run again: %s", path.name, error)
        return None
    return result if np.array_equal(result.rows, fold.rows) else None


def _save(path: Path | None, result: FoldResult) -> None:
    if path is None:
        return
    buffer = io.BytesIO()
    arrays: dict[str, Any] = {"rows": result.rows, "probability": result.probability, "trace": result.trace}
    np.savez_compressed(buffer, **arrays)
    path.parent.mkdir(parents=True, exist_ok=True)
    write_atomically(path, buffer.getvalue())
