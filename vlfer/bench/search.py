"""What searching costs: queries against an index of made vectors, and how often the lists find what is nearest."""

from __future__ import annotations

import time
from pathlib import Path

import numpy as np

from vlfer.bench.measurement import Measurement
from vlfer.search.vectors import VectorIndex
from vlfer.types import FloatArray, IntArray

_CENTRES = 4096
_SPREAD = 0.6
_QUERIES = 200
_HITS = 10
_PORTION = 50_000


class MadeVectors:
    """Unit vectors in clusters, as faces of many videos are; each portion is made again when it is asked for.

    Args:
        count: Number of vectors.
        dimension: D.
        seed: Of the random numbers.
    """

    def __init__(self, count: int, *, dimension: int = 384, seed: int = 0) -> None:
        self.count = count
        self.dimension = dimension
        self._seed = seed
        self._centres = _unit(np.random.default_rng(seed).normal(size=(_CENTRES, dimension)))

    def portions(self, ids: IntArray) -> list[tuple[IntArray, FloatArray]]:
        """Return ids with their vectors."""
        return [(some, self.vectors(some)) for some in np.array_split(ids, -(-len(ids) // _PORTION))]

    def vectors(self, ids: IntArray) -> FloatArray:
        """Return the vectors (n, D) of ids."""
        rng = np.random.default_rng([self._seed, int(ids[0]), len(ids)])
        noise = rng.standard_normal((len(ids), self.dimension), dtype=np.float32) / np.float32(self.dimension**0.5)
        return _unit(self._centres[ids % _CENTRES] + _SPREAD * noise)


def bench_search(count: int, *, folder: Path, dimension: int = 384) -> list[Measurement]:
    """Build an index of made vectors and ask it.

    Args:
        count: Number of vectors.
        folder: Where its file is written.
        dimension: D.
    """
    made = MadeVectors(count, dimension=dimension)
    ids = np.arange(1, count + 1, dtype=np.int64)
    began = time.perf_counter()
    index = VectorIndex(folder / "vectors.faiss")
    kept: list[tuple[IntArray, FloatArray]] = made.portions(ids)
    index.agree(ids, lambda wanted: _chosen(kept, wanted))
    built_s = time.perf_counter() - began
    index.save()
    rng = np.random.default_rng(1)
    near = np.concatenate([vectors[:: max(1, count // _QUERIES)] for _, vectors in kept])[:_QUERIES]
    queries = _unit(near + 0.5 * rng.standard_normal(near.shape, dtype=np.float32) / np.float32(dimension**0.5))
    times_s, found = [], []
    index.search(queries[0], _HITS)
    for query in queries:
        began = time.perf_counter()
        found.append(index.search(query, _HITS))
        times_s.append(time.perf_counter() - began)
    wanted = _exact(kept, queries)
    hits = [len(set(a.tolist()) & set(b.tolist())) / _HITS for a, b in zip(found, wanted, strict=True)]
    name = f"{count:,} segments, {index.kind}"
    bar = 50.0 if count >= 1_000_000 else None
    return [
        Measurement(f"{name}: median query", 1e3 * float(np.median(times_s)), "ms", bar),
        Measurement(f"{name}: p99 query", 1e3 * float(np.quantile(times_s, 0.99)), "ms", bar),
        Measurement(f"{name}: of the {_HITS} nearest found", 100 * float(np.mean(hits)), "%"),
        Measurement(f"{name}: build", built_s, "s"),
        Measurement(f"{name}: file", (folder / "vectors.faiss").stat().st_size / 1e6, "MB"),
    ]


def _chosen(kept: list[tuple[IntArray, FloatArray]], wanted: IntArray) -> list[tuple[IntArray, FloatArray]]:
    found = []
    for ids, vectors in kept:
        rows = np.isin(ids, wanted, assume_unique=True)
        if rows.any():
            found.append((ids[rows], vectors[rows]))
    return found


def _exact(kept: list[tuple[IntArray, FloatArray]], queries: FloatArray) -> list[IntArray]:
    best: list[tuple[FloatArray, IntArray]] = []
    for ids, vectors in kept:
        scores = queries @ vectors.T
        top = np.argpartition(-scores, min(_HITS, scores.shape[1] - 1), axis=1)[:, :_HITS]
        best.append((np.take_along_axis(scores, top, axis=1), ids[top]))
    scores = np.concatenate([part[0] for part in best], axis=1)
    all_ids = np.concatenate([part[1] for part in best], axis=1)
    order = np.argsort(-scores, axis=1)[:, :_HITS]
    return list(np.take_along_axis(all_ids, order, axis=1))


def _unit(rows: np.ndarray[tuple[int, ...], np.dtype[np.floating]]) -> FloatArray:
    unit: FloatArray = (rows / np.linalg.norm(rows, axis=1, keepdims=True)).astype(np.float32)
    return unit
