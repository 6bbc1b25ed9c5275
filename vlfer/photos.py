"""Images on their way: their faces wait until a batch is full, then all are encoded and scored at once."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any

from vlfer.reporting import Analysis, image_predictions
from vlfer.types import Face, Report, Scores, UInt8Array


@dataclass(slots=True)
class Photo:
    """An image on its way.

    Attributes:
        source: Its name.
        faces: What was found in it.
        crops: The faces as the encoder wants them, (S, S, 3) uint8 each.
        note: How they were found.
        failure: The report that says why it has none, or None.
    """

    source: str
    faces: list[Face] = field(default_factory=list)
    crops: list[UInt8Array] = field(default_factory=list)
    note: str = ""
    failure: Report | None = None


def tell_photos(
    photos: list[Photo],
    *,
    score: Callable[[list[UInt8Array]], Scores],
    guard: Callable[[Callable[[], Scores]], Scores | Report],
    provenance: Mapping[str, Any],
    note: Callable[[str], str],
    deciding: Mapping[str, Any],
) -> Iterator[Analysis]:
    """Yield one analysis a photo, in order; where a batch fails, each photo is tried alone.

    Args:
        photos: Images with their faces or failures.
        score: Encodes and scores crops.
        guard: Runs a step and turns what it raises into a report.
        provenance: Goes into each report.
        note: Completes the note of a face.
        deciding: Arguments of `image_predictions`.
    """
    crops = [crop for photo in photos for crop in photo.crops]
    scores = guard(partial(score, crops)) if crops else None
    if isinstance(scores, Report) and len(photos) > 1:  # one photo may have spoilt the batch for all
        for photo in photos:
            yield from tell_photos(
                [photo], score=score, guard=guard, provenance=provenance, note=note, deciding=deciding
            )
        return
    first = 0
    for photo in photos:
        if photo.failure is not None:
            yield Analysis(photo.failure)
        elif isinstance(scores, Report):
            yield Analysis(replace(scores, source=photo.source))
        elif scores is not None:
            chosen = slice(first, first + len(photo.faces))
            own = replace(scores, similarity=scores.similarity[chosen], probability=scores.probability[chosen])
            predictions = image_predictions(photo.faces, own, note=note(photo.note), **deciding)
            yield Analysis(Report(photo.source, "ok", predictions, provenance=provenance))
        first += len(photo.crops)
