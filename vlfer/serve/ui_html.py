"""Small pieces of HTML that all tabs share. Pure functions from values to text; whatever a user typed is escaped."""

from __future__ import annotations

import base64
import html
import io
from collections.abc import Mapping, Sequence

from PIL import Image

from vlfer.errors import VlferError
from vlfer.serve.ui_engine import Sentences
from vlfer.types import LabelSet, Prediction, UInt8Array

COLUMNS = '<colgroup><col class="vl-c1"/><col/><col class="vl-c3"/><col class="vl-c4"/></colgroup>'
HONEST = "Perceived expression, not felt emotion."
# Gradio puts values into a template that knows ${...} and {{...}}: neither must survive.
_TEMPLATE_SIGNS = str.maketrans({"$": "&#36;", "{": "&#123;", "}": "&#125;", "`": "&#96;"})


def esc(text: object) -> str:
    """Return text that any HTML element or quoted attribute shows as it is."""
    return html.escape(str(text), quote=True).translate(_TEMPLATE_SIGNS)


def percent(probability: float) -> str:
    """Return "87 %"; a small share that is not nothing is "<1 %"."""
    if 0 < probability < 0.005:
        return "&lt;1&nbsp;%"
    return f"{100 * probability:.0f}&nbsp;%"


def clock(seconds: float) -> str:
    """Return "1:02.5"."""
    tenths = round(seconds * 10)
    return f"{tenths // 600}:{tenths // 10 % 60:02d}.{tenths % 10}"


def picture_uri(pixels: UInt8Array, *, longest_px: int = 1280, quality: int = 88) -> str:
    """Return pixels (H, W, 3) as an address that holds the picture itself, so that no file is written."""
    image = Image.fromarray(pixels)
    image.thumbnail((longest_px, longest_px))
    buffer = io.BytesIO()
    image.save(buffer, "JPEG", quality=quality)
    return "data:image/jpeg;base64," + base64.b64encode(buffer.getvalue()).decode()


def text_uri(text: str, *, kind: str) -> str:
    """Return text as an address that holds it, for a download that leaves no file on the server."""
    return f"data:{kind};charset=utf-8;base64," + base64.b64encode(text.encode()).decode()


def bars(
    top: Sequence[tuple[str, float]],
    *,
    similarity: Sequence[float] = (),
    threshold: float | None = None,
    decided: str | None = None,
    before: Mapping[str, float] | None = None,
    caption: str,
    most: int = 8,
) -> str:
    """Return a table of labels in which the probability is also drawn as a bar.

    Args:
        top: Labels with probabilities, best first.
        similarity: Cosine of each, shown small.
        threshold: Drawn as a line.
        decided: The label that was chosen; it is marked by a dot and bold letters beside its colour.
        before: Probabilities before the last change; bars move from there, and the change is written down.
        caption: Says what the table is to who cannot see it.
        most: Labels shown at once; the others are folded away.
    """
    rows = [
        _bar_row(
            name, probability,
            cosine=similarity[i] if i < len(similarity) else None,
            threshold=threshold, is_chosen=name == decided, before=(before or {}).get(name),
        )
        for i, (name, probability) in enumerate(top)
    ]  # fmt: skip
    head = (
        '<thead class="vl-sr"><tr><th scope="col">Label</th><th scope="col">Bar</th><th scope="col">Probability</th>'
        '<th scope="col">Cosine similarity</th></tr></thead>'
    )
    shown = f'<table class="vl-bars"><caption class="vl-sr">{esc(caption)}</caption>{COLUMNS}{head}<tbody>'
    shown += "".join(rows[:most]) + "</tbody></table>"
    if len(rows) > most:
        rest = f'<table class="vl-bars">{COLUMNS}<tbody>{"".join(rows[most:])}</tbody></table>'
        shown += f'<details class="vl-more"><summary>{len(rows) - most} more labels</summary>{rest}</details>'
    return shown


def _bar_row(
    name: str,
    probability: float,
    *,
    cosine: float | None,
    threshold: float | None,
    is_chosen: bool,
    before: float | None,
) -> str:
    width, was = 100 * probability, 100 * (probability if before is None else before)
    moved = width - was
    change = ""
    if abs(moved) >= 1:
        change = f'<span class="vl-moved">{"▲" if moved > 0 else "▼"}&nbsp;{abs(moved):.0f}</span>'
    line = "" if threshold is None else f'<i class="vl-line" style="left:{100 * threshold:.1f}%"></i>'
    mark = '<span class="vl-dot" aria-label="chosen">●</span>' if is_chosen else ""
    return (
        f'<tr class="{"is-chosen" if is_chosen else ""}"><th scope="row">{mark}{esc(name)}</th>'
        f'<td class="vl-track"><div><b style="width:{width:.1f}%;--was:{was:.1f}%"></b>{line}</div></td>'
        f'<td class="vl-num">{percent(probability)}{change}</td>'
        f'<td class="vl-cos">{"" if cosine is None else f"{cosine:+.2f}"}</td></tr>'
    )


