"""How sure a figure is: bootstrap intervals of one run and paired tests between two runs.

A bootstrap sample of rows is, for every figure made from a confusion matrix, a multinomial draw of its cells. So no
row is ever copied, and 2,000 samples of 10,000 rows take milliseconds.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vlfer.errors import ShapeError
from vlfer.metrics import FAILED, Float64, confusion_matrix, uar, uf1, war
from vlfer.types import IntArray

_CHUNK = 200  # samples drawn at once: (200, 43, 44) counts are 3 MB


@dataclass(frozen=True, slots=True)
class PairedTest:
    """Run A against run B on the same rows.

    Attributes:
        n: Rows.
        only_a: Rows that A alone has right.
        only_b: Rows that B alone has right.
        mcnemar_p: Two-sided exact McNemar p-value of the hypothesis that both err equally often.
        difference: Figure of A minus figure of B, by name ("war", "uar", "uf1").
        interval: Bootstrap interval of each difference.
        bootstrap_p: Two-sided bootstrap p-value of each difference.
    """

    n: int
    only_a: int
    only_b: int
    mcnemar_p: float
    difference: dict[str, float]
    interval: dict[str, tuple[float, float]]
    bootstrap_p: dict[str, float]

    def as_dict(self) -> dict[str, Any]:
        """Return JSON-ready values."""
        return {
            "n": self.n,
            "only_a": self.only_a,
            "only_b": self.only_b,
            "mcnemar_p": self.mcnemar_p,
            "difference": dict(self.difference),
            "interval": {name: list(pair) for name, pair in self.interval.items()},
            "bootstrap_p": dict(self.bootstrap_p),
        }


def bootstrap_intervals(
    confusion: IntArray, *, level: float = 0.95, samples: int = 2000, seed: int = 0
) -> dict[str, tuple[float, float]]:
    """Return percentile bootstrap intervals (Efron and Tibshirani, 1993) of WAR, UAR and UF1, rows resampled.

    Args:
        confusion: (C, C + 1) int64, at least one row counted.
        level: Share of the bootstrap distribution inside the interval.
        samples: Bootstrap samples.
        seed: Of the random generator.

    Returns:
        Low and high end by figure.

    Raises:
        ShapeError: If no row was counted.
    """
    n = int(confusion.sum())
    if n == 0:
        raise ShapeError("There is no row to resample.", why="The confusion matrix is empty.")
    rng = np.random.default_rng(seed)
    share = confusion.ravel() / n
    drawn: dict[str, list[Float64]] = {"war": [], "uar": [], "uf1": []}
    for start in range(0, samples, _CHUNK):
        count = min(_CHUNK, samples - start)
        cells = rng.multinomial(n, share, size=count).reshape(count, *confusion.shape)
        for name, values in _figures(cells).items():
            drawn[name].append(values)
    return {name: _interval(np.concatenate(values), level) for name, values in drawn.items()}


def compare_runs(
    truth: IntArray,
    prediction_a: IntArray,
    prediction_b: IntArray,
    *,
    n_classes: int,
    level: float = 0.95,
    samples: int = 2000,
    seed: int = 0,
) -> PairedTest:
    """Test whether two runs over the same rows differ: exact McNemar test and paired bootstrap.

    Args:
        truth: (N,) int64 true classes.
        prediction_a: (N,) int64 of run A, `FAILED` allowed.
        prediction_b: (N,) int64 of run B, `FAILED` allowed.
        n_classes: C.
        level: Of the bootstrap interval.
        samples: Bootstrap samples.
        seed: Of the random generator.

    Returns:
        Differences with intervals and p-values. The bootstrap p-value is twice the smaller share of samples on one
        side of zero, at least 1 / samples.

    Raises:
        ShapeError: If the arrays differ in length, are empty or hold other indices.
    """
    if not len(truth):
        raise ShapeError("There is no row to compare on.", why="Both runs are empty.")
    full_a = confusion_matrix(truth, prediction_a, n_classes=n_classes)
    full_b = confusion_matrix(truth, prediction_b, n_classes=n_classes)
    triples = np.stack([truth, prediction_a, prediction_b], axis=1)
    cells, counts = np.unique(triples, axis=0, return_counts=True)
    rng = np.random.default_rng(seed)
    drawn: dict[str, list[Float64]] = {"war": [], "uar": [], "uf1": []}
    for start in range(0, samples, _CHUNK):
        size = min(_CHUNK, samples - start)
        draw = rng.multinomial(len(truth), counts / len(truth), size=size)
        a = _figures(_scatter(draw, cells[:, 0], cells[:, 1], n_classes))
        b = _figures(_scatter(draw, cells[:, 0], cells[:, 2], n_classes))
        for name, values in drawn.items():
            values.append(a[name] - b[name])
    right_a, right_b = prediction_a == truth, prediction_b == truth
    only_a, only_b = int((right_a & ~right_b).sum()), int((right_b & ~right_a).sum())
    spread = {name: np.concatenate(values) for name, values in drawn.items()}
    whole_a, whole_b = _figures(full_a), _figures(full_b)
    return PairedTest(
        n=len(truth),
        only_a=only_a,
        only_b=only_b,
        mcnemar_p=mcnemar_exact(only_a, only_b),
        difference={name: float(whole_a[name] - whole_b[name]) for name in spread},
        interval={name: _interval(values, level) for name, values in spread.items()},
        bootstrap_p={name: _two_sided(values) for name, values in spread.items()},
    )


def mcnemar_exact(only_a: int, only_b: int) -> float:
    """Return the two-sided exact McNemar p-value (McNemar, 1947; the binomial form): P of a split at least this uneven.

    Args:
        only_a: Rows that A alone has right.
        only_b: Rows that B alone has right.
    """
    n, least = only_a + only_b, min(only_a, only_b)
    term, total = 1, 1  # exact integers: floats underflow beyond a thousand discordant rows
    for i in range(1, least + 1):
        term = term * (n - i + 1) // i
        total += term
    doubled, whole = 2 * total, 1 << n
    return 1.0 if doubled >= whole else doubled / whole


def _figures(confusion: NDArray[Any]) -> dict[str, Float64]:
    return {"war": war(confusion), "uar": uar(confusion), "uf1": uf1(confusion)}


def _scatter(draw: IntArray, rows: IntArray, columns: IntArray, n_classes: int) -> IntArray:
    """Return (B, C, C + 1) confusion matrices of B draws of (B, cells) counts."""
    flat = rows * (n_classes + 1) + np.where(columns == FAILED, n_classes, columns)
    out = np.zeros((n_classes * (n_classes + 1), len(draw)), dtype=np.int64)
    np.add.at(out, flat, draw.T)
    return out.T.reshape(len(draw), n_classes, n_classes + 1)


def _interval(values: Float64, level: float) -> tuple[float, float]:
    low, high = np.quantile(values, [(1 - level) / 2, (1 + level) / 2])
    return float(low), float(high)


def _two_sided(values: Float64) -> float:
    below, above = float((values <= 0).mean()), float((values >= 0).mean())
    return min(1.0, max(2 * min(below, above), 1.0 / len(values)))
