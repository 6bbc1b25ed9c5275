"""A picture of why: each face, where on it the relevance lies, and the sentences that pulled."""

from __future__ import annotations

from collections.abc import Sequence
from textwrap import shorten, wrap

import numpy as np
from matplotlib import colormaps
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.layout_engine import ConstrainedLayoutEngine

from vlfer.errors import ShapeError
from vlfer.explain import Explanation
from vlfer.serve.plots import FAINT, INK, OTHER, PALETTE
from vlfer.types import FloatArray, UInt8Array

MOST_FACES = 6
_SENTENCES = 4
_FOOTER = "What the model used, not what a person feels. Bars: log-odds that a sentence adds; they sum to the lead."


def plot_explanations(explanations: Sequence[Explanation | None], *, title: str = "") -> Figure:
    """Draw one row a face: the face, its relevance map, and bars of the sentences for and against.

    Args:
        explanations: One a face or segment; None is left out, and so is what comes after the sixth.
        title: Shown above.

    Raises:
        ShapeError: If there is nothing to draw.
    """
    given = [one for one in explanations if one is not None]
    if not given:
        raise ShapeError("There is no explanation to draw.", why="No face is at hand.")
    shown = given[:MOST_FACES]
    figure = Figure(figsize=(12, 2.9 * len(shown) + 0.6), layout=ConstrainedLayoutEngine(rect=(0, 0.04, 1, 0.95)))
    grid = figure.subplots(len(shown), 3, squeeze=False, width_ratios=[1, 1, 1.6])
    for (face, where, bars), one in zip(grid, shown, strict=True):
        _draw_face(face, one)
        _draw_map(where, one)
        _draw_bars(bars, one)
    if title:
        figure.suptitle(title, x=0.01, ha="left", fontsize=12, fontweight="bold", color=INK)
    hidden = len(given) - len(shown)
    figure.text(0.01, 0.01, _FOOTER + (f"  {hidden} more not drawn." if hidden else ""), fontsize=8, color=FAINT)
    return figure


def relevance_picture(crop: UInt8Array, relevance: FloatArray) -> UInt8Array:
    """Return a face in grey with its relevance laid over, told apart without colour by its lightness.

    Args:
        crop: (S, S, 3) uint8 RGB.
        relevance: (S, S) from 0 to 1.
    """
    grey = crop.mean(axis=2, keepdims=True) / 255
    share = (0.25 + 0.5 * relevance)[..., None]
    mixed = (1 - share) * grey + share * np.asarray(colormaps["inferno"](relevance))[..., :3]
    return np.asarray(255 * mixed + 0.5, dtype=np.uint8)


def _draw_face(axes: Axes, one: Explanation) -> None:
    axes.imshow(one.crop)
    axes.axis("off")
    rival = f"\nrather than {one.rival}" if one.rival else ""
    axes.set_title(f"{shorten(one.label, 40, placeholder='...')}{rival}", fontsize=10, color=INK, loc="left")


def _draw_map(axes: Axes, one: Explanation) -> None:
    axes.axis("off")
    if one.relevance is None or not one.relevance.any():
        axes.imshow(one.crop)
        axes.set_title("nowhere in particular", fontsize=9, color=FAINT, loc="left")
        return
    axes.imshow(relevance_picture(one.crop, one.relevance))
    axes.set_title("where it speaks for the label", fontsize=9, color=FAINT, loc="left")


def _draw_bars(axes: Axes, one: Explanation) -> None:
    pulls = [*one.strongest(_SENTENCES), *reversed(one.against(_SENTENCES - 1))]
    names = ["\n".join(wrap(shorten(pull.sentence, 90, placeholder="..."), 46)) for pull in pulls]
    colours = [PALETTE[0] if pull.pull > 0 else OTHER for pull in pulls]
    places = np.arange(len(pulls))
    axes.barh(places, [pull.pull for pull in pulls], color=colours, height=0.7)
    axes.set_yticks(places, names, fontsize=8, color=INK)
    axes.invert_yaxis()
    axes.axvline(0.0, color=INK, linewidth=0.8)
    heading = f"for {one.label} (dark)" + (f", for {one.rival} (pale)" if one.rival else "")
    axes.set_title(heading, fontsize=9, color=FAINT, loc="left")
    axes.tick_params(length=0, labelsize=8)
    for spine in axes.spines.values():
        spine.set_visible(False)
