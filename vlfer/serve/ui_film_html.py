"""The answer about a video as HTML: a timeline per person that the page's script links with playback."""

from __future__ import annotations

import json
from collections.abc import Sequence
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from vlfer.reporting import Analysis
from vlfer.segments import Timeline
from vlfer.serve.ui_engine import Sentences, mean_probability
from vlfer.serve.ui_html import bars, clock, esc, note, percent, picture_uri, relative, sentence_list
from vlfer.types import LabelSet, Prediction

COLOURS = ("#2b8586", "#e0a13c", "#7b6bb0", "#c8664f", "#6aa5d8", "#9aa84f", "#c87fa6")
OTHER = "#aeb4b4"
MOST_PEOPLE = 8
_MOST_POINTS = 400
_FILM_STRIP = 12
_MOST_TOLD = 12
_NARROWEST_WITH_TEXT = 0.055


def film_html(analysis: Analysis, labels: LabelSet, *, sentences: Sentences, threshold: float) -> str:
    """Draw the people of a video over time.

    Args:
        analysis: Report and timelines.
        labels: What was asked.
        sentences: What was compared.
        threshold: Probability below which it abstains.
    """
    report = analysis.report
    longest = sorted(analysis.timelines, key=lambda t: float(t.start_s[0] - t.end_s[-1]))[:MOST_PEOPLE]
    shown = sorted(longest, key=lambda t: float(t.start_s[0]))
    span = (min(float(t.start_s[0]) for t in shown), max(float(t.end_s[-1]) for t in shown))
    ranked = rank_labels(shown, report.predictions)
    colours = {labels.names[i]: COLOURS[k] for k, i in enumerate(ranked[: len(COLOURS)])}
    told = ranked[:_MOST_TOLD]
    people = "".join(
        _person(t, [p for p in report.predictions if p.track_id == t.track_id], k, colours=colours, span=span)
        for k, t in enumerate(shown)
    )
    facts = json.dumps(_facts(shown, told, span=span, names=labels.names), separators=(",", ":"))
    hidden = len(analysis.timelines) - len(shown)
    warning = note(f"{hidden} people seen more briefly are in the downloads only") if hidden else ""
    broken = note(report.message) if report.status != "ok" else ""
    return (
        f'<section class="vl-film" data-film="{esc(facts)}">{broken}{_legend(colours, n_labels=len(labels))}'
        f'<p class="vl-faint">Click a timeline, or use the arrow keys on it: the video goes there.</p>'
        f'{people}{warning}<div class="vl-card">{sentence_list(sentences)}</div>'
        f"{relative(labels, threshold=threshold).replace(' (the thin line)', '')}</section>"
    )


def rank_labels(timelines: Sequence[Timeline], predictions: Sequence[Prediction]) -> list[int]:
    """Return the labels' indices: those decided somewhere first, then by their mass over time."""
    names = timelines[0].scores.labels.names
    mass = np.sum([t.scores.probability.sum(axis=0) for t in timelines], axis=0)
    decided = {p.label for p in predictions}
    return sorted(range(len(names)), key=lambda i: (names[i] not in decided, -float(mass[i])))


def ink_on(colour: str) -> str:
    """Return black or white, whichever is read more easily on ``colour`` (relative luminance, WCAG 2)."""
    red, green, blue = (int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5))
    return "#fff" if 0.2126 * red**2.2 + 0.7152 * green**2.2 + 0.0722 * blue**2.2 < 0.18 else "#15191b"


def _facts(
    timelines: Sequence[Timeline], told: Sequence[int], *, span: tuple[float, float], names: Sequence[str]
) -> dict[str, object]:
    """Return what the script needs to tell the scores of any moment."""
    tracks = [
        {
            "start": np.round(t.start_s, 3).tolist(),
            "end": np.round(t.end_s, 3).tolist(),
            "p": np.round(t.scores.probability[:, told].astype(np.float64), 3).tolist(),
        }
        for t in timelines
    ]
    return {"start": round(span[0], 3), "end": round(span[1], 3), "names": [names[i] for i in told], "tracks": tracks}


def _legend(colours: dict[str, str], *, n_labels: int) -> str:
    entries = [f'<li><i style="background:{colour}"></i>{esc(name)}</li>' for name, colour in colours.items()]
    if n_labels > len(colours):
        entries.append(f'<li><i style="background:{OTHER}"></i>all others</li>')
    return f'<ul class="vl-legend" aria-hidden="true">{"".join(entries)}</ul>'


def _person(
    timeline: Timeline,
    segments: Sequence[Prediction],
    place: int,
    *,
    colours: dict[str, str],
    span: tuple[float, float],
) -> str:
    means = mean_probability(segments)
    best = next(iter(means.items()), ("", 0.0))
    first, last = float(timeline.start_s[0]), float(timeline.end_s[-1])
    face = picture_uri(timeline.thumbnails[0][1], longest_px=112) if timeline.thumbnails else ""
    title = f"Person {timeline.track_id + 1}"
    head = (
        f'<h3 class="vl-head">{f"""<img class="vl-thumb" src="{face}" alt=""/>""" if face else ""}'
        f'<span><span class="vl-faint">{title}, {clock(first)} to {clock(last)}</span>'
        f'<span class="vl-title">mostly {esc(best[0])}</span></span><span class="vl-big">{percent(best[1])}</span></h3>'
    )
    strip = (
        f'<div class="vl-strip" role="slider" tabindex="0" aria-label="Moment in the timeline of {title.lower()}" '
        f'aria-valuemin="{span[0]:.1f}" aria-valuemax="{span[1]:.1f}" aria-valuenow="{span[0]:.1f}">'
        f"{_stack(timeline, colours=colours, span=span)}{_band(segments, colours=colours, span=span)}"
        '<i class="vl-now"></i></div>'
    )
    readout = bars(list(means.items())[:6], caption=f"{title}, mean over the whole video")
    return (
        f'<article class="vl-card vl-person" data-track="{place}">{head}{_film_strip(timeline, span=span)}{strip}'
        f'{_ticks(span)}<div class="vl-readout" aria-live="off"><p>Mean over the whole video</p>{readout}</div>'
        f"{_table(segments)}</article>"
    )


