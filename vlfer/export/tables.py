"""Per-frame scores and segments as tables: CSV, JSON, Parquet."""

from __future__ import annotations

import csv
import dataclasses
import io
import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from vlfer.config import write_atomically
from vlfer.errors import EnvironmentProblem
from vlfer.segments import Timeline
from vlfer.types import Prediction

FRAME_COLUMNS = ("time_s", "frame", "track_id", "x1", "y1", "x2", "y2", "confidence", "best", "probability")
SEGMENT_COLUMNS = ("track_id", "start_s", "end_s", "label", "probability", "reason")
LABEL_PREFIX = "p:"


def frame_rows(timelines: Sequence[Timeline]) -> Iterator[dict[str, Any]]:
    """Yield one row a face and frame, face by face: time, place, best label, and ``p:LABEL`` for every label."""
    for timeline in timelines:
        if timeline.frames is None:
            continue
        frames, names = timeline.frames, timeline.scores.labels.names
        best = frames.scores.probability.argmax(axis=1)
        for i in range(len(frames)):
            place = (round(float(v), 2) for v in frames.boxes[i])
            probability = frames.scores.probability[i]
            values = (
                round(float(frames.times_s[i]), 6), int(frames.frame_index[i]), timeline.track_id, *place,
                round(float(frames.confidence[i]), 4), names[best[i]], round(float(probability[best[i]]), 6),
            )  # fmt: skip
            row: dict[str, Any] = dict(zip(FRAME_COLUMNS, values, strict=True))
            row |= {LABEL_PREFIX + name: round(float(p), 6) for name, p in zip(names, probability, strict=True)}
            yield row


def write_frames_csv(timelines: Sequence[Timeline], path: Path) -> None:
    """Write `frame_rows` as CSV, in order of time within each face.

    Raises:
        OSError: If the file cannot be written.
    """
    names = timelines[0].scores.labels.names if timelines else ()
    buffer = io.StringIO()
    writer = csv.DictWriter(buffer, [*FRAME_COLUMNS, *(LABEL_PREFIX + name for name in names)], lineterminator="\n")
    writer.writeheader()
    writer.writerows(frame_rows(timelines))
    write_atomically(path, buffer.getvalue().encode("utf-8"))


def write_frames_parquet(timelines: Sequence[Timeline], path: Path) -> None:
    """Write the per-frame scores as Parquet: the columns of `frame_rows`, in full precision.

    Raises:
        EnvironmentProblem: If pyarrow is not installed.
        OSError: If the file cannot be written.
    """
    try:
        import pyarrow
        import pyarrow.parquet
    except ImportError as error:
        raise EnvironmentProblem(
            "Parquet needs the package pyarrow.",
            why="It is not installed.",
            fix="uv pip install pyarrow, or --write frames for CSV",
        ) from error
    names = timelines[0].scores.labels.names if timelines else ()
    kept = [timeline for timeline in timelines if timeline.frames is not None]
    columns: dict[str, list[Any]] = {name: [] for name in (*FRAME_COLUMNS, *(LABEL_PREFIX + name for name in names))}
    for timeline in kept:
        frames = timeline.frames
        if frames is None:
            continue
        probability = frames.scores.probability
        best = probability.argmax(axis=1)
        columns["time_s"].append(frames.times_s)
        columns["frame"].append(frames.frame_index)
        columns["track_id"].append(np.full(len(frames), timeline.track_id, dtype=np.int64))
        for i, side in enumerate(("x1", "y1", "x2", "y2")):
            columns[side].append(frames.boxes[:, i])
        columns["confidence"].append(frames.confidence)
        columns["best"].append(np.array(names, dtype=object)[best])
        columns["probability"].append(probability[np.arange(len(best)), best])
        for i, name in enumerate(names):
            columns[LABEL_PREFIX + name].append(probability[:, i])
    table = pyarrow.table({name: np.concatenate(parts) if parts else [] for name, parts in columns.items()})
    buffer = io.BytesIO()
    pyarrow.parquet.write_table(table, buffer, compression="zstd")
    write_atomically(path, buffer.getvalue())


def write_segments_csv(predictions: Sequence[Prediction], path: Path) -> None:
    """Write one line a segment; an abstention has an empty label and a reason.

    Raises:
        OSError: If the file cannot be written.
    """
    buffer = io.StringIO()
    writer = csv.writer(buffer, lineterminator="\n")
    writer.writerow(SEGMENT_COLUMNS)
    for p in predictions:
        writer.writerow(
            [p.track_id, round(p.start_s, 4), round(p.end_s, 4), p.label or "", round(p.probability, 6), p.reason]
        )
    write_atomically(path, buffer.getvalue().encode("utf-8"))


def write_segments_json(predictions: Sequence[Prediction], path: Path) -> None:
    """Write the segments with everything that is known of them.

    Raises:
        OSError: If the file cannot be written.
    """
    rows = [dataclasses.asdict(prediction) for prediction in predictions]
    write_atomically(path, (json.dumps(rows, indent=1, ensure_ascii=False) + "\n").encode("utf-8"))
