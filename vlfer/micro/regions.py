"""Where on the reference face a micro-expression can show, and where not to look."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

# x from, x to, y from, y to as shares of the side of the reference (see `vlfer.micro.registration`).
REGIONS: dict[str, tuple[float, float, float, float]] = {
    "left outer brow": (0.08, 0.30, 0.08, 0.25),
    "left inner brow": (0.30, 0.48, 0.10, 0.26),
    "right inner brow": (0.52, 0.70, 0.10, 0.26),
    "right outer brow": (0.70, 0.92, 0.08, 0.25),
    "left nose wing": (0.36, 0.47, 0.42, 0.64),
    "right nose wing": (0.53, 0.64, 0.42, 0.64),
    "left mouth": (0.20, 0.46, 0.62, 0.88),
    "right mouth": (0.54, 0.80, 0.62, 0.88),
    "chin": (0.36, 0.64, 0.86, 1.0),
}
"""Brows, nose wings, mouth corners and chin: where MEGC's spotting methods look, with left and right as in the
image."""

EYES: dict[str, tuple[float, float, float, float]] = {
    "left eye": (0.14, 0.40, 0.255, 0.395),
    "right eye": (0.60, 0.86, 0.255, 0.395),
}
"""Lids and pupils: blinks and glances happen here, so they are masked for spotting."""


def region_slices(box: tuple[float, float, float, float], *, side: int) -> tuple[slice, slice]:
    """Return rows and columns of a region in a reference of ``side`` pixels."""
    left, right, top, bottom = (round(share * side) for share in box)
    return slice(top, max(bottom, top + 1)), slice(left, max(right, left + 1))


def region_means(values: NDArray[Any], *, side: int) -> NDArray[Any]:
    """Return the mean of ``values`` over each of `REGIONS`.

    Args:
        values: (..., S, S) numbers.
        side: S.

    Returns:
        (..., R).
    """
    parts = [values[(..., *region_slices(box, side=side))].mean(axis=(-2, -1)) for box in REGIONS.values()]
    return np.stack(parts, axis=-1)


def eye_mask(*, side: int) -> NDArray[np.bool_]:
    """Return where the eyes are, (S, S) bool."""
    mask = np.zeros((side, side), dtype=bool)
    for box in EYES.values():
        mask[region_slices(box, side=side)] = True
    return mask
