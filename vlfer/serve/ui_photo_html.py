"""The answer about a photo as HTML: the picture with numbered boxes, and a card with one bar chart a face."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from vlfer.serve.ui_engine import Photo, PhotoAnswer
from vlfer.serve.ui_html import abstention, bars, esc, note, percent, picture_uri, relative, sentence_list
from vlfer.types import LabelSet, Prediction

Before = Sequence[Mapping[str, float]]
"""Per face: the probability of each label before the last change."""
_NUMBER_SIDE = 0.05
_OPEN_CARDS = 12


def photo_html(photo: Photo, answer: PhotoAnswer, labels: LabelSet, *, before: Before = ()) -> str:
    """Draw a photo with its faces, and a card for each.

    Args:
        photo: The picture.
        answer: What its faces show.
        labels: What was asked.
        before: What the faces showed before the words were changed.
    """
    cards = [
        face_card(
            photo, answer, i, before=before[i] if i < len(before) else None, is_open=i < _OPEN_CARDS
        )
        for i in range(len(answer.predictions))
    ]  # fmt: skip
    return (
        f'<section class="vl-photo">{figure(photo, answer.predictions)}<div class="vl-cards">{"".join(cards)}</div>'
        f"{relative(labels, threshold=answer.threshold)}</section>"
    )


def figure(photo: Photo, predictions: Sequence[Prediction]) -> str:
    """Return the picture with a numbered box on each face, and a sentence for who cannot see it."""
    height, width = photo.height, photo.width
    unit = max(width, height)
    boxes = "".join(_box(p, i + 1, unit=unit) for i, p in enumerate(predictions))
    faces = "1 face" if len(predictions) == 1 else f"{len(predictions)} faces"
    spoken = "; ".join(
        f"face {i + 1}: {p.label or 'no clear answer'} {round(100 * p.probability)} percent"
        for i, p in enumerate(predictions[:_OPEN_CARDS])
    )
    return (
        f'<figure class="vl-figure" style="--ratio:{width / height:.4f}"><img src="{picture_uri(photo.view)}" '
        f'alt="{esc(f"Photo with {faces}. {spoken}.")}"/>'
        f'<svg viewBox="0 0 {width} {height}" aria-hidden="true">{boxes}</svg></figure>'
    )


def face_card(photo: Photo, answer: PhotoAnswer, i: int, *, before: Mapping[str, float] | None, is_open: bool) -> str:
    """Return the card of one face; beyond the first dozen cards are folded."""
    prediction = answer.predictions[i]
    heading = prediction.label or "no clear answer"
    title = (
        f'<img class="vl-thumb" src="{picture_uri(photo.crops[i], longest_px=112)}" alt=""/>'
        f'<span><span class="vl-faint">Face {i + 1}</span><span class="vl-title">{esc(heading)}</span></span>'
    )
    if prediction.label is not None:
        title += f'<span class="vl-big">{percent(prediction.probability)}</span>'
    chart = bars(
        prediction.top, similarity=prediction.similarity, threshold=answer.threshold, decided=prediction.label,
        before=before, caption=f"Labels of face {i + 1}, most probable first",
    )  # fmt: skip
    body = (
        f"{abstention(prediction)}{chart}{note(prediction.note)}"
        f"{sentence_list(answer.sentences[i], first=prediction.top[0][0])}"
    )
    state = "" if prediction.label else " is-abstained"
    if is_open:
        return f'<article class="vl-card vl-face{state}"><h3 class="vl-head">{title}</h3>{body}</article>'
    return f'<details class="vl-card vl-face{state}"><summary class="vl-head">{title}</summary>{body}</details>'


def _box(prediction: Prediction, number: int, *, unit: int) -> str:
    if prediction.box is None:
        return ""
    x1, y1, x2, y2 = prediction.box
    stroke, side = unit / 260, min(unit * _NUMBER_SIDE, max((x2 - x1) * 0.4, unit * 0.022))
    kind = "vl-box" if prediction.label else "vl-box is-abstained"
    rect = f'x="{x1:.1f}" y="{y1:.1f}" width="{x2 - x1:.1f}" height="{y2 - y1:.1f}" rx="{unit / 90:.1f}"'
    return (
        f'<g class="{kind}"><rect class="vl-halo" {rect} stroke-width="{2.2 * stroke:.1f}"/>'
        f'<rect class="vl-edge" {rect} stroke-width="{stroke:.1f}"/>'
        f'<rect class="vl-plate" x="{x1:.1f}" y="{y1:.1f}" width="{side:.1f}" height="{side:.1f}" rx="9"/>'
        f'<text x="{x1 + side / 2:.1f}" y="{y1 + side * 0.7:.1f}" font-size="{side * 0.62:.1f}" '
        f'text-anchor="middle">{number}</text></g>'
    )
