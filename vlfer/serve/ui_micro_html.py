"""The answer about a micro-expression as HTML: the motion picture, the interval, the labels, the action units."""

from __future__ import annotations

from vlfer.micro.words import UNIT_SENTENCES
from vlfer.mie import MicroResult
from vlfer.serve.ui_engine import Sentences
from vlfer.serve.ui_html import bars, esc, note, percent, picture_uri, relative, sentence_list
from vlfer.types import LabelSet

CAUTION = (
    "Experimental: on people they have not seen, the best honest methods are right for about three laboratory clips in "
    "four, among three classes. Never use it to judge a person."
)


def micro_html(
    result: MicroResult, labels: LabelSet, *, sentences: Sentences, length_s: float, threshold: float
) -> str:
    """Draw what moved, when, and what it may mean.

    Args:
        result: What was found.
        labels: What was asked.
        sentences: Those that stand for the labels; shown where the motion was compared with them.
        length_s: Of the clip; 0 for two pictures.
        threshold: Probability below which it abstains.
    """
    heading = esc(result.label or "no clear answer")
    big = f'<span class="vl-big">{percent(result.probability)}</span>' if result.label else ""
    head = (
        f'<h3 class="vl-head"><span><span class="vl-faint">The motion suggests</span>'
        f'<span class="vl-title">{heading}</span></span>{big}</h3>'
    )
    why = "" if result.label else (
        '<p class="vl-abstain"><span aria-hidden="true">≈</span> <span><strong>No clear answer.</strong> '
        f"{esc(result.reason[:1].upper() + result.reason[1:])}.</span></p>"
    )  # fmt: skip
    chart = (
        bars(result.top, threshold=threshold, decided=result.label, caption="Labels, most probable first")
        if result.top
        else ""
    )
    state = "" if result.label else " is-abstained"
    compared = sentence_list(sentences, first=result.top[0][0]) if result.top else ""
    notes = "".join(note(text) for text in result.notes)
    return (
        f'<section class="vl-micro"><article class="vl-card vl-face{state}">{head}{_picture(result)}'
        f"{_interval(result, length_s=length_s)}{why}{chart}{_units(result)}{notes}{compared}</article>"
        f'{relative(labels, threshold=threshold)}<p class="vl-honest">{esc(CAUTION)}</p></section>'
    )


def _picture(result: MicroResult) -> str:
    spoken = f"The face moved by {100 * result.strength:.1f} percent of its width"
    return (
        f'<img class="vl-motion" src="{picture_uri(result.picture, longest_px=1400)}" alt="{spoken}: arrows on the '
        'face, direction as colour, and where the skin stretched."/>'
        '<div class="vl-captions"><span>where it moved</span><span>direction</span><span>stretch</span></div>'
    )


def _interval(result: MicroResult, *, length_s: float) -> str:
    moved = f"The face moved by {100 * result.strength:.1f}&nbsp;% of its width."
    times = result.moments.times_s
    if times is None or length_s <= 0:
        return f"<p>{moved}</p>"
    onset, apex, offset = times
    left, middle, right = (100 * min(t / length_s, 1.0) for t in times)
    return (
        f"<p>Onset {onset:.2f}&nbsp;s, apex {apex:.2f}&nbsp;s, offset {offset:.2f}&nbsp;s: it lasted "
        f"{1000 * (offset - onset):.0f}&nbsp;ms. {moved}</p>"
        f'<div class="vl-span" aria-hidden="true"><b style="left:{left:.2f}%;right:{100 - right:.2f}%"></b>'
        f'<i style="left:{middle:.2f}%"></i><span style="left:{middle:.2f}%">apex</span>'
        '<span style="left:0;transform:none">0 s</span>'
        f'<span style="left:100%;transform:translateX(-100%)">{length_s:.2f} s</span></div>'
    )


def _units(result: MicroResult) -> str:
    if not result.units:
        return ""
    chips = "".join(
        f"<li>{esc(unit)} <span>{esc(UNIT_SENTENCES[unit][1])}</span> "
        f'<span class="vl-cos">{similarity:+.2f}</span></li>'
        for unit, similarity in result.units
    )
    hint = '<p class="vl-faint">Action units that the motion resembles, with their cosine:</p>'
    return f'{hint}<ul class="vl-chips">{chips}</ul>'
