"""What each person of a video showed, in a few numbers."""

from __future__ import annotations

import json
from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np

from vlfer.config import write_atomically
from vlfer.reporting import Analysis
from vlfer.segments import Timeline
from vlfer.types import Prediction


def summarise(analysis: Analysis) -> list[dict[str, Any]]:
    """Return one record a person: when and how long it was seen, what it showed for how long, its strongest moments.

    Shares are of the time in which the face was seen and decided about; "unclear" is the share of abstentions.
    """
    predictions = analysis.report.predictions
    return [
        _person(timeline, [p for p in predictions if p.track_id == timeline.track_id])
        for timeline in analysis.timelines
    ]


def _person(timeline: Timeline, segments: Sequence[Prediction]) -> dict[str, Any]:
    seen_s = float((timeline.end_s - timeline.start_s).sum())
    length_s: dict[str, float] = {}
    for p in segments:
        name = p.label or "unclear"
        length_s[name] = length_s.get(name, 0.0) + p.end_s - p.start_s
    weight = (timeline.end_s - timeline.start_s) / max(seen_s, 1e-9)
    mean = weight @ timeline.scores.probability.astype(np.float64)
    peak = timeline.scores.probability.argmax(axis=0)
    names = timeline.scores.labels.names
    return {
        "face": timeline.track_id + 1,
        "track_id": timeline.track_id,
        "first_s": round(float(timeline.start_s[0]), 3),
        "last_s": round(float(timeline.end_s[-1]), 3),
        "seen_s": round(seen_s, 3),
        "frames": len(timeline.frames) if timeline.frames is not None else None,
        "segments": len(segments),
        "changes": sum(a.label != b.label for a, b in pairwise(segments)),
        "share": {
            name: round(value / max(seen_s, 1e-9), 4) for name, value in sorted(length_s.items(), key=lambda i: -i[1])
        },
        "mean_probability": {name: round(float(value), 4) for name, value in zip(names, mean, strict=True)},
        "peaks": {
            name: {
                "time_s": round(float(timeline.start_s[i] + timeline.end_s[i]) / 2, 3),
                "probability": round(float(timeline.scores.probability[i, k]), 4),
            }
            for k, (name, i) in enumerate(zip(names, peak.tolist(), strict=True))
        },
    }


def write_summary(analysis: Analysis, path: Path) -> None:
    """Write the summary with the source, the frames looked at and the cuts, as JSON.

    Raises:
        OSError: If the file cannot be written.
    """
    content = {
        "source": analysis.report.source,
        "status": analysis.report.status,
        "message": analysis.report.message,
        "frames_looked_at": analysis.n_frames,
        "last_s": round(analysis.last_s, 3),
        "cuts_s": [round(cut, 3) for cut in analysis.cuts_s],
        "people": summarise(analysis),
    }
    write_atomically(path, (json.dumps(content, indent=2, ensure_ascii=False) + "\n").encode("utf-8"))
