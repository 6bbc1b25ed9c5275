"""Why a face got its label, as HTML: where on the face, and a table of the sentences that pulled."""

from __future__ import annotations

from collections.abc import Sequence

from vlfer.explain import DEFAULT_COUNT, Explanation, Pull, face_thirds
from vlfer.serve.ui_html import esc, picture_uri
from vlfer.serve.why import relevance_picture

_CAUTION = (
    "What the model used, not what a person feels. The map is an approximation; the pulls of all sentences of both "
    "labels add up exactly to the lead."
)


def why_html(explanations: Sequence[Explanation], *, faces: int) -> str:
    """Draw a card a face: the map beside the face, the sentences for and against in a table.

    Args:
        explanations: Of the largest faces, in their order.
        faces: How many faces the photo has.
    """
    cards = "".join(_card(one, i + 1) for i, one in enumerate(explanations))
    left_out = faces - len(explanations)
    which = "smaller face is" if left_out == 1 else "smaller faces are"
    more = f" The {left_out} {which} not explained." if left_out > 0 else ""
    return f'<section class="vl-why">{cards}<p class="vl-honest">{_CAUTION}{more}</p></section>'


def _card(one: Explanation, number: int) -> str:
    against = f" rather than <strong>{esc(one.rival)}</strong>" if one.rival else ""
    head = (
        f'<h3 class="vl-head"><span><span class="vl-faint">Face {number}</span><span>Why '
        f"<strong>{esc(one.label)}</strong>{against}</span></span></h3>"
    )
    return f'<article class="vl-card">{head}<div class="vl-why-body">{_map(one)}{_table(one)}</div></article>'


def _map(one: Explanation) -> str:
    face = f'<img src="{picture_uri(one.crop, longest_px=240)}" alt="The face as it was read"/>'
    if one.relevance is None or not one.relevance.any():
        return f'<figure>{face}<figcaption class="vl-faint">No place speaks for it.</figcaption></figure>'
    shares = [f"{name.capitalize()} {100 * share:.0f}&nbsp;%" for name, share in face_thirds(one.relevance).items()]
    where = picture_uri(relevance_picture(one.crop, one.relevance), longest_px=240)
    return (
        f'<figure>{face}<img src="{where}" alt="The same face; bright where it speaks for {esc(one.label)}"/>'
        f'<figcaption class="vl-faint">Bright: where it speaks for {esc(one.label)}. {" · ".join(shares)}</figcaption>'
        "</figure>"
    )


def _table(one: Explanation) -> str:
    most = max((abs(pull.pull) for pull in one.pulls), default=0.0) or 1.0
    parts = [_rows(one.label, one.strongest(DEFAULT_COUNT), most=most)]
    if one.rival:
        parts.append(_rows(one.rival, one.against(DEFAULT_COUNT), most=most))
    caption = f"Sentences that pulled most, in log-odds; over all of them {one.label} leads by {one.lead:.1f}."
    return (
        f'<table class="vl-pulls"><caption>{esc(caption)}</caption><thead><tr><th scope="col">Sentence</th>'
        '<th scope="col">Pull</th><th scope="col">Cosine</th></tr></thead>' + "".join(parts) + "</table>"
    )


def _rows(towards: str, pulls: Sequence[Pull], *, most: float) -> str:
    """Return the sentences that pulled towards a label; some may be of the other one, which the face is unlike."""
    rows = "".join(
        f"<tr><td>{esc(pull.sentence)}{_whose(pull, towards)}"
        f'<div class="vl-pull" aria-hidden="true">'
        f'<b style="width:{100 * abs(pull.pull) / most:.1f}%"></b></div></td>'
        f'<td class="vl-num">{pull.pull:+.2f}</td><td class="vl-cos">{pull.similarity:+.2f}</td></tr>'
        for pull in pulls
    )
    none = '<tr><td colspan="3" class="vl-faint">None.</td></tr>'
    return f'<tbody><tr><th scope="rowgroup" colspan="3">Towards {esc(towards)}</th></tr>{rows or none}</tbody>'


def _whose(pull: Pull, towards: str) -> str:
    return "" if pull.label == towards else f' <span class="vl-faint">(a sentence of {esc(pull.label)})</span>'