def _film_strip(timeline: Timeline, *, span: tuple[float, float]) -> str:
    step = max(1, -(-len(timeline.thumbnails) // _FILM_STRIP))
    pictures = [
        f'<img src="{picture_uri(pixels, longest_px=84)}" alt="" style="left:{place:.2f}%"/>'
        for place, pixels in ((min(max(_place(t, span), 3), 97), p) for t, p in timeline.thumbnails[::step])
    ]
    return f'<div class="vl-films" aria-hidden="true">{"".join(pictures)}</div>'


def _place(time_s: float, span: tuple[float, float]) -> float:
    return 100 * (time_s - span[0]) / max(span[1] - span[0], 1e-9)


def _stack(timeline: Timeline, *, colours: dict[str, str], span: tuple[float, float]) -> str:
    names = timeline.scores.labels.names
    kept = [names.index(name) for name in colours]
    paths = []
    for low, high in _touching(timeline):
        probability = timeline.scores.probability[low:high].astype(np.float64)
        layers = [probability[:, i] for i in kept] + [1 - probability[:, kept].sum(axis=1)]
        middle = (timeline.start_s[low:high] + timeline.end_s[low:high]) / 2
        times = np.concatenate([timeline.start_s[low : low + 1], middle, timeline.end_s[high - 1 : high]])
        picked = np.unique(np.linspace(0, len(times) - 1, min(len(times), _MOST_POINTS)).astype(int))
        x = [_place(float(t), span) * 10 for t in times[picked]]
        floor = np.zeros(len(picked))
        for layer, colour in zip(layers, [*colours.values(), OTHER], strict=True):
            padded = np.concatenate([layer[:1], layer, layer[-1:]])[picked]
            paths.append(_area(x, floor, floor + padded, colour))
            floor = floor + padded
    return f'<svg viewBox="0 0 1000 100" preserveAspectRatio="none" aria-hidden="true">{"".join(paths)}</svg>'


def _area(x: Sequence[float], low: NDArray[np.float64], high: NDArray[np.float64], colour: str) -> str:
    if float((high - low).max()) < 0.002:
        return ""
    there = " ".join(f"{a:.1f},{100 - 100 * b:.1f}" for a, b in zip(x, high, strict=True))
    back = " ".join(f"{a:.1f},{100 - 100 * b:.1f}" for a, b in zip(x[::-1], low[::-1], strict=True))
    return f'<path fill="{colour}" d="M{there} L{back}Z"/>'


def _touching(timeline: Timeline) -> list[tuple[int, int]]:
    breaks = np.flatnonzero(timeline.start_s[1:] - timeline.end_s[:-1] > 1e-6) + 1
    return list(pairwise([0, *breaks.tolist(), len(timeline.start_s)]))


def _band(segments: Sequence[Prediction], *, colours: dict[str, str], span: tuple[float, float]) -> str:
    parts = []
    for one in segments:
        left, right = _place(one.start_s, span), _place(one.end_s, span)
        text = esc(one.label or "unclear") if right - left > 100 * _NARROWEST_WITH_TEXT else ""
        colour = colours.get(one.label or "", OTHER)
        paint = f"background:{colour};color:{ink_on(colour)};" if one.label else ""
        kind = "" if one.label else ' class="is-unclear"'
        parts.append(
            f'<span{kind} style="left:{left:.2f}%;width:{max(right - left - 0.15, 0.2):.2f}%;{paint}" '
            f'title="{esc(one.label or "unclear")}">{text}</span>'
        )
    return f'<div class="vl-band" aria-hidden="true">{"".join(parts)}</div>'


def _ticks(span: tuple[float, float]) -> str:
    count = 5
    marks = [span[0] + (span[1] - span[0]) * i / (count - 1) for i in range(count)]
    places = "".join(f'<span style="left:{_place(t, span):.1f}%">{clock(t)}</span>' for t in marks)
    return f'<div class="vl-ticks" aria-hidden="true">{places}</div>'


def _table(segments: Sequence[Prediction]) -> str:
    rows = "".join(
        f'<tr><td><button type="button" data-seek="{(p.start_s + p.end_s) / 2:.2f}">{clock(p.start_s)}</button> '
        f"to {clock(p.end_s)}</td><td>{esc(p.label or 'no clear answer')}</td><td>{percent(p.probability)}</td>"
        f'<td class="vl-faint">{esc(p.reason)}</td></tr>'
        for p in segments
    )
    head = "<tr><th>Time</th><th>Label</th><th>Probability</th><th>Why not</th></tr>"
    count = "1 segment" if len(segments) == 1 else f"{len(segments)} segments"
    return f'<details class="vl-table"><summary>{count} as a table</summary><table>{head}{rows}</table></details>'
