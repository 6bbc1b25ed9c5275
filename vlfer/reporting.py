"""From decided scores to predictions and reports. Pure functions."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from vlfer.errors import NoFaceError, VlferError
from vlfer.scoring import DEFAULT_TIE_MARGIN, decide, top_labels
from vlfer.segments import Timeline
from vlfer.types import Face, Prediction, Report, Scores

ONE_LABEL = "one label only: the probability is 1 by definition, look at the similarity"


@dataclass(frozen=True, slots=True)
class Analysis:
    """A report with the scores over time behind it; an image has no timeline, and nothing of what follows it.

    Attributes:
        report: The answer.
        timelines: One a person.
        cuts_s: When shots begin.
        n_frames: Frames looked at.
        n_replayed: Of these, how many an interrupted run had done before.
        last_s: Time of the last one.
        was_interrupted: Whether the user ended the run.
        seconds: Time spent per step.
    """

    report: Report
    timelines: tuple[Timeline, ...] = ()
    cuts_s: tuple[float, ...] = ()
    n_frames: int = 0
    n_replayed: int = 0
    last_s: float = 0.0
    was_interrupted: bool = False
    seconds: Mapping[str, float] = field(default_factory=dict)


def image_predictions(
    faces: Sequence[Face],
    scores: Scores,
    *,
    threshold: float | None = None,
    tie_margin: float = DEFAULT_TIE_MARGIN,
    top: int | None = None,
    note: str = "",
) -> tuple[Prediction, ...]:
    """Turn the faces of one image and their scores into predictions.

    Args:
        faces: N faces.
        scores: N faces against C labels.
        threshold: See `vlfer.scoring.decide`.
        tie_margin: See `vlfer.scoring.decide`.
        top: Number of labels to list, None for all.
        note: Remark to carry along.
    """
    decisions = decide(scores, threshold=threshold, tie_margin=tie_margin)
    predictions = []
    for i, (face, (label, reason)) in enumerate(zip(faces, decisions, strict=True)):
        best, similarity = top_labels(scores, i, count=top)
        x1, y1, x2, y2 = (float(side) for side in face.box)
        predictions.append(
            Prediction(
                start_s=0.0,
                end_s=0.0,
                track_id=i,
                label=label,
                probability=best[0][1],
                top=best,
                similarity=similarity,
                reason=reason,
                box=(x1, y1, x2, y2),
                note=note,
            )
        )
    return tuple(predictions)


def failed_report(source: str, error: Exception, *, provenance: Mapping[str, Any]) -> Report:
    """Turn an error into the report of a source; an error that vlfer did not foresee says so."""
    foreseen = isinstance(error, VlferError)
    return Report(
        source=source,
        status="no_face" if isinstance(error, NoFaceError) else "error",
        error_type=type(error).__name__,
        message=str(error) if foreseen else f"Unexpected: {error!r}. Try: vlfer predict --debug, to see where.",
        provenance=provenance,
    )


def broken_off_report(report: Report, error: VlferError, *, last_s: float) -> Report:
    """Mark the report of a stream that could be read only up to ``last_s``; what was found before is kept."""
    again = type(error)(f"After {last_s:.2f} s: {error.what}", why=error.why, fix=error.fix)
    return replace(report, status="error", error_type=type(error).__name__, message=str(again))


def interrupted_report(report: Report, *, last_s: float) -> Report:
    """Mark the report of a stream that the user ended at ``last_s``; what was found before is kept."""
    message = f"Interrupted after {last_s:.2f} s of video. Try: the same command again, which goes on from there."
    return replace(report, status="error", error_type="Interrupted", message=message)