def abstention(prediction: Prediction) -> str:
    """Return why no label was given, or nothing."""
    if prediction.label is not None:
        return ""
    return (
        '<p class="vl-abstain"><span aria-hidden="true">≈</span> <span><strong>No clear answer.</strong> '
        f"{_sentence(prediction.reason)} It is better to say nothing than to guess.</span></p>"
    )


def note(text: str) -> str:
    """Return a remark, or nothing."""
    return f'<p class="vl-note">{_sentence(text)}</p>' if text else ""


def sentence_list(sentences: Sentences, *, first: str | None = None) -> str:
    """Return the sentences actually compared, folded away, one group a label.

    Args:
        sentences: Groups in the order of the labels.
        first: The label whose group comes first and is open.
    """
    ordered = sorted(sentences, key=lambda group: group[0] != first)
    total = sum(len(group) for _, group in sentences)
    parts = []
    for name, group in ordered:
        ranked = sorted(group, key=lambda one: -(one.similarity or 0.0))
        items = "".join(
            f"<li><span>{esc(one.text)}</span>"
            + ("" if one.similarity is None else f'<span class="vl-cos">{one.similarity:+.2f}</span>')
            + "</li>"
            for one in ranked
        )
        parts.append(
            f"<details{' open' if name == first else ''}><summary>{esc(name)} "
            f'<span class="vl-faint">{len(group)}</span></summary><ul>{items}</ul></details>'
        )
    numbers = any(one.similarity is not None for _, group in sentences for one in group)
    hint = " The number is the cosine between this face and the sentence." if numbers else ""
    return (
        f'<details class="vl-sentences"><summary>The {total} sentences compared</summary>'
        f'<p class="vl-faint">A label counts by all of its sentences together.{hint}</p>{"".join(parts)}</details>'
    )


def relative(labels: LabelSet, *, threshold: float | None = None) -> str:
    """Return the words that stand under every result."""
    least = "" if threshold is None else f" Below {percent(threshold)} (the thin line) it gives no answer."
    which = "the one label given" if len(labels) == 1 else f"the {len(labels)} labels given"
    return (
        f'<p class="vl-honest">Scores are relative to {which}: they say nothing about words that were not asked for.'
        f"{least} {HONEST}</p>"
    )


def problem(error: VlferError) -> str:
    """Return an error as a card in three parts: what happened, why, what to try."""
    parts = [f'<p class="vl-what">{_sentence(error.what)}</p>']
    if error.why:
        parts.append(f"<p><strong>Why.</strong> {_sentence(error.why)}</p>")
    if error.fix:
        parts.append(f"<p><strong>Try.</strong> {_sentence(error.fix)}</p>")
    return f'<div class="vl-card vl-problem" role="alert">{"".join(parts)}</div>'


def empty(title: str, text: str, *, drawing: str = "face") -> str:
    """Return what stands where a result will be."""
    return (
        f'<div class="vl-empty">{_DRAWINGS[drawing]}<p class="vl-empty-title">{esc(title)}</p><p>{esc(text)}</p></div>'
    )


def _sentence(text: str) -> str:
    """Return escaped text that begins with a capital and ends with a stop."""
    text = text.strip()
    if not text:
        return ""
    return esc(text[0].upper() + text[1:] + ("" if text[-1] in ".!?" else "."))


def _drawing(inner: str) -> str:
    return (
        '<svg class="vl-drawing" viewBox="0 0 96 96" aria-hidden="true" fill="none" stroke="currentColor" '
        f'stroke-width="2" stroke-linecap="round" stroke-linejoin="round">{inner}</svg>'
    )


_CORNERS = '<path d="M14 28V14h14M68 14h14v14M82 68v14H68M28 82H14V68"/>'
_DRAWINGS = {
    "face": _drawing(_CORNERS + '<circle cx="48" cy="48" r="22"/><path d="M40 43v2M56 43v2M39 55c5 5 13 5 18 0"/>'),
    "film": _drawing(
        '<rect x="14" y="26" width="68" height="44" rx="6"/><path d="M14 58c10 0 10-16 20-16s10 12 20 12 12-18 28-18"/>'
        '<path d="M48 20v56" stroke-dasharray="2 6"/>'
    ),
    "live": _drawing('<circle cx="48" cy="42" r="22"/><circle cx="48" cy="42" r="8"/><path d="M34 80h28M48 64v16"/>'),
    "motion": _drawing(
        '<circle cx="48" cy="48" r="30"/><path d="M30 58c-4-3-7-7-8-11M66 58c4-3 7-7 8-11"/>'
        '<path d="M38 42v2M58 42v2M38 60c6 4 14 4 20 0"/><path d="M22 47l-2 5M22 47l5 2M74 47l2 5M74 47l-5 2"/>'
    ),
    "search": _drawing('<circle cx="42" cy="42" r="24"/><path d="M60 60l20 20M34 38v2M50 38v2M34 50c5 4 11 4 16 0"/>'),
    "compare": _drawing(
        '<rect x="12" y="22" width="32" height="52" rx="6"/><rect x="52" y="22" width="32" height="52" rx="6"/>'
        '<path d="M20 38h16M20 48h10M20 58h13M60 38h8M60 48h16M60 58h5"/>'
    ),
}
