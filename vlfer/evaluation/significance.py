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
        a: Figures of A.
        b: Figures of B.
        folds: Number of folds over which the figures are means; 0 if they are over all rows.
        least_p: The smallest bootstrap p-value that so many samples can give.
    """

    n: int
    only_a: int
    only_b: int
    mcnemar_p: float
    difference: dict[str, float]
    interval: dict[str, tuple[float, float]]
    bootstrap_p: dict[str, float]
    a: dict[str, float]
    b: dict[str, float]
    folds: int
    least_p: float

    def as_dict(self) -> dict[str, Any]:
        """Return JSON-ready values."""
        return {
            "n": self.n,
            "folds": self.folds,
            "figures": {"a": dict(self.a), "b": dict(self.b)},
            "only_a": self.only_a,
            "only_b": self.only_b,
            "mcnemar_p": self.mcnemar_p,
            "difference": dict(self.difference),
            "interval": {name: list(pair) for name, pair in self.interval.items()},
            "bootstrap_p": dict(self.bootstrap_p),
            "bootstrap_p_least": self.least_p,
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
    folds: IntArray | None = None,
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
        folds: (N,) int64; figures are unweighted means over folds and samples are drawn within each. None takes all
            rows together.
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
    everything = [np.arange(len(truth))]
    parts = everything if folds is None else [np.flatnonzero(folds == fold) for fold in np.unique(folds)]
    rng = np.random.default_rng(seed)
    whole: dict[str, list[Float64]] = {"a": [], "b": []}
    spread = {name: np.zeros(samples) for name in ("war", "uar", "uf1")}
    for rows in parts:
        pair = (truth[rows], prediction_a[rows], prediction_b[rows])
        for side, prediction in (("a", pair[1]), ("b", pair[2])):
            figures = _figures(confusion_matrix(pair[0], prediction, n_classes=n_classes))
            whole[side].append(np.array([figures[name] for name in spread]))
        for name, values in _paired_samples(*pair, n_classes=n_classes, samples=samples, rng=rng).items():
            spread[name] += values / len(parts)
    mean_a, mean_b = (dict(zip(spread, np.mean(whole[side], axis=0).tolist(), strict=True)) for side in ("a", "b"))
    right_a, right_b = prediction_a == truth, prediction_b == truth
    only_a, only_b = int((right_a & ~right_b).sum()), int((right_b & ~right_a).sum())
    return PairedTest(
        n=len(truth),
        only_a=only_a,
        only_b=only_b,
        mcnemar_p=mcnemar_exact(only_a, only_b),
        difference={name: mean_a[name] - mean_b[name] for name in spread},
        interval={name: _interval(values, level) for name, values in spread.items()},
        bootstrap_p={name: _two_sided(values) for name, values in spread.items()},
        a=mean_a,
        b=mean_b,
        folds=0 if folds is None else len(parts),
        least_p=1.0 / samples,
    )


def _paired_samples(
    truth: IntArray, a: IntArray, b: IntArray, *, n_classes: int, samples: int, rng: np.random.Generator
) -> dict[str, Float64]:
    """Return (samples,) differences of each figure; both runs are measured on the same drawn rows."""
    cells, counts = np.unique(np.stack([truth, a, b], axis=1), axis=0, return_counts=True)
    drawn: dict[str, list[Float64]] = {"war": [], "uar": [], "uf1": []}
    for start in range(0, samples, _CHUNK):
        draw = rng.multinomial(len(truth), counts / len(truth), size=min(_CHUNK, samples - start))
        of_a = _figures(_scatter(draw, cells[:, 0], cells[:, 1], n_classes))
        of_b = _figures(_scatter(draw, cells[:, 0], cells[:, 2], n_classes))
        for name, values in drawn.items():
            values.append(of_a[name] - of_b[name])
    return {name: np.concatenate(values) for name, values in drawn.items()}


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
