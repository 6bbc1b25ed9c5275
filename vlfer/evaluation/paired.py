"""Two runs over the same samples, read back from their folders and tested against one another."""

from __future__ import annotations

import csv
import json
import os
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from vlfer.errors import DataError
from vlfer.evaluation.significance import PairedTest, compare_runs
from vlfer.metrics import FAILED
from vlfer.types import IntArray

_COLUMNS = ("path", "label", "prediction", "fold", "start_s", "end_s")
_PLACE = ("start_s", "end_s", "box", "fold", "split")
_SHOWN = 3

Sample = tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Run:
    """What `vlfer eval --out` wrote, as far as a comparison needs it.

    Attributes:
        folder: Where it lies.
        report: Its ``report.json``.
        truth: Sample to the name of its class. A sample is its path below the folder that all media of the run share,
            with times, box, fold and split; so runs over copies at two places meet.
        prediction: Sample to the predicted class, empty for a failed row.
    """

    folder: Path
    report: Mapping[str, Any]
    truth: Mapping[Sample, str]
    prediction: Mapping[Sample, str]

    @property
    def classes(self) -> tuple[str, ...]:
        """The declared classes."""
        return tuple(self.report["classes"])

    def about(self) -> dict[str, Any]:
        """Return what tells this run from another one, JSON-ready."""
        made = self.report.get("provenance", {})
        names = ("backbone", "space", "label_set", "labels_sha256")
        adapter = made.get("config", {}).get("adapter")
        figures = {name: self.report[name] for name in ("war", "uar", "uf1", "n", "failed")}
        return {"run": str(self.folder), "dataset": self.report["dataset"], **figures, "adapter": adapter} | {
            k: made.get(k) for k in names
        }


def load_run(folder: str | Path) -> Run:
    """Read ``report.json`` and ``predictions.csv`` of a run.

    Raises:
        DataError: If one of them is missing or not what `vlfer eval` writes.
    """
    home = Path(folder)
    try:
        report = json.loads((home / "report.json").read_text(encoding="utf-8"))
        with (home / "predictions.csv").open(newline="", encoding="utf-8") as stream:
            reader = csv.DictReader(stream)
            missing = [name for name in _COLUMNS if name not in (reader.fieldnames or ())]
            lines = [] if missing else list(reader)
    except OSError as error:
        raise DataError(
            f"The run {str(home)!r} cannot be read: {error}.", fix="give the folder that vlfer eval --out wrote"
        ) from None
    except ValueError as error:
        raise DataError(f"The report of {str(home)!r} is no JSON: {error}.", fix="run vlfer eval again") from None
    wanted = ("classes", "aggregate", "dataset", "war", "uar", "uf1", "n", "failed")
    lacking = [key for key in wanted if key not in report] + missing
    if lacking or len(lines) != report["n"]:
        raise DataError(
            f"{str(home)!r} is not a whole run of vlfer eval.",
            why=f"It lacks {', '.join(lacking)}." if lacking else f"{len(lines)} predictions for {report['n']} rows.",
            fix="run vlfer eval --out again",
        )
    samples = _samples(lines)
    return Run(
        home,
        report,
        truth={sample: line["label"] for sample, line in zip(samples, lines, strict=True)},
        prediction={sample: line["prediction"] for sample, line in zip(samples, lines, strict=True)},
    )


def check_same_samples(a: Run, b: Run) -> None:
    """Refuse two runs that were not measured on the same samples with the same classes.

    Raises:
        DataError: If samples, classes or true labels differ.
    """
    only_a, only_b = a.truth.keys() - b.truth.keys(), b.truth.keys() - a.truth.keys()
    if only_a or only_b:
        parts = [
            f"{len(only)} of {len(run.truth)} are only in {str(run.folder)!r} ({_some(only)})"
            for run, only in ((a, only_a), (b, only_b))
            if only
        ]
        raise DataError(
            f"The runs are over different samples: {'; '.join(parts)}.",
            why="A paired test needs both predictions of every sample.",
            fix="the same data set, --fold, --split and --protocol for both",
        )
    if set(a.classes) != set(b.classes):
        raise DataError(
            f"The runs declare different classes: {', '.join(a.classes)} and {', '.join(b.classes)}.",
            why="With other classes to choose from the task is another one.",
            fix="label sets with the same names",
        )
    other = [sample for sample, label in a.truth.items() if b.truth[sample] != label]
    if other:
        raise DataError(
            f"{len(other)} of {len(a.truth)} samples have another true label in the second run: {_some(other)}.",
            why="They are two data sets whose files have the same names, or the labels were changed between the runs.",
        )


def compare(a: Run, b: Run, *, level: float = 0.95, samples: int = 10_000, seed: int = 0) -> PairedTest:
    """Test run ``a`` against run ``b``: exact McNemar test and paired bootstrap.

    Where both were reported as a mean over folds the figures compared are such means, samples being drawn within each
    fold; else they are those over all rows.

    Args:
        a: One run.
        b: The other one.
        level: Of the bootstrap interval.
        samples: Bootstrap samples.
        seed: Of the bootstrap.

    Raises:
        DataError: See `check_same_samples`.
    """
    check_same_samples(a, b)
    order = list(a.truth)
    index = {name: i for i, name in enumerate(a.classes)}
    by_fold = a.report["aggregate"] == b.report["aggregate"] == "mean"
    fold_of = [sample[1 + _PLACE.index("fold")] for sample in order]
    names = {name: i for i, name in enumerate(dict.fromkeys(fold_of))}
    return compare_runs(
        np.array([index[a.truth[sample]] for sample in order], dtype=np.int64),
        _indices(a, order, index=index),
        _indices(b, order, index=index),
        n_classes=len(index),
        folds=np.array([names[fold] for fold in fold_of], dtype=np.int64) if by_fold else None,
        level=level,
        samples=samples,
        seed=seed,
    )


def _indices(run: Run, order: Sequence[Sample], *, index: Mapping[str, int]) -> IntArray:
    said = (run.prediction[sample] for sample in order)
    return np.array([index[name] if name else FAILED for name in said], dtype=np.int64)


def _samples(lines: Sequence[Mapping[str, str]]) -> list[Sample]:
    """Return what tells each line from the others; a repeated sample carries its number."""
    folders = {os.path.dirname(line["path"]) for line in lines}
    shared = os.path.commonpath(folders) if folders else ""
    seen: Counter[Sample] = Counter()
    samples = []
    for line in lines:
        place = tuple(line.get(name) or "" for name in _PLACE)
        sample = (os.path.relpath(line["path"], shared or "."), *place)
        seen[sample] += 1
        samples.append((*sample, str(seen[sample])))
    return samples


def _some(samples: Sequence[Sample] | set[Sample]) -> str:
    paths = sorted({sample[0] for sample in samples})
    return ", ".join(paths[:_SHOWN]) + (" ..." if len(paths) > _SHOWN else "")
