"""From scores over time to segments: equal neighbours merged. Pure functions on arrays."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from vlfer.cells import Cells, window_means
from vlfer.collect import ScoredTrack
from vlfer.scoring import DEFAULT_TIE_MARGIN, decide, top_labels
from vlfer.types import Embedding, FloatArray, IntArray, Prediction, Scores, TimeArray, UInt8Array

__all__ = ["Cells", "FrameScores", "Timeline", "merge_cells", "segment_track", "window_means"]


@dataclass(frozen=True, slots=True)
class FrameScores:
    """The scores of one face in every frame that was looked at.

    Attributes:
        frame_index: (T,) int64, counted among the frames looked at.
        times_s: (T,) float64.
        boxes: (T, 4) float32 xyxy px.
        confidence: (T,) float32 of the face detector.
        scores: T frames against C labels, each frame alone.
    """

    frame_index: IntArray
    times_s: TimeArray
    boxes: FloatArray
    confidence: FloatArray
    scores: Scores

    def __len__(self) -> int:
        return len(self.times_s)


@dataclass(frozen=True, slots=True)
class Timeline:
    """The scores of one face over time, for pictures and tables.

    Attributes:
        track_id: Which face.
        start_s: (N,) float64, start of each cell.
        end_s: (N,) float64, end of each cell.
        scores: N cells against C labels.
        thumbnails: Moments in seconds with the face at that moment, (S, S, 3) uint8 RGB; few, in order of time.
        frames: The scores of every single frame, or None.
        vectors: (N, D) float16, the pooled vector of each cell, or None.
        space: Of the vectors.
    """

    track_id: int
    start_s: TimeArray
    end_s: TimeArray
    scores: Scores
    thumbnails: tuple[tuple[float, UInt8Array], ...] = ()
    frames: FrameScores | None = None
    vectors: NDArray[np.float16] | None = None
    space: str = ""

    @property
    def embedding(self) -> Embedding | None:
        """The pooled vector of each cell as N unit vectors, or None where they were not kept."""
        if self.vectors is None:
            return None
        full = self.vectors.astype(np.float32)
        return Embedding(full / np.linalg.norm(full, axis=1, keepdims=True), self.space)


def segment_track(
    found: ScoredTrack,
    *,
    space: str,
    note: str = "",
    threshold: float | None = None,
    tie_margin: float = DEFAULT_TIE_MARGIN,
    top: int | None = None,
) -> tuple[Timeline, tuple[Prediction, ...]]:
    """Turn one scored face into its timeline and segments, see `merge_cells`.

    Raises:
        ConfigError: If the threshold or the margin is out of range.
    """
    timeline = Timeline(
        found.track.track_id,
        found.cell_start_s,
        found.cell_end_s,
        found.cell_scores,
        found.thumbnails,
        frames=FrameScores(
            found.track.frame_index, found.times_s, found.track.boxes, found.track.scores, found.frame_scores
        ),
        vectors=found.cell_vectors,
        space=space,
    )
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
