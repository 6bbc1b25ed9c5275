"""Slices of time, each with the pooled vector of the window around it; built whole or as frames come in."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from vlfer.errors import ConfigError, ShapeError
from vlfer.types import Embedding, FloatArray, IntArray, TimeArray

Pool = Callable[[FloatArray, NDArray[np.bool_], FloatArray], FloatArray]
"""Pools windows: vectors (N, T, D), mask (N, T), times from the middle of the window (N, T) to (N, D) unit vectors."""

_NEAR_S = 1e-9


@dataclass(frozen=True, slots=True)
class Cells:
    """Equal slices of time in which a face was seen; each is the smallest stretch that gets a label of its own.

    Attributes:
        start_s: (N,) float64.
        end_s: (N,) float64.
        embedding: N pooled vectors of the window around each cell.
    """

    start_s: TimeArray
    end_s: TimeArray
    embedding: Embedding


def pool_mean(vectors: FloatArray, mask: NDArray[np.bool_], offsets_s: FloatArray) -> FloatArray:
    """Return the unit mean of each window, (N, D).

    Raises:
        ShapeError: If the frames of a window cancel out.
    """
    del offsets_s
    means = np.einsum("ntd,nt->nd", vectors, mask.astype(np.float32), dtype=np.float64)
    norms = np.linalg.norm(means, axis=1, keepdims=True)
    if bool((norms < 1e-6).any()):
        raise ShapeError("The frames of a window cancel out.", why="Their mean has no direction.")
    return np.asarray(means / norms, dtype=np.float32)


class CellBuilder:
    """Cut the vectors of one face into cells while they come in; only those of a window are held.

    Time is cut into cells of ``hop_s`` from the first frame on; a cell's vector is pooled from all frames within
    ``window_s`` around its centre. Cells in which the face is not seen are left out, save those that merely fall
    between two frames of a slow or uneven frame rate.

    Args:
        window_s: Length of the window.
        hop_s: Length of a cell.
        frame_s: How long one frame lasts; the last cell ends that long after the last frame.
        pool: How the frames of a window become one vector.

    Raises:
        ConfigError: If a length is not positive, or the window is shorter than a cell.
    """

    def __init__(self, *, window_s: float, hop_s: float, frame_s: float, pool: Pool = pool_mean) -> None:
        if not (hop_s > 0 and frame_s > 0 and window_s >= hop_s):
            raise ConfigError(
                f"The window is {window_s} s, the hop {hop_s} s and a frame {frame_s} s.",
                why="All must be positive and the window at least one hop long.",
                fix="--window 1.0 --hop 0.25",
            )
        self.window_s, self.hop_s, self.frame_s, self.pool = window_s, hop_s, frame_s, pool
        self._times_s: TimeArray = np.zeros(0)
        self._vectors: FloatArray = np.zeros((0, 0), dtype=np.float32)
        self._space = ""
        self._origin_s = 0.0
        self._next = 0

    def add(self, times_s: TimeArray, embedding: Embedding) -> Cells | None:
        """Take in the next frames of the face; return the cells that are complete, or None.

        Raises:
            ShapeError: If the times do not fit the vectors or do not increase.
        """
        before = self._times_s[-1:]
        if times_s.shape != (len(embedding),) or bool((np.diff(np.concatenate([before, times_s])) <= 0).any()):
            raise ShapeError(f"times_s has shape {times_s.shape}.", why=f"Expected {len(embedding)} increasing times.")
        if not len(times_s):
            return None
        if not self._space:
            self._origin_s, self._space = float(times_s[0]), embedding.space
            self._vectors = embedding.vectors.copy()
        else:
            self._vectors = np.concatenate([self._vectors, embedding.vectors])
        self._times_s = np.concatenate([self._times_s, times_s])
        # Complete are the cells whose window lies before the last frame: the frames to come are later still.
        reach_s = float(self._times_s[-1]) - self._origin_s - (self.hop_s + self.window_s) / 2
        return self._take(int(np.floor(reach_s / self.hop_s - 1e-6)) + 1, end_s=float("inf"))

    def finish(self) -> Cells | None:
        """Return the remaining cells, or None."""
        if not len(self._times_s):
            return None
        last_s = float(self._times_s[-1])
        return self._take(self._cell_of(last_s) + 1, end_s=last_s + self.frame_s)

    def _cell_of(self, time_s: float) -> int:
        return int(np.floor((time_s - self._origin_s) / self.hop_s + _NEAR_S))

    def _take(self, behind: int, *, end_s: float) -> Cells | None:
        """Return the cells before number ``behind``, and forget the frames that no later one needs."""
        if behind <= self._next:
            return None
        numbers = self._seen(behind)
        cells = self._pooled(numbers, end_s=end_s) if len(numbers) else None
        self._next = behind
        first_s = self._origin_s + (behind + 0.5) * self.hop_s - self.window_s / 2 - 2 * _NEAR_S
        kept = min(int(np.searchsorted(self._times_s, first_s)), len(self._times_s) - 1)
        # The frame before is the one that a cell between two frames falls back on.
        kept = max(min(kept, int(np.searchsorted(self._times_s, self._origin_s + behind * self.hop_s)) - 1), 0)
        self._times_s, self._vectors = self._times_s[kept:].copy(), self._vectors[kept:].copy()
        return cells

    def _seen(self, behind: int) -> IntArray:
        """Return the numbers from the next cell on that hold a frame or lie in a short gap."""
        owner = np.floor((self._times_s - self._origin_s) / self.hop_s + _NEAR_S).astype(np.int64)
        seen = np.zeros(max(int(owner[-1]) + 1, behind), dtype=bool)
        seen[owner] = True
        longest_gap_s = 2 * max(self.frame_s, self.hop_s)
        for i in np.flatnonzero((np.diff(owner) > 1) & (np.diff(self._times_s) <= longest_gap_s + _NEAR_S)):
            seen[owner[i] : owner[i + 1]] = True
        return np.asarray(np.flatnonzero(seen[self._next : behind]) + self._next, dtype=np.int64)

    def _pooled(self, numbers: IntArray, *, end_s: float) -> Cells:
        start_s: TimeArray = self._origin_s + numbers * np.float64(self.hop_s)
        centre_s = start_s + self.hop_s / 2
        low = np.searchsorted(self._times_s, centre_s - self.window_s / 2 - _NEAR_S, side="left")
        high = np.searchsorted(self._times_s, centre_s + self.window_s / 2 + _NEAR_S, side="right")
        low = np.where(
            low == high, np.maximum(low - 1, 0), low
        )  # a cell between two frames, with neither in its window
        high = np.maximum(high, low + 1)
        width = int((high - low).max())
        index = np.minimum(low[:, None] + np.arange(width), len(self._times_s) - 1)
        mask = np.arange(width) < (high - low)[:, None]
        offsets_s = (self._times_s[index] - centre_s[:, None]).astype(np.float32)
        vectors = self.pool(self._vectors[index], mask, offsets_s)
        return Cells(start_s, np.minimum(start_s + self.hop_s, end_s), Embedding(vectors, self._space))


def join_cells(parts: list[Cells]) -> Cells:
    """Return consecutive cells as one.

    Raises:
        ShapeError: If there are none.
    """
    if not parts:
        raise ShapeError("There are no cells.", why="A face that was seen has at least one.")
    return Cells(
        np.concatenate([part.start_s for part in parts]),
        np.concatenate([part.end_s for part in parts]),
        Embedding(np.concatenate([part.embedding.vectors for part in parts]), parts[0].embedding.space),
    )


def window_means(
    embedding: Embedding,
    times_s: TimeArray,
    *,
    window_s: float = 1.0,
    hop_s: float = 0.25,
    frame_s: float = 0.04,
    pool: Pool = pool_mean,
) -> Cells:
    """Pool frame embeddings over a sliding window; see `CellBuilder`.

    Args:
        embedding: T frames of one face.
        times_s: (T,) float64, increasing.
        window_s: Length of the window.
        hop_s: Length of a cell.
        frame_s: How long one frame lasts.
        pool: How the frames of a window become one vector.

    Raises:
        ConfigError: If a length is not positive, or the window is shorter than a cell.
        ShapeError: If there is no frame, or the times do not fit the vectors or do not increase.
    """
    builder = CellBuilder(window_s=window_s, hop_s=hop_s, frame_s=frame_s, pool=pool)
    parts = [builder.add(times_s, embedding), builder.finish()]
    return join_cells([part for part in parts if part is not None])
