"""From scores over time to segments: a sliding window, then equal neighbours merged. Pure functions on arrays."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from vlfer.errors import ConfigError, ShapeError
from vlfer.scoring import DEFAULT_TIE_MARGIN, decide, top_labels
from vlfer.stream import EmbeddedTrack
from vlfer.types import Embedding, FloatArray, IntArray, Prediction, Scores, TimeArray, UInt8Array


@dataclass(frozen=True, slots=True)
class Cells:
    """Equal slices of time in which a face was seen; each is the smallest stretch that gets a label of its own.

    Attributes:
        start_s: (N,) float64.
        end_s: (N,) float64.
        embedding: N mean vectors of the window around each cell.
    """

    start_s: TimeArray
    end_s: TimeArray
    embedding: Embedding


@dataclass(frozen=True, slots=True)
class Timeline:
    """The scores of one face over time, for pictures and tables.

    Attributes:
        track_id: Which face.
        start_s: (N,) float64, start of each cell.
        end_s: (N,) float64, end of each cell.
        scores: N cells against C labels.
        thumbnails: Moments in seconds with the face at that moment, (S, S, 3) uint8 RGB; few, in order of time.
    """

    track_id: int
    start_s: TimeArray
    end_s: TimeArray
    scores: Scores
    thumbnails: tuple[tuple[float, UInt8Array], ...] = ()


def segment_track(
    found: EmbeddedTrack,
    *,
    score: Callable[[Embedding], Scores],
    window_s: float,
    hop_s: float,
    frame_s: float,
    note: str = "",
    threshold: float | None = None,
    tie_margin: float = DEFAULT_TIE_MARGIN,
    top: int | None = None,
) -> tuple[Timeline, tuple[Prediction, ...]]:
    """Score one face over time and cut it into segments: `window_means`, ``score``, `merge_cells`.

    Raises:
        ConfigError: If the window or the hop is no length.
        VlferError: Whatever ``score`` raises.
    """
    cells = window_means(found.embedding, found.times_s, window_s=window_s, hop_s=hop_s, frame_s=frame_s)
    timeline = Timeline(found.track.track_id, cells.start_s, cells.end_s, score(cells.embedding), found.thumbnails)
    segments = merge_cells(
        timeline,
        boxes=found.track.boxes,
        box_times_s=found.times_s,
        threshold=threshold,
        tie_margin=tie_margin,
        top=top,
        note=note,
    )
    return timeline, segments


def window_means(
    embedding: Embedding, times_s: TimeArray, *, window_s: float = 1.0, hop_s: float = 0.25, frame_s: float = 0.04
) -> Cells:
    """Average frame embeddings over a sliding window.

    Time is cut into cells of ``hop_s`` from the first frame on; a cell's vector is the mean of all frames within
    ``window_s`` around its centre. Cells in which the face is not seen are left out, save those that merely fall
    between two frames of a slow or uneven frame rate.

    Args:
        embedding: T frames of one face.
        times_s: (T,) float64, increasing.
        window_s: Length of the window.
        hop_s: Length of a cell.
        frame_s: How long one frame lasts; the last cell ends that long after the last frame.

    Raises:
        ConfigError: If a length is not positive, or the window is shorter than a cell.
        ShapeError: If the times do not fit the vectors or do not increase.
    """
    if not (hop_s > 0 and frame_s > 0 and window_s >= hop_s):
        raise ConfigError(
            f"The window is {window_s} s, the hop {hop_s} s and a frame {frame_s} s.",
            why="All must be positive and the window at least one hop long.",
            fix="--window 1.0 --hop 0.25",
        )
    if times_s.shape != (len(embedding),) or bool((np.diff(times_s) <= 0).any()):
        raise ShapeError(f"times_s has shape {times_s.shape}.", why=f"Expected {len(embedding)} increasing times.")
    first = times_s[0]
    cells = _seen_cells(times_s, hop_s=hop_s, longest_gap_s=2 * max(frame_s, hop_s))
    start_s = first + cells * hop_s
    centre_s = start_s + hop_s / 2
    low = np.searchsorted(times_s, centre_s - window_s / 2 - 1e-9, side="left")
    high = np.searchsorted(times_s, centre_s + window_s / 2 + 1e-9, side="right")
    low = np.where(low == high, np.maximum(low - 1, 0), low)  # a cell between two frames, with neither in its window
    sums = np.concatenate([np.zeros((1, embedding.vectors.shape[1])), np.cumsum(embedding.vectors, 0, np.float64)])
    means = sums[high] - sums[low]
    norms = np.linalg.norm(means, axis=1, keepdims=True)
    if bool((norms < 1e-6).any()):
        raise ShapeError("The frames of a window cancel out.", why="Their mean has no direction.")
    end_s = np.minimum(start_s + hop_s, times_s[-1] + frame_s)
    return Cells(start_s, end_s, Embedding((means / norms).astype(np.float32), embedding.space))


def merge_cells(
    timeline: Timeline,
    *,
    boxes: FloatArray,
    box_times_s: TimeArray,
    threshold: float | None = None,
    tie_margin: float = DEFAULT_TIE_MARGIN,
    top: int | None = None,
    note: str = "",
) -> tuple[Prediction, ...]:
    """Merge neighbouring cells of one label into segments.

    A segment's probabilities are the means of its cells, its box is the one nearest to its middle, and a gap in
    time ends it.

    Args:
        timeline: Cells of one face.
        boxes: (T, 4) float32 xyxy px of the face.
        box_times_s: (T,) float64, when each box was seen.
        threshold: See `vlfer.scoring.decide`.
        tie_margin: See `vlfer.scoring.decide`.
        top: Number of labels to list, None for all.
        note: Remark to carry along.
    """
    decisions = decide(timeline.scores, threshold=threshold, tie_margin=tie_margin)
    segments: list[Prediction] = []
    for low, high in _runs([label for label, _ in decisions], timeline):
        mean = Scores(
            similarity=timeline.scores.similarity[low:high].mean(axis=0, keepdims=True),
            probability=timeline.scores.probability[low:high].mean(axis=0, keepdims=True),
            temperature=timeline.scores.temperature,
            labels=timeline.scores.labels,
        )
        best, similarity = top_labels(mean, 0, count=top)
        start_s, end_s = float(timeline.start_s[low]), float(timeline.end_s[high - 1])
        box = boxes[int(np.argmin(np.abs(box_times_s - (start_s + end_s) / 2)))]
        segments.append(
            Prediction(
                start_s=start_s,
                end_s=end_s,
                track_id=timeline.track_id,
                label=decisions[low][0],
                probability=best[0][1],
                top=best,
                similarity=similarity,
                reason=decisions[(low + high - 1) // 2][1],
                box=(float(box[0]), float(box[1]), float(box[2]), float(box[3])),
                note=note,
            )
        )
    return tuple(segments)


def _seen_cells(times_s: TimeArray, *, hop_s: float, longest_gap_s: float) -> IntArray:
    """Return the increasing numbers of the cells that hold a frame or lie in a gap of at most ``longest_gap_s``."""
    cell_of_frame = np.floor((times_s - times_s[0]) / hop_s + 1e-9).astype(np.int64)
    seen = np.zeros(int(cell_of_frame[-1]) + 1, dtype=bool)
    seen[cell_of_frame] = True
    for i in np.flatnonzero((np.diff(cell_of_frame) > 1) & (np.diff(times_s) <= longest_gap_s + 1e-9)):
        seen[cell_of_frame[i] : cell_of_frame[i + 1]] = True
    return np.flatnonzero(seen).astype(np.int64)


def _runs(labels: list[str | None], timeline: Timeline) -> list[tuple[int, int]]:
    """Return half-open ranges of cells that touch in time and share a label."""
    runs: list[tuple[int, int]] = []
    low = 0
    for i in range(1, len(labels) + 1):
        ends = i == len(labels) or labels[i] != labels[low] or timeline.start_s[i] - timeline.end_s[i - 1] > 1e-6
        if ends:
            runs.append((low, i))
            low = i
    return runs
