"""Pictures of results: faces with boxes and bars, and a timeline of each face in a video.

Every picture can be read without colour: faces carry numbers, bars and segments carry their label as text.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path
from textwrap import shorten, wrap

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure, SubFigure
from matplotlib.layout_engine import ConstrainedLayoutEngine
from matplotlib.offsetbox import AnnotationBbox, OffsetImage
from matplotlib.patches import Rectangle

from vlfer.errors import ShapeError
from vlfer.segments import Timeline
from vlfer.types import Prediction, UInt8Array

# Okabe and Ito's set (2008), told apart with any common colour blindness; ordered so that neighbours differ in
# lightness too. Its yellow is left out: text on it or lines in it vanish on white.
PALETTE = ("#0072B2", "#E69F00", "#009E73", "#CC79A7", "#56B4E9", "#D55E00", "#5B3A8C")
OTHER = "#D5D8DC"
INK = "#22272E"
FAINT = "#6B7280"
FOOTER = "Perceived expression, not felt emotion. Probabilities are relative to the labels asked for."
MOST_FACES = 8
MOST_TRACKS = 6


def plot_faces(pixels: UInt8Array, predictions: Sequence[Prediction], *, title: str = "", top: int = 6) -> Figure:
    """Draw an image with its numbered faces beside one bar chart a face.

    Args:
        pixels: (H, W, 3) uint8 RGB.
        predictions: One per face; beyond the eight largest, faces keep their box and lose their chart.
        title: Shown above, such as the file's name.
        top: Bars a face.

    Raises:
        ShapeError: If there is nothing to draw.
    """
    if not predictions:
        raise ShapeError("There is no face to draw.", why="The list of predictions is empty.")
    shown = predictions[:MOST_FACES]
    bars = min(top, max(len(p.top) for p in shown))
    columns = 1 if len(shown) <= 3 else 2
    rows = -(-len(shown) // columns)
    height, width = pixels.shape[:2]
    panel_height_in = 0.75 + 0.27 * bars
    tall_in = float(np.clip(max(rows * panel_height_in, 4.6), 4.6, 14)) + 0.75
    image_in = float(np.clip((tall_in - 0.75) * width / height, 3.2, 8.5))
    figure = Figure(
        figsize=(image_in + 3.9 * columns, tall_in), layout=ConstrainedLayoutEngine(rect=(0, 0.045, 1, 0.94))
    )
    picture, charts = figure.subfigures(1, 2, squeeze=False, width_ratios=[image_in, 3.9 * columns])[0]
    _draw_boxes(picture.subplots(), pixels, predictions)
    grid = np.atleast_1d(charts.subplots(rows, columns, squeeze=False)).ravel()
    for i, axes in enumerate(grid):
        if i < len(shown):
            _draw_bars(axes, shown[i], number=i + 1, top=bars, slots=max(bars, (tall_in - 0.75) / rows / 0.5))
        else:
            axes.axis("off")
    if title:
        picture.suptitle(title, x=0.02, ha="left", fontsize=12, fontweight="bold", color=INK)
    left_out = f"  {len(predictions) - len(shown)} more faces not charted." if len(predictions) > len(shown) else ""
    figure.text(0.01, 0.015, FOOTER + left_out, fontsize=8, color=FAINT)
    return figure


def plot_timeline(
    timelines: Sequence[Timeline],
    predictions: Sequence[Prediction],
    *,
    title: str = "",
    most_labels: int = 7,
    cuts_s: Sequence[float] = (),
) -> Figure:
    """Draw each face of a video: thumbnails, probabilities stacked over time, and the segments with marks at changes.

    Args:
        timelines: One per face; the longest six are drawn, longest first seen first.
        predictions: The segments of all faces.
        title: Shown above, such as the file's name.
        most_labels: Labels with a colour of their own, at most seven; the rest is summed as "other".
        cuts_s: When shots begin, in seconds; drawn as dashed lines.

    Raises:
        ShapeError: If there is nothing to draw.
    """
    if not timelines:
        raise ShapeError("There is no face to draw.", why="The list of timelines is empty.")
    longest = sorted(timelines, key=lambda t: float(t.start_s[0] - t.end_s[-1]))[:MOST_TRACKS]
    shown = sorted(longest, key=lambda t: float(t.start_s[0]))
    colours = _label_colours(shown, predictions, most=min(most_labels, len(PALETTE)))
    span = (min(float(t.start_s[0]) for t in shown), max(float(t.end_s[-1]) for t in shown))
    tall_in = 1.35 + 3.15 * len(shown)
    foot = 0.3 / tall_in
    figure = Figure(figsize=(12, tall_in), layout=ConstrainedLayoutEngine(rect=(0, foot, 1, 1 - foot)))
    parts = np.atleast_1d(figure.subfigures(len(shown), 1, squeeze=False)).ravel()
    for part, timeline in zip(parts, shown, strict=True):
        segments = [p for p in predictions if p.track_id == timeline.track_id]
        _draw_track(part, timeline, segments, colours=colours, span=span, cuts_s=cuts_s, is_last=part is parts[-1])
    handles = [Rectangle((0, 0), 1, 1, color=colour) for colour in colours.values()]
    figure.legend(
        handles, list(colours), loc="outside upper right", ncols=len(colours), frameon=False, fontsize=9,
        handlelength=1, handleheight=1, columnspacing=1.2,
    )  # fmt: skip
    if title:
        figure.suptitle(title, x=0.01, ha="left", fontsize=12, fontweight="bold", color=INK)
    hidden = len(timelines) - len(shown)
    figure.text(0.01, foot / 3, FOOTER + (f"  {hidden} shorter faces not drawn." if hidden else ""),
                fontsize=8, color=FAINT)  # fmt: skip
    return figure


def save_figure(figure: Figure, path: Path, *, dpi: int = 130) -> None:
    """Write a figure; the format follows the suffix (png, jpg, pdf, svg)."""
    figure.savefig(path, dpi=dpi)


def _draw_boxes(axes: Axes, pixels: UInt8Array, predictions: Sequence[Prediction]) -> None:
    axes.imshow(pixels)
    axes.axis("off")
    for i, prediction in enumerate(predictions):
        if prediction.box is None:
            continue
        x1, y1, x2, y2 = prediction.box
        colour = PALETTE[i % len(PALETTE)]
        axes.add_patch(Rectangle((x1, y1), x2 - x1, y2 - y1, fill=False, linewidth=4.5, edgecolor="white"))
        axes.add_patch(Rectangle((x1, y1), x2 - x1, y2 - y1, fill=False, linewidth=2.5, edgecolor=colour))
        axes.annotate(
            f"{i + 1}", (max(x1, 0), max(y1, 0)), xytext=(2, -2), textcoords="offset points", ha="left", va="top",
            color="white", fontsize=10, fontweight="bold",
            bbox={"boxstyle": "round,pad=0.25", "facecolor": colour, "edgecolor": "white"},
        )  # fmt: skip
    axes.set_xlim(-0.5, pixels.shape[1] - 0.5)
    axes.set_ylim(pixels.shape[0] - 0.5, -0.5)


def _draw_bars(axes: Axes, prediction: Prediction, *, number: int, top: int, slots: float) -> None:
    colour = PALETTE[(number - 1) % len(PALETTE)]
    names = ["\n".join(wrap(shorten(name, 48, placeholder="..."), 24)) for name, _ in prediction.top[:top]]
    values = [probability for _, probability in prediction.top[:top]]
    fills = [colour if i == 0 and prediction.label else OTHER for i in range(len(values))]
    positions = np.arange(len(values))
    axes.barh(positions, values, color=fills, height=0.72)
    axes.set_yticks(positions, names, fontsize=9, color=INK)
    axes.set_ylim(slots - 0.5, -0.5)  # slots keep bars slim where there are few
    axes.set_xlim(0, 1.16)
    axes.set_xticks([])
    axes.tick_params(length=0)
    for spine in axes.spines.values():
        spine.set_visible(False)
    for position, value in enumerate(values):
        axes.text(value + 0.015, position, f"{value:.0%}", va="center", fontsize=9, color=INK)
    heading = shorten(prediction.label, 36, placeholder="...") if prediction.label else "no clear label"
    axes.set_title(f"{number}  {heading}", loc="left", fontsize=11, fontweight="bold", color=INK)
    remark = "; ".join(part for part in (prediction.reason, prediction.note) if part)
    if remark:
        axes.set_xlabel("\n".join(wrap(remark, 52)), fontsize=8, color=FAINT, loc="left")


def _label_colours(timelines: Sequence[Timeline], predictions: Sequence[Prediction], *, most: int) -> dict[str, str]:
    """Give colours to the labels that are decided somewhere, then to those of largest mean, then to "other"."""
    names = timelines[0].scores.labels.names
    mass = np.sum([t.scores.probability.sum(axis=0) for t in timelines], axis=0)
    decided = {p.label for p in predictions}
    ranked = sorted(range(len(names)), key=lambda i: (names[i] not in decided, -mass[i]))[:most]
    colours = {names[i]: PALETTE[k] for k, i in enumerate(ranked)}
    if len(names) > len(ranked):
        colours["other"] = OTHER
    return colours


def _draw_track(
    part: SubFigure,
    timeline: Timeline,
    segments: Sequence[Prediction],
    *,
    colours: dict[str, str],
    span: tuple[float, float],
    cuts_s: Sequence[float],
    is_last: bool,
) -> None:
    strip, area, band = part.subplots(3, 1, sharex=True, height_ratios=[0.95, 1.6, 0.42])
    for axes in (strip, area, band):
        axes.set_xlim(*span)
        for spine in axes.spines.values():
            spine.set_visible(False)
    _draw_thumbnails(strip, timeline, span=span)
    _draw_stack(area, timeline, colours=colours)
    _draw_segments(band, segments, colours=colours, span=span)
    _draw_marks(area, segments, span=span, cuts_s=cuts_s)
    if is_last:
        band.set_xlabel("time in seconds", fontsize=9, color=INK)
    else:
        band.tick_params(labelbottom=False)


def _draw_marks(
    axes: Axes, segments: Sequence[Prediction], *, span: tuple[float, float], cuts_s: Sequence[float]
) -> None:
    """Mark where one label gives way to another, with its time where there is room, and where a shot begins."""
    room_s = (span[1] - span[0]) / 22
    changes = [b for a, b in pairwise(segments) if a.label != b.label and b.start_s - a.end_s <= 1e-6]
    for number, after in enumerate(changes):
        axes.axvline(after.start_s, color=INK, linewidth=0.9)
        axes.plot([after.start_s], [1.0], marker="v", markersize=5, color=INK, clip_on=False)
        next_s = changes[number + 1].start_s if number + 1 < len(changes) else np.inf
        if next_s - after.start_s > room_s:
            axes.annotate(
                f"{after.start_s:.1f}", (after.start_s, 1.0), xytext=(4, 1), textcoords="offset points", fontsize=7.5,
                color=INK, ha="left", va="bottom", annotation_clip=False,
            )  # fmt: skip
    for cut_s in cuts_s:
        if span[0] < cut_s < span[1]:
            axes.axvline(cut_s, color="white", linewidth=2.2)
            axes.axvline(cut_s, color=INK, linewidth=1.1, linestyle=(0, (3, 2)))


def _draw_thumbnails(axes: Axes, timeline: Timeline, *, span: tuple[float, float]) -> None:
    axes.set_yticks([0.5], [f"face {timeline.track_id + 1}"], fontsize=10, fontweight="bold", color=INK)
    axes.set_ylim(0, 1)
    axes.tick_params(length=0, labelbottom=False)
    width_s = (span[1] - span[0]) / 15
    last_s = -np.inf
    for time_s, pixels in timeline.thumbnails:
        time_s = float(np.clip(time_s, span[0] + width_s / 2, span[1] - width_s / 2))
        if time_s - last_s < width_s:  # closer than this, thumbnails overlap
            continue
        last_s = time_s
        picture = OffsetImage(pixels, zoom=44 / pixels.shape[0])
        axes.add_artist(AnnotationBbox(picture, (time_s, 0.5), frameon=False, pad=0, annotation_clip=False))


def _draw_stack(axes: Axes, timeline: Timeline, *, colours: dict[str, str]) -> None:
    names = timeline.scores.labels.names
    kept = [names.index(name) for name in colours if name in names]
    for low, high in _touching(timeline):
        probability = timeline.scores.probability[low:high]
        layers = [probability[:, i] for i in kept]
        if "other" in colours and "other" not in names:
            layers.append(1.0 - np.sum(layers, axis=0))
        times = np.concatenate(
            [timeline.start_s[low : low + 1], (timeline.start_s[low:high] + timeline.end_s[low:high]) / 2,
             timeline.end_s[high - 1 : high]]
        )  # fmt: skip
        stacked = [np.concatenate([layer[:1], layer, layer[-1:]]) for layer in layers]
        axes.stackplot(times, stacked, colors=list(colours.values()), edgecolor="white", linewidth=0.6)
    axes.set_ylim(0, 1)
    axes.set_yticks([0, 0.5, 1], ["0", "50 %", "100 %"], fontsize=8, color=FAINT)
    axes.tick_params(length=0, labelbottom=False)
    axes.set_ylabel("probability", fontsize=8, color=FAINT)


def _touching(timeline: Timeline) -> list[tuple[int, int]]:
    """Return half-open ranges of cells without a gap between them."""
    breaks = np.flatnonzero(timeline.start_s[1:] - timeline.end_s[:-1] > 1e-6) + 1
    edges = [0, *breaks.tolist(), len(timeline.start_s)]
    return list(pairwise(edges))


def _draw_segments(
    axes: Axes, segments: Sequence[Prediction], *, colours: dict[str, str], span: tuple[float, float]
) -> None:
    axes.set_ylim(0, 1)
    axes.set_yticks([])
    for segment in segments:
        colour = colours.get(segment.label, OTHER) if segment.label else "white"
        length_s = segment.end_s - segment.start_s
        axes.add_patch(
            Rectangle((segment.start_s, 0.1), length_s, 0.8, facecolor=colour, edgecolor=FAINT, linewidth=0.7,
                      hatch="" if segment.label else "////")
        )  # fmt: skip
        room = int(length_s / (span[1] - span[0]) * 150)  # letters that fit, at 150 across the picture
        text = segment.label or "unclear"
        if room >= min(len(text) + 1, 8):
            axes.text(
                segment.start_s + length_s / 2, 0.5, shorten(text, room, placeholder=".") if room < len(text) else text,
                ha="center", va="center", fontsize=9, color=_ink_on(colour), clip_on=True,
                bbox=None if segment.label else {"facecolor": "white", "edgecolor": "none", "pad": 1.5},
            )  # fmt: skip
    axes.tick_params(axis="x", labelsize=8, labelcolor=FAINT, color=FAINT, length=3)


def _ink_on(colour: str) -> str:
    """Return black or white, whichever is read more easily on ``colour`` (relative luminance, WCAG 2)."""
    if colour == "white":
        return INK
    red, green, blue = (int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5))
    return "white" if 0.2126 * red**2.2 + 0.7152 * green**2.2 + 0.0722 * blue**2.2 < 0.22 else INK
