"""Boxes and labels drawn onto frames: for the annotated video and the live window."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

import cv2
import matplotlib
import numpy as np
from PIL import Image, ImageDraw, ImageFont

from vlfer.types import FloatArray, UInt8Array

# The colours of the timeline (Okabe and Ito, 2008), one a person.
COLOURS = ((0, 114, 178), (230, 159, 0), (0, 158, 115), (204, 121, 167), (86, 180, 233), (213, 94, 0), (91, 58, 140))
_LIGHT = (255, 255, 255)
_DARK = (28, 32, 38)
_MOST_BARS = 3
_LONGEST_TITLE = 64


@dataclass(frozen=True, slots=True)
class Tag:
    """What is drawn at one face.

    Attributes:
        number: Of the person, from 1.
        box: (4,) float32 xyxy px.
        label: None where it is unclear.
        bars: The best labels with their probabilities, best first.
    """

    number: int
    box: FloatArray
    label: str | None
    bars: tuple[tuple[str, float], ...]


def draw_tags(pixels: UInt8Array, tags: Sequence[Tag], *, footer: str = "") -> UInt8Array:
    """Return a copy of a frame with a box, a name plate and the best labels at each face.

    Args:
        pixels: (H, W, 3) uint8 RGB.
        tags: The faces.
        footer: A line at the bottom left, or nothing.
    """
    image = np.array(pixels)
    unit = max(10, round(min(pixels.shape[:2]) / 34))
    for tag in sorted(tags, key=lambda tag: float(tag.box[2] - tag.box[0])):
        colour = COLOURS[(tag.number - 1) % len(COLOURS)]
        _draw_box(image, tag.box, colour, width=max(2, unit // 6))
        title = f"{tag.number}  {tag.label or 'unclear'}"
        plate = _plate(title, tag.bars[:_MOST_BARS], colour, unit)
        x, y = float(tag.box[0]), float(tag.box[1]) - plate.shape[0] - unit / 3
        if y < 0:  # no room above: below, or inside at the top
            below = float(tag.box[3]) + unit / 3
            y = below if below + plate.shape[0] <= image.shape[0] else max(0.0, float(tag.box[1]))
        _blend(image, plate, round(x), round(y))
    if footer:
        line = _plate(footer, (), _DARK, max(8, round(unit * 0.72)))
        _blend(image, line, unit // 2, image.shape[0] - line.shape[0] - unit // 2)
    return image


def _draw_box(image: UInt8Array, box: FloatArray, colour: tuple[int, int, int], *, width: int) -> None:
    x0, y0, x1, y1 = (round(float(v)) for v in box)
    cv2.rectangle(image, (x0, y0), (x1, y1), _LIGHT, width + 2, cv2.LINE_AA)
    cv2.rectangle(image, (x0, y0), (x1, y1), colour, width, cv2.LINE_AA)


def _blend(image: UInt8Array, patch: UInt8Array, x: int, y: int) -> None:
    """Lay an RGBA patch onto an image, moved so that it lies within."""
    height, width = patch.shape[:2]
    x = max(0, min(x, image.shape[1] - width))
    y = max(0, min(y, image.shape[0] - height))
    place = image[y : y + height, x : x + width]
    patch = patch[: place.shape[0], : place.shape[1]]
    alpha = patch[..., 3:].astype(np.uint16)
    place[...] = ((patch[..., :3] * alpha + place * (255 - alpha)) // 255).astype(np.uint8)


@lru_cache(maxsize=16)
def _font(size: int, *, bold: bool) -> ImageFont.FreeTypeFont:
    name = "DejaVuSans-Bold.ttf" if bold else "DejaVuSans.ttf"  # comes with Matplotlib
    return ImageFont.truetype(f"{matplotlib.get_data_path()}/fonts/ttf/{name}", size)


def _plate(title: str, bars: Sequence[tuple[str, float]], colour: tuple[int, int, int], unit: int) -> UInt8Array:
    rounded = tuple((name, round(50 * value) / 50) for name, value in bars)
    return _drawn_plate(title, rounded, colour, unit)


@lru_cache(maxsize=512)
def _drawn_plate(
    title: str, bars: tuple[tuple[str, float], ...], colour: tuple[int, int, int], unit: int
) -> UInt8Array:
    """Draw a plate, (H, W, 4) uint8 RGBA: a title in the person's colour, a bar for each label below."""
    big, small = _font(round(unit * 0.92), bold=True), _font(max(7, round(unit * 0.66)), bold=False)
    pad, row = round(unit * 0.4), round(unit * 0.95)
    names = [name if len(name) <= 28 else name[:27] + "…" for name, _ in bars]
    title = title if len(title) <= _LONGEST_TITLE else title[: _LONGEST_TITLE - 1] + "…"
    name_width = max((round(small.getlength(name)) for name in names), default=0)
    bar_width = 3 * unit if bars else 0
    width = max(round(big.getlength(title)) + 2 * pad, name_width + bar_width + 3 * pad)
    head = round(unit * 1.5)
    height = head + (len(bars) * row + pad if bars else 0)
    image = Image.new("RGBA", (width, height), (0, 0, 0, 0))
    draw = ImageDraw.Draw(image)
    draw.rounded_rectangle((0, 0, width - 1, height - 1), radius=unit // 3, fill=(*_DARK, 200))
    draw.rounded_rectangle((0, 0, width - 1, head - 1), radius=unit // 3, fill=(*colour, 255))
    ink = _LIGHT if 0.2126 * colour[0] + 0.7152 * colour[1] + 0.0722 * colour[2] < 130 else _DARK
    draw.text((pad, head / 2), title, font=big, fill=(*ink, 255), anchor="lm")
    for i, (name, (_, value)) in enumerate(zip(names, bars, strict=True)):
        middle = head + pad / 2 + (i + 0.5) * row
        draw.text((pad, middle), name, font=small, fill=(*_LIGHT, 255), anchor="lm")
        left = width - pad - bar_width
        draw.rectangle((left, middle - row * 0.22, left + bar_width, middle + row * 0.22), fill=(255, 255, 255, 50))
        draw.rectangle((left, middle - row * 0.22, left + bar_width * value, middle + row * 0.22), fill=(*colour, 255))
    return np.asarray(image, dtype=np.uint8)
